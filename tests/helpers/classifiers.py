"""Small classifiers as people have them, and their scores through a preprocessing."""

import keras
import numpy as np

from keras_resnet import rewrite
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing

layers = keras.layers


def with_random_statistics(model, seed=1):
    """Gives a model the biases and statistics of one that has learned."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.ndim == 1 and "float" in str(variable.dtype):
            if variable.name.endswith(("gamma", "variance")):
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
            else:
                variable.assign(rng.normal(0, 0.2, variable.shape))
    return model


def pixels(height=32, width=32, number=6):
    """Returns uint8 images: noise, black, white and a ramp."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (number, height, width, 3), np.uint8)
    images[0], images[1] = 0, 255
    images[2] = np.linspace(0, 255, width)[:, None]
    return images


def normalization(name, model):
    """Returns a `Preprocessing` for a model's input."""
    return Preprocessing(rewrite.input_shape(model)[:2], **NORMALIZATIONS[name])


def scores(model, preprocessing, images):
    """Returns what a model that takes RGB answers."""
    answers = model(preprocessing.normalize(images), training=False)
    return keras.ops.convert_to_numpy(answers)


def assert_equal(actual, expected, tolerance=1e-5):
    """Compares relative to the largest; what hardly varies would show nothing."""
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def kinds(model):
    """Returns the classes of a model's operations, without that of its input."""
    return [type(operation).__name__ for operation in model.operations[1:]]


def body(x):
    """Returns 12 channels of a quarter of the size."""
    x = layers.Conv2D(12, 3, 4, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0)(x))


def network(front=lambda x: x, end=None, shape=(32, 32, 3)):
    """Returns a model of a front, `body` and an end, which is a softmax by default.

    Its batch normalization has the statistics of `pixels`.
    """
    keras.utils.set_random_seed(1)
    image = keras.Input(shape)
    x = body(front(image))
    if end is None:
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Dense(3, "softmax")(x)
    model = keras.Model(image, end(x) if end else x)
    with_random_statistics(model)
    model(np.float32(pixels(*shape[:2])[..., : shape[2]]), training=True)
    return model
