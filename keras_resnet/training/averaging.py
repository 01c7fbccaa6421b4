"""Exponential moving average (EMA) of a model's weights."""

import contextlib

import tensorflow as tf


class Averages:
    """Averages of all weights, batch statistics included (as torchvision's are)."""

    def __init__(self, model, steps):
        """Creates the averages. Call it in the scope of the strategy.

        Args:
            model: a `keras.Model`.
            steps: time constant: each step the average moves by 1 / steps of its
                distance; faster in the beginning, when it knows little.
        """
        self._model, self._steps = model, max(1.0, steps)  # of a very short run
        weights = [weight.value for weight in model.weights]
        self.variables = [tf.Variable(w, trainable=False) for w in weights]

    def update(self, step):
        """Moves the averages, for all replicas at once, after a step.

        Args:
            step: steps done, an integer tensor.
        """
        step = tf.cast(step, tf.float32)
        decay = tf.minimum(1 - 1 / self._steps, (1 + step) / (10 + step))
        for average, weight in zip(self.variables, self._model.weights, strict=True):
            value = tf.convert_to_tensor(weight.value)
            average.assign_add((1 - decay) * (value - average))

    def take(self):
        """Gives the model the averages."""
        self._model.set_weights([average.numpy() for average in self.variables])

    @contextlib.contextmanager
    def taken(self):
        """Gives the model the averages inside the block."""
        weights = self._model.get_weights()
        self.take()
        yield
        self._model.set_weights(weights)
