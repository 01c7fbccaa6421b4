"""What the tests share: two CPU devices, the data beside the checkout, one run."""

import os
import pathlib
import subprocess
import sys

import pytest

import command_line

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The tests of the zoo run on the other backends of Keras too.
if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    command_line.import_tensorflow()

    import strategies

    # Before TensorFlow runs anything: mirrored tests need two devices.
    strategies.create("mirrored", cpu_replicas=2)


def run_command(script, *flags, cwd=None):
    """Runs one of our scripts as a user does."""
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


@pytest.fixture(scope="session")
def shared_data():
    """The data for development; a user's machine has none of it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs ../shared/data")
    return path


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run of train.py and qat.py: ResNet-8 on digits, two replicas."""
    directory = tmp_path_factory.mktemp("runs") / "resnet8-digits"
    replicas = ("--strategy=mirrored", "--cpu_replicas=2")
    for script, *flags in (
        ("training/train.py", "--model=resnet8", "--epochs=6"),
        ("training/qat.py", "--epochs=1"),
    ):
        done = run_command(script, f"--model_dir={directory}", *replicas, *flags)
        assert done.returncode == 0, done.stderr
    return directory
