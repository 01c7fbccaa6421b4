"""Several processes train as one."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from keras_resnet.commands import launch
from keras_resnet.runner.errors import UserError
from keras_resnet.training.distribute import workers
from tests.helpers.commands import ROOT, one_error, run_code, run_command

SMALL = ("--model=resnet8", "--epochs=2", "--batch_size=478", "--learning_rate=0.01")


@contextlib.contextmanager
def launched(*flags):
    process = subprocess.Popen(
        [
            *(sys.executable, ROOT / "training/launch.py", "--workers=2"),
            *(ROOT / "training/train.py", "--strategy=multi_worker", *SMALL, *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def weights(directory):
    newest = max((directory / "checkpoints").glob("step-*.npz"))
    with np.load(newest) as archive:
        return newest.name, [archive[name] for name in archive.files if name != "state"]


def test_two_workers_train_as_two_replicas(tmp_path):
    with launched(f"--model_dir={tmp_path / 'workers'}") as process:
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "held-out top-1" in output
    done = run_command(
        "training/train.py",
        *("--strategy=mirrored", "--cpu_replicas=2", *SMALL),
        f"--model_dir={tmp_path / 'replicas'}",
    )
    assert done.returncode == 0, done.stderr
    (name, ours), (other_name, theirs) = (
        weights(tmp_path / kind) for kind in ("workers", "replicas")
    )
    assert name == other_name == "step-00000006.npz" and len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        # The sums of two machines are added in another order.
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    metrics = [
        json.loads((tmp_path / kind / "metrics.json").read_text())
        for kind in ("workers", "replicas")
    ]
    assert metrics[0]["examples_evaluated"] == 360
    for key in ("top1", "top5", "loss"):
        assert metrics[0][key] == pytest.approx(metrics[1][key], abs=0.005)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "no JSON"),
        ("[" * 9999, "no JSON"),
        ("[]", "'cluster' and 'task'"),
        ('{"cluster": {}, "task": {}}', "must hold 'worker'"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {}}', "must hold 'worker'"),
        ('{"cluster": {"worker": "a:1"}, "task": {}}', "list of addresses"),
        ('{"cluster": {"worker": ["a"]}, "task": {}}', "'a' must be host:port"),
        ('{"cluster": {"worker": ["::1:2222"]}, "task": {}}', "IPv6 .*like .fd00::1"),
        ('{"cluster": {"worker": ["a:99999"]}, "task": {}}', "host:port"),
        ('{"cluster": {"worker": ["a:1"]}, "task": []}', "task"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "x"}}', "one of worker"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "0 to 0, is 1",
        ),
    ],
)
def test_a_malformed_configuration_is_refused(text, reason):
    with pytest.raises(UserError, match=reason):
        workers.check_config(text)
    for config in launch.configurations(3):
        workers.check_config(json.dumps(config))


STEP = {
    "SLURM_JOB_ID": "5",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "n[9-10],login",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
}


def test_under_slurm_tasks_are_numbered_in_the_order_of_the_nodes():
    config = workers.config_from_slurm(STEP)
    assert config["cluster"]["worker"] == [
        *("n9:10080", "n9:10081", "n10:10080", "n10:10081", "login:10080")
    ]
    assert config["task"] == {"type": "worker", "index": 2}
    workers.check_config(json.dumps(config))


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_PROCID": "5"},
        {"SLURM_PROCID": "x"},
        {"SLURM_STEP_NODELIST": "n[9-10]"},
        {"SLURM_STEP_NODELIST": "n[9-"},
        {"SLURM_STEP_TASKS_PER_NODE": "two"},
    ],
)
def test_an_environment_of_slurm_that_names_no_cluster_is_refused(change):
    ((name, value),) = change.items()
    with pytest.raises(UserError, match="by srun") as caught:
        workers.config_from_slurm({**STEP, **change})
    assert f"{name}={value}" in str(caught.value)


def test_outside_of_a_step_of_slurm_the_command_says_what_is_missing(tmp_path):
    environment = {"SLURM_PROCID": "0"}
    ((code, _, errors),) = finish(start(tmp_path / "run", [environment]))
    assert code == 2 and len(errors.splitlines()) == 1, errors
    assert "SLURM_STEP_NODELIST is missing" in errors and "srun" in errors


@pytest.mark.slow
def test_two_tasks_of_slurm_train_together_without_gpus(tmp_path):
    """Slurm's environment is faked: there was no cluster."""
    step = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
    }
    tasks = [{**step, "SLURM_PROCID": rank} for rank in "01"]
    flags = ("--epochs=1", "--batch_size=1436")
    ended = finish(start(tmp_path / "run", tasks, *flags))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert weights(tmp_path / "run")[0] == "step-00000001.npz"


