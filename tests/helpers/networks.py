"""Networks for tests: small ones, one of many layers, and random weights."""

import keras
import numpy as np


def randomize(model, seed=0):
    """Gives every variable a value that matters."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape = variable.shape
        if len(shape) > 1:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        else:
            value = rng.uniform(0.5, 1.5, shape)
        variable.assign(value)
    return model


def every_layer():
    """The layers of the common CNNs, one of them called twice."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3), name="image")
    shared = layers.Conv2D(8, 3, padding="same", activation="relu6")
    x = shared(layers.Conv2D(8, 3, strides=2, padding="same")(inputs))
    x = layers.Add()([x, shared(x)])
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.ReLU(max_value=6.0, negative_slope=0.1)(x)
    x = layers.LeakyReLU(negative_slope=0.05)(x)
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)])
    x = layers.Dropout(0.3)(layers.Cropping2D(1)(layers.ZeroPadding2D(2)(x)))
    x = layers.Dense(7, activation="softmax")(layers.Flatten()(x))
    return keras.Model(inputs, x, name="every_layer")


def small_classifier(middle=None, classes=3):
    """A classifier of 32x32 images with something in its middle."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(inputs)
    x = middle(x) if middle else x
    x = keras.layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    x = keras.layers.Dense(classes, activation="softmax")(x)
    return randomize(keras.Model(inputs, x, name="theirs"))


def small_model():
    """Without batch normalization, whose statistics are each replica's own."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    scores = keras.layers.Dense(10, activation="softmax", name="dense")(x)
    return keras.Model(inputs, scores)
