"""Somebody's model becomes a run: for QAT and export as if trained here."""

import json
import re
import shutil

import keras
import numpy as np
import pytest

from keras_resnet import edge, training
from keras_resnet.preprocessing import NORMALIZATIONS
from keras_resnet.runner.errors import UserError
from tests.helpers.commands import one_error, run_command


@pytest.fixture
def theirs(digits_run, tmp_path):
    """A model that was trained elsewhere, and the flags that adopt it."""
    path = tmp_path / "theirs.keras"
    path.write_bytes((digits_run / "model.keras").read_bytes())
    return dict(
        model=path,
        model_dir=tmp_path / "run",
        normalization="zoo",
        dataset="digits",
        data_dir=None,
        crop_fraction=1.0,
        batch_size=64,
    )


def test_the_run_has_the_accuracy_that_the_model_had(theirs, digits_run):
    run = training.adopt(**theirs)
    assert run.directory == theirs["model_dir"]
    weights = [
        opened.load_model().get_weights()
        for opened in (run, training.Run.open(digits_run))
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    expected = json.loads((digits_run / "metrics.json").read_text())
    found = json.loads((run.directory / "metrics.json").read_text())
    for name in ("top1", "top5", "examples_evaluated"):
        assert found[name] == pytest.approx(expected[name])
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found == run.metrics
    assert run == training.adopt(**theirs) == training.Run.open(run.directory)
    # With another normalization it is another, and the same folder is not taken.
    with pytest.raises(UserError, match="holds another run: normalization=zoo there"):
        training.adopt(**theirs | {"normalization": "caffe"})


def test_the_run_is_exported_without_further_words(theirs):
    run = training.adopt(**theirs).directory
    edge.export(run)
    report = json.loads((run / "model-int8.report.json").read_text())
    assert report["compared"]["agreement"] > 0.95


@pytest.mark.slow
def test_the_commands_fine_tune_it_quantization_aware(theirs):
    run = theirs["model_dir"]
    flags = [f"--{name}={value}" for name, value in theirs.items() if value]
    done = run_command("training/adopt.py", *flags)
    assert done.returncode == 0 and "held-out top-1" in done.stdout, done.stderr
    done = run_command("training/qat.py", f"--model_dir={run}", "--epochs=1")
    assert done.returncode == 0, done.stderr
    edge.export(run, target="edgetpu")
    report = json.loads((run / "model-qat.report.json").read_text())
    compared = report["compared"]
    assert compared["top1"] > compared["keras_top1"] - 0.01


def test_qat_refuses_a_normalization_that_cannot_be_folded_in_one_line(
    digits_run, tmp_path
):
    """And an activation that tf_keras does not have."""
    inputs = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()
    softmax = keras.layers.Dense(10, activation="softmax")
    run = tmp_path / "run"
    shutil.copytree(digits_run, run, ignore=shutil.ignore_patterns("qat", "*.tflite"))
    config = json.loads((run / "config.json").read_text())
    config["preprocessing"] |= NORMALIZATIONS["torch"]
    (run / "config.json").write_text(json.dumps(config))
    for layer, reason in (
        (keras.layers.DepthwiseConv2D(3), "must go to one Conv2D .* depthwise"),
        (keras.layers.Conv2D(3, 3, activation="hard_silu"), "'hard_silu'"),
    ):
        model = keras.Model(inputs, softmax(pooled(layer(inputs))))
        model.save(run / "model.keras")
        done = run_command("training/qat.py", f"--model_dir={run}")
        assert re.search(reason, one_error(done))


def test_what_does_not_fit_is_refused_and_nothing_is_written(theirs, tmp_path):
    inputs = keras.Input((32, 24, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    scores = keras.layers.Dense(10, activation="softmax")(pooled)
    keras.Model(inputs, scores).save(tmp_path / "oblong.keras")
    keras.Model(inputs, keras.layers.Dense(10)(pooled)).save(tmp_path / "logits.keras")
    for changes, reason in (
        ({"normalization": "pytorch"}, "torch"),
        ({"model": tmp_path / "none.keras"}, "none.keras"),
        ({"model": tmp_path / "oblong.keras"}, "square images. Received: .* 32x24"),
        ({"model": tmp_path / "logits.keras"}, "softmax"),
        ({"crop_fraction": 1.5}, "crop_fraction"),
        ({"batch_size": 5000}, "at most the 1437"),
        ({"dataset": "digit"}, "digits"),
        (
            {"model": keras.Sequential()},
            "--model must be a path. Received: <Sequential",
        ),
    ):
        with pytest.raises(UserError, match=reason):
            training.adopt(**theirs | changes)
    assert not theirs["model_dir"].exists()
