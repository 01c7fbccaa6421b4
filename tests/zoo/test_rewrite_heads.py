"""The ends of people's classifiers, as a softmax or as independent scores."""

import keras
import numpy as np
import pytest

from keras_resnet import rewrite
from keras_resnet.runner.errors import UserError
from tests.helpers.classifiers import (
    assert_equal,
    kinds,
    network,
    normalization,
    pixels,
    scores,
)

layers, ops = keras.layers, keras.ops


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def softmax(x):
    x = np.exp(np.float64(x))
    return x / x.sum(axis=1, keepdims=True)


def two_classes(score):
    return np.concatenate([1 - np.float64(score), score], axis=1)


def unchanged(x):
    return x


def pooled(*ends):
    def end(x):
        x = layers.GlobalAveragePooling2D()(x)
        for each in ends:
            x = each(x)
        return x

    return end


def dense(units, activation=None, **arguments):
    """A layer of enough weight that scores differ."""
    normal = keras.initializers.RandomNormal(stddev=0.5, seed=1)
    return layers.Dense(
        units, activation, kernel_initializer=normal, name="last", **arguments
    )


def convolution(filters, activation=None, size=1):
    return layers.Conv2D(filters, size, activation=activation, name="last")


def coral(x):
    """The end in Coral's tutorial "Retrain a classification model"."""
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.2)(x))
    return layers.Dense(5, "softmax")(x)


SOFTMAX_ENDS = [
    pooled(dense(3, "softmax")),
    pooled(dense(3), layers.Softmax()),
    pooled(dense(3), layers.Activation("softmax")),
    pooled(dense(3), ops.softmax),
    pooled(dense(3), layers.BatchNormalization(), layers.Activation("softmax")),
    lambda x: layers.Softmax()(layers.GlobalAveragePooling2D()(convolution(3)(x))),
    lambda x: layers.Reshape((3,))(convolution(3, "softmax", 8)(x)),
    lambda x: layers.Softmax()(layers.Flatten()(convolution(3, size=8)(x))),
    lambda x: ops.squeeze(ops.softmax(convolution(3, size=8)(x)), axis=(1, 2)),
    lambda x: convolution(3, "softmax", 8)(x),
    coral,
]
LOGITS_ENDS = [
    pooled(dense(3)),
    pooled(dense(3, "linear"), layers.Dropout(0.1)),
    pooled(dense(3), layers.BatchNormalization()),
    pooled(dense(3), lambda x: x / 2),
    pooled(lambda x: layers.Add()([dense(3)(x), layers.Dense(3)(x)])),
    lambda x: layers.GlobalAveragePooling2D()(convolution(3)(x)),
    lambda x: layers.Flatten()(layers.AveragePooling2D(8)(convolution(3)(x))),
    lambda x: convolution(3, size=8)(x),
    lambda x: layers.Reshape((3,))(convolution(3, size=8)(x)),
]
ONE_LOGIT_ENDS = [
    pooled(dense(1)),
    pooled(dense(1, use_bias=False)),
    pooled(dense(1), lambda x: 3 * x - 1),
    pooled(dense(1), layers.BatchNormalization()),
    lambda x: layers.GlobalAveragePooling2D()(convolution(1)(x)),
]
ONE_SIGMOID_ENDS = [
    pooled(dense(1, "sigmoid")),
    pooled(dense(1), layers.Activation("sigmoid")),
    pooled(dense(1), ops.sigmoid, layers.Reshape((1,))),
    lambda x: layers.Flatten()(convolution(1, "sigmoid", 8)(x)),
    lambda x: ops.sigmoid(layers.GlobalAveragePooling2D()(convolution(1)(x))),
]
SIGMOIDS_ENDS = [
    pooled(dense(3, "sigmoid")),
    pooled(dense(3), layers.Activation("sigmoid")),
    pooled(dense(3), ops.sigmoid),
]


