"""What a converted file holds, and that its scores are those of the Keras model."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.edge.convert import converter, tflite_file
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.rewrite import fold_normalization
from keras_resnet.runner.errors import UserError
from keras_resnet.training.quantize import aware as quantization
from tests.conftest import QUANTIZATIONS, SMALL
from tests.helpers import graphs
from tests.helpers.device import scores
from tests.helpers.networks import randomize, small_classifier


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_scores_are_those_of_the_keras_model(files, digits_run, held_out, quantize):
    images, labels = held_out
    model = keras.saving.load_model(digits_run / "model.keras")
    expected = model.predict(SMALL.normalize(images), verbose=0)
    actual = scores(files[quantize], images)
    difference = np.abs(actual - expected)
    # A score is a multiple of 1/256, at most 255/256. Float files are that exact,
    # but for the 11 bits of a float16 weight.
    exact = quantize in ("float16", "none")
    limits = {"none": 1.02 / 256, "float16": 1.5 / 256}
    assert difference.max() <= limits.get(quantize, 0.3)
    assert difference.mean() <= (0.5 / 256 if exact else 0.01)
    agreement = np.mean(actual.argmax(-1) == expected.argmax(-1))
    assert agreement >= (1.0 if exact else 0.98)


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_the_interface_is_raw_pixels_in_and_scores_out(files, quantize):
    image, result = tflite_file.interface(files[quantize].read_bytes())
    assert list(image.shape) == [1, 32, 32, 3]
    assert image.shapeSignature is None or list(image.shapeSignature) == [1, 32, 32, 3]
    assert list(result.shape) == [1, 10]
    assert (image.type, result.type) == (3, 3)  # UINT8
    assert (image.quantization.scale[0], image.quantization.zeroPoint[0]) == (
        1 / 64,
        128,
    )
    assert (result.quantization.scale[0], result.quantization.zeroPoint[0]) == (
        1 / 256,
        0,
    )


@pytest.mark.parametrize("quantize", ["qat", "int8"])
def test_int8_files_hold_the_minimum_of_operators_and_no_float(files, quantize):
    content = files[quantize].read_bytes()
    assert graphs.counts(content) == {
        "CONV_2D": 9,
        "ADD": 3,
        "QUANTIZE": 2,
        "PAD": 2,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }
    assert graphs.float_tensors(content) == []


def test_int8_resnet50_has_the_operators_of_the_design(held_out):
    small = Preprocessing((64, 64))
    model = randomize(keras_resnet.ResNet50(weights=None, input_shape=(64, 64, 3)))
    calibration = np.repeat(np.repeat(held_out[0][:2], 2, axis=1), 2, axis=2)
    content = converter.from_keras(model, small, "int8", calibration)
    assert graphs.counts(content) == {
        "CONV_2D": 53,
        "ADD": 16,
        "QUANTIZE": 2,
        "PAD": 2,
        "MAX_POOL_2D": 1,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }
    assert graphs.float_tensors(content) == []


def dense_layer(content):
    """Returns the weights and the operator code of the one FULLY_CONNECTED."""
    model = tflite_file.parse(content)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if code.builtinCode == 9:
            return graph.tensors[operator.inputs[1]], code
    raise AssertionError("no FULLY_CONNECTED")


@pytest.mark.parametrize("quantize", ["qat", "int8"])
def test_fully_connected_has_one_scale(files, quantize):
    """With one for each channel, TFLite 2.5 to 2.9 returns constant scores."""
    weights, _ = dense_layer(files[quantize].read_bytes())
    assert len(weights.quantization.scale) == 1


def test_fully_connected_with_dynamic_ranges_is_read_by_old_runtimes():
    """Version 12 is refused by tflite-runtime up to 2.14."""
    model = keras_resnet.ResNet8(classes=100)  # fewer weights are left in float
    content = converter.from_keras(model, SMALL, "dynamic")
    weights, code = dense_layer(content)
    assert len(weights.quantization.scale) == 1 and code.version < 12


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf", "unit"])
def test_other_normalizations_are_folded_into_the_file(mode, held_out, tmp_path):
    """Float, so that what differs is the folding alone: the border of the image."""
    images = held_out[0][:32]
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
    model = keras_resnet.ResNet8(weights=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(8):  # statistics that fit the images
        model(preprocessing.normalize(images), training=True)
    expected = model.predict(preprocessing.normalize(images), verbose=0)
    model, uniform, _ = fold_normalization(model, preprocessing)
    content = converter.from_keras(model, uniform, "none")
    assert sum(graphs.counts(content).values()) == 19  # no operator more
    image, _ = tflite_file.interface(content)
    assert image.quantization.zeroPoint[0] == uniform.mean_rgb_255[0]
    (tmp_path / "model.tflite").write_bytes(content)
    actual = scores(tmp_path / "model.tflite", images)
    assert np.abs(actual - expected).max() <= (0.01 if mode in ("tf", "unit") else 0.05)


def test_layers_that_stay_in_float(digits_run, held_out, tmp_path):
    """At both ends of the network and inside it."""
    images = held_out[0][:64]
    model = keras.saving.load_model(digits_run / "model.keras")
    kept = ["conv1_conv", "conv3_block1_*", "predictions"]
    aware = quantization.quantize(model, SMALL, held_out[0][64:192], kept)
    quantization.save(aware, tmp_path / "saved_model")
    content = converter.from_saved_model(tmp_path / "saved_model", SMALL)
    kinds = [
        (operator.name, operator.outputs[0].dtype)
        for operator in tflite_graph.read(content).operators
    ]
    assert kinds.count(("CONV_2D", "FLOAT32")) == 4
    assert kinds.count(("CONV_2D", "INT8")) == 5
    assert kinds.count(("FULLY_CONNECTED", "FLOAT32")) == 1
    (tmp_path / "model.tflite").write_bytes(content)
    actual = scores(tmp_path / "model.tflite", images)
    expected = aware(SMALL.normalize(images), training=False).numpy()
    assert np.abs(actual - expected).max() < 0.1
    assert np.abs(actual - expected).mean() < 0.005


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_what_tensorflow_lite_lacks_is_named(quantization):
    def recurrent(x):
        return keras.layers.LSTM(4, name="memory")(keras.layers.Reshape((45, 20))(x))

    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    for middle, reason in (
        (keras.ops.erf, "TensorFlow Lite has no operator for Erf"),
        (lambda x: keras.ops.fft((x, x))[0], "no operator for Complex, FFT"),
        (recurrent, "cannot hold a loop. Received: '.*memory.*unroll=True"),
    ):
        model = small_classifier(middle)
        with pytest.raises(UserError, match=reason):
            converter.from_keras(model, SMALL, quantization, pixels)
