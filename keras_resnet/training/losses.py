"""Losses of single examples, from logits."""

import functools

import tensorflow as tf


def logits_of_scores(scores):
    """Returns logits of softmax scores, for models that end with these."""
    scores /= tf.reduce_sum(scores, -1, keepdims=True)
    return tf.math.log(tf.clip_by_value(scores, 1e-7, 1.0))


def logits_of_sigmoids(scores):
    """Returns logits of sigmoid scores, for models that end with these."""
    scores = tf.clip_by_value(scores, 1e-7, 1 - 1e-7)
    return tf.math.log(scores) - tf.math.log1p(-scores)


def cross_entropy(logits, targets, smoothing):
    """Returns the cross entropy, float32 (batch,), in nats."""
    targets = _smoothed(targets, smoothing)
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def binary_cross_entropy(logits, targets, smoothing):
    """Returns the binary cross entropy, mean over the classes, float32 (batch,).

    Wightman et al., "ResNet strikes back", arXiv 2110.00476, section 2: both classes of
    a mixed image count as present, whatever their shares, unless the share is a fifth
    or less (timm's `--bce-target-thresh 0.2`). Label smoothing is applied after
    thresholding; applied before, it would have no effect.
    """
    there = _smoothed(tf.cast(targets > 0.2, tf.float32), smoothing)
    # The gradient of TensorFlow's own is a sum of more than two parts. TensorFlow adds
    # them in the order in which they are ready, so the last bits would differ.
    return tf.reduce_mean(tf.nn.softplus(logits) - there * logits, axis=-1)


def multi_label(logits, targets, smoothing):
    """Returns the binary cross entropy of independent labels, float32 (batch,).

    It is the mean over the labels. A mixed image has each label with its share, and
    label smoothing moves each target towards a half: a label is a question of its own,
    with two answers.
    """
    targets = targets * (1 - smoothing) + smoothing / 2
    return tf.reduce_mean(tf.nn.softplus(logits) - targets * logits, axis=-1)


def _smoothed(targets, smoothing):
    """Spreads a share of the targets over all classes."""
    return targets * (1 - smoothing) + smoothing / targets.shape[-1]


LOSSES = {
    "cross_entropy": cross_entropy,
    "bce": binary_cross_entropy,
    "multi_label": multi_label,
}


def loss_function(recipe):
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
