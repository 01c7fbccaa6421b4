"""Runs the fast tests of the zoo on every Python and Keras: `make test-pythons`.

Each environment is a folder of build/pythons. What cannot be installed is printed with
the reason, and so is every result; the command fails if a test does.
"""

import os
import re
import subprocess
import sys

from tests.helpers.environments import ROOT, create, interpreter

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Other backends and downloads have tests of their own: `make test-backends`.
LEFT_OUT = ("test_backends.py", "test_download.py", "test_lowest_versions.py")


def lowest_keras():
    """Returns the lowest version of Keras that pyproject.toml allows."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'"keras>=([\d.]+)"', text)[1]


def check(python, keras):
    """Returns (what happened as a line, whether a test failed).

    Args:
        python: version of CPython, such as "3.10".
        keras: requirement, such as "keras==3.10".
    """
    found = interpreter([python])
    if found is None:
        return f"not run: needs CPython {python}", False
    folder = ROOT / "build" / "pythons" / f"zoo-{python}-{keras}"
    try:
        # TensorFlow is not among the requirements of the zoo.
        packages = ["-e", str(ROOT), keras, "jax[cpu]", "pytest"]
        create(folder, found, packages)
    except subprocess.CalledProcessError as error:
        reasons = [x for x in error.stderr.splitlines() if x.startswith("ERROR")]
        return f"not installed: {(reasons or ['pip failed'])[0]}", False
    paths = [
        path
        for path in (ROOT / "tests" / "zoo").glob("test_*.py")
        if path.name not in LEFT_OUT
    ]
    done = subprocess.run(
        [
            *(folder / "bin" / "python", "-m", "pytest", "-q", "-m", "not slow"),
            *("-p", "no:cacheprovider", *sorted(paths)),
        ],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    code = (
        "import jax, keras; print('Keras', keras.__version__, 'JAX', jax.__version__)"
    )
    versions = subprocess.run(
        [folder / "bin" / "python", "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    summary = (done.stdout.splitlines() or ["no output"])[-1].strip("= ")
    return f"{versions.stdout.strip()}: {summary}", done.returncode != 0


def main():
    """Checks all and prints a line for each; exits with 1 if a test failed."""
    any_failed = False
    for python in PYTHONS:
        for keras in (f"keras=={lowest_keras()}", "keras"):
            line, failed = check(python, keras)
            print(f"CPython {python}, {keras}: {line}", flush=True)
            any_failed |= failed
    sys.exit(any_failed)


if __name__ == "__main__":
    main()
