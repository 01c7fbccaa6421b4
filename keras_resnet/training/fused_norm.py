"""Batch normalization in one kernel, for training on TensorFlow.

Keras 3 normalizes with some ten operations where tf_keras used one: that halves
the speed of training a ResNet on a CPU. The model that is saved stays plain Keras.
"""

import keras
import tensorflow as tf


def with_fused_norm(model, any_size=False):
    """Builds the same model with fused batch normalization.

    Call it in the scope of the strategy that will train the model. Outputs and
    variables are equal, and in equal order. With `any_size` it takes images of any
    height and width.
    """

    def clone(layer):
        kind = type(layer)
        if kind is keras.layers.BatchNormalization and _can_be_fused(layer):
            kind = _FusedBatchNormalization
        return kind.from_config(layer.get_config())

    inputs = keras.Input((None, None, 3)) if any_size else None
    fused = keras.models.clone_model(model, inputs, clone_function=clone)
    fused.set_weights(model.get_weights())
    return fused


def _can_be_fused(layer):
    return (
        len(layer.input.shape) == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and not layer.synchronized
        and not getattr(layer, "renorm", False)  # newer versions of Keras
    )


class _FusedBatchNormalization(keras.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        inputs = tf.cast(inputs, self.compute_dtype)
        arguments = dict(
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            epsilon=self.epsilon,
        )
        if not (training and self.trainable):
            return tf.compat.v1.nn.fused_batch_norm(
                inputs,
                mean=tf.cast(self.moving_mean, tf.float32),
                variance=tf.cast(self.moving_variance, tf.float32),
                is_training=False,
                **arguments,
            )[0]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, is_training=True, **arguments
        )
        # The kernel divides by count - 1, Keras by count.
        count = tf.cast(tf.size(inputs) / tf.shape(inputs)[-1], tf.float32)
        variance *= (count - 1) / count
        pairs = (self.moving_mean, mean), (self.moving_variance, variance)
        for moving, batch in pairs:
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs
