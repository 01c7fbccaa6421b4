"""Measures of pictures that may have several labels, or none."""

import numpy as np
import tensorflow as tf

from keras_resnet.training.data import batching

NAMES = ("mean_average_precision", "label_accuracy")
# A label counts as given from this score on.
THRESHOLD = 0.5


def measures(scores, targets):
    """Measures independent scores.

    Args:
        scores: float array (examples, classes), 0 to 1.
        targets: array of the same shape, 1 where an example has the label, else 0.

    Returns:
        Dictionary of shares of 1: "mean_average_precision", the mean over the labels
        that an example has of `average_precision`; "label_accuracy", the share of the
        yes-or-no answers at a score of 0.5 that are right.
    """
    targets = np.asarray(targets) > 0.5
    known = targets.any(axis=0)
    precisions = [
        average_precision(scores[:, label], targets[:, label])
        for label in np.flatnonzero(known)
    ]
    right = (scores >= THRESHOLD) == targets
    return dict(
        zip(NAMES, (float(np.mean(precisions)), float(right.mean())), strict=True)
    )


def loss(scores, targets):
    """Returns the mean binary cross entropy of a label in nats."""
    likely = np.clip(np.where(targets > 0.5, scores, 1 - scores), 1e-7, 1)
    return float(-np.log(likely).mean(dtype=np.float64))


def average_precision(scores, targets):
    """Returns the average precision of one label, as scikit-learn defines it.

    The sum over all thresholds of the precision, each times the recall that it adds:
    equal scores have one threshold together.

    Args:
        scores: float array (examples,).
        targets: bool array (examples,), not all false.
    """
    order = np.argsort(-scores, kind="stable")
    scores, targets = scores[order], targets[order]
    last_of_equals = np.append(scores[1:] != scores[:-1], True)
    found = np.cumsum(targets)[last_of_equals]
    precision = found / (np.flatnonzero(last_of_equals) + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / found[-1])


def evaluator(model, strategy, from_logits=False):
    """Returns a function as `accuracy.evaluator` does, for several labels.

    The model returns sigmoid scores unless `from_logits`. What is measured is "loss",
    the mean binary cross entropy of a label in nats, and `measures`.
    """

    @tf.function
    def on_replicas(batch):
        def on_replica(images, targets):
            scores = tf.cast(model(images, training=False), tf.float32)
            return (tf.sigmoid(scores) if from_logits else scores), targets

        return strategy.run(on_replica, args=batch)

    def evaluate(split, preprocessing, batch_size):
        scores, targets = [], []
        for batch in strategy.distribute_datasets_from_function(
            lambda context: batching.evaluation_batches(
                split, preprocessing, batch_size, batching.Share.of(context)
            )
        ):
            for parts, part in zip((scores, targets), on_replicas(batch), strict=True):
                parts.append(strategy.gather(part, axis=0).numpy())
        scores, targets = np.concatenate(scores), np.concatenate(targets)
        counts = targets[:, 0] >= 0  # the last batch is filled up
        if counts.sum() != split.examples:
            raise RuntimeError(f"evaluated {counts.sum()} of {split.examples} examples")
        scores, targets = scores[counts], targets[counts]
        return {"loss": loss(scores, targets), **measures(scores, targets)}

    return evaluate
