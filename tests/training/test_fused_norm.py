"""The fused batch normalization is Keras' own, faster."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet.training.distribute import strategies
from keras_resnet.training.fused_norm import with_fused_norm


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    images = rng.normal(1, 2, (16, 32, 32, 3)).astype("float32")
    return images, np.eye(10, dtype="float32")[rng.integers(0, 10, 16)]


def small_net(policy="float32"):
    """With momentum and epsilon that are not the defaults, and fewer layers."""
    layers = keras.layers
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((32, 32, 3))
        x = layers.Conv2D(8, 3, strides=2, use_bias=False)(inputs)
        x = layers.BatchNormalization(momentum=0.7, epsilon=1e-2, name="bn1")(x)
        x = layers.Conv2D(8, 3, activation="relu")(x)
        x = layers.BatchNormalization(momentum=0.9, name="bn2")(x)
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    finally:
        keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(0)
    for variable in model.variables:
        low = 0.5 if variable.name in ("gamma", "moving_variance") else -0.5
        variable.assign(rng.uniform(low, 1, variable.shape))
    return model


def step(model, images, labels):
    """Returns outputs, gradients and the moving statistics after them."""
    with tf.GradientTape() as tape:
        scores = tf.cast(model(images, training=True), tf.float64)
        loss = -tf.reduce_sum(labels * tf.math.log(scores)) / len(labels)
    gradients = tape.gradient(loss, model.trainable_variables)
    values = [scores, *gradients, *model.non_trainable_variables]
    return [np.asarray(tf.cast(value, tf.float64)) for value in values]


def test_a_step_is_as_exact_as_that_of_keras(batch):
    exact = step(small_net("float64"), *batch)
    plain = step(small_net(), *batch)
    fused = step(with_fused_norm(small_net()), *batch)
    for truth, theirs, ours in zip(exact, plain, fused, strict=True):
        # Some gradients are sums that nearly cancel: no float32 is exact there.
        limit = 3 * np.abs(theirs - truth).max() + 1e-6 * np.abs(truth).max()
        assert np.abs(ours - truth).max() <= limit
    for index in (0, *range(-4, 0)):  # the scores and the moving statistics
        np.testing.assert_allclose(plain[index], fused[index], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "policy, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 0.05)]
)
def test_outputs_are_those_of_keras(batch, policy, tolerance):
    plain = small_net(policy)
    fused = with_fused_norm(plain)
    assert [v.path for v in fused.variables] == [v.path for v in plain.variables]
    for one, other in zip(plain.get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for training in (False, True):
        one, other = (model(batch[0], training=training) for model in (plain, fused))
        assert other.dtype == one.dtype
        np.testing.assert_allclose(
            tf.cast(one, tf.float32), tf.cast(other, tf.float32), atol=tolerance
        )


@pytest.mark.parametrize("replicas", [1, 2])
def test_training_ends_with_the_weights_of_keras(batch, replicas):
    ends = []
    for change in (lambda model: model, with_fused_norm):
        strategy = strategies.create("mirrored", cpu_replicas=replicas)
        with strategy.scope():
            model = change(small_net())
            model.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
        start = model.get_weights()
        model.fit(*batch, batch_size=8, epochs=10, shuffle=False, verbose=0)
        ends.append(model.get_weights())
    moved = []
    for one, other, old in zip(*ends, start, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        moved.append(np.abs(one - old).max())
    assert np.median(moved) > 0.01


def test_a_frozen_layer_stays_as_it_is(batch):
    model = with_fused_norm(small_net())
    model.get_layer("bn1").trainable = False
    before = model.get_layer("bn1").get_weights()
    model(batch[0], training=True)
    for one, other in zip(before, model.get_layer("bn1").get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_norm_of_the_zoo_is_fused_and_others_are_left_alone():
    model = with_fused_norm(keras_resnet.ResNet8(weights=None))
    kinds = {type(layer).__name__ for layer in model.layers if "bn" in layer.name}
    assert kinds == {"_FusedBatchNormalization"}
    inputs = keras.Input((4, 4, 8))
    normalize = keras.layers.BatchNormalization
    for layer in (
        normalize(axis=1),
        normalize(scale=False),
        normalize(center=False),
        normalize(synchronized=True),
    ):
        left = with_fused_norm(keras.Model(inputs, layer(inputs)))
        assert type(left.layers[-1]) is normalize
