"""A SavedModel folder is exported with its graph unchanged, or refused in one line."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import edge, training
from keras_resnet.runner.errors import UserError
from tests.helpers.classifiers import network, pixels
from tests.helpers.device import scores


def write_saved_model(folder, end=tf.nn.softmax, shape=(None, 32, 32, 3), **settings):
    """Writes the SavedModel of a small network, and returns it as a function."""
    model = network(end=lambda x: keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    model((np.float32(pixels()) - 128) / 64, training=True)  # for its statistics
    module = tf.Module()
    module.model = model
    spec = tf.TensorSpec(shape, settings.get("dtype", tf.float32), name="image")

    @tf.function(input_signature=[spec])
    def serve(image):
        scores = end(model(tf.cast(image, tf.float32), training=False))
        return scores if isinstance(scores, dict) else {"scores": scores}

    names = settings.get("names", ["serving_default"])
    tf.saved_model.save(module, folder, {name: serve for name in names})
    return lambda images: np.asarray(end(model(images, training=False)))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A SavedModel folder that ends with a softmax, and its function."""
    folder = tmp_path_factory.mktemp("saved") / "graph"
    return folder, write_saved_model(folder)


BGR = dict(mean=[124, 117, 104], std=[58, 57, 60], bgr=True)


@pytest.mark.parametrize("said", [dict(normalization="zoo"), BGR], ids=["zoo", "bgr"])
def test_a_saved_model_is_exported_as_it_is(graph, tmp_path, said):
    folder, function = graph
    output = tmp_path / "model.tflite"
    edge.export(str(folder), output, quantize="none", labels=["a", "b", "c"], **said)
    mean, std = np.float32((128, 64))[:, None]
    if said is BGR:
        mean, std = np.float32(BGR["mean"]), np.float32(BGR["std"])
    images = (pixels() - mean) / std
    expected = function(images[..., ::-1] if said is BGR else images)
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(scores(output, pixels()), expected, atol=0.51 / 256)
    assert edge.Classifier(output).labels == ["a", "b", "c"]


@pytest.mark.parametrize("quantize", ["int8", "dynamic", "float16"])
def test_a_saved_model_is_quantized_and_compared(graph, tmp_path, quantize):
    output = tmp_path / "model.tflite"
    said = BGR if quantize == "int8" else dict(normalization="zoo")
    settings = dict(dataset="digits", report_examples=50, calibration_examples=50)
    report = edge.export(graph[0], output, quantize=quantize, **said, **settings)
    assert report["compared"]["images"] == 50
    assert report["compared"]["max_difference"] < 0.1
    assert "layers" not in report
    assert output.is_file()


@pytest.mark.parametrize(
    "scores_are, end", [("softmax", tf.nn.softmax), ("independent", tf.sigmoid)]
)
def test_logits_of_a_saved_model_need_to_be_named(tmp_path, scores_are, end):
    function = write_saved_model(tmp_path / "logits", tf.identity)
    output = tmp_path / "model.tflite"
    settings = dict(normalization="zoo", quantize="none")
    with pytest.raises(UserError, match="do not sum to 1: pass --scores=softmax"):
        edge.export(tmp_path / "logits", output, **settings)
    edge.export(tmp_path / "logits", output, scores=scores_are, **settings)
    expected = np.asarray(end(function((pixels() - np.float32(128)) / 64)))
    np.testing.assert_allclose(scores(output, pixels()), expected, atol=0.51 / 256)


def test_int8_scores_of_a_saved_model_end_with_a_softmax(tmp_path):
    def end(x):
        return (tf.nn.softmax(x) + tf.nn.softmax(2 * x)) / 2

    write_saved_model(tmp_path / "mean", end)
    settings = dict(normalization="zoo", dataset="digits", calibration_examples=20)
    with pytest.raises(UserError, match="ends with neither.*--quantize=float16"):
        edge.export(tmp_path / "mean", tmp_path / "m.tflite", **settings)
    edge.export(
        *(tmp_path / "mean", tmp_path / "m.tflite"),
        **settings | dict(quantize="float16", report_examples=10),
    )


def test_a_saved_model_has_no_layers_to_adopt_or_to_quantize(graph, tmp_path):
    folder, _ = graph
    settings = dict(dataset="digits", model_dir=tmp_path / "run")
    with pytest.raises(UserError, match="graph without layers.*export.py --model="):
        training.adopt(folder, **settings)
    with pytest.raises(UserError, match="graph without layers.*export.py --model="):
        training.quantize_aware(folder)
    settings = dict(normalization="zoo", quantize="qat")
    with pytest.raises(UserError, match="graph without layers.*export.py --model="):
        edge.export(folder, tmp_path / "model.tflite", **settings)
    with pytest.raises(UserError, match="needs --normalization"):
        edge.export(folder, tmp_path / "model.tflite", quantize="none")
    assert not list(tmp_path.iterdir())


def write_file(x):
    """Writes beside scoring: no model's business."""
    tf.io.write_file("written", "x")
    return tf.nn.softmax(x)


@pytest.mark.parametrize(
    "settings, reason",
    [
        (dict(names=["one", "two"]), "must have one signature.*signatures one, two"),
        (dict(names=[]), "must have one signature.*Received: none"),
        (dict(shape=(None, None, None, 3)), "fixed size. Received: float32"),
        (dict(dtype=tf.uint8), "float32 images.*Received: uint8"),
        (dict(end=lambda x: {"a": x, "b": x}), "one tensor of scores.*outputs a, b"),
        (dict(end=lambda x: x[:, :1]), "2 classes or more. Received.*(None, 1)"),
        (dict(end=write_file), "reads files or runs Python code.*WriteFile"),
    ],
)
def test_a_saved_model_of_another_interface_is_refused(tmp_path, settings, reason):
    if None in settings.get("shape", ())[1:]:
        settings["end"] = lambda x: x
    folder = tmp_path / "model"
    write_saved_model(folder, **settings)
    with pytest.raises(UserError, match=reason):
        edge.export(folder, tmp_path / "m.tflite", normalization="zoo", quantize="none")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_damaged_saved_model_is_one_line(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no readable SavedModel"):
        edge.export(tmp_path, tmp_path / "m.tflite", normalization="zoo")
