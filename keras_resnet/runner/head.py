"""The classifier that a device learns: how it is chosen, and what it answers.

Pictures and their labels are those of `learning`.
"""

import collections

from keras_resnet.runner.learning import (
    STRENGTHS,
    best_of,
    calibrated,
    calibrated_measures,
    fit,
    softmax,
    unit,
    with_unknown,
)

FOLDS = 5

# A classifier of features; `head_scores` says how it answers.
#   kernel     (channels, columns): from unit features to logits. The columns are the
#              classes, and one more if `unknown` is answered.
#   bias       (columns,)
Head = collections.namedtuple("Head", "kernel bias")

# What `choose_head` found.
#   strength  one of STRENGTHS; 0 stands for the class means
#   answers   (pictures,): what each picture was taken for in the cross-validation
Choice = collections.namedtuple("Choice", "head strength answers")


def head_scores(features, head):
    """Returns the scores of a classifier of features.

    Args:
        features: (pictures, channels).
        head: `Head`.

    Returns:
        float64 (pictures, columns), rows of sum 1.
    """
    return softmax(unit(features) @ head.kernel + head.bias)


def choose_head(features, labels, classes, share):
    """Fits the classifier that a cross-validation finds best; see `learning.fit`.

    The same pictures tell how sure its scores may be, and when a picture is unknown.

    Args:
        features: (pictures, channels).
        labels: int (pictures,): of a class, or `classes` for a picture of nothing.
            Each occurs twice or more.
        classes: int, 2 or more.
        share: of new pictures of the classes that must be known, in (0, 1]; 1 makes a
            classifier without `unknown`, for which no picture may be of nothing.

    Returns:
        `Choice`.
    """
    import numpy as np

    units, labels = unit(features), np.asarray(labels)
    columns = max(classes, int(labels.max()) + 1)
    folds = fold_numbers(labels)
    logits = np.empty((len(STRENGTHS), len(labels), columns))
    for fold in np.unique(folds):
        learned, tested = folds != fold, folds == fold
        fits = fit(units[learned], labels[learned], classes, columns, STRENGTHS)
        for row, (kernel, bias) in enumerate(fits):
            logits[row, tested] = units[tested] @ kernel + bias
    row = best_of([calibrated_measures(each, labels) for each in logits])
    scale, known = calibrated(logits[row], labels, classes, share)
    ((kernel, bias),) = fit(units, labels, classes, columns, [STRENGTHS[row]])
    kernel, bias = with_unknown(kernel, bias, classes, known)
    # What `unknown` adds to logits is what it adds to a classifier of logits.
    same, added = with_unknown(np.eye(columns), np.zeros(columns), classes, known)
    answers = (logits[row] @ same + added).argmax(1)
    return Choice(Head(kernel / scale, bias / scale), STRENGTHS[row], answers)


def fold_numbers(labels):
    """Divides pictures among folds; a class of two pictures or more is in several.

    Pictures that follow each other stay together: they often show one scene.

    Args:
        labels: int (pictures,).

    Returns:
        int (pictures,), from 0 to FOLDS - 1.
    """
    import numpy as np

    folds = np.empty(len(labels), int)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        folds[own] = np.arange(len(own)) * FOLDS // len(own)
    return folds
