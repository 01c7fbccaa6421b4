"""Preprocessing as data, and its folding into the first convolution."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.deploy import fold_normalization
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing


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


def test_resize_size_follows_the_crop_fraction():
    # timm: floor(224 / 0.875), floor(224 / 0.95)
    assert Preprocessing((224, 224), crop_fraction=0.875).resize_size == 256
    assert Preprocessing((224, 224), crop_fraction=0.95).resize_size == 235


def test_uniform_normalization_leaves_the_model_alone(model):
    for mode in ("zoo", "raw"):
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


def test_convolution_with_a_bias_is_folded(pixels):
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Conv2D(4, 3, bias_initializer="normal")(inputs)
    model = keras.Model(inputs, outputs)
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS["torch"])
    folded, uniform = fold_normalization(model, preprocessing)
    expected = predict(model, preprocessing, pixels)
    actual = predict(folded, uniform, pixels)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * abs(expected).max())


def test_a_model_that_cannot_be_folded_is_named():
    inputs = keras.Input((32, 32, 3))
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS["torch"])
    flat = keras.Model(inputs, keras.layers.Flatten()(inputs), name="flat")
    with pytest.raises(ValueError, match="Received: model='flat'.*Flatten"):
        fold_normalization(flat, preprocessing)
    bare = keras.layers.Conv2D(4, 3, use_bias=False, name="bare")(inputs)
    with pytest.raises(ValueError, match="'bare'.*no bias"):
        fold_normalization(keras.Model(inputs, bare), preprocessing)
