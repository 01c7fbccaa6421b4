"""Keras 3 models in tf_keras, and quantization-aware."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import batching, sources
from keras_resnet.training.quantize import aware as quantization
from keras_resnet.training.quantize import counterparts
from keras_resnet.training.quantize import twin as twins
from tests.helpers.networks import every_layer, randomize

MODELS = {
    "resnet8": lambda: keras_resnet.ResNet8(weights=None),
    "resnet20-A": lambda: keras_resnet.ResNet20(shortcut="A"),
    "resnet50": lambda: keras_resnet.ResNet50(weights=None, input_shape=(64, 64, 3)),
    "applications-resnet50": lambda: keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classes=10
    ),
    "applications-mobilenet_v2": lambda: keras.applications.MobileNetV2(
        weights=None, input_shape=(64, 64, 3), classes=10
    ),
    "every-layer": every_layer,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_twin_gives_equal_scores(name):
    model = randomize(MODELS[name]())
    twin, _ = twins.twin(model)
    images = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:]))
    expected = model(images.astype("float32"), training=False).numpy()
    actual = twin(images.astype("float32"), training=False).numpy()
    assert expected.std() > 1e-4  # no constant output
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
    assert [v.shape for v in twin.trainable_variables] == [
        v.shape for v in model.trainable_variables
    ]


def refused(outputs, inputs):
    model = keras.Model(inputs, outputs, name="model")
    with pytest.raises(UserError) as caught:
        quantization.quantize(
            model, Preprocessing((32, 32)), np.zeros((2, 32, 32, 3), np.uint8)
        )
    return str(caught.value)


def test_what_cannot_be_quantized_is_named():
    inputs = keras.Input((32, 32, 3))
    layers = keras.layers
    nested = keras.Model(inputs, layers.ReLU()(inputs), name="nested")
    for name, outputs in (
        ("add", inputs + 1.0),
        ("mine", layers.Lambda(abs, name="mine")(inputs)),
        ("nested", nested(inputs)),
        ("soft", layers.Activation(layers.ReLU(6.0), name="soft")(inputs)),
        ("rows", layers.BatchNormalization(axis=1, name="rows")(inputs)),
    ):
        message = refused(outputs, inputs)
        assert f"layer '{name}" in message and "--quantize=int8" in message
    sequence = keras.Sequential([layers.ReLU()])
    with pytest.raises(UserError, match="functional"):
        twins.twin(sequence)


def test_layers_that_tf_keras_computes_otherwise_are_refused(monkeypatch):
    """Under the same names: the twin would be another network."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))

    def refusal(layer):
        with pytest.raises(UserError) as caught:
            twins.twin(keras.Model(inputs, layer(inputs)))
        return str(caught.value)

    tanh = layers.Conv2D(4, 3, activation="hard_tanh", name="hard")
    assert "layer 'hard' (Activation): tf_keras has no activ" in refusal(tanh)
    resize = layers.Resizing(16, 16, pad_to_aspect_ratio=True, name="resize")
    assert "tf_keras has no pad_to_aspect_ratio=True for it" in refusal(resize)
    # A comparison catches whatever else there is.
    monkeypatch.setattr(counterparts, "hard_silu", tf.nn.silu)
    silu = layers.Conv2D(4, 3, activation="hard_silu", name="silu")
    assert "layer 'silu' (Conv2D): tf_keras computes it otherwise, by 0" in refusal(
        silu
    )


def test_refusals_name_the_layer_and_what_helps(calibration):
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    for layer, kind in (
        (layers.Conv1D(4, 3, name="c"), "Conv1D"),
        (layers.Normalization(mean=1.0, variance=4.0, name="c"), "Normalization"),
    ):
        x = layers.Reshape((-1, 4))(layers.Conv2D(4, 3)(inputs))
        pooled = layers.GlobalAveragePooling1D()(layer(x))
        outputs = layers.Dense(2, activation="softmax")(pooled)
        message = refused(outputs, inputs)
        assert f"layer 'c' ({kind}): it has no 8-bit form there. Use" in message
        assert "--float_layers=c, or export with --quantize=int8" in message
        assert "tfmot" not in message
        model = keras.Model(inputs, outputs)
        quantization.quantize(model, Preprocessing((32, 32)), calibration, ["c"])


@pytest.fixture(scope="module")
def calibration():
    digits = sources.load("digits")
    return batching.calibration_images(digits, Preprocessing((32, 32)), 128)


@pytest.fixture(scope="module")
def aware(calibration):
    model = keras_resnet.ResNet8(weights=None)
    preprocessing = Preprocessing((32, 32))
    for _ in range(5):  # statistics that fit the images
        model(preprocessing.normalize(calibration), training=True)
    return model, quantization.quantize(model, preprocessing, calibration)


