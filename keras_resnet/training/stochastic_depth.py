"""Stochastic depth: blocks are skipped at random in training."""

import keras
import tensorflow as tf


def with_stochastic_depth(model, rate):
    """Builds the same model with blocks that examples skip at random.

    Each example skips each block's residual branch by itself, with a probability that
    grows linearly from 0 for the first block to `rate` (less than 1) for the last. The
    other branches are scaled up, so that the mean stays and inference needs no change
    (Huang et al., arXiv 1603.09382; scaled as Wightman et al. do, arXiv 2110.00476). A
    plain network, which has no branches, stays as it is.

    Call it in the scope of the strategy that will train the model. Weights are equal,
    and in equal order. The `variables` hold the state of the random numbers too: with a
    checkpoint of them, training goes on with the same numbers.
    """
    sums = [layer.name for layer in model.layers if _is_sum(layer)]

    def clone(layer):
        kind, config = type(layer), layer.get_config()
        if _is_sum(layer):
            kind = _StochasticSum
            config["rate"] = rate * sums.index(layer.name) / max(1, len(sums) - 1)
        return kind.from_config(config)

    changed = keras.models.clone_model(model, clone_function=clone)
    changed.set_weights(model.get_weights())
    return changed


def _is_sum(layer):
    return type(layer) is keras.layers.Add


class _StochasticSum(keras.Layer):
    """Adds a shortcut and a branch that some examples go without."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self._rate = rate
        self._seeds = keras.random.SeedGenerator(name=f"{self.name}_seeds")

    def call(self, inputs, training=False):
        shortcut, branch = inputs
        if training and self._rate:
            # Replicas share the state, and must not share the numbers. Drawn in
            # float32: bfloat16 has only multiples of 1/128 there.
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            seed = tf.random.experimental.stateless_fold_in(self._seeds.next(), replica)
            drawn = tf.random.stateless_uniform((tf.shape(branch)[0], 1, 1, 1), seed)
            kept = tf.cast(drawn >= self._rate, tf.float32) / (1 - self._rate)
            branch *= tf.cast(kept, branch.dtype)
        return shortcut + branch
