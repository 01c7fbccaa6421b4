"""Models as people have them: adopted as they were trained, or refused.

The accuracy that Keras has on the held-out pictures, read by Keras, is the right one:
the file for the device may differ from it in one picture.
"""

import re
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from keras_resnet import edge, training
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import adoption, trials
from keras_resnet.training.data import sources
from tests.helpers import pictures

layers = keras.layers
SIZE = (48, 48)
COLOURS = list(pictures.COLOURS)
CROPPED = dict(crop_to_aspect_ratio=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return pictures.discs(tmp_path_factory.mktemp("photos"), 120, 90)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return pictures.discs(tmp_path_factory.mktemp("wide"), 240, 80, seed=7)


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory):
    return pictures.surfaces(tmp_path_factory.mktemp("surfaces"))


def learned(folder, how, outside=lambda x: x, **arguments):
    """Returns a model that learned the pictures of a folder as Keras reads them."""
    images, labels = pictures.read_by_keras(folder, SIZE, **how)
    arguments.setdefault("end", layers.Softmax(name="scores"))
    return pictures.learned(outside(images), labels, **arguments)


def held_out(folder, tmp_path, how):
    """Returns the held-out pictures and their labels, as Keras reads them."""
    for name in sources.load("folder", str(folder)).held_out.names:
        target = tmp_path / "held_out" / name[len(str(folder)) + 1 :]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, target)
    return pictures.read_by_keras(tmp_path / "held_out", SIZE, **how)


def adopt(model, folder, tmp_path, **said):
    path = tmp_path / "my.keras"
    model.save(path)
    return training.adopt(
        path, "folder", tmp_path / "run", data_dir=str(folder), **said
    )


def assert_as_in_keras(model, outside, folder, how, run, tmp_path):
    """The run and its int8 file are right as often as Keras, to one picture."""
    images, labels = held_out(folder, tmp_path, how)
    answers = model.predict(outside(images), verbose=0).argmax(1)
    expected = np.count_nonzero(answers == labels)
    assert expected > 0.9 * len(labels)
    report = edge.export(run, tmp_path / "my.tflite")
    compared = report["compared"]
    assert compared["images"] == len(labels)
    for top1 in (run.metrics["top1"], compared["keras_top1"], compared["top1"]):
        assert abs(top1 * len(labels) - expected) <= 1 + 1e-9


def test_pictures_that_were_stretched(wide, tmp_path, capsys):
    """As Keras's own loader does by default: it stretches, without antialiasing."""
    model = learned(wide, {}, front=layers.Rescaling(1 / 127.5, -1))
    run = adopt(model, wide, tmp_path)
    assert (run.preprocessing.resize, run.preprocessing.antialias) == ("stretch", False)
    assert "--resize=stretch --antialias=false  <- taken" in capsys.readouterr().out
    assert_as_in_keras(model, lambda x: x, wide, {}, run, tmp_path)


def test_pictures_that_were_not_antialiased(surfaces, tmp_path):
    """Said in part: the normalization is that of the user."""
    model = learned(surfaces, {}, front=layers.Rescaling(1 / 127.5, -1))
    run = adopt(model, surfaces, tmp_path, normalization="raw")
    assert run.preprocessing.antialias is False
    assert_as_in_keras(model, lambda x: x, surfaces, {}, run, tmp_path)


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("unit", lambda x: x / 255),
        ("tf", lambda x: x / 127.5 - 1),
        ("caffe", lambda x: keras.applications.resnet.preprocess_input(x.copy())),
        ("given", lambda x: (x - 20) / 30),
    ],
)
def test_pixels_that_were_normalized_outside(name, outside, photos, tmp_path):
    model = learned(photos, CROPPED, outside)
    said = {"mean": 20, "std": [30]} if name == "given" else {}
    run = adopt(model, photos, tmp_path, **said)
    images, _ = pictures.read_by_keras(photos, SIZE, **CROPPED)
    expected = outside(images[:1].round())
    actual = run.preprocessing.normalize(images[:1].round())
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    assert_as_in_keras(model, outside, photos, CROPPED, run, tmp_path)


def test_what_was_said_wrongly_is_refused(photos, tmp_path):
    """Unless the accuracy is what the user expects."""
    model = learned(photos, CROPPED, lambda x: x / 255)
    wrong = dict(normalization="raw", resize="crop")
    reason = r"100.0% .* with --normalization=unit .* with what was said, --norm.*=raw"
    with pytest.raises(UserError, match=reason):
        adopt(model, photos, tmp_path, **wrong)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="33.33% top-1 .* less than --expect_top1=99"):
        adopt(model, photos, tmp_path, **wrong, expect_top1=99)
    assert not (tmp_path / "run").exists()


