"""Every command of the documents is run word for word, or left out with a reason."""

import ast
import pathlib
import re
import shlex

import keras
import numpy as np
import PIL.Image
import pytest

from tests.helpers import pictures, scenes
from tests.helpers.commands import ROOT, run_python

DOCUMENTS = (
    "README.md",
    "docs/photographs.md",
    "docs/own_model.md",
    "docs/concepts.md",
    "docs/resume.md",
    "docs/training.md",
)
# Its pictures are annotated, and its trainings are broken off after an epoch.
SCENES = "docs/scenes.md"
FOLDERS = ("training", "edge", "models", "examples", "benchmarks")
# Beginning of a command: why it cannot be run here.
LEFT_OUT = {
    "pip install": "needs a network; the test of the wheel installs it",
    "scp ": "needs another machine",
    "ssh ": "needs another machine",
    "make ": "run by .ci/run",
    "bash benchmarks/pretrain.sh": "needs CIFAR-10 from the network, and seven hours",
    "python training/train.py --model=resnet8 --dataset=cifar10": (
        "needs CIFAR-10 from the network"
    ),
    "python edge/edgetpu.py my.tflite --compile": "needs Google's compiler",
}
# Flags of Slurm, and of `hf`.
OTHER_PROGRAMS = {"nodes", "requeue", "private"}


def commands(document):
    """Returns the commands in the code blocks of a document that are no Python."""
    text = (ROOT / document).read_text(encoding="utf-8")
    lines = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        if language in ("", "bash"):
            block = block.replace("\\\n", " ")
            lines += [re.sub(r"\s+#.*", "", line) for line in block.splitlines()]
    return [
        line for line in lines if re.match(r"(python|pip|make|scp|ssh|bash)\b", line)
    ]


def flags_of_the_commands():
    """Returns the names that may be flags: arguments, and strings that are one name."""
    sources = [ROOT / "keras_resnet/runner/command_line.py"]
    for folder in ("training", "edge", "commands"):
        sources += (ROOT / "keras_resnet" / folder).rglob("*.py")
    names = set()
    for path in [*sources, *(ROOT / "benchmarks").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= set(re.findall(r"^(?:--)?([a-z]\w*)$", node.value))
    return names


def reason_to_leave_out(command):
    return next(
        (why for start, why in LEFT_OUT.items() if command.startswith(start)), ""
    )


@pytest.fixture
def checkout(tmp_path):
    """A folder in which the commands find what they name, and write what they like."""
    link_folders(tmp_path)
    rng = np.random.default_rng(0)
    for index, label in enumerate(("dark", "light")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(200):
            pixels = rng.integers(0, 128, (64, 64, 3)) + 127 * index
            image = PIL.Image.fromarray(pixels.astype(np.uint8))
            image.save(tmp_path / "photos" / label / f"{number}.jpg")
    image.save(tmp_path / "photo.jpg")
    images, labels = pictures.read_by_keras(tmp_path / "photos", (32, 32))
    normalized = keras.applications.imagenet_utils.preprocess_input(
        images, mode="torch"
    )
    model = pictures.learned(normalized, labels, end=keras.layers.Activation("sigmoid"))
    model.save(tmp_path / "my.keras")
    return tmp_path


def link_folders(checkout):
    for name in FOLDERS:
        (checkout / name).symlink_to(ROOT / name)


def run(command, checkout, *flags):
    program, *arguments = shlex.split(command)
    assert program == "python", command
    done = run_python(*arguments, *flags, cwd=checkout)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("documents", [DOCUMENTS], ids=["in order"])
def test_every_command_of_the_documents_runs_as_written(documents, checkout):
    # In the order in which they are first shown.
    for command in dict.fromkeys(line for name in documents for line in commands(name)):
        if not reason_to_leave_out(command):
            run(command, checkout)


@pytest.mark.slow
def test_the_commands_for_boxes_and_masks_run_when_their_training_is_short(tmp_path):
    link_folders(tmp_path)
    scenes.write_voc(tmp_path / "photos", scenes.made_scenes(20))
    scenes.write_masks(tmp_path / "outlined", scenes.made_scenes(20))
    for command in commands(SCENES):
        is_training = command.startswith(("python training/train", "python training/q"))
        run(command, tmp_path, *["--epochs=1"] * is_training)
    assert list((tmp_path / "out").iterdir())


def test_what_is_left_out_is_still_in_the_documents():
    written = [line for name in DOCUMENTS for line in commands(name)]
    assert len(written) > 15
    for start in LEFT_OUT:
        in_text = any(line.startswith(start) for line in written)
        assert in_text or start.startswith("bash"), start


def test_every_benchmark_is_in_the_table_of_its_page():
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\|.*`python -m benchmarks\.(\w+)", page, re.M))
    found = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "\ndef main(" in path.read_text(encoding="utf-8")
    }
    # The others call these, or take what they make.
    assert found - named == {"small_sets", "gpu_plan", "ship", "finetune_torch"}
    assert named <= found


def test_ci_runs_what_the_readme_promises_of_make():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for line in commands("README.md"):
        if line.startswith("make "):
            assert line.strip() in ci


def test_every_link_of_the_documents_leads_to_a_file():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "edge/README.md"]
    assert len(documents) > 15
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            path = document.parent / pathlib.PurePosixPath(target)
            assert path.exists(), (document.name, target)


def test_every_flag_of_the_documents_exists():
    known = flags_of_the_commands() | OTHER_PROGRAMS
    paths = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "edge/README.md")]
    found = 0
    for path in (*paths, *ROOT.glob("docs/*.md")):
        text = path.read_text(encoding="utf-8")
        for flag in re.findall(r"(?<![\w-])--([a-z]\w*)(?![\w-])", text):
            assert flag in known, (path.name, flag)
            found += 1
    assert found > 200


def test_the_places_that_contributors_are_sent_to_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = text.partition("\n## Where to change what\n")[2]
    rows = re.findall(r"^\| (?!you|-)(.*) \|$", text, re.M)
    assert len(rows) > 10
    for row in rows:
        quoted = re.findall(r"`([^`]+)`", row)
        paths = [
            ROOT / name for name in quoted if name.startswith(("keras_", "tests/"))
        ]
        assert paths and all(path.exists() for path in paths), row
        modules = "".join(path.read_text() for path in paths if path.suffix == ".py")
        for name in quoted:
            if name.isupper() and name != "NAME":
                assert re.search(rf"^{name}(: .+)? = ", modules, re.M), (row, name)
