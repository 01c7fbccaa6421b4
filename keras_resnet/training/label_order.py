"""Tests whether the scores of a classifier belong to its labels in another order."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

# How improbable an advantage must be before it is no chance any more.
SIGNIFICANCE = 0.01
# So many are named; of more classes, some of those that are at another place.
SHOWN_CLASSES = 20


def as_targets(labels, classes):
    """Returns (images, classes), 1 for each label of an image and else 0.

    `labels` are indices, int (images,), or of a multi-label dataset targets already.
    """
    return np.eye(classes)[labels] if labels.dtype.kind == "i" else labels


def better_order(targets, scores, independent=False):
    """Finds an order of the labels that fits better than the given one beyond chance.

    The order is chosen on one half of the images and tried on the other, both ways: an
    order that only fits the images it was chosen on wins nothing there.

    Args:
        targets: array (images, classes), 1 where an image has a label, else 0.
        scores: float array (images, classes), probabilities.
        independent: whether an image may have several labels or none.

    Returns:
        Integer array (classes,): for each label the place of its score; `None` if the
        given order is as good.
    """
    by_label = np.argsort(targets.argmax(1), kind="stable")
    halves = by_label[::2], by_label[1::2]
    given, other = [], []
    for chosen_on, tried_on in (halves, halves[::-1]):
        order = best_order(targets[chosen_on], scores[chosen_on], independent)
        for found, tried in ((given, scores), (other, scores[:, order])):
            found.append(right(targets[tried_on], tried[tried_on], independent))
    if not is_better(np.concatenate(other), np.concatenate(given)):
        return None
    return best_order(targets, scores, independent)


def problem(targets, scores, labels, independent=False):
    """Returns what `better_order` finds as a sentence for the user, or None."""
    order = better_order(targets, scores, independent)
    if order is None:
        return None
    now = right(targets, scores, independent).mean()
    then = right(targets, scores[:, order], independent).mean()
    by_score = [labels[label] for label in np.argsort(order)]
    moved = [
        f"{by_score[place]!r} where {label!r} is"
        for place, label in enumerate(labels)
        if by_score[place] != label
    ]
    shown = ", ".join(by_score if len(labels) <= SHOWN_CLASSES else moved[:5])
    return (
        f"the model has its classes in another order: {now:.1%} of {len(scores)} "
        f"images are right in the given order, {then:.1%} in this one: {shown}. Pass "
        "it as --labels=FILE, a text file with one class a line"
    )


def is_chance(targets, scores):
    """Returns whether classes are right no more often than if scores were drawn.

    It is the mean over the classes that counts: to say the largest one always is no
    better than chance.
    """
    found = right(targets, scores)
    classes = np.flatnonzero(targets.any(0))
    recall = np.mean([found[targets[:, label] > 0].mean() for label in classes])
    return recall <= 1 / targets.shape[1]


def is_better(one, other):
    """Returns whether `one` is right where `other` is not, beyond chance (sign test).

    Both are arrays (images,) as `right` returns them.
    """
    wins, losses = np.count_nonzero(one > other), np.count_nonzero(one < other)
    if not wins:
        return False
    test = binomtest(wins, wins + losses, alternative="greater")
    return test.pvalue < SIGNIFICANCE


def best_order(targets, scores, independent=False):
    """Returns for each label the place of the score that fits it best, each once."""
    return linear_sum_assignment(-_fits(targets, scores, independent))[1]


def fit(targets, scores, independent=False):
    """Returns the mean log likelihood of the labels of an image, in nats."""
    return np.trace(_fits(targets, scores, independent)) / len(targets)


def right(targets, scores, independent=False):
    """Returns for each image the share of its answers that are right."""
    if independent:
        return ((scores > 0.5) == (targets > 0.5)).mean(1)
    return (scores.argmax(1) == targets.argmax(1)).astype(float)


def _fits(targets, scores, independent):
    """Returns (labels, scores): log likelihood of each label by each score."""
    # One wrong answer that is certain must not outweigh many right ones.
    least = 0.1 / scores.shape[1]
    fits = targets.T @ np.log(np.maximum(scores, least))
    if independent:
        fits += (1 - targets).T @ np.log(np.maximum(1 - scores, least))
    return fits
