"""edge/run_tflite.py is what its modules make, and needs none of them."""

import ast
import runpy
import shutil
import subprocess
import sys

import pytest

from tests.helpers.commands import ROOT, run_code
from tests.helpers.runner import RUNNER

BUILD = ROOT / "edge" / "build_run_tflite.py"
MODULES = ROOT / "keras_resnet" / "runner"


@pytest.fixture
def build():
    """The function that makes the text of the file."""
    return runpy.run_path(BUILD)["build"]


def imports_of(source):
    """The names of the modules that are imported anywhere in a text."""
    tree = ast.parse(source, feature_version=(3, 7))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_file_is_what_its_modules_make(build):
    assert RUNNER.read_text(encoding="utf-8") == build(), f"run python {BUILD}"
    assert subprocess.run([sys.executable, BUILD, "--check"]).returncode == 0


@pytest.mark.parametrize(
    "module, line, message",
    [
        (
            "sources",
            "def printable(_): ...",
            "'printable': of errors and of sources",
        ),
        ("sources", "MAX_SCANS = 3", "'MAX_SCANS': of images and of sources"),
        ("sources", "time = 3", "'time': of an import and of sources"),
        ("errors", "signal = 3", "'signal': of errors and of an import"),
        (
            "errors",
            "from keras_resnet.runner.images import prepare",
            "errors imports images, which comes later",
        ),
        ("another", '"""A new module."""', "not in both ORDER and .*another"),
    ],
)
def test_names_that_would_clash_in_one_file_are_refused(
    build, tmp_path, module, line, message
):
    folder = shutil.copytree(MODULES, tmp_path / "runner")
    with open(folder / f"{module}.py", "a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(ValueError, match=message):
        build(folder)


def test_the_file_is_self_contained_python_3_7():
    source = RUNNER.read_text(encoding="utf-8")
    imported = {name.split(".")[0] for name in imports_of(source)}
    assert imported - {"numpy", "PIL"} <= set(sys.stdlib_module_names)


def test_the_runner_uses_nothing_else_of_ours():
    for path in MODULES.glob("*.py"):
        for name in imports_of(path.read_text(encoding="utf-8")):
            assert not name.startswith("keras_resnet") or name.startswith(
                "keras_resnet.runner"
            ), (path, name)


def test_importing_the_runner_imports_neither_numpy_nor_a_runtime():
    code = "import sys, keras_resnet.runner.command_line; print(*sys.modules)"
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "keras_resnet.runner.classifier" in loaded
    assert not loaded & {"numpy", "PIL", "ai_edge_litert", "keras", "tensorflow"}
