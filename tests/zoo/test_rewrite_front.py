"""Arithmetic in front of a network, as preprocessing; and grey input."""

import keras
import numpy as np
import pytest

from keras_resnet import rewrite
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError
from tests.helpers.classifiers import (
    assert_equal,
    kinds,
    network,
    normalization,
    pixels,
    scores,
    with_random_statistics,
)

layers, ops = keras.layers, keras.ops
applications = keras.applications


def rewritten_equally(model, before):
    rewritten = rewrite.for_device(model, before)
    expected = scores(model, before, pixels(24, 32))
    actual = scores(rewritten.model, rewritten.preprocessing, pixels(24, 32))
    assert_equal(actual, expected)
    return rewritten


def adapted(x):
    layer = layers.Normalization(axis=-1)
    layer.adapt(np.float32(pixels(8, 8)) * [1, 0.5, 0.25])
    return layer(x)


def by_hand(x):
    return (x / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32(
        [0.229, 0.224, 0.225]
    )


def with_statistics(x):
    layer = layers.BatchNormalization()
    y = layer(x)
    layer.moving_mean.assign([120, 110, 100])
    layer.moving_variance.assign([3600, 2500, 1600])
    layer.beta.assign([0.1, 0.2, 0.3])
    return y


@pytest.mark.parametrize(
    "front, name",
    [
        (layers.Rescaling(1 / 127.5, -1), "tf"),
        (layers.Rescaling([1 / 127.5] * 3, [-1] * 3), "tf"),
        (applications.mobilenet_v2.preprocess_input, "tf"),
        (applications.resnet.preprocess_input, "caffe"),
        (applications.densenet.preprocess_input, "torch"),
        (by_hand, "torch"),
        (lambda x: 2 * (ops.cast(x, "float32") / 255) - 1, "tf"),
        (lambda x: -(1 - x / 127.5), "tf"),
    ],
)
def test_known_arithmetic_becomes_the_normalization_of_that_name(front, name):
    model = network(front, shape=(24, 32, 3))
    rewritten = rewritten_equally(model, normalization("raw", model))
    expected = NORMALIZATIONS[name]
    found = rewritten.preprocessing
    assert found.mean_rgb_255 == expected["mean_rgb_255"]
    assert found.std_rgb_255 == expected["std_rgb_255"]
    assert found.channel_order == expected.get("channel_order", "rgb")
    assert kinds(rewritten.model) == kinds(network())


@pytest.mark.parametrize(
    "front",
    [
        adapted,
        with_statistics,
        lambda x: layers.Normalization(axis=None, mean=3.0, variance=4.0)(x),
        lambda x: layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6], invert=True)(
            x
        ),
        lambda x: layers.Lambda(lambda y, z: y / z, arguments={"z": 255})(x) - 0.5,
        lambda x: ops.stack([x[..., 2], x[..., 1] - 7, x[..., 0] / 9], axis=-1),
        lambda x: layers.Concatenate()([x[..., 2:], x[..., 1:2], x[..., :1]]),
        lambda x: ops.concatenate(ops.split(x, 3, axis=-1)[::-1], axis=-1),
        lambda x: ops.flip(layers.RandomFlip()(x) / 3, axis=-1),
    ],
)
@pytest.mark.parametrize("name", ["torch", "caffe"])
def test_arithmetic_behind_any_normalization_moves_into_it(front, name):
    model = network(front, shape=(24, 32, 3))
    rewritten = rewritten_equally(model, normalization(name, model))
    assert kinds(rewritten.model) == kinds(network())
    assert "moved into the preprocessing" in rewritten.notes[-2]
    assert "behind the normalization that was given" in rewritten.notes[-1]


@pytest.mark.parametrize(
    "front, kind",
    [
        (lambda x: 1 - x / 255, "DepthwiseConv2D"),  # no standard deviation is below 0
        (lambda x: ops.stack([x[..., 1], x[..., 2], x[..., 0]], axis=-1), "Conv2D"),
        (lambda x: ops.image.rgb_to_grayscale(x / 255), "Conv2D"),
        (lambda x: ops.repeat(x[..., :1] / 255, 3, axis=-1), "Conv2D"),
    ],
)
def test_what_preprocessing_cannot_say_becomes_one_convolution(front, kind):
    model = network(front, shape=(24, 32, 3))
    before = normalization("torch", model)
    rewritten = rewritten_equally(model, before)
    assert rewritten.preprocessing == before
    assert kinds(rewritten.model) == [kind, *kinds(network())]
    assert rewritten.model.layers[1].kernel_size == (1, 1)


