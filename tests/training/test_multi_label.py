"""Pictures with several labels: targets, loss, measures, and a whole training."""

import csv
import dataclasses
import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import average_precision_score

from keras_resnet import training
from keras_resnet.edge.report.comparison import Comparison
from keras_resnet.edge.report.summary import accuracy_name
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import accuracy, losses, multi_label, recipes
from keras_resnet.training.data import batching, sources
from keras_resnet.training.runs import folder as run_folder
from tests.helpers.datasets import EVERYTHING, SMALL, batches, equal
from tests.helpers.runs import (
    assert_equal_ends,
    break_after,
    history,
    silent,
    two_replicas,
)

COLOURS = {"blue": 2, "green": 1, "red": 0}


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    """A csv file of 60 pictures, each with any of three lights."""
    folder = tmp_path_factory.mktemp("lights")
    rng = np.random.default_rng(0)
    rows = []
    for index in range(60):
        pixels = rng.integers(0, 60, (32, 32, 3), np.uint8)
        there = [name for name in COLOURS if rng.random() < 0.4]
        for name in there:
            top, left = rng.integers(0, 16, 2)
            pixels[top : top + 16, left : left + 16, COLOURS[name]] = 255
        Image.fromarray(pixels).save(folder / f"{index}.png")
        rows.append((f"{index}.png", ";".join(there)))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def dataset(lights):
    return sources.load("csv", lights)


def all_of(batches):
    return [np.concatenate(x) for x in zip(*batches, strict=True)]


def test_batches_have_the_labels_of_their_pictures(dataset):
    images, targets = all_of(batches(dataset, batch_size=8, epochs=1))
    assert targets.dtype == np.float32 and targets.shape == (48, 3)
    # A light has the level 255 in its channel, if it was not shifted away.
    bright = images.reshape(48, -1, 3).max(1) == SMALL.normalize([[[255] * 3]]).max()
    np.testing.assert_array_equal(bright, targets[:, [2, 1, 0]] == 1)


def test_the_last_batch_is_filled_with_a_label_that_is_none(dataset):
    found = batching.evaluation_batches(dataset.held_out, SMALL, 8)
    _, targets = all_of(found.as_numpy_iterator())
    assert targets.shape == (16, 3) and (targets[12:] == -1).all()
    assert set(np.unique(targets[:12])) == {0, 1}


def test_mixed_pictures_have_a_share_of_each_label(dataset):
    arguments = EVERYTHING | dict(batch_size=8, epochs=1)
    _, targets = all_of(batches(dataset, **arguments))
    first, second = targets.reshape(-1, 2, 3).transpose(1, 0, 2)
    total = (first + second).round(5)
    assert set(np.unique(total)) == {0, 1, 2}  # of a pair: none, one, both have it
    np.testing.assert_allclose(first[total == 2], 1, atol=1e-6)
    assert 0 < first[total == 1].min() and first[total == 1].max() < 1
    assert equal(batches(dataset, **arguments), batches(dataset, **arguments))


