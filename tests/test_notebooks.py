"""The notebooks of the site: their outputs are kept, as a clean kernel makes them."""

import json
import re

import pytest

from tests.helpers.commands import ROOT

NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
MAX_BYTES = 400_000  # of a file, pictures included


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(cell):
    """The text that a cell printed or returned, without what went to stderr."""
    texts = []
    for output in cell["outputs"]:
        if output.get("name") == "stdout":
            texts.append("".join(output["text"]))
        elif output["output_type"] == "execute_result":
            texts.append("".join(output["data"]["text/plain"]))
    return "".join(texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_small_and_hold_no_error(path):
    assert path.stat().st_size < MAX_BYTES
    cells = code_cells(json.loads(path.read_text(encoding="utf-8")))
    # Run from top to bottom in a clean kernel.
    numbers = [cell["execution_count"] for cell in cells]
    assert numbers == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert sum(bool(cell["outputs"]) for cell in cells) >= 5


def test_every_notebook_says_what_to_change_for_other_data():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = ["".join(cell["source"]) for cell in notebook["cells"]]
        (said,) = re.findall(r"\*\*With your own data:\*\* (.*)", cells[0], re.S)
        names = re.findall(r"`(\w+)`", said)
        assert names
        for name in names:
            assert any(name in cell for cell in cells[1:]), (path.name, name)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_clean_kernel_prints_what_is_kept(path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    kept = nbformat.read(path, 4)
    ran = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(ran, timeout=600, resources=resources).execute()
    for ours, theirs in zip(code_cells(ran), code_cells(kept), strict=True):
        assert printed(ours) == printed(theirs), ours["source"]
