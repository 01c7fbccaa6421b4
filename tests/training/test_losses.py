"""Losses, against their definitions."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.training import losses, recipes

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (6, 5)).astype(np.float32)
TARGETS = np.eye(5, dtype=np.float32)[RNG.integers(0, 5, 6)]


def test_smoothed_cross_entropy_is_that_of_keras():
    recipe = dataclasses.replace(recipes.RECIPES["cifar"], label_smoothing=0.1)
    expected = keras.losses.categorical_crossentropy(
        TARGETS, LOGITS, from_logits=True, label_smoothing=0.1
    )
    found = losses.loss_function(recipe)(LOGITS, tf.constant(TARGETS))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_scores_have_the_loss_of_their_logits():
    scores = tf.nn.softmax(LOGITS)
    np.testing.assert_allclose(
        losses.cross_entropy(losses.logits_of_scores(scores), TARGETS, 0.1),
        losses.cross_entropy(LOGITS, TARGETS, 0.1),
        rtol=1e-4,
    )


def test_binary_cross_entropy_takes_what_is_mixed_in_for_there():
    mixed = np.array([[0.7, 0.3, 0, 0, 0], [0.85, 0, 0, 0.15, 0]], np.float32)
    there = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    likely = 1 / (1 + np.exp(-LOGITS[:2].astype(np.float64)))
    expected = -np.log(np.where(there, likely, 1 - likely)).mean(-1)
    recipe = recipes.RECIPES["strikes_back_a3"]
    found = losses.loss_function(recipe)(LOGITS[:2], tf.constant(mixed))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_binary_targets_are_smoothed_behind_the_threshold():
    recipe = recipes.RECIPES["strikes_back_a1"]
    assert recipe.label_smoothing == 0.1
    likely = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    wanted = np.where(TARGETS, 0.9 + 0.02, 0.02)
    expected = -(wanted * np.log(likely) + (1 - wanted) * np.log(1 - likely)).mean(-1)
    found = losses.loss_function(recipe)(LOGITS, tf.constant(TARGETS))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_distillation_is_the_divergence_of_softened_scores():
    teacher = RNG.normal(0, 3, (6, 5)).astype(np.float32)
    p, q = (
        np.exp(x / 4) / np.exp(x / 4).sum(-1, keepdims=True)
        for x in (teacher.astype(np.float64), LOGITS.astype(np.float64))
    )
    expected = 16 * (p * np.log(p / q)).sum(-1)
    found = losses.distillation(LOGITS, teacher, 4.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.abs(losses.distillation(LOGITS, LOGITS, 4.0)).max() < 1e-5
