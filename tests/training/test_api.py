"""Training from Python: progress, state of the process, what must be installed."""

import inspect
import json
import random
import threading

import keras
import numpy as np
import pytest
from absl import flags

from keras_resnet import training
from keras_resnet.commands import adopt, evaluate, qat
from keras_resnet.commands import train as train_command
from keras_resnet.runner.errors import UserError
from tests.helpers.commands import run_code
from tests.helpers.runs import SHORT, assert_equal_ends, break_after, history, silent


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A run of this process, and the progress that it reported."""
    events = []
    directory = tmp_path_factory.mktemp("here")
    run = training.train(**SHORT, model_dir=directory, progress=events.append)
    return run, events


# tensorflow-model-optimization is not there, as where only TensorFlow is installed.
TRAIN_TWICE = """
import importlib.metadata, sys
for name in ("tensorflow_model_optimization", "tf_keras"):
    sys.modules[name] = None
version = importlib.metadata.version

def without(name):
    if name in ("tensorflow-model-optimization", "tf_keras"):
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

importlib.metadata.version = without
from keras_resnet import training
for name in ("first", "second"):
    run = training.train({short}, model_dir=name)
try:
    training.quantize_aware(run)
except ImportError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The folder of a process that trained twice, and what it printed."""
    directory = tmp_path_factory.mktemp("elsewhere")
    short = ", ".join(f"{key}={value!r}" for key, value in SHORT.items())
    done = run_code(TRAIN_TWICE.replace("{short}", short), directory)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return directory, done.stdout


def test_progress_is_reported_instead_of_printed(here, capsys):
    run, events = here
    assert {event.epochs for event in events} == {3}
    assert {event.steps for event in events} == {3}
    assert [event.epoch for event in events if event.step == 0] == [1, 2, 3]
    assert all((event.loss is None) == (event.step == 0) for event in events)
    rows = [event.row for event in events if event.row]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    written = history(run.directory)
    assert [{k: str(v) for k, v in row.items()} for row in rows] == written
    last = events[-1]
    assert (last.loss, last.top1) == (last.row["loss"], last.row["top1"])
    assert last.row["val_top1"] == run.metrics["top1"]


def test_the_bar_is_printed_by_default(elsewhere):
    _, output = elsewhere
    assert output.count("Epoch 3/3\n") == 2 and output.count("val_top1: ") == 6


def test_a_custom_callback_leaves_nothing_to_print(here, capsys):
    training.train(
        **SHORT | {"epochs": 1}, model_dir=here[0].directory / "x", progress=silent
    )
    assert capsys.readouterr() == ("", "")


def test_trainings_of_one_process_equal_those_of_others(here, elsewhere):
    directory, _ = elsewhere
    for name in ("first", "second"):
        assert_equal_ends(here[0].directory, directory / name)


def test_a_run_is_continued_by_another_process(elsewhere, tmp_path, monkeypatch):
    """This one has made many models: numbered names would differ."""
    with monkeypatch.context() as patch:
        break_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            training.train(**SHORT, model_dir=tmp_path / "run", checkpoint_steps=1)
    short = ", ".join(f"{key}={value!r}" for key, value in SHORT.items())
    done = run_code(
        f"from keras_resnet import training; training.train({short}, model_dir='run')",
        tmp_path,
    )
    assert "continuing after step 4 of 9" in done.stdout, done.stderr
    assert_equal_ends(tmp_path / "run", elsewhere[0] / "first")


def test_float_training_needs_no_model_optimization_toolkit(elsewhere):
    """And quantization-aware training says what it needs."""
    directory, output = elsewhere
    versions = json.loads((directory / "first/config.json").read_text())["versions"]
    assert versions.keys() == {"keras-resnet-zoo", "tensorflow", "keras", "numpy"}
    last = output.splitlines()[-1]
    assert 'needs tf_keras: pip install "keras-resnet-zoo[train]"' in last


def test_a_training_leaves_the_state_of_the_process_alone(tmp_path):
    random.seed(5)
    np.random.seed(5)
    expected = random.Random(5).random(), np.random.RandomState(5).rand()
    training.train(
        **SHORT | {"epochs": 1}, precision="mixed_bfloat16", model_dir=tmp_path
    )
    assert keras.config.dtype_policy().name == "float32"
    assert (random.random(), np.random.rand()) == expected
    with pytest.raises(UserError):
        training.train(**SHORT, precision="mixed_float16", weights="none.keras")
    assert keras.config.dtype_policy().name == "float32"


def test_a_thread_can_train(tmp_path):
    """Signals can be handled in the main thread only."""
    found = []
    settings = SHORT | {"epochs": 1}
    thread = threading.Thread(
        target=lambda: found.append(training.train(**settings, model_dir=tmp_path))
    )
    thread.start()
    thread.join()
    assert found[0].metrics["examples_evaluated"] == 360


@pytest.mark.parametrize(
    "function, command, without_flag",
    [
        (training.train, train_command, {"progress"}),
        (training.quantize_aware, qat, {"run", "progress"}),
        (training.evaluate, evaluate, {"output"}),
        (training.adopt, adopt, set()),
    ],
)
def test_the_commands_have_the_settings_of_the_functions(
    function, command, without_flag, monkeypatch
):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for name in dir(flags):
        if name.startswith("DEFINE_"):
            define = getattr(flags, name)
            monkeypatch.setattr(
                flags,
                name,
                lambda *args, define=define, **more: define(
                    *args, flag_values=values, **more
                ),
            )
    command.define_flags()
    parameters = inspect.signature(function).parameters.values()
    defaults = {
        each.name: None if each.default is each.empty else each.default
        for each in parameters
        if each.name not in without_flag
    }
    found = {name: values[name].default for name in values}
    if command is qat:  # which run is given by position in Python
        assert found.pop("model_dir") is None
        defaults["float_layers"] = list(defaults["float_layers"])
    assert found == defaults
    for name in defaults:
        assert f"\n        {name}: " in function.__doc__


NEEDS = 'keras_resnet.training needs tensorflow: pip install "keras-resnet-zoo[train]"'


def test_without_tensorflow_the_import_names_the_extra(tmp_path):
    block = "import sys; sys.modules['tensorflow'] = None\n"
    for statement in (
        "import keras_resnet.training",
        "from keras_resnet import training",
        "from keras_resnet.training import train",
    ):
        done = run_code(block + statement)
        last = done.stderr.splitlines()[-1]
        assert "MissingExtra: " in last and NEEDS in last
    command = "import sys\nfrom keras_resnet import __main__\n" + (
        f"sys.argv = ['keras-resnet', 'train', '--model_dir={tmp_path / 'run'}']\n"
        "__main__.main()"
    )
    done = run_code(block + command)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert 'pip install "keras-resnet-zoo[train]"' in done.stderr
    assert not list(tmp_path.iterdir())


def test_under_another_backend_the_import_says_which_it_needs():
    pytest.importorskip("jax")
    done = run_code("from keras_resnet import training", KERAS_BACKEND="jax")
    last = done.stderr.splitlines()[-1]
    assert "set KERAS_BACKEND=tensorflow" in last and "Received: jax" in last


def test_replicas_on_the_cpu_must_be_the_first_thing(tmp_path):
    code = (
        "import tensorflow as tf; tf.zeros(1)\n"
        "from keras_resnet import training\n"
        "training.train('resnet8', strategy='mirrored', cpu_replicas=2)"
    )
    done = run_code(code, tmp_path)
    last = done.stderr.splitlines()[-1]
    assert "UserError: --strategy=mirrored --cpu_replicas=2 must be the first" in last
    assert not list(tmp_path.iterdir())
