"""A run that is killed, for real, ends as an unbroken one."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from tests.helpers.commands import ROOT


def start(directory, *flags, **arguments):
    command = (sys.executable, ROOT / "training/train.py", "--model=resnet8")
    flags = ("--epochs=3", "--checkpoint_steps=1", f"--model_dir={directory}", *flags)
    return subprocess.Popen(
        [*command, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a user's shell: jax, which Keras imports into this process where it is
        # installed, asks TensorFlow for warnings.
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        **arguments,
    )


def finish(process):
    output, errors = process.communicate()
    return subprocess.CompletedProcess((), process.returncode, output, errors)


def newest(directory):
    return max((directory / "checkpoints").glob("step-*.npz"), default=None)


def assert_equal_endings(one, other, name="step-00000066.npz"):
    assert newest(one).name == newest(other).name == name
    with np.load(newest(one)) as a, np.load(newest(other)) as b:
        assert a.files == b.files
        for name in set(a.files) - {"state"}:  # that holds times
            np.testing.assert_array_equal(a[name], b[name])
    histories = (
        [line.rsplit(",", 1)[0] for line in (path / "history.csv").open()]
        for path in (one, other)
    )
    assert next(histories) == next(histories)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unbroken")
    done = finish(start(directory))
    assert done.returncode == 0, done.stderr
    return directory


def kill_and_continue(directory, kills, *flags):
    """Kills at random moments after the start of the training, then lets it end."""
    for seed in range(kills):
        before, process = newest(directory), start(directory, *flags)
        while newest(directory) == before and process.poll() is None:
            time.sleep(0.05)
        time.sleep(random.Random(seed).uniform(0, 1))
        process.kill()
        assert finish(process).returncode in (0, -signal.SIGKILL)
    done = finish(start(directory, *flags))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_killed_run_ends_with_equal_weights_and_history(unbroken, tmp_path):
    kill_and_continue(tmp_path, 2)
    assert_equal_endings(unbroken, tmp_path)


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    """Of runs on two replicas, five kills each."""
    flags = ("--strategy=mirrored", "--cpu_replicas=2")
    done = finish(start(tmp_path / "unbroken", *flags))
    assert done.returncode == 0, done.stderr
    for name in "abcd":
        kill_and_continue(tmp_path / name, 5, *flags)
        assert_equal_endings(tmp_path / "unbroken", tmp_path / name)


@pytest.mark.slow
def test_killed_fine_tuning_ends_with_equal_weights(digits_run, tmp_path):
    def fine_tune(run):
        command = (sys.executable, ROOT / "training/qat.py", "--epochs=1")
        return subprocess.Popen(
            [*command, "--checkpoint_steps=1", f"--model_dir={run}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    unbroken, killed = (
        shutil.copytree(
            digits_run, tmp_path / name, ignore=shutil.ignore_patterns("qat")
        )
        for name in ("unbroken", "killed")
    )
    process = fine_tune(killed)
    while not newest(killed / "qat") and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    assert finish(process).returncode == -signal.SIGKILL
    assert newest(killed / "qat").name < "step-00000022.npz"
    for run in (killed, unbroken):
        done = finish(fine_tune(run))
        assert done.returncode == 0, done.stderr
    assert_equal_endings(killed / "qat", unbroken / "qat", "step-00000022.npz")
    models = [
        keras.saving.load_model(run / "qat" / "model.keras").get_weights()
        for run in (killed, unbroken)
    ]
    for one, other in zip(*models, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sigterm_saves_at_once(unbroken, tmp_path):
    process = start(tmp_path)
    while not newest(tmp_path):
        time.sleep(0.05)
    process.terminate()
    done = finish(process)
    assert done.returncode == 143
    assert done.stderr == "terminated; the same command continues\n"
    assert newest(tmp_path).name < "step-00000066.npz"
    assert finish(start(tmp_path)).returncode == 0
    assert_equal_endings(unbroken, tmp_path)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(unbroken, tmp_path):
    """A limit on the size of files stands for the full disk."""
    process = start(tmp_path)
    while not newest(tmp_path):
        time.sleep(0.05)
    process.kill()
    finish(process)
    kept = newest(tmp_path).read_bytes()
    limit = len(kept) // 2
    done = finish(
        start(
            tmp_path,
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_FSIZE, (limit, limit)
            ),
        )
    )
    assert done.returncode == 2
    assert "File too large" in done.stderr and "checkpoints/step-" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert newest(tmp_path).read_bytes() == kept
    assert finish(start(tmp_path)).returncode == 0
    assert_equal_endings(unbroken, tmp_path)