def test_classes_in_another_order_are_refused_and_named(photos, tmp_path):
    model = learned(photos, CROPPED, lambda x: x / 127.5 - 1)
    kernel, bias = model.get_layer("logits").get_weights()
    order = ["plum", "apple", "lime"]
    places = [sorted(order).index(name) for name in order]
    model.get_layer("logits").set_weights([kernel[:, places], bias[places]])
    with pytest.raises(UserError, match="in another order: .* plum, apple, lime. Pass"):
        adopt(model, photos, tmp_path)
    assert not (tmp_path / "run").exists()
    wrong, data = (
        tmp_path / "wrong.tflite",
        dict(dataset="folder", data_dir=str(photos)),
    )
    with pytest.raises(UserError, match="in another order: .* plum, apple, lime. Pass"):
        edge.export(tmp_path / "my.keras", wrong, normalization="tf", **data)
    assert not wrong.exists()
    report = edge.export(model, wrong, normalization="tf", **data)
    assert re.search("warning: .* another order: .* plum, apple, lime", str(report))
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(order))
    run = adopt(model, photos, tmp_path, labels=labels)
    assert run.labels == tuple(order) and run.metrics["top1"] == 1.0
    edge.export(run, tmp_path / "my.tflite")
    classifier = edge.Classifier(tmp_path / "my.tflite")
    for name in order:
        assert classifier.classify(photos / name / "001.png")[0].label == name
    with pytest.raises(UserError, match="without plum, with pear"):
        adopt(model, photos, tmp_path, labels=["pear", "apple", "lime"])


def test_channels_as_opencv_reads_them(photos, tmp_path):
    def outside(x):
        return x[..., ::-1] / 255

    model = learned(photos, CROPPED, outside)
    run = adopt(model, photos, tmp_path)
    assert run.preprocessing.channel_order == "bgr"
    assert_as_in_keras(model, outside, photos, CROPPED, run, tmp_path)
    said = dict(normalization="unit", bgr=True)
    (other := tmp_path / "other").mkdir()
    again = adopt(model, photos, other, **said)
    assert again.preprocessing.channel_order == "bgr"


def test_a_model_that_is_sure_and_wrong_is_refused():
    targets = np.eye(3)[[0, 1, 2] * 10]
    wrong = np.roll(targets, 1, axis=1)
    scores = np.where(np.arange(30)[:, None] < 12, wrong, targets) * 0.9 + 0.1 / 3
    raw = Preprocessing((8, 8), mean_rgb_255=(0,) * 3, std_rgb_255=(1,) * 3)
    trial = trials.Trial("raw", raw, True, targets, scores)
    with pytest.raises(UserError, match="is 93% sure .* but 60% of them are right"):
        adoption._check_certainty(trial, trial.right.mean())
    adoption._check_certainty(trial, 0.7)


