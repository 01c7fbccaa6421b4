"""Preprocessing as data, and its folding into the first convolution."""

import dataclasses
import pickle

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import runner
from keras_resnet.deploy import fold_normalization
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def with_random_statistics(model):
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.ndim == 1:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return with_random_statistics(
        keras_resnet.ResNet8(weights=None, classifier_activation=None)
    )


def predict(model, preprocessing, pixels):
    return model.predict(preprocessing.normalize(pixels), verbose=0)


def test_normalize_equals_keras_applications_and_keeps_its_argument(pixels):
    before = pixels.copy()
    for mode in ("caffe", "tf", "torch"):
        expected = keras.applications.imagenet_utils.preprocess_input(
            pixels.astype("float32"), mode=mode
        )
        actual = Preprocessing((32, 32), **NORMALIZATIONS[mode]).normalize(pixels)
        np.testing.assert_allclose(actual, expected, atol=1e-5 * abs(expected).max())
    np.testing.assert_array_equal(pixels, before)


def test_preprocessing_is_that_of_the_runner_as_a_value():
    how = Preprocessing([24, 32], [1, 2, 3], crop_fraction=0.5)
    assert isinstance(how, runner.Preprocessing)
    for same in (
        pickle.loads(pickle.dumps(how)),
        dataclasses.replace(how),
        Preprocessing(**dataclasses.asdict(how)),
    ):
        assert type(same) is Preprocessing
        assert same == how and hash(same) == hash(how)
    assert dataclasses.replace(how, channel_order="bgr") != how
    with pytest.raises(UserError, match="input_size"):
        dataclasses.replace(how, input_size=(0, 32))


def test_resize_size_follows_the_crop_fraction():
    # timm: floor(224 / 0.875), floor(224 / 0.95)
    assert Preprocessing((224, 224), crop_fraction=0.875).resize_size == 256
    assert Preprocessing((224, 224), crop_fraction=0.95).resize_size == 235


def test_uniform_normalization_leaves_the_model_alone(model):
    for mode in ("zoo", "raw", "unit"):
        preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
        assert fold_normalization(model, preprocessing) == (model, preprocessing)


def test_scales_and_colour_order_are_folded_exactly(model, pixels):
    """Without a mean nothing is left over: the borders are exact too."""
    preprocessing = Preprocessing((32, 32), (0, 0, 0), (50.0, 60.0, 70.0), "bgr")
    folded, uniform = fold_normalization(model, preprocessing)
    assert uniform.uniform
    expected = predict(model, preprocessing, pixels)
    actual = predict(folded, uniform, pixels)
    np.testing.assert_allclose(actual, expected, atol=2e-5 * abs(expected).max())


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_means_are_folded_exactly_inside_the_border(model, pixels, mode):
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
    folded, uniform = fold_normalization(model, preprocessing)
    assert uniform.uniform

    def after_stem(model, preprocessing):
        stem = keras.Model(model.inputs, model.get_layer("conv1_bn").output)
        return predict(stem, preprocessing, pixels)

    expected, actual = after_stem(model, preprocessing), after_stem(folded, uniform)
    inside = np.s_[:, 1:-1, 1:-1]
    np.testing.assert_allclose(
        actual[inside], expected[inside], atol=2e-5 * abs(expected).max()
    )
    # What remains is the border of one pixel that the 3x3 kernel pads.
    assert np.abs(actual - expected).max() > 1e-3 * abs(expected).max()


def test_folding_does_not_change_the_given_model(model, pixels):
    before = model.get_weights()
    fold_normalization(model, Preprocessing((32, 32), **NORMALIZATIONS["caffe"]))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def first_layers(use_bias=True, activation=None, readers=1, normalized=False):
    """A model whose first convolution is read in different ways; no border."""
    if not readers:
        return keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3)])
    inputs = keras.Input((32, 32, 3))
    first = keras.layers.Conv2D(
        4, 3, use_bias=use_bias, activation=activation, bias_initializer="normal"
    )(inputs)
    outputs = keras.layers.BatchNormalization()(first) if normalized else first
    if readers > 1:
        outputs = keras.layers.Concatenate()([outputs, keras.ops.tanh(first)])
    outputs = [outputs, first] if readers > 2 else outputs
    return with_random_statistics(keras.Model(inputs, outputs))


@pytest.mark.parametrize(
    "layers",
    [
        dict(),
        dict(readers=0),
        dict(use_bias=False),
        dict(use_bias=False, normalized=True),
        dict(use_bias=False, normalized=True, activation="relu"),
        dict(use_bias=False, normalized=True, readers=2),
        dict(use_bias=False, normalized=True, readers=3),
    ],
)
def test_folding_is_exact_whatever_reads_the_convolution(pixels, layers):
    model = first_layers(**layers)
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS["torch"])
    folded, uniform = fold_normalization(model, preprocessing)
    assert uniform.uniform and folded.name == model.name
    pair = predict(model, preprocessing, pixels), predict(folded, uniform, pixels)
    for expected, actual in zip(*map(keras.tree.flatten, pair), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5 * abs(expected).max())


def test_a_model_that_cannot_be_folded_is_named():
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    grouped = layers.Conv2D(6, 3, groups=3, name="grouped")
    for outputs, reason in (
        (layers.Flatten(name="flat")(inputs), r"goes to flat \(Flatten\)"),
        (grouped(inputs), r"of groups=1, .* goes to grouped \(Conv2D\)"),
        (layers.Add(name="sum")([conv(inputs), inputs]), r"to sum \(Add\), conv .*"),
        (conv(inputs) + keras.ops.abs(inputs), "to .*absolute .*"),
        (conv(conv(inputs)), r"called once. .* goes to conv \(Conv2D\)"),
    ):
        model = keras.Model(inputs, outputs, name="mine")
        preprocessing = Preprocessing((32, 32), **NORMALIZATIONS["torch"])
        with pytest.raises(UserError, match=f"{reason}$"):
            fold_normalization(model, preprocessing)
    # What else its layers are used for does not matter.
    fold_normalization(keras.Model(inputs, conv(inputs)), preprocessing)