def test_arithmetic_behind_padding_stays_there():
    """The border is then what the arithmetic makes of zero."""
    model = network(
        lambda x: layers.Rescaling(1 / 255, 5)(layers.ZeroPadding2D(1)(x)),
        shape=(24, 32, 3),
    )
    before = normalization("raw", model)
    rewritten = rewritten_equally(model, before)
    assert rewritten.preprocessing == before
    assert kinds(rewritten.model)[:3] == ["ZeroPadding2D", "DepthwiseConv2D", "Conv2D"]


def test_arithmetic_in_front_of_padding_moves():
    model = network(
        lambda x: layers.ZeroPadding2D(1)(layers.Rescaling(1 / 255, 5)(x)),
        shape=(24, 32, 3),
    )
    rewritten = rewritten_equally(model, normalization("raw", model))
    assert kinds(rewritten.model)[:2] == ["ZeroPadding2D", "Conv2D"]


def test_only_what_all_readers_share_moves():
    def front(x):
        x = x / 255
        return layers.Concatenate()([x, layers.AveragePooling2D(1)(x * x - 1)])

    model = network(front, shape=(24, 32, 3))
    rewritten = rewritten_equally(model, normalization("raw", model))
    assert rewritten.preprocessing.std_rgb_255 == (255,) * 3
    assert "Multiply" in kinds(rewritten.model)


def test_a_mean_image_is_no_normalization():
    mean = np.float32(pixels(24, 32)[3])
    layer = layers.Normalization(axis=(1, 2, 3), mean=mean, variance=mean + 1)
    model = network(layer, shape=(24, 32, 3))
    before = normalization("raw", model)
    rewritten = rewritten_equally(model, before)
    assert rewritten.preprocessing == before
    assert kinds(rewritten.model)[0] == "Normalization"


def test_an_adapted_mean_image_is_copied():
    layer = layers.Normalization(axis=(1, 2, 3))
    layer.adapt(np.float32(pixels(24, 32)))
    model = network(layer, shape=(24, 32, 3))
    rewritten_equally(model, normalization("raw", model))


@pytest.mark.parametrize(
    "front, name",
    [
        (lambda x: x, "zoo"),
        (layers.Rescaling(1 / 255), "raw"),
        (layers.Rescaling(1 / 255), "tf"),
        (lambda x: layers.Concatenate()([x / 127.5 - 1] * 3), "raw"),
        (lambda x: 255 - x, "tf"),
    ],
)
def test_a_grey_model_takes_rgb(front, name):
    model = network(front, shape=(24, 32, 1))
    before = normalization(name, model)
    rewritten = rewrite.for_device(model, before)
    # As Pillow and TensorFlow make grey pictures: ITU-R 601.
    grey = np.float64(pixels(24, 32)) @ np.array([[0.299], [0.587], [0.114]])
    mean, std = before.mean_rgb_255[0], before.std_rgb_255[0]
    expected = model.predict(np.float32((grey - mean) / std), verbose=0)
    actual = scores(rewritten.model, rewritten.preprocessing, pixels(24, 32))
    assert_equal(actual, expected)
    assert rewritten.model.input_shape == (None, 24, 32, 3)
    assert kinds(rewritten.model)[:2] == ["Conv2D", "Conv2D"]
    assert any("ITU-R 601" in note for note in rewritten.notes)


def test_a_grey_model_keeps_a_normalization_that_quantizes_for_free():
    model = network(layers.Rescaling(1 / 64, -2), shape=(24, 32, 1))
    rewritten = rewrite.for_device(model, normalization("raw", model))
    assert rewritten.preprocessing.mean_rgb_255 == (128,) * 3
    assert rewritten.preprocessing.uniform
    assert not rewritten.model.layers[1].use_bias


def test_a_grey_model_has_no_normalization_of_colours():
    model = network(shape=(24, 32, 1))
    with pytest.raises(UserError, match="grey pictures.*Received: mean_rgb_255="):
        rewrite.for_device(model, normalization("torch", model))


def test_an_input_of_whole_numbers_takes_floats_then():
    image = keras.Input((24, 32, 3), dtype="uint8")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    model = with_random_statistics(keras.Model(image, layers.Dense(3, "softmax")(x)))
    rewritten = rewrite.for_device(model, normalization("raw", model))
    assert rewritten.model.inputs[0].dtype == "float32"
    expected = model.predict(pixels(24, 32), verbose=0)
    actual = scores(rewritten.model, rewritten.preprocessing, pixels(24, 32))
    assert_equal(actual, expected)


def test_the_geometry_of_the_preprocessing_is_kept():
    model = network(layers.Rescaling(1 / 255), shape=(24, 32, 3))
    before = Preprocessing(
        (24, 32), **NORMALIZATIONS["raw"], crop_fraction=0.875, interpolation="bicubic"
    )
    after = rewrite.for_device(model, before).preprocessing
    assert (after.input_size, after.crop_fraction, after.interpolation) == (
        (24, 32),
        0.875,
        "bicubic",
    )
