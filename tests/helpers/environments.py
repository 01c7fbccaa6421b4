"""What the tests run that pip cannot install beside TensorFlow: `make environments`.

Each is a folder `.venv-NAME` of the checkout, but for the runtime of web pages, which
lies where users have it. The tests that need one skip without.
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys

import filelock
import pytest

from keras_resnet.edge.page import runtime

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Name: (the versions of CPython that have wheels, the best first; packages).
ENVIRONMENTS = {
    # Needs another absl-py than tensorflow-model-optimization.
    "mediapipe": (("3.11", "3.12", "3.10", "3.13"), ["mediapipe==1.2.2"]),
    # Built for numpy 1.
    "tflite-runtime": (("3.11", "3.10", "3.9"), ["tflite-runtime==2.14.0", "numpy<2"]),
    # The lower bounds of the package; TensorFlow 2.21 wants a newer Keras.
    "lowest-versions": (
        ("3.10", "3.11", "3.12"),
        [
            *("absl-py==1.4", "keras==3.10", "huggingface_hub==1.0", "Pillow==10"),
            *("safetensors==0.5", "numpy", "h5py", "jax[cpu]", "pytest"),
        ],
    ),
    # The oldest on PyPI.
    "oldest-runtime": (("3.7",), ["tflite-runtime==2.7.0", "numpy<2"]),
}
# Checks web pages for what hinders people (npm, MPL-2.0).
AXE = "axe-core@4.14.1"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


def _folder(name):
    return ROOT / f".venv-{name}"


def python_of(name):
    """Returns the interpreter of an environment; skips the test where it is missing.

    Environment "here" is the one of the tests.
    """
    if name == "here":
        return sys.executable
    if not (_folder(name) / "complete").exists():
        pytest.skip(f"needs .venv-{name}: make environments")
    return _folder(name) / "bin" / "python"


def run(name, script, *arguments):
    """Runs a text as a script in an environment and returns its standard output."""
    done = subprocess.run(
        [python_of(name), "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def axe_script():
    """Returns the text of axe-core; skips the test where it is missing."""
    path = _folder("axe") / "node_modules" / "axe-core" / "axe.min.js"
    if not path.exists():
        pytest.skip("needs .venv-axe: make environments")
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == AXE_SHA256
    return content.decode()


def interpreter(versions):
    """Returns a CPython of one of these versions, or None."""
    for version in versions:
        found = [sys.executable, shutil.which(f"python{version}")]
        found += pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
        for path in filter(None, found):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run([path, "-c", code], capture_output=True, text=True)
            if done.stdout.strip() == version:
                return path
    return None


def create(folder, python, packages):
    """Creates a virtual environment with these packages, unless it is there already.

    Raises:
        subprocess.CalledProcessError: its `stderr` says why they cannot be installed.
    """
    complete = folder / "complete"
    wanted = "\n".join(packages)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):  # several processes run the tests
        if complete.exists() and complete.read_text() == wanted:
            return
        pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(
            [*pip, "install", "--quiet", *packages],
            check=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        complete.write_text(wanted)


def main():
    """Creates what is missing and can be created here."""
    for name, (versions, packages) in ENVIRONMENTS.items():
        python = interpreter(versions)
        if python is None:
            print(f".venv-{name}: left out, needs CPython {' or '.join(versions)}")
            continue
        try:
            create(_folder(name), python, packages)
        except subprocess.CalledProcessError as error:
            sys.exit(f".venv-{name}: {error.stderr}")
    if shutil.which("npm") is None:
        print("what web pages need: left out, needs npm")
        return
    if not runtime.folder().exists():
        subprocess.run(runtime.install_command(), check=True)
    if not _folder("axe").exists():
        subprocess.run(["npm", "install", "--prefix", _folder("axe"), AXE], check=True)


if __name__ == "__main__":
    main()
