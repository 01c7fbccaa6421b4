"""Blocks are left out as often as they should, and only in training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet.training.distribute import strategies
from keras_resnet.training.fused_norm import with_fused_norm
from keras_resnet.training.stochastic_depth import with_stochastic_depth

EXAMPLES = 2000


def branches_alone(blocks, policy="float32"):
    """Each block adds 1 to an image that begins as 0; the sums are the outputs."""
    keras.config.set_dtype_policy(policy)
    try:
        inputs = x = keras.Input((1, 1, 1))
        sums = []
        for _ in range(blocks):
            one = keras.layers.ReLU(max_value=1.0)(keras.layers.Rescaling(0, 1)(x))
            x = keras.layers.Add()([x, one])
            sums.append(x)
    finally:
        keras.config.set_dtype_policy("float32")
    return keras.Model(inputs, sums)


def added(model):
    """Returns what each block added to each example: float32 (blocks, examples)."""
    sums = model(tf.zeros((EXAMPLES, 1, 1, 1)), training=True)
    sums = np.stack([np.ravel(tf.cast(part, tf.float32)) for part in sums])
    return np.diff(sums, axis=0, prepend=0)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_probability_grows_linearly_and_the_mean_stays(policy):
    blocks, rate = 5, 0.4
    keras.utils.set_random_seed(0)
    model = with_stochastic_depth(branches_alone(blocks, policy), rate)
    skipped = added(model) == 0
    for block in range(blocks):
        expected = rate * block / (blocks - 1)
        error = 4 * np.sqrt(expected * (1 - expected) / EXAMPLES)
        assert abs(skipped[block].mean() - expected) <= error
    assert abs(np.corrcoef(skipped[1:])[~np.eye(4, dtype=bool)]).max() < 0.1
    if policy == "float32":
        for block, values in enumerate(added(model)):
            kept = values[values != 0]
            np.testing.assert_allclose(kept, 1 / (1 - rate * block / 4), rtol=1e-5)


def test_low_rates_are_kept_in_bfloat16():
    """A block of ResNet-50 with the rate of strikes_back_a1: 1 of 300."""
    keras.utils.set_random_seed(0)
    model = with_stochastic_depth(branches_alone(16, "mixed_bfloat16"), 0.05)
    model = keras.Model(model.input, model.outputs[:2])
    skipped = sum((added(model)[1] == 0).sum() for _ in range(10))
    expected = 0.05 / 15 * 10 * EXAMPLES
    assert abs(skipped - expected) < 4 * np.sqrt(expected)


def test_replicas_and_steps_skip_different_blocks():
    strategy = strategies.create("mirrored", cpu_replicas=2)
    with strategy.scope():
        model = with_stochastic_depth(branches_alone(2), 0.5)

    @tf.function
    def step():
        images = tf.zeros((64, 1, 1, 1))
        return strategy.run(lambda: model(images, training=True)[1])

    drawn = [
        np.ravel(part)
        for _ in range(2)
        for part in strategy.experimental_local_results(step())
    ]
    assert len({part.tobytes() for part in drawn}) == 4


def test_inference_and_weights_are_those_of_the_network():
    plain = with_fused_norm(keras_resnet.ResNet14())
    model = with_stochastic_depth(plain, 0.3)
    for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    images = np.random.default_rng(0).normal(0, 60, (4, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(plain(images), model(images))
    assert np.abs(plain(images, training=True) - model(images, training=True)).max() > 0
    assert len(model.variables) == len(plain.variables) + 6  # a state a block


def test_the_same_state_draws_the_same_numbers():
    model = with_stochastic_depth(branches_alone(3), 0.5)
    before = [variable.numpy() for variable in model.variables]
    first, second = added(model), added(model)
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(added(model), first)
    assert (first != second).any()


def test_a_plain_network_stays_as_it_is():
    plain = keras_resnet.plain20()
    model = with_stochastic_depth(plain, 0.5)
    assert len(model.variables) == len(plain.variables)