def test_a_model_that_diverged_is_refused(photos, tmp_path):
    model = learned(photos, CROPPED)
    logits = model.get_layer("logits")
    logits.set_weights([each * np.nan for each in logits.get_weights()])
    with pytest.raises(UserError, match="not finite"):
        adopt(model, photos, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_model_that_learned_nothing_is_refused(photos, tmp_path):
    model = learned(photos, CROPPED)
    logits = model.get_layer("logits")
    logits.set_weights([np.zeros_like(each) for each in logits.get_weights()])
    with pytest.raises(UserError, match="no better than chance: 33.3% of 12"):
        adopt(model, photos, tmp_path)
    assert not (tmp_path / "run").exists()


def test_the_model_of_the_tutorial(photos, tmp_path, capsys):
    """A Sequential with augmentation inside that returns logits."""

    def front(x):
        x = layers.RandomZoom(0.1)(layers.RandomFlip("horizontal")(x))
        return layers.Dropout(0.2)(layers.Rescaling(1 / 255)(x))

    functional = learned(photos, {}, front=front, end=lambda logits: logits)
    model = keras.Sequential([keras.Input((*SIZE, 3)), *functional.layers[1:]])
    run = adopt(model, photos, tmp_path)
    printed = capsys.readouterr().out
    assert "Left out, as they do nothing at inference: random_flip" in printed
    assert "returns 3 logits: a softmax was added" in printed
    assert_as_in_keras(model, lambda x: x, photos, {}, run, tmp_path)


def test_one_sigmoid_for_two_classes(tmp_path):
    """It becomes a softmax of two, and the second class has the sigmoid's score."""
    photos = pictures.discs(tmp_path / "photos", 120, 90, names=["apple", "plum"])
    model = learned(photos, {}, end=layers.Activation("sigmoid"))
    run = adopt(model, photos, tmp_path)
    images, labels = held_out(photos, tmp_path, {})
    answers = model.predict(images, verbose=0)[:, 0]
    assert ((answers > 0.5) == labels).all()
    of_run = run.load_model().predict(run.preprocessing.normalize(images), verbose=0)
    np.testing.assert_allclose(of_run[:, 1], answers, atol=1e-5)
    assert edge.export(run)["compared"]["top1"] == 1.0


def test_several_labels_for_a_picture(tmp_path):
    """Logits become independent scores; the device names the labels that it sees."""
    pictures.discs(tmp_path / "photos", 120, 90)
    rng = np.random.default_rng(0)
    lines, targets, paths = ["image,label"], [], []
    for number in range(80):  # halves of up to two pictures
        chosen = [name for name in pictures.COLOURS if rng.random() < 0.5][:2]
        halves = [
            tmp_path / "photos" / name / f"{rng.integers(20):03}.png" for name in chosen
        ]
        pixels = np.full((90, 240, 3), 128, np.uint8)
        for place, half in enumerate(halves):
            pixels[:, 120 * place : 120 * (place + 1)] = Image.open(half)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
        lines.append(f"{paths[-1].name},{';'.join(chosen)}")
        targets.append([name in chosen for name in pictures.COLOURS])
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    images = np.stack([keras.utils.load_img(path).resize(SIZE, 2) for path in paths])
    model = pictures.learned_labels(np.float32(images) / 255, np.array(targets))
    model.save(tmp_path / "my.keras")
    arguments = dict(model=tmp_path / "my.keras", dataset="csv", data_dir=str(table))
    run = tmp_path / "run"
    with pytest.raises(UserError, match="several labels, .* --scores=independent"):
        training.adopt(**arguments, model_dir=run)
    adopted = training.adopt(**arguments, model_dir=run, scores="independent")
    assert adopted.metrics["mean_average_precision"] > 0.9
    report = edge.export(adopted, tmp_path / "my.tflite")["compared"]
    assert report["mean_average_precision"] > 0.9
    assert abs(report["label_accuracy"] - report["keras_label_accuracy"]) < 0.05
    classifier = edge.Classifier(tmp_path / "my.tflite")
    assert classifier.threshold == 0.5
    scores = model.predict(np.float32(images) / 255, verbose=0)
    checked = 0
    for path, logits in zip(paths, scores, strict=True):
        if np.abs(logits).min() < 1:  # too near to the threshold for 8 bits
            continue
        expected = {COLOURS[place] for place in np.flatnonzero(logits > 0)}
        seen = {each.label for each in classifier.classify(path, top_k=3)}
        assert seen == expected
        checked += 1
    assert checked > 10


def test_pictures_that_are_not_square(photos, tmp_path):
    """The largest centred region of the input's aspect, as Keras crops it too."""
    size = (36, 60)
    images, labels = pictures.read_by_keras(photos, size, **CROPPED)
    model = pictures.learned(images / 255, labels, end=layers.Softmax())
    run = adopt(model, photos, tmp_path)
    assert run.preprocessing.input_size == size
    answers = model.predict(images / 255, verbose=0).argmax(1)
    expected = np.count_nonzero(answers == labels) / len(labels)
    report = edge.export(run, tmp_path / "my.tflite")
    for top1 in (run.metrics["top1"], report["compared"]["top1"]):
        assert abs(top1 - expected) * 12 <= 1 + 1e-9
    assert training.quantize_aware(run, epochs=1).metrics["top1"] > 0.9


def test_grey_pictures(photos, tmp_path):
    images, labels = pictures.read_by_keras(photos, SIZE, color_mode="grayscale")
    model = pictures.learned(images / 255, labels, end=layers.Softmax())
    run = adopt(model, photos, tmp_path)
    answers = model.predict(images / 255, verbose=0).argmax(1)
    expected = np.count_nonzero(answers == labels) / len(labels)
    assert expected > 0.5
    report = edge.export(run, tmp_path / "my.tflite")
    for top1 in (run.metrics["top1"], report["compared"]["top1"]):
        assert abs(top1 - expected) <= 0.2


@pytest.mark.slow
def test_the_model_of_the_guide_is_fine_tuned_too(photos, tmp_path):
    """A model inside of a model, with augmentation and preprocess_input in front."""
    images, labels = pictures.read_by_keras(photos, SIZE, **CROPPED)
    inner = pictures.learned(images / 127.5 - 1, labels)
    body = keras.Model(inner.input, inner.layers[-2].output, name="body")
    inputs = keras.Input((*SIZE, 3))
    x = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)])(inputs)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = layers.Dropout(0.2)(body(x, training=False))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="top")(x))
    model.get_layer("top").set_weights(inner.layers[-1].get_weights())
    run = adopt(model, photos, tmp_path)
    assert_as_in_keras(model, lambda x: x, photos, CROPPED, run, tmp_path)
    aware = training.quantize_aware(run, epochs=1)
    assert abs(aware.metrics["top1"] - run.metrics["top1"]) * 12 <= 1 + 1e-9
    report = edge.export(run, target="edgetpu")
    operators = sum(each["count"] for each in report["operators"])
    assert report["quantize"] == "qat" and report["edgetpu_operators"] == operators
