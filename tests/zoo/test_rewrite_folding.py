"""The folding of a normalization into the first convolution."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import rewrite
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.rewrite import fold_normalization
from tests.helpers.classifiers import (
    assert_equal,
    kinds,
    network,
    normalization,
    pixels,
    scores,
    with_random_statistics,
)

layers = keras.layers


@pytest.fixture(scope="module")
def model():
    return with_random_statistics(
        keras_resnet.ResNet8(
            weights=None, input_shape=(32, 32, 3), classifier_activation=None
        )
    )


def test_uniform_normalization_leaves_the_model_alone(model):
    for mode in ("zoo", "raw", "unit"):
        preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
        assert fold_normalization(model, preprocessing) == (model, preprocessing, [])


def test_scales_and_colour_order_are_folded_exactly(model):
    """Without a mean nothing is left over: the borders are exact too."""
    preprocessing = Preprocessing((32, 32), (0, 0, 0), (50.0, 60.0, 70.0), "bgr")
    folded, uniform, notes = fold_normalization(model, preprocessing)
    assert uniform.uniform and notes == []
    expected = scores(model, preprocessing, pixels())
    assert_equal(scores(folded, uniform, pixels()), expected)
    assert kinds(folded) == kinds(model)


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_means_are_folded_exactly_inside_the_border(model, mode):
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
    folded, uniform, _ = fold_normalization(model, preprocessing)
    assert uniform.uniform

    def after_stem(model, preprocessing):
        stem = keras.Model(model.inputs[0], model.get_layer("conv1_bn").output)
        return scores(stem, preprocessing, pixels())

    expected, actual = after_stem(model, preprocessing), after_stem(folded, uniform)
    inside = np.s_[:, 1:-1, 1:-1]
    assert_equal(actual[inside], expected[inside])
    # What remains is the border of one pixel that the 3x3 kernel pads.
    assert np.abs(actual - expected).max() > 1e-3 * np.abs(expected).max()


def test_folding_does_not_change_the_given_model(model):
    before = model.get_weights()
    fold_normalization(model, Preprocessing((32, 32), **NORMALIZATIONS["caffe"]))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def first_layers(use_bias=True, activation=None, readers=1, normalized=False):
    """A model whose first convolution is read in different ways; no border."""
    if not readers:
        return keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(4, 3)])
    inputs = keras.Input((32, 32, 3))
    first = layers.Conv2D(
        4, 3, use_bias=use_bias, activation=activation, bias_initializer="normal"
    )(inputs)
    outputs = layers.BatchNormalization()(first) if normalized else first
    if readers > 1:
        outputs = layers.Concatenate()([outputs, keras.ops.tanh(first)])
    outputs = [outputs, first] if readers > 2 else outputs
    return with_random_statistics(keras.Model(inputs, outputs))


@pytest.mark.parametrize(
    "first",
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
def test_folding_is_exact_whatever_reads_the_convolution(first):
    model = first_layers(**first)
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS["torch"])
    folded, uniform, notes = fold_normalization(model, preprocessing)
    assert uniform.uniform and folded.name == model.name and notes == []
    pair = (
        m(p.normalize(pixels())) for m, p in ((model, preprocessing), (folded, uniform))
    )
    for expected, actual in zip(*map(keras.tree.flatten, pair), strict=True):
        expected, actual = map(keras.ops.convert_to_numpy, (expected, actual))
        assert_equal(actual, expected)


def residual(x):
    return layers.Add()([layers.Conv2D(3, 3, padding="same")(x), x])


def twice(x):
    conv = layers.Conv2D(3, 3, padding="same")
    return conv(conv(x))


@pytest.mark.parametrize(
    "first",
    [
        layers.Flatten(),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.SeparableConv2D(3, 3, padding="same"),
        layers.Conv2D(6, 3, groups=3, padding="same"),
        layers.AveragePooling2D(2),
        residual,
        twice,
    ],
)
@pytest.mark.parametrize("mode", ["torch", "caffe"])
def test_a_first_layer_that_cannot_take_it_gets_a_convolution_in_front(first, mode):
    """The borders are exact too: the padding stays behind the normalization."""
    inputs = keras.Input((32, 32, 3))
    outputs = layers.Dense(3)(layers.Flatten()(first(inputs)))
    model = with_random_statistics(keras.Model(inputs, outputs))
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
    folded, uniform, notes = fold_normalization(model, preprocessing)
    assert uniform.uniform and "1x1 convolution" in notes[0]
    in_front = {"torch": "DepthwiseConv2D", "caffe": "Conv2D"}[mode]
    assert kinds(folded) == [in_front, *kinds(model)]
    expected = scores(model, preprocessing, pixels())
    assert_equal(scores(folded, uniform, pixels()), expected)


def test_a_grey_model_folds_into_its_own_convolution():
    model = network(layers.Rescaling(1 / 127.5, -1), shape=(32, 32, 1))
    rewritten = rewrite.for_device(model, normalization("raw", model))
    assert not rewritten.preprocessing.uniform
    folded, uniform, notes = fold_normalization(
        rewritten.model, rewritten.preprocessing
    )
    assert uniform.uniform and notes == []
    expected = scores(rewritten.model, rewritten.preprocessing, pixels())
    assert_equal(scores(folded, uniform, pixels()), expected)
