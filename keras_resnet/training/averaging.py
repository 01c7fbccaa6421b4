"""Exponential moving average (EMA) of a model's weights."""

import contextlib

import tensorflow as tf


class Averages:
    """Averages of all weights, batch statistics included (as torchvision's are)."""

    def __init__(self, model, steps):
        """Creates the averages; call it in the scope of the strategy.

        Each step moves an average by 1 / steps of its distance to the weight, and by
        more in the first steps.
        """
        self._model, self._steps = model, max(1.0, steps)  # less than 1 overshoots
        self.variables = [
            tf.Variable(weight.value, trainable=False, name=weight.path)
            for weight in model.weights
        ]

    def update(self, step):
        """Moves the averages; call it after each step with the number of steps made."""
        step = tf.cast(step, tf.float32)
        decay = tf.minimum(1 - 1 / self._steps, (1 + step) / (10 + step))
        for average, weight in zip(self.variables, self._model.weights, strict=True):
            value = tf.convert_to_tensor(weight.value)
            average.assign_add((1 - decay) * (value - average))

    def apply(self):
        """Replaces the weights of the model by their averages."""
        self._model.set_weights([average.numpy() for average in self.variables])

    @contextlib.contextmanager
    def applied(self):
        """Replaces the weights of the model by their averages inside the block."""
        weights = self._model.get_weights()
        self.apply()
        yield
        self._model.set_weights(weights)
