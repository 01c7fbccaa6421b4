"""`export --features`: the pooled features of a model as a file to learn from."""

import json

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import keras_resnet
from keras_resnet import edge, rewrite
from keras_resnet.edge.convert import tflite_file
from keras_resnet.runner.errors import UserError
from tests.conftest import SMALL
from tests.helpers import graphs, metadata_reader
from tests.helpers.classifiers import network, normalization, pixels
from tests.helpers.commands import one_error, run_command
from tests.helpers.networks import small_classifier

layers = keras.layers
SETTINGS = dict(
    dataset="digits", features=True, calibration_examples=64, report_examples=16
)


def features_of(model, images, layer="global_average_pooling2d"):
    """Returns what a layer of a model of raw digits gives."""
    names = [each.name for each in model.layers if each.name.startswith(layer)]
    pooled = keras.Model(model.input, model.get_layer(names[-1]).output)
    return pooled.predict(SMALL.normalize(images), verbose=0)


def outputs(path, images):
    classifier = edge.Classifier(path)
    return np.stack([classifier.outputs(image) for image in images])


@pytest.fixture(scope="module")
def model():
    return small_classifier(lambda x: layers.Conv2D(24, 3, 2, activation="relu")(x))


@pytest.mark.parametrize("quantize", ["int8", "int16x8", "dynamic", "float16", "none"])
def test_the_file_gives_the_features_of_the_keras_model(
    model, held_out, tmp_path, quantize
):
    images = held_out[0][:20]
    path = tmp_path / "features.tflite"
    settings = dict(SETTINGS, quantize=quantize, normalization="zoo")
    report = edge.export(model, path, **settings)
    expected, actual = features_of(model, images), outputs(path, images)
    assert actual.shape == (20, 24) and np.ptp(expected, axis=0).max() > 0.1
    allowed = {"int8": 0.03, "dynamic": 0.02, "int16x8": 0.01, "float16": 0.002}
    difference = np.abs(actual - expected).max() / expected.max()
    assert difference < allowed.get(quantize, 1e-5)
    image, output = tflite_file.interface(path.read_bytes())
    assert image.type == 3  # UINT8
    assert output.type == (3 if quantize == "int8" else 0)
    cosines = (expected * actual).sum(1) / (
        np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    )
    compared = report["compared"]
    assert compared["images"] == 16 and compared["lowest_cosine"] > 0.99
    assert compared["mean_cosine"] == pytest.approx(cosines[:16].mean(), abs=1e-6)
    assert compared["lowest_cosine"] == pytest.approx(cosines[:16].min(), abs=1e-6)
    assert report["gate_not_applied"] == "features have no accuracy"
    text = f"cosine         mean {compared['mean_cosine']:.4f}, lowest "
    assert text in str(report) and "top-1" not in str(report)
    assert text.split()[0] in report.paths["html"].read_text()


def test_the_file_says_what_it_gives_and_has_no_labels(model, tmp_path):
    path = tmp_path / "features.tflite"
    edge.export(model, path, normalization="zoo", features=True, quantize="none")
    found = metadata_reader.read(path.read_bytes())
    assert set(found.files) == {"preprocessing.json"}
    steps = json.loads(found.files["preprocessing.json"])
    assert (steps["version"], steps["output"]) == (3, "features")
    (graph,) = found.table["subgraph_metadata"]
    (output,) = graph["output_tensor_metadata"]
    assert output["name"] == "features" and "stats" not in output
    classifier = edge.Classifier(path)
    assert (classifier.channels, classifier.classes, classifier.labels) == (24, 0, None)
    with pytest.raises(UserError, match="gives features and has no classes; learn"):
        classifier.classify(pixels()[0])


