"""The wheel, installed into a fresh environment and used outside of the checkout."""

import importlib.metadata
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import PIL.Image
import pytest
import sklearn.datasets

from tests.helpers.commands import ROOT

pytestmark = pytest.mark.slow  # pip needs a network, and a minute


def run(*arguments, cwd, **environment):
    """Runs a program without anything of the checkout on Python's path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, arguments)],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if "DIST" in os.environ:  # make release: the file that would be uploaded
        (path,) = pathlib.Path(os.environ["DIST"]).glob("*.whl")
        return path
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy of what is tracked: a build folder of old would leak into it.
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        if name.startswith(("keras_resnet/", "pyproject", "setup.py", "README", "LIC")):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder)
    run(sys.executable, *build, folder / "source", cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    tracked = run("git", "ls-files", "keras_resnet", cwd=ROOT).split()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = [name for name in names if ".dist-info/" not in name]
    assert sorted(inside) == sorted(tracked)


def test_the_example_of_the_readme_runs_from_the_installed_wheel(wheel, tmp_path):
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, f"{wheel}[train,edge]", cwd=tmp_path)

    empty = tmp_path / "empty"
    empty.mkdir()
    digits = sklearn.datasets.load_digits()
    pixels = (digits.images[7] * 255 / 16).round().astype("uint8")
    PIL.Image.fromarray(pixels).save(empty / "digit.png")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## From Python")[2]
    (example,) = re.findall(
        r"^```python\n(.*?)^```", section.partition("\n## ")[0], re.M | re.S
    )
    example += (
        "best = edge.Classifier('digits.tflite').classify('digit.png', top_k=3)\n"
        "assert [len(best), best[0].label] == [3, '7'], best\n"
        "assert model.labels == [str(digit) for digit in range(10)]\n"
        "assert report['quantize'] == 'int8' and 'aware' in globals()\n"
    )
    run(python, "-c", example, cwd=empty, TF_CPP_MIN_LOG_LEVEL="2")

    command = environment / "bin" / "keras-resnet"
    flags = ("--model_dir=runs/resnet8-digits", "--output=again.tflite")
    assert "top-1" in run(command, "export", *flags, cwd=empty)
    out = run(
        command, "run", "--model=again.tflite", "digit.png", "--top_k=1", cwd=empty
    )
    assert out.split()[-1] == "7"
    assert "operators" in run(command, "edgetpu", "again.tflite", cwd=empty)
    assert "resnet50" in run(command, "models", cwd=empty)
    for name in ("training", "tests", "benchmarks"):
        code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
        assert run(python, "-c", code, cwd=empty).strip() == "None"


WITHOUT_TENSORFLOW = """
import importlib.util
import numpy as np
import keras_resnet

assert importlib.util.find_spec("tensorflow") is None
model = keras_resnet.ResNet20()
images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
scores = model.predict(keras_resnet.preprocess_input(images, model), verbose=0)
assert np.allclose(scores.sum(1), 1, atol=1e-5)
model.save("model.keras")
again = keras_resnet.load("model.keras")
assert again.labels == model.labels and again.preprocessing == model.preprocessing
for statement in (
    "import keras_resnet.training",
    "from keras_resnet.edge import export",
    "from keras_resnet.edge import write_page",
    "keras_resnet.push('runs/photos', 'user/photos')",
):
    try:
        exec(statement)
    except ImportError as error:
        print(error)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_zoo_runs_without_tensorflow_from_the_installed_wheel(
    wheel, tmp_path, backend
):
    packages = ["jax[cpu]"]
    if backend == "torch":
        found = importlib.util.find_spec("torch")
        version = importlib.metadata.version("torch") if found else ""
        if not version.endswith("+cpu"):
            pytest.skip("needs a CPU build of torch: PyPI's brings CUDA")
        packages = [f"torch=={version}"]
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, wheel, *packages, cwd=tmp_path)
    out = run(python, "-c", WITHOUT_TENSORFLOW, cwd=tmp_path, KERAS_BACKEND=backend)
    extras = re.findall(r'pip install "keras-resnet-zoo(.*?)"', out)
    assert extras == ["[train]", "[train,edge]", "[edge]", "[train]"]