def free_addresses(count):
    return launch.configurations(count)[0]["cluster"]["worker"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_workers_wait_for_each_other(host):
    if host == "[::1]":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("needs IPv6")
    addresses = [a.replace("localhost", host) for a in free_addresses(2)]
    late = threading.Thread(
        target=lambda: (time.sleep(1), workers.wait_for(addresses, addresses[1], 9))
    )
    late.start()
    workers.wait_for(addresses, addresses[0], 9)
    late.join(5)
    assert not late.is_alive()


def test_a_worker_that_does_not_come_is_named():
    own, other = free_addresses(2)
    with pytest.raises(UserError, match=f"{other} cannot be reached for 0.5 s"):
        workers.wait_for([own, other], own, 0.5)


def test_the_command_names_a_worker_that_does_not_come(tmp_path):
    own, other = configured(2)
    script = ROOT / "training/train.py"
    code = (
        "import runpy, sys\n"
        "from keras_resnet import console\n"
        "console.import_tensorflow()\n"
        "from keras_resnet.training.distribute import workers\n"
        "workers.PATIENCE = 1\n"
        f"sys.argv = [{str(script)!r}, '--strategy=multi_worker']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = run_code(code, tmp_path, **own)
    address = json.loads(other["TF_CONFIG"])["cluster"]["worker"][1]
    assert f"worker {address} cannot be reached for 1 s" in one_error(done)


def test_an_address_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        own = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"cannot listen at {own}"):
            workers.wait_for([own], own, 0.5)


def test_without_a_cluster_the_command_says_what_to_do(tmp_path):
    done = run_command("training/train.py", "--strategy=multi_worker", cwd=tmp_path)
    assert "TF_CONFIG" in one_error(done) and "launch.py" in done.stderr


def test_the_launcher_passes_a_failure_on_and_leaves_no_worker(tmp_path):
    with launched("--model=resnet9", f"--model_dir={tmp_path}") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "resnet8" in errors


def start(directory, environments, *flags):
    """Starts a worker of a training for each dict of environment variables."""
    return [
        subprocess.Popen(
            [
                *(sys.executable, ROOT / "training/train.py"),
                *("--strategy=multi_worker", "--model=resnet8"),
                *(f"--model_dir={directory}", *flags),
            ],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]


def configured(count):
    """Returns the environment of each of several workers on this machine."""
    configurations = launch.configurations(count)
    return [{"TF_CONFIG": json.dumps(config)} for config in configurations]


def finish(processes, timeout=240):
    """Returns (exit code, output, errors) of each process."""
    ended = []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=timeout)
            ended.append((process.returncode, output, errors))
        return ended
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def terminate(process, once_it_prints):
    while once_it_prints not in process.stdout.readline():
        assert process.poll() is None
    process.terminate()


@pytest.mark.slow
def test_sigterm_to_one_worker_saves_the_work_of_all(tmp_path):
    flags = ("--epochs=1", "--batch_size=128", "--learning_rate=0.01")
    processes = start(tmp_path / "broken", configured(2), *flags)
    terminate(processes[1], once_it_prints="Epoch 1")
    ended = finish(processes)
    assert [code for code, _, _ in ended] == [143, 143], ended
    assert all("the same command continues" in errors for *_, errors in ended)
    assert weights(tmp_path / "broken")[0] == "step-00000008.npz"

    ended = finish(start(tmp_path / "broken", configured(2), *flags))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "continuing after step 8 of 11" in ended[0][1]
    ended = finish(start(tmp_path / "unbroken", configured(2), *flags))
    assert [code for code, _, _ in ended] == [0, 0], ended
    (name, broken), (other, unbroken) = (
        weights(tmp_path / kind) for kind in ("broken", "unbroken")
    )
    assert name == other == "step-00000011.npz"
    for one, other in zip(broken, unbroken, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_the_work_of_all(tmp_path):
    with launched(f"--model_dir={tmp_path}") as process:
        terminate(process, once_it_prints="Epoch 1")
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 143, errors
    # An epoch of three steps is over at the first look, and not evaluated.
    name, _ = weights(tmp_path)
    assert name == "step-00000003.npz" and not (tmp_path / "history.csv").exists()


@pytest.mark.slow
def test_a_worker_that_dies_is_told_by_the_others(tmp_path):
    processes = start(tmp_path / "run", configured(2), "--epochs=1000")
    until = time.monotonic() + 240
    while not list(tmp_path.glob("run/checkpoints/step-*.npz")):
        assert time.monotonic() < until and processes[0].poll() is None
        time.sleep(0.2)
    processes[1].kill()
    (code, _, errors), _ = finish(processes, timeout=120)
    assert code == 2, errors
    (line,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert "another worker is gone. Start all of them again" in line
    assert "Traceback" not in errors
