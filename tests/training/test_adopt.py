"""Somebody's model becomes a run: for QAT and export as if trained here."""

import json

import keras
import numpy as np
import pytest

from keras_resnet import edge, training
from keras_resnet.runner.errors import UserError
from tests.helpers.commands import run_command


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
    # With other flags it is another, and the same folder is not taken.
    with pytest.raises(UserError, match=r"another run: .*std_rgb_255=\[64.0, .* there"):
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
    recipe = json.loads((run / "qat" / "config.json").read_text())["recipe"]
    assert recipe["learning_rate"] == 0.0001
    edge.export(run, target="edgetpu")
    report = json.loads((run / "model-qat.report.json").read_text())
    compared = report["compared"]
    assert compared["top1"] > compared["keras_top1"] - 0.01


def test_what_does_not_fit_is_refused_and_nothing_is_written(theirs, tmp_path):
    image, any_size = keras.Input((32, 32, 3)), keras.Input((None, None, 3))

    def scores(x, classes=10):
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
        return keras.layers.Dense(classes, activation="softmax")(x)

    both = keras.layers.Add()(
        [scores(image), scores(other := keras.Input((32, 32, 3)))]
    )
    rows = keras.layers.Reshape((32, 96))(image)
    recurrent = keras.layers.Dense(10, "softmax")(keras.layers.LSTM(4)(rows))
    models = {
        "any_size": keras.Model(any_size, scores(any_size)),
        "two_inputs": keras.Model([image, other], both),
        "two_outputs": keras.Model(image, [scores(image), scores(image)]),
        "classes": keras.Model(image, scores(image, 3)),
        "recurrent": keras.Model(image, recurrent),
        "crop": keras.Model(image, scores(keras.layers.RandomCrop(24, 24)(image))),
        "map": keras.Model(image, keras.layers.Conv2D(10, 3)(image)),
    }
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    for changes, reason in (
        ({"normalization": "pytorch"}, "torch"),
        (
            {"normalization": "tf", "mean": 3},
            "give either --normalization or --mean",
        ),
        (
            {"normalization": None, "std": [1, 2]},
            r"--std must be 1 or 3 numbers. .*\[1",
        ),
        ({"normalization": None, "std": "a"}, "--std must be 1 or 3 numbers. .*'a'"),
        ({"model": tmp_path / "none.keras"}, "none.keras"),
        ({"model": tmp_path / "any_size.keras"}, "an input of fixed size"),
        ({"model": tmp_path / "two_inputs.keras"}, "must take one image"),
        ({"model": tmp_path / "two_outputs.keras"}, "return one tensor of scores"),
        ({"model": tmp_path / "classes.keras"}, "has 3 classes, dataset digits has 10"),
        ({"model": tmp_path / "recurrent.keras"}, "cannot hold a loop. .* 'lstm"),
        ({"model": tmp_path / "crop.keras"}, "RandomCrop.* for images of 24x24"),
        (
            {"model": tmp_path / "map.keras"},
            "one score for each class. .* 30",
        ),
        ({"crop_fraction": 1.5}, "crop_fraction"),
        ({"resize": "squash"}, "resize: expected crop or stretch or pad"),
        ({"resize": "pad", "crop_fraction": 0.5}, "crop_fraction"),
        ({"interpolation": "area"}, "interpolation"),
        ({"antialias": "no"}, "antialias"),
        ({"scores": "sigmoid"}, "softmax or independent"),
        ({"labels": list("012345678")}, "each of the 10 classes .*, without 9"),
        ({"labels": list("0123456788")}, "without 9"),
        ({"labels": tmp_path / "none.txt"}, "--labels cannot be read"),
        ({"expect_top1": 101}, "expect_top1"),
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