@pytest.mark.parametrize(
    "end, expected, found, asked",
    [(end, unchanged, "softmax", None) for end in SOFTMAX_ENDS]
    + [(end, softmax, "softmax", None) for end in LOGITS_ENDS]
    + [(end, sigmoid, "independent", "independent") for end in LOGITS_ENDS[:3]]
    + [
        (end, lambda x: two_classes(sigmoid(x)), "softmax", None)
        for end in ONE_LOGIT_ENDS
    ]
    + [(end, two_classes, "softmax", None) for end in ONE_SIGMOID_ENDS]
    + [(end, unchanged, "independent", None) for end in SIGMOIDS_ENDS]
    + [
        (ONE_SIGMOID_ENDS[0], unchanged, "independent", "independent"),
        (ONE_LOGIT_ENDS[0], sigmoid, "independent", "independent"),
        (SOFTMAX_ENDS[0], unchanged, "softmax", "softmax"),
        (LOGITS_ENDS[0], softmax, "softmax", "softmax"),
    ],
)
def test_the_end_gives_scores(end, expected, found, asked):
    model = network(end=end)
    before = normalization("raw", model)
    rewritten = rewrite.for_device(model, before, asked)
    outputs = scores(model, before, pixels())
    outputs = outputs.reshape(len(outputs), -1)
    assert_equal(scores(rewritten.model, before, pixels()), expected(outputs))
    assert rewritten.scores == found
    assert all(isinstance(each, keras.Layer) for each in rewritten.model.operations)
    assert ("The model returns" in " ".join(rewritten.notes)) == (
        expected is not unchanged
    )


def test_one_logit_becomes_exactly_its_weights_and_zero():
    model = network(end=pooled(dense(1, "sigmoid")))
    rewritten = rewrite.for_device(model, normalization("raw", model))
    kernel, bias = model.get_layer("last").get_weights()
    two = rewritten.model.get_layer("last")
    np.testing.assert_array_equal(
        two.get_weights()[0], np.append(0 * kernel, kernel, 1)
    )
    np.testing.assert_array_equal(two.get_weights()[1], np.append(0 * bias, bias))
    assert kinds(rewritten.model) == kinds(model)
    assert "one sigmoid" in rewritten.notes[0]


def test_layers_at_the_end_keep_their_names():
    model = network(end=pooled(dense(3), layers.Activation("softmax", name="shares")))
    rewritten = rewrite.for_device(model, normalization("raw", model))
    assert rewritten.model is model
    model = network(end=pooled(dense(3)))
    rewritten = rewrite.for_device(model, normalization("raw", model))
    names = [[layer.name for layer in each.layers] for each in (model, rewritten.model)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "end, asked, message",
    [
        (unchanged, None, r"one score for each class.*\(None, 8, 8, 12\).*Dense"),
        (pooled(dense(1, "softmax")), None, "'last', is always 1. Use a sigmoid"),
        (pooled(dense(3, "relu")), None, r"'last' \(relu\) at its end"),
        (pooled(dense(3), layers.PReLU(name="odd")), None, r"'odd' \(PReLU of linear"),
        (
            lambda x: layers.GlobalAveragePooling2D(name="pool")(
                convolution(3, "softmax")(x)
            ),
            None,
            r"'pool' \(GlobalAveragePooling2D of softmax\)",
        ),
        (
            pooled(lambda x: layers.Average(name="mean")([dense(3, "softmax")(x)] * 2)),
            None,
            r"'mean' \(Average of softmax\)",
        ),
        (pooled(dense(3, "softmax"), lambda x: x * 100), None, r"Rescaling of softmax"),
        (pooled(dense(3, "sigmoid")), "softmax", "sigmoid at its end.*'independent'"),
        (pooled(dense(3, "softmax")), "independent", "softmax at its end.*'softmax'"),
        (pooled(dense(3)), "multi", "scores must be softmax or independent.*'multi'"),
    ],
)
def test_an_end_that_gives_no_scores_is_refused(end, asked, message):
    model = network(end=end)
    with pytest.raises(UserError, match=message) as error:
        rewrite.for_device(model, normalization("raw", model), asked)
    assert "\n" not in str(error.value)