def test_a_calibrated_model_starts_close_to_the_float_one(aware, calibration):
    model, quantized = aware
    images = Preprocessing((32, 32)).normalize(calibration)
    expected, actual = model(images).numpy(), quantized(images, training=False).numpy()
    assert 0 < np.abs(actual - expected).max() < 0.05
    assert np.abs(actual - expected).mean() < 0.005


def test_the_input_range_is_that_of_the_pixels(aware):
    _, quantized = aware
    (layer,) = (x for x in quantized.layers if "QuantizeLayer" in type(x).__name__)
    minimum, maximum = layer.quantizer_vars["min_var"], layer.quantizer_vars["max_var"]
    assert (minimum.numpy(), maximum.numpy()) == (-2.0, (255 - 128) / 64)


def test_every_range_was_calibrated(aware):
    """None is left at the (-6, 6) that tensorflow-model-optimization starts with."""
    _, quantized = aware
    ranges = {v.name: v.numpy() for v in quantized.variables if "_max" in v.name}
    assert len(ranges) > 15
    for name, value in ranges.items():
        assert np.all(value != 6.0) and np.all(value > 0), name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("applications-resnet50", marks=pytest.mark.slow),
        "applications-mobilenet_v2",
    ],
)
def test_models_of_keras_applications_are_quantized(name, calibration):
    model = MODELS[name]()
    images = np.repeat(np.repeat(calibration[:16], 2, axis=1), 2, axis=2)
    preprocessing = Preprocessing((64, 64))
    for _ in range(3):
        model(preprocessing.normalize(images), training=True)
    quantized = quantization.quantize(model, preprocessing, images)
    expected = model(preprocessing.normalize(images)).numpy()
    actual = quantized(preprocessing.normalize(images), training=False).numpy()
    assert np.abs(actual - expected).mean() < 0.02
    assert [v.shape for v in quantized.trainable_variables] == [
        v.shape for v in model.trainable_variables
    ]


def test_layers_are_left_in_float_by_pattern(calibration):
    model = keras_resnet.ResNet8(weights=None)
    preprocessing = Preprocessing((32, 32))
    quantized = quantization.quantize(
        model, preprocessing, calibration[:16], ["conv2_block1_?_conv", "predictions"]
    )
    names = {layer.name for layer in quantized.layers}
    kept = {f"conv2_block1_{n}_{kind}" for n in "12" for kind in ("conv", "bn")}
    kept.add("predictions")
    assert kept <= names
    others = {layer.name for layer in model.layers[1:]} - kept
    assert {f"quant_{name}" for name in others} <= names
    with pytest.raises(UserError, match=r"like 'conv9_\*'. resnet8 has .*conv1_conv"):
        quantization.quantize(model, preprocessing, calibration[:16], ["conv9_*"])


def test_fine_tuned_weights_return_to_the_float_model(aware, calibration):
    model, quantized = aware
    tuned = keras.models.clone_model(model)
    shift = np.random.default_rng(0).normal(0, 0.01, len(quantized.variables))
    before = [variable.numpy() for variable in quantized.variables]
    try:
        for variable, by in zip(quantized.trainable_variables, shift, strict=False):
            variable.assign_add(np.full(variable.shape, by))
        assert quantization.copy_weights(quantized, tuned)
        found = [variable.numpy() for variable in quantized.trainable_variables]
        for ours, theirs in zip(tuned.trainable_variables, found, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs)
        images = Preprocessing((32, 32)).normalize(calibration[:16])
        expected = quantized(images, training=False).numpy()
        assert np.abs(tuned(images).numpy() - expected).mean() < 0.01
    finally:
        for variable, value in zip(quantized.variables, before, strict=True):
            variable.assign(value)


def test_weights_return_whatever_their_names(calibration):
    """tf_keras calls a depthwise kernel otherwise, and Dropout has a seed."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    randomize(model)
    quantized = quantization.quantize(model, Preprocessing((32, 32)), calibration[:4])
    expected = [value.copy() for value in model.get_weights()]
    model.set_weights([np.zeros_like(value) for value in expected])
    assert quantization.copy_weights(quantized, model)
    for value, old in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(value, old)


def test_what_is_frozen_keeps_its_values(aware, calibration):
    _, quantized = aware
    images = Preprocessing((32, 32)).normalize(calibration[::-1][:16])
    parts = {"batch_norm": "/moving_", "ranges": "activation_m|output_m"}

    def changed_by_training():
        before = [variable.numpy() for variable in quantized.variables]
        quantized(images, training=True)
        changed = set()
        for variable, value in zip(quantized.variables, before, strict=True):
            if np.any(variable.numpy() != value):
                changed |= {p for p in parts if re.search(parts[p], variable.name)}
            variable.assign(value)
        return changed

    for frozen in ([], ["batch_norm"], ["ranges"], ["batch_norm", "ranges"]):
        with quantization.frozen(quantized, frozen):
            assert changed_by_training() == set(parts) - set(frozen)
    assert changed_by_training() == set(parts)
