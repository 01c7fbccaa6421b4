"""The learning rate of every step, as a pure function of the recipe."""

import math


def learning_rates(recipe, steps_per_epoch):
    """Returns the learning rate of every step of a run, as a list."""
    return [
        _learning_rate(recipe, step / steps_per_epoch, 1 / steps_per_epoch)
        for step in range(recipe.epochs * steps_per_epoch)
    ]


def _learning_rate(recipe, epoch, step):
    """Returns the rate of the step that begins at `epoch`; both are in epochs."""
    peak, warmup = recipe.learning_rate, recipe.warmup_epochs
    if epoch < warmup:
        return peak * min(1.0, (epoch + step) / warmup)
    if recipe.decay_epochs:
        return peak * 0.1 ** sum(epoch >= at for at in recipe.decay_epochs)
    done = (epoch - warmup) / max(step, recipe.epochs - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
