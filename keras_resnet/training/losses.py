"""Losses of single examples, from logits."""

import functools

import tensorflow as tf


def logits_of_scores(scores):
    """Returns logits of softmax scores, for models that end with these."""
    scores /= tf.reduce_sum(scores, -1, keepdims=True)
    return tf.math.log(tf.clip_by_value(scores, 1e-7, 1.0))


def cross_entropy(logits, targets, smoothing):
    """Returns the cross entropy, float32 (batch,), in nats."""
    targets = _smoothed(targets, smoothing)
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def binary_cross_entropy(logits, targets, smoothing):
    """Returns the mean over the classes of "is it there?", float32 (batch,).

    Wightman et al., "ResNet strikes back", arXiv 2110.00476, section 2: of mixed
    images both classes are there, whatever their shares; one of a fifth or less is
    not (timm's `--bce-target-thresh 0.2`). Smoothed is what is there: smoothed shares
    would all end at the same side of the threshold as before.
    """
    there = _smoothed(tf.cast(targets > 0.2, tf.float32), smoothing)
    # Not TensorFlow's own, whose gradient is a sum of more than two parts: those it
    # adds in the order in which they are ready, and the last bits differ.
    return tf.reduce_mean(tf.nn.softplus(logits) - there * logits, axis=-1)


def _smoothed(targets, smoothing):
    """Spreads a share of the targets over all classes."""
    return targets * (1 - smoothing) + smoothing / targets.shape[-1]


LOSSES = {"cross_entropy": cross_entropy, "bce": binary_cross_entropy}


def of(recipe):
    """Returns the recipe's loss: a function of (logits, targets) -> (batch,)."""
    return functools.partial(LOSSES[recipe.loss], smoothing=recipe.label_smoothing)


def distillation(logits, teacher_logits, temperature):
    """Returns how far the softened scores are from the teacher's, (batch,).

    Kullback-Leibler divergence times the temperature's square, which keeps the
    gradients' size (Hinton et al., arXiv 1503.02531, section 2).
    """
    teacher = tf.nn.log_softmax(teacher_logits / temperature)
    student = tf.nn.log_softmax(logits / temperature)
    divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), -1)
    return temperature**2 * divergence
