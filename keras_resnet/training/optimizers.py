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
    elif recipe.optimizer == "adamw":
        factors = rate_factors(model, recipe.layer_decay)
        optimizer = AdamW(schedule, recipe.weight_decay, factors)
    else:
        # Named, since checkpoints know variables by names: Keras would number them.
        optimizer = api.optimizers.SGD(
            schedule, momentum=recipe.momentum, nesterov=recipe.nesterov, name="sgd"
        )
    if any(layer.compute_dtype == "float16" for layer in model.layers):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    optimizer.build(model.trainable_variables)
    return optimizer


def rate_factors(model, decay):
    """Returns the factor on the learning rate of each trainable variable of a model.

    It is 1 in the classifier and in the last stage, and `decay` times that of the next
    stage in each one before it, the stem included (Clark et al., arXiv 2003.10555,
    appendix A, by layers). The model is of the zoo, whose layers are named by stage.
    """
    stages = [
        int(layer.name[len("conv")]) if layer.name.startswith("conv") else None
        for layer in model.layers
        for _ in layer.trainable_variables
    ]
    last = max(stage for stage in stages if stage)
    return [decay ** (last - (stage or last)) for stage in stages]


class _Adam(keras.optimizers.Optimizer):
    """Adam's step, without the learning rate; a subclass says what is made of it."""

    def __init__(self, learning_rate, decay, name, betas=(0.9, 0.999), epsilon=1e-6):
        """Takes the numbers of the papers; `decay` is the factor of the weights."""
        super().__init__(learning_rate, name=name)
        self._decay, self._betas, self._epsilon = decay, betas, epsilon

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
            step = self._with_decay(step, variable)
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * self._factor(index) * step)


class Lamb(_Adam):
    """LAMB: Adam's step, scaled in each layer to the size of its weights.

    You et al., arXiv 1904.00962, algorithm 2, as timm has it and "ResNet strikes
    back" used it: the weight decay is part of the step that is scaled (Keras' own
    `Lamb` decays apart from it), and biases and batch normalization neither decay nor
    are scaled.
    """

    def __init__(self, learning_rate, decay):
        """Takes the factor of the weights that is added to their step."""
        super().__init__(learning_rate, decay, "lamb")

    def _with_decay(self, step, variable):
        step += self._decay * variable
        length, size = _norm(step), _norm(variable)
        known = ops.logical_and(length > 0, size > 0)
        return step * ops.where(known, size / ops.where(known, length, 1.0), 1.0)

    def _factor(self, index):
        return 1.0


class AdamW(_Adam):
    """AdamW, with a factor on the learning rate of each variable.

    Loshchilov and Hutter, arXiv 1711.05101, algorithm 2, as PyTorch has it: the decay
    is multiplied by the rate. Biases and batch normalization do not decay. Keras' own
    `AdamW` has one rate for all variables.
    """

    def __init__(self, learning_rate, decay, factors):
        """Takes the factor of the weights that is added to their step, and theirs."""
        super().__init__(learning_rate, decay, "adamw", epsilon=1e-8)
        self._factors = factors

    def _with_decay(self, step, variable):
        return step + self._decay * variable

    def _factor(self, index):
        return self._factors[index]


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
