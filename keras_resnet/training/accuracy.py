"""Accuracy on a whole split, every example once, whatever the strategy."""

import numpy as np
import tensorflow as tf

from keras_resnet.runner.errors import UserError
from keras_resnet.training import multi_label as independent
from keras_resnet.training.data import batching

# One or two images may fall on either side of a threshold by chance.
TOLERATED_IMAGES = 2


def names(multi_label):
    """Returns the names of the two accuracies that are measured, all shares of 1."""
    return independent.NAMES if multi_label else ("top1", "top5")


def is_drop(name, points, images, allowed):
    """Returns whether an accuracy has fallen by more than is allowed.

    Args:
        name: of the accuracy. Of "top1", `TOLERATED_IMAGES` never count.
        points: by how much it has fallen, in percentage points.
        images: on how many images it was measured.
        allowed: percentage points.
    """
    is_chance = name == "top1" and round(points / 100 * images) <= TOLERATED_IMAGES
    # 99% - 98% is a little more than 1 point in binary.
    return points > allowed + 1e-9 and not is_chance


def evaluator(model, strategy, from_logits=False, multi_label=False):
    """Returns a function that evaluates a model, every example once.

    Keras' own `evaluate` averages over batches and replicas of unequal size. The model
    is of Keras 3 or tf_keras, was built in the scope of `strategy`, and returns softmax
    scores unless `from_logits`. With `multi_label`, it is `multi_label.evaluator`.

    Returns:
        Function of (split, preprocessing, batch size over all replicas) -> {"loss",
        "top1", "top5"}: mean cross entropy in nats, and shares of 1. It raises
        `RuntimeError` when not every example was counted.
    """
    if multi_label:
        return independent.evaluator(model, strategy, from_logits)

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


def of_split(model, split, preprocessing, multi_label=False):
    """Returns what `evaluator` finds on this machine's first device."""
    strategy = tf.distribute.get_strategy()
    evaluate = evaluator(model, strategy, multi_label=multi_label)
    found = evaluate(split, preprocessing, min(64, split.examples))
    return {**found, "examples_evaluated": split.examples}


def of_answers(targets, answers, multi_label=False):
    """Returns the accuracy of given answers.

    Args:
        targets: array (images, classes), 1 for each label of an image, else 0.
        answers: float array (images, classes), probabilities.
        multi_label: whether an image may have several labels.

    Returns:
        As `of_split`.
    """
    if multi_label:
        found = {
            "loss": independent.loss(answers, targets),
            **independent.measures(answers, targets),
        }
        return {**found, "examples_evaluated": len(answers)}
    right = (answers * targets).sum(1, keepdims=True)
    rank = (answers > right).sum(1)
    found = {
        "loss": -np.log(np.maximum(right, 1e-7)).mean(),
        "top1": (answers.argmax(1) == targets.argmax(1)).mean(),
        "top5": (rank < 5).mean(),
    }
    found = {name: value.item() for name, value in found.items()}
    return {**found, "examples_evaluated": len(answers)}


def of_scores(score, examples, multi_label=False):
    """Returns {"top1", "top5", "examples_evaluated"} for (image, label) examples.

    `score` is a function of an image -> float (classes,). With `multi_label`, its
    `measures` stand in the place of top-1 and top-5.
    """
    if multi_label:
        pairs = [(score(image), target) for image, target in examples]
        scores, targets = map(np.stack, zip(*pairs, strict=True))
        found = independent.measures(scores, targets)
        return {**found, "examples_evaluated": len(pairs)}
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