def test_the_loss_is_that_of_keras():
    """Keras smooths binary targets towards a half, too."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 5)).astype(np.float32)
    targets = rng.uniform(0, 1, (6, 5)).astype(np.float32)
    recipe = dataclasses.replace(
        recipes.RECIPES["digits"], loss="multi_label", label_smoothing=0.1
    )
    expected = keras.losses.binary_crossentropy(
        targets, logits, from_logits=True, label_smoothing=0.1
    )
    found = losses.loss_function(recipe)(logits, tf.constant(targets))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    scores = losses.logits_of_sigmoids(tf.sigmoid(logits))
    np.testing.assert_allclose(scores, logits, rtol=1e-3)


def test_mean_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for levels in (3, 20, 10**6):  # with many equal scores, and with none
        scores = rng.integers(0, levels + 1, (90, 6)) / levels
        targets = rng.random((90, 6)) < scores * 0.5 + 0.05
        targets[:, 4] = False  # it has no average precision
        expected = average_precision_score(
            targets[:, [0, 1, 2, 3, 5]], scores[:, [0, 1, 2, 3, 5]]
        )
        found = multi_label.measures(scores, targets.astype(np.float32))
        assert found["mean_average_precision"] == pytest.approx(expected, abs=1e-12)
        right = np.mean((scores >= 0.5) == targets)
        assert found["label_accuracy"] == pytest.approx(right, abs=1e-12)


@pytest.mark.parametrize("replicas", [1, 2])
def test_evaluation_counts_every_example_once(dataset, replicas):
    strategy = two_replicas() if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
        )
    evaluate = accuracy.evaluator(model, strategy, from_logits=True, multi_label=True)
    found = evaluate(dataset.held_out, SMALL, 8)
    pairs = list(batching.images(dataset.held_out, SMALL).as_numpy_iterator())
    images, targets = map(np.stack, zip(*pairs, strict=True))
    scores = 1 / (1 + np.exp(-model.predict(SMALL.normalize(images), verbose=0)))
    expected = keras.losses.binary_crossentropy(targets, scores).numpy().mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    precision = average_precision_score(targets, scores)
    assert found["mean_average_precision"] == pytest.approx(precision, abs=1e-6)
    assert found["label_accuracy"] == np.mean((scores >= 0.5) == targets)
    by_image = accuracy.of_scores(
        lambda image: scores[[np.array_equal(image, x) for x in images]][0],
        pairs,
        multi_label=True,
    )
    assert by_image["examples_evaluated"] == 12
    for name in multi_label.NAMES:
        assert by_image[name] == pytest.approx(found[name], abs=1e-6)


ARGUMENTS = dict(
    model="resnet8", recipe="digits", batch_size=16, epochs=3, progress=silent
)


@pytest.fixture(scope="module")
def run(lights, tmp_path_factory):
    return training.train(
        dataset="csv",
        data_dir=lights,
        model_dir=tmp_path_factory.mktemp("run") / "run",
        **ARGUMENTS,
    )


def test_a_run_has_the_measures_of_several_labels(run, dataset):
    assert list(run.metrics) == [
        "mean_average_precision",
        "label_accuracy",
        "loss",
        "examples_per_second",
        "epochs",
        "examples_evaluated",
        "by_class",
    ]
    assert run.metrics == json.loads((run.directory / "metrics.json").read_text())
    last = history(run.directory)[-1]
    for name in ("mean_average_precision", "label_accuracy", "loss"):
        assert float(last[f"val_{name}"]) == run.metrics[name]
    precisions = [x["average_precision"] for x in run.metrics["by_class"].values()]
    mean = pytest.approx(np.mean(precisions), abs=1e-6)
    assert run.metrics["mean_average_precision"] == mean
    page = (run.directory / "report.html").read_text()
    assert "Average precision of each label" in page
    rows = history(run.directory)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert "top1" not in last and 0 < float(last["label_accuracy"]) <= 1
    config = json.loads((run.directory / "config.json").read_text())
    assert config["recipe"]["loss"] == "multi_label"
    model = training.Run.open(run.directory).load_model()
    assert model.layers[-1].activation.__name__ == "sigmoid"
    found = accuracy.of_split(model, dataset.held_out, run.preprocessing, True)
    for name in ("mean_average_precision", "label_accuracy", "loss"):
        assert found[name] == pytest.approx(run.metrics[name], abs=1e-5)
    evaluated = training.evaluate(run)
    assert evaluated["mean_average_precision"] == found["mean_average_precision"]


def test_a_broken_off_run_ends_as_the_unbroken_one(run, lights, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_after(patch, 4)
        training.train(
            dataset="csv",
            data_dir=lights,
            model_dir=tmp_path / "run",
            checkpoint_steps=4,
            **ARGUMENTS,
        )
    again = training.train(
        dataset="csv",
        data_dir=lights,
        model_dir=tmp_path / "run",
        checkpoint_steps=4,
        **ARGUMENTS,
    )
    assert_equal_ends(run.directory, again.directory)


def test_a_run_refuses_pictures_with_one_label_each(run, lights):
    single = lights.with_name("single.csv")
    names = list(COLOURS)
    rows = "".join(f"{index}.png,{names[index % 3]}\n" for index in range(60))
    single.write_text("image,label\n" + rows)
    config = run_folder.read_config(run.directory)
    with pytest.raises(UserError, match="have one label each.*any number of labels"):
        run_folder.dataset_of(config, single)


def test_a_teacher_is_refused(lights, tmp_path):
    with pytest.raises(UserError, match="--teacher.*several labels"):
        training.train(
            dataset="csv",
            data_dir=lights,
            teacher="resnet20",
            model_dir=tmp_path / "run",
            **ARGUMENTS,
        )
    assert not (tmp_path / "run").exists()


def test_an_export_compares_yes_and_no(dataset, monkeypatch):
    preprocessing = Preprocessing((32, 32))
    right = {
        image.tobytes(): label
        for image, label in batching.images(
            dataset.held_out, preprocessing
        ).as_numpy_iterator()
    }

    model = types.SimpleNamespace(predict=lambda *_, **__: np.stack([*right.values()]))
    compared = Comparison(model, preprocessing, dataset, 100)
    # The file is wrong about the first label of each picture.
    wrong = {key: np.abs(label - [1, 0, 0]) for key, label in right.items()}
    file = types.SimpleNamespace(outputs=lambda image: wrong[image.tobytes()])
    monkeypatch.setattr(
        "keras_resnet.edge.report.comparison.Classifier", lambda path: file
    )
    found = compared.scores(b"")
    assert found["multi_label"] and found["images"] == 12
    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["label_accuracy"] == pytest.approx(2 / 3)
    assert found["keras_label_accuracy"] == found["keras_mean_average_precision"] == 1
    share = np.stack([*right.values()])[:, 0].mean()
    first = average_precision_score(
        [label[0] for label in right.values()], [label[0] for label in wrong.values()]
    )
    assert first == pytest.approx(share)
    assert found["mean_average_precision"] == pytest.approx((share + 2) / 3)
    assert accuracy_name(found) == "mean_average_precision"
