"""The backends of Keras, and scripts that run under one of them."""

import importlib.util
import os

import pytest

from tests.helpers.commands import ROOT, run_python

# Each is a process of its own, whatever the backend of the tests: once is enough.
OWN = os.environ.get("KERAS_BACKEND", "tensorflow")
BACKENDS = [
    pytest.param(
        name,
        marks=[
            pytest.mark.skipif(
                importlib.util.find_spec(name) is None, reason=f"needs {name}"
            ),
            pytest.mark.skipif(OWN != "tensorflow", reason="run under TensorFlow"),
        ],
    )
    for name in ("tensorflow", "jax", "torch")
]


def run(script, backend, *arguments, python_path=ROOT):
    """Runs a text as a script and returns the words that it prints."""
    done = run_python(
        "-c", script, *arguments, KERAS_BACKEND=backend, PYTHONPATH=str(python_path)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
