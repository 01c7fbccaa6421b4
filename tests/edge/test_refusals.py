"""Models with a part that has no integer form, and layers of every kind."""

import keras
import numpy as np
import pytest

from keras_resnet import edge
from keras_resnet.edge.convert import converter
from keras_resnet.edge.inspect import layer_error
from keras_resnet.runner.errors import UserError
from tests.conftest import SMALL
from tests.helpers.networks import every_layer, randomize, small_classifier

layers = keras.layers
SETTINGS = dict(dataset="digits", normalization="zoo", max_drop=100)
SETTINGS |= dict(calibration_examples=8, report_examples=8)


def group_normalization(x):
    return layers.ReLU()(layers.GroupNormalization(2, name="groups")(x))


@pytest.fixture(scope="module")
def grouped():
    return small_classifier(group_normalization)


@pytest.mark.parametrize(
    "quantize, target", [("int8", "litert"), ("int16x8", "tflite_runtime")]
)
def test_a_part_without_an_integer_form_stays_in_float_and_is_named(
    quantize, target, grouped, tmp_path
):
    output = tmp_path / "x.tflite"
    report = edge.export(grouped, output, quantize=quantize, target=target, **SETTINGS)
    assert report["float_operators"] == [
        {"name": "NEG", "count": 1, "layers": ["groups"]},
        {"name": "SQUARE", "count": 1, "layers": ["groups"]},
    ]
    text = "NEG 1, SQUARE 1 of groups"
    assert f"float part     {text}" in str(report)
    assert text in report.paths["html"].read_text()
    assert report["compared"]["max_difference"] < 0.1
    assert len(report["layers"]) >= 3


@pytest.mark.parametrize("target", ["edgetpu", "ethos-u55-128"])
def test_targets_of_integers_refuse_it_with_the_reason_and_the_way_on(
    target, grouped, tmp_path
):
    with pytest.raises(UserError) as caught:
        edge.export(
            grouped, tmp_path / "x.tflite", quantize="int8", target=target, **SETTINGS
        )
    for part in (
        f"--target={target} cannot run --quantize=int8",
        "floating point in NEG 1, SQUARE 1 of groups,",
        "BatchNormalization",
        "or use --target=litert",
    ):
        assert part in str(caught.value)
    assert "DEQUANTIZE" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantize", ["dynamic", "float16", "none"])
def test_targets_of_integers_ask_for_int8(quantize, grouped, tmp_path):
    with pytest.raises(UserError) as caught:
        edge.export(
            grouped,
            tmp_path / "x.tflite",
            quantize=quantize,
            target="edgetpu",
            **SETTINGS,
        )
    assert str(caught.value) == (
        f"--target=edgetpu cannot run --quantize={quantize} of this model: floating "
        "point in all operators, and the target computes in integers only. Use "
        "--quantize=int8, or use --target=litert"
    )


def attention(x):
    x = layers.Reshape((225, 4))(x)
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(x, x))
    return layers.Reshape((15, 15, 4))(x)


def convolution_1d(x):
    x = layers.Conv1D(6, 3)(layers.Reshape((15, 60))(x))
    return layers.Reshape((13, 6, 1))(x)


def recurrent(x):
    x = layers.Reshape((5, 20))(layers.AveragePooling2D(3)(x))
    return layers.LSTM(6, unroll=True)(x)


def several_outputs(x):
    return layers.Add()(keras.ops.split(layers.Permute((2, 1, 3))(x), 2, axis=-1))


def dense_on_pixels(x):
    return layers.UpSampling2D(2)(layers.Dense(4, activation="gelu")(x))


@pytest.mark.parametrize(
    "middle",
    [
        group_normalization,
        attention,
        convolution_1d,
        recurrent,
        several_outputs,
        dense_on_pixels,
    ],
)
def test_the_error_of_layers_of_every_kind_is_measured(middle):
    model = small_classifier(middle)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    content = converter.from_keras(model, SMALL, "none")
    errors = layer_error.measure(model, SMALL, content, list(images))
    names = [error["layer"] for error in errors]
    assert len(names) == len(set(names)) >= 2
    # Of a float file no layer may seem wrong: it would be another tensor.
    assert min(error["snr_db"] for error in errors) > 90
    own = [error["own_snr_db"] for error in errors if error["own_snr_db"] is not None]
    assert own and min(own) > 90


def test_an_int16_file_of_many_layers_keeps_a_part_in_float():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    content = converter.from_keras(randomize(every_layer()), SMALL, "int16x8", images)
    assert len(content) > 10_000


def test_a_file_that_the_runtime_cannot_compute_is_one_line(tmp_path):
    """LiteRT has no SQUARED_DIFFERENCE of int16, which the converter writes."""
    model = small_classifier(layers.LayerNormalization())
    with pytest.raises(UserError, match="the exported file does not run: .*Try anoth"):
        edge.export(model, tmp_path / "x.tflite", quantize="int16x8", **SETTINGS)
    assert not list(tmp_path.iterdir())
