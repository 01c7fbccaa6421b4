"""`training.quantize_aware`: a run of train.py becomes a quantization-aware one."""

import json
import shutil

import keras
import numpy as np
import pytest

from keras_resnet import training
from keras_resnet.runner.errors import UserError
from keras_resnet.training.quantize import aware as quantization
from keras_resnet.training.quantize.twin import import_tf_keras
from keras_resnet.training.runs import checkpoints
from tests.conftest import SMALL

REPLICAS = dict(strategy="mirrored", cpu_replicas=2)


@pytest.fixture
def run(digits_run, tmp_path):
    """A copy of a run that has not been fine-tuned."""
    left_out = shutil.ignore_patterns("qat", "*.tflite")
    return training.Run.open(
        shutil.copytree(digits_run, tmp_path / "run", ignore=left_out)
    )


def test_the_same_settings_find_the_fine_tuned_run(digits_run, capsys):
    run = training.Run.open(digits_run)
    aware = training.quantize_aware(run, epochs=1, **REPLICAS)
    printed = capsys.readouterr()
    assert "qat is complete; nothing to do" in printed.out and not printed.err
    assert aware == training.Run.open(digits_run / "qat")
    assert aware.directory == digits_run / "qat"
    assert aware.metrics == json.loads((digits_run / "qat/metrics.json").read_text())
    assert aware.labels == run.labels and aware.preprocessing == SMALL
    found = training.evaluate(aware)  # the weights in float
    assert abs(found["top1"] - aware.metrics["top1"]) < 0.05
    weights = aware.load_model().get_weights()
    before = run.load_model().get_weights()
    moved = [np.abs(one - old).max() for one, old in zip(weights, before, strict=True)]
    assert max(moved) > 0
    with pytest.raises(UserError, match="holds another run: epochs=1 there, 2 receiv"):
        training.quantize_aware(digits_run, epochs=2, **REPLICAS)


def test_fine_tuning_that_loses_accuracy_is_warned_of(run, capsys):
    aware = training.quantize_aware(run, epochs=1, learning_rate=0.5)
    before, now = run.metrics["top1"], aware.metrics["top1"]
    assert now < before - 0.01
    assert (
        f"lost {100 * (before - now):.2f} points of top1: {before:.2%} before, "
        f"{now:.2%} now. Delete {aware.directory} and try a lower --learning_rate than "
        "0.5, or export with --quantize=int8"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (dict(strategy="multi_worker"), "one machine: --strategy=mirrored"),
        (dict(strategy="all"), "unknown strategy"),
        (dict(freeze=["range"]), "unknown freeze: did you mean ranges"),
        (dict(freeze="ranges"), "--freeze must be a list of names"),
        (dict(float_layers="conv1_*"), "--float_layers must be a list of names"),
        (dict(float_layers=["conv9_*"]), r"no layer has a name like 'conv9_\*'"),
        (dict(epochs=0), "--epochs must be a whole number, at least 1"),
        (dict(learning_rate=-1), "--learning_rate must be a finite number above 0"),
        (dict(checkpoint_steps=0), "--checkpoint_steps"),
    ],
)
def test_wrong_settings_are_refused(run, arguments, reason):
    with pytest.raises(UserError, match=reason):
        training.quantize_aware(run, **arguments)


def test_what_is_no_finished_run_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        training.quantize_aware(tmp_path)
    (run.directory / "model.keras").unlink()
    with pytest.raises(UserError, match="no such model file"):
        training.quantize_aware(run)
    (run.directory / "metrics.json").unlink()
    with pytest.raises(UserError, match="has not ended"):
        training.quantize_aware(run.directory)


def test_names_of_variables_do_not_depend_on_models_made_before(run):
    """tensorflow-model-optimization numbers the layers that it adds."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    found = []
    for _ in range(2):
        aware = quantization.quantize(run.load_model(), SMALL, images)
        optimizer = import_tf_keras().optimizers.SGD(name="sgd")
        optimizer.build(aware.trainable_variables)
        variables = checkpoints.named(
            model=aware.variables, optimizer=optimizer.variables
        )
        found.append(list(variables))
    assert found[0] == found[1]
    assert "model/quantize_layer/quantize_layer_min" in found[0]


def test_a_run_of_version_0_1_is_read(digits_run, tmp_path):
    """Its file says nothing of its input, and its folder nothing of its data."""
    directory = tmp_path / "run"
    shutil.copytree(digits_run, directory, ignore=shutil.ignore_patterns("qat"))
    config = json.loads((directory / "config.json").read_text())
    del config["data"]
    (directory / "config.json").write_text(json.dumps(config))
    keras.models.load_model(directory / "model.keras").save(directory / "model.keras")
    run = training.Run.open(directory)
    model = run.load_model()
    assert model.preprocessing == SMALL and model.labels == list("0123456789")
    for given in (run, directory / "model.keras"):
        assert training.evaluate(given)["top1"] == run.metrics["top1"]
    again = training.train("resnet8", epochs=6, **REPLICAS, model_dir=directory)
    assert again == run
