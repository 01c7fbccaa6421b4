"""LAMB and AdamW, against the formulas of the papers written out in numpy."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_resnet
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


def test_adamw_makes_the_steps_of_keras_own_at_each_rate():
    rng = np.random.default_rng(0)
    model = keras_resnet.ResNet8(weights=None)
    recipe = dataclasses.replace(
        recipes.RECIPES["finetune"], weight_decay=DECAY, layer_decay=0.5
    )
    factors = optimizers.rate_factors(model, 0.5)
    by_layer = {
        variable.path.split("/")[0]: factor
        for variable, factor in zip(model.trainable_variables, factors, strict=True)
    }
    assert by_layer["predictions"] == by_layer["conv4_block1_2_conv"] == 1
    assert by_layer["conv3_block1_0_bn"] == 0.5
    assert by_layer["conv2_block1_1_conv"] == 0.25
    assert by_layer["conv1_conv"] == by_layer["conv1_bn"] == 0.125
    weights = model.get_weights()
    # None near 0, where Keras has its epsilon at another place.
    gradients = [
        [
            (rng.uniform(0.5, 1, v.shape) * rng.choice([-1, 1], v.shape)).astype("f4")
            for v in model.trainable_variables
        ]
        for _ in RATES
    ]
    optimizer = optimizers.create(keras, model, recipe, RATES)
    for step in gradients:
        optimizer.apply(step, model.trainable_variables)
    found = model.get_weights()
    model.set_weights(weights)
    for index, variable in enumerate(model.trainable_variables):
        decay = DECAY if len(variable.shape) > 1 else 0.0
        own = keras.optimizers.AdamW(0.1, weight_decay=decay, epsilon=1e-8)
        own.build([variable])
        for rate, step in zip(RATES, gradients, strict=True):
            own.learning_rate = rate * factors[index]
            own.apply([step[index]], [variable])
    for ours, theirs in zip(found, model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)
