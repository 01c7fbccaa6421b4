"""Accuracy on a whole split, every example once, whatever the strategy."""

import numpy as np
import tensorflow as tf

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import batching


def evaluator(model, strategy, from_logits=False):
    """Returns a function that evaluates a model, every example once.

    Keras' own `evaluate` averages over batches and replicas of unequal size. The model
    is of Keras 3 or tf_keras, was built in the scope of `strategy`, and returns softmax
    scores unless `from_logits`.

    Returns:
        Function of (split, preprocessing, batch size over all replicas) -> {"loss",
        "top1", "top5"}: mean cross entropy in nats, and shares of 1. It raises
        `RuntimeError` when not every example was counted.
    """

    @tf.function
    def sums(batch):
        def on_replica(images, labels):
            scores = tf.cast(model(images, training=False), tf.float32)
            if from_logits:
                scores = tf.nn.softmax(scores)
            counts = labels >= 0  # the last batch is filled up
            top1 = tf.equal(tf.argmax(scores, axis=-1), labels)
            top5 = tf.math.in_top_k(labels, scores, min(5, scores.shape[-1]))
            right = tf.gather(scores, tf.maximum(labels, 0), batch_dims=1)
            loss = -tf.math.log(tf.maximum(right, 1e-7))
            return tf.stack(
                [
                    tf.reduce_sum(tf.where(counts, tf.cast(value, tf.float32), 0.0))
                    for value in (counts, loss, top1, top5)
                ]
            )

        return strategy.reduce("SUM", strategy.run(on_replica, args=batch), axis=None)

    def evaluate(split, preprocessing, batch_size):
        totals = np.zeros(4)
        for batch in strategy.distribute_datasets_from_function(
            lambda context: batching.evaluation_batches(
                split, preprocessing, batch_size, batching.Share.of(context)
            )
        ):
            totals += sums(batch).numpy()
        if totals[0] != split.examples:
            raise RuntimeError(
                f"evaluated {totals[0]:.0f} of {split.examples} examples"
            )
        means = (totals[1:] / totals[0]).tolist()
        return dict(zip(("loss", "top1", "top5"), means, strict=True))

    return evaluate


def of_split(model, split, preprocessing):
    """Returns what `evaluator` finds on this machine's first device."""
    evaluate = evaluator(model, tf.distribute.get_strategy())
    found = evaluate(split, preprocessing, min(64, split.examples))
    return {**found, "examples_evaluated": split.examples}


def of_scores(score, examples):
    """Returns {"top1", "top5", "examples_evaluated"} for (image, label) examples.

    `score` is a function of an image -> float (classes,).
    """
    right = np.zeros(2)
    count = 0
    for image, label in examples:
        best = np.argsort(-score(image), kind="stable")[:5]
        right += (best[0] == label, label in best)
        count += 1
    top1, top5 = (right / count).tolist()
    return {"top1": top1, "top5": top5, "examples_evaluated": count}


def check_classes(classes, dataset):
    """Raises `UserError` unless a dataset has this number of classes."""
    if len(dataset.labels) != classes:
        raise UserError(
            f"the model has {classes} classes, dataset {dataset.name} has "
            f"{len(dataset.labels)}"
        )