def test_int8_features_of_the_zoo_map_to_the_edge_tpu(held_out, tmp_path):
    path = tmp_path / "features.tflite"
    report = edge.export(
        "resnet8", path, weights="cifar10", target="edgetpu", **SETTINGS
    )
    total = sum(row["count"] for row in report["operators"])
    assert report["edgetpu_operators"] == total
    assert graphs.float_tensors(path.read_bytes()) == []
    assert "FULLY_CONNECTED" not in graphs.counts(path.read_bytes())
    zoo = keras_resnet.create_model("resnet8", weights="cifar10")
    images = held_out[0][:10]
    pooled = keras.Model(zoo.input, zoo.layers[-1].input)
    expected = pooled.predict(zoo.preprocessing.normalize(images), verbose=0)
    interpreter = Interpreter(str(path))  # as any other runtime reads it
    interpreter.allocate_tensors()
    (given,), (taken,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    scale, zero_point = taken["quantization"]
    for image, features in zip(images, expected, strict=True):
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        actual = interpreter.get_tensor(taken["index"])[0].astype(float)
        actual = scale * (actual - zero_point)
        assert np.abs(actual - features).max() < 0.1 * features.max()


@pytest.mark.parametrize(
    "end",
    [
        lambda x: layers.Dense(3)(layers.GlobalAveragePooling2D()(x)),
        lambda x: layers.Dense(1, "sigmoid")(layers.GlobalAveragePooling2D()(x)),
        lambda x: layers.Softmax()(layers.Dense(3)(layers.GlobalMaxPooling2D()(x))),
        lambda x: layers.Softmax()(  # as MobileNet of keras.applications
            layers.Flatten()(
                layers.Conv2D(3, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
            )
        ),
    ],
    ids=["logits", "one score", "layer of its own", "convolution"],
)
def test_the_classifier_is_left_out_whatever_its_form(end):
    model = network(end=end)
    found = rewrite.for_device(model, normalization("unit", model)).model
    features = rewrite.without_classifier(found)
    pooled = next(layer for layer in model.layers if "pooling" in layer.name)
    images = pixels() / np.float32(255)
    expected = keras.Model(model.input, pooled.output).predict(images, verbose=0)
    actual = features.predict(images, verbose=0)
    assert actual.shape == (6, 12)
    np.testing.assert_allclose(actual, expected.reshape(6, 12), rtol=1e-5)


def test_scores_without_a_dense_layer_have_no_features():
    def end(x):
        return layers.Softmax()(layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1)(x)))

    model = network(end=end)
    with pytest.raises(
        UserError, match="what its last Dense layer reads. Received: sc"
    ):
        edge.export(model, "f.tflite", normalization="unit", features=True)


@pytest.mark.parametrize(
    "settings, reason",
    [
        (dict(labels=["a", "b"]), "to which --labels belongs: leave it out"),
        (dict(scores="softmax"), "to which --scores belongs: leave it out"),
        (dict(max_drop=3.0), "to which --max_drop belongs.*Received: --max_drop=3.0"),
        (dict(quantize="qat"), "--features and --quantize=qat do not go together"),
    ],
)
def test_what_belongs_to_scores_is_refused(model, tmp_path, settings, reason):
    with pytest.raises(UserError, match=reason):
        edge.export(model, tmp_path / "f.tflite", features=True, **settings)
    assert not list(tmp_path.iterdir())


def test_a_run_gives_features_without_its_fine_tuning(digits_run, held_out, tmp_path):
    path = tmp_path / "features.tflite"
    report = edge.export(digits_run, path, features=True, report_examples=16)
    assert report["quantize"] == "int8" and report["compared"]["mean_cosine"] > 0.99
    assert outputs(path, held_out[0][:5]).shape == (5, 64)


@pytest.mark.slow
def test_the_command_exports_features(tmp_path):
    path = tmp_path / "features.tflite"
    done = run_command(
        *("edge/export.py", "--model=resnet8", "--weights=cifar10", "--features"),
        *(f"--output={path}", "--quantize=none"),
    )
    assert done.returncode == 0, done.stderr
    assert edge.Classifier(path).channels == 64
    done = run_command(
        *("edge/export.py", "--model=resnet8", "--features", "--labels=x.txt"),
        f"--output={path}",
    )
    assert "--labels belongs" in one_error(done)
