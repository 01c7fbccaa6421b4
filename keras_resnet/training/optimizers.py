"""The recipes' optimizers, with a learning rate that is read from a table."""

import keras
import tensorflow as tf
from keras import ops


def create(api, model, recipe, rates):
    """Returns the recipe's optimizer, with the learning rate of every step in `rates`.

    Call it in the scope of the strategy. `api` is `keras` or `tf_keras`, whichever
    `model` belongs to.
    """
    schedule = _schedule(api, rates)
    if recipe.optimizer == "lamb":
        optimizer = Lamb(schedule, recipe.weight_decay)
    else:
        # Named, since checkpoints know variables by names: Keras would number them.
        optimizer = api.optimizers.SGD(
            schedule, momentum=recipe.momentum, nesterov=recipe.nesterov, name="sgd"
        )
    if any(layer.compute_dtype == "float16" for layer in model.layers):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    optimizer.build(model.trainable_variables)
    return optimizer


class Lamb(keras.optimizers.Optimizer):
    """LAMB: Adam's step, scaled in each layer to the size of its weights.

    You et al., arXiv 1904.00962, algorithm 2, as timm has it and "ResNet strikes
    back" used it: the weight decay is part of the step that is scaled (Keras' own
    `Lamb` decays apart from it), and biases and batch normalization neither decay nor
    are scaled.
    """

    def __init__(self, learning_rate, decay, beta1=0.9, beta2=0.999, epsilon=1e-6):
        """Takes the numbers of the paper; `decay` is the factor of the weights."""
        super().__init__(learning_rate, name="lamb")
        self._decay, self._betas, self._epsilon = decay, (beta1, beta2), epsilon

    def build(self, variables):
        """Creates the moments of the gradients."""
        super().build(variables)
        self._moments = [
            [self.add_variable_from_reference(v, name=name) for v in variables]
            for name in ("mean", "square")
        ]

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable."""
        index = self._get_variable_index(variable)
        mean, square = (moments[index] for moments in self._moments)
        gradient = ops.cast(gradient, variable.dtype)
        done = ops.cast(self.iterations + 1, variable.dtype)
        unbiased = []
        for moment, beta, value in zip(
            (mean, square), self._betas, (gradient, ops.square(gradient)), strict=True
        ):
            self.assign_add(moment, (1 - beta) * (value - moment))
            unbiased.append(moment / (1 - ops.power(beta, done)))
        step = unbiased[0] / (ops.sqrt(unbiased[1]) + self._epsilon)
        if len(variable.shape) > 1:
            step += self._decay * variable
            length, size = _norm(step), _norm(variable)
            known = ops.logical_and(length > 0, size > 0)
            step *= ops.where(known, size / ops.where(known, length, 1.0), 1.0)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)


def _norm(tensor):
    return ops.sqrt(ops.sum(ops.square(tensor)))  # Keras' own: up to two axes


def _schedule(api, rates):
    """Returns a schedule that reads a table: no work on the host in a step."""

    class Table(api.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            # Keras asks once more after the last step.
            step = tf.minimum(tf.cast(step, tf.int32), len(rates) - 1)
            return tf.gather(tf.constant(rates, tf.float32), step)

        def get_config(self):
            return {"rates": rates}

    return Table()
