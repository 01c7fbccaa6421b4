"""LAMB, against the formulas of the paper written out in numpy."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_resnet.training import optimizers, recipes

RATES = [0.1, 0.02, 0.05]
DECAY = 0.3


def lamb(weight, gradients):
    """Algorithm 2 of arXiv 1904.00962, as timm has it."""
    mean = square = np.zeros_like(weight)
    for count, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        step = mean / (1 - 0.9**count) / (np.sqrt(square / (1 - 0.999**count)) + 1e-6)
        if weight.ndim > 1:
            step = step + DECAY * weight
            lengths = np.linalg.norm(weight), np.linalg.norm(step)
            step = step * (lengths[0] / lengths[1] if all(lengths) else 1.0)
        weight = weight - rate * step
    return weight


@pytest.mark.parametrize("start", [1.0, 0.0])
def test_lamb_makes_the_steps_of_its_paper(start):
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((5, 5, 2)), keras.layers.Conv2D(3, 3)])
    model.set_weights([start * rng.normal(size=w.shape) for w in model.get_weights()])
    recipe = dataclasses.replace(recipes.RECIPES["strikes_back_a3"], weight_decay=DECAY)
    optimizer = optimizers.create(keras, model, recipe, RATES)
    gradients = [
        [rng.normal(size=w.shape).astype("float32") for w in model.get_weights()]
        for _ in RATES
    ]
    expected = [
        lamb(weight.astype(np.float64), [step[index] for step in gradients])
        for index, weight in enumerate(model.get_weights())
    ]
    for step in gradients:
        optimizer.apply(step, model.trainable_variables)
    for found, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-6)
