"""The classifier of a device: how it is chosen, and when it answers `unknown`.

Pictures and their labels are those of `learning`.
"""

import collections

from keras_resnet.runner.learning import (
    SCALE,
    class_means,
    logistic_regression,
    softmax,
    unit,
)

# What is tried, the usually best first: inverse strengths of the L2 penalty of a
# logistic regression on unit features (scikit-learn's C), and None, the class means.
TRIED = (10.0, None, 100.0)
FOLDS = 5
CLASS_MEANS = "class means"
LOGISTIC_REGRESSION = "logistic regression"

# A classifier of features; `head_scores` says how it answers.
#   kernel     (channels, classes): from unit features to logits
#   bias       (classes,)
#   means      (classes, channels), of `class_means`
#   threshold  the cosine to the nearest mean below which a picture is unknown, or None
#              for a classifier without `unknown`
#   nothing    (channels,): likewise of the pictures of nothing, or None without any
Head = collections.namedtuple("Head", "kernel bias means threshold nothing")

# What `choose_head` found.
#   method    CLASS_MEANS or LOGISTIC_REGRESSION
#   strength  one of TRIED
#   answers   (pictures,): what each picture was taken for in the cross-validation
Choice = collections.namedtuple("Choice", "head method strength answers")


def known_threshold(features, labels, classes, share):
    """Returns from which cosine on a picture is known.

    Each picture of a class is compared with the means of the classes, that of its own
    class without it, as if it were new. A picture that is alone in its class tells
    nothing.

    A new picture lies below the r-th lowest cosine of n with a probability of
    r / (n + 1) (Vovk et al., "Algorithmic Learning in a Random World", 2005). The
    threshold is the highest of which this is at most 1 - share, or the lowest cosine if
    there are too few pictures for that.

    Args:
        features: (pictures, channels).
        labels: int (pictures,).
        classes: int; pictures of other labels do not count.
        share: in (0, 1], the share of new pictures of the classes that must be known.

    Returns:
        float64, the cosine to the nearest class mean that known pictures reach; -1,
        which every picture reaches, if no class has two pictures.
    """
    import numpy as np

    labels = np.asarray(labels)
    own = labels < classes
    labels, units = labels[own], unit(features)[own]
    members = np.eye(classes)[labels]
    sums = members.T @ units
    cosines = units @ unit(sums).T
    others = unit(sums[labels] - units)
    cosines[np.arange(len(labels)), labels] = (others * units).sum(1)
    nearest = np.sort(cosines.max(1)[members.sum(0)[labels] > 1])
    if not len(nearest):
        return np.float64(-1)
    rank = int((1 - share) * (len(nearest) + 1) + 1e-9)
    return nearest[max(rank, 1) - 1]


def head_scores(features, head):
    """Returns the scores of a classifier of features.

    A picture is unknown where the cosine to the nearest class mean is below the
    threshold, or below that to the mean of the pictures of nothing. The logit of
    `unknown` lies so far above that of the best class, or below it.

    Args:
        features: (pictures, channels).
        head: `Head`.

    Returns:
        float64 (pictures, classes), rows of sum 1, with `unknown` as one more class
        behind them if the classifier has it.
    """
    import numpy as np

    units = unit(features)
    logits = units @ head.kernel + head.bias
    if head.threshold is None:
        return softmax(logits)
    needed = head.threshold
    if head.nothing is not None:
        needed = np.maximum(needed, units @ head.nothing)
    missing = needed - (units @ head.means.T).max(1)
    return softmax(np.column_stack([logits, logits.max(1) + SCALE * missing]))


def fit_head(features, labels, classes, share, strength=None):
    """Fits a classifier of features.

    Args:
        features: (pictures, channels).
        labels: int (pictures,): of a class, or `classes` for a picture of nothing.
        classes: int, 2 or more.
        share: of new pictures of the classes that must be known, in (0, 1]; 1 makes a
            classifier without `unknown`, for which no picture may be of nothing.
        strength: of a logistic regression; None takes the class means.

    Returns:
        `Head`.
    """
    import numpy as np

    labels, units = np.asarray(labels), unit(features)
    own = labels < classes
    means = class_means(units, labels, classes)
    kernel, bias = SCALE * means.T, np.zeros(classes)
    if strength is not None:
        kernel, bias = logistic_regression(units[own], labels[own], classes, strength)
    threshold = nothing = None
    if share < 1:
        threshold = known_threshold(units, labels, classes, share)
    if not own.all():
        nothing = unit(units[~own].sum(0))
    return Head(kernel, bias, means, threshold, nothing)


def choose_head(features, labels, classes, share):
    """Fits the classifier that a cross-validation finds best; see `fit_head`.

    Of equals, the first of TRIED is taken. Each class needs two pictures or more.

    Returns:
        `Choice`.
    """
    import numpy as np

    best = None
    for strength in TRIED:
        answers = cross_validate(features, labels, classes, share, strength)
        right = (answers == labels).sum()
        if best is None or right > best[0]:
            best = right, strength, answers
    _, strength, answers = best
    head = fit_head(features, np.asarray(labels), classes, share, strength)
    method = CLASS_MEANS if strength is None else LOGISTIC_REGRESSION
    return Choice(head, method, strength, answers)


def cross_validate(features, labels, classes, share, strength=None):
    """Returns what pictures are taken for by classifiers that did not see them.

    The arguments are those of `fit_head`.

    Returns:
        int (pictures,); `classes` stands for `unknown`.
    """
    import numpy as np

    features, labels = np.asarray(features), np.asarray(labels)
    folds = fold_numbers(labels)
    answers = np.empty(len(labels), int)
    for fold in np.unique(folds):
        learned, tested = folds != fold, folds == fold
        head = fit_head(features[learned], labels[learned], classes, share, strength)
        answers[tested] = head_scores(features[tested], head).argmax(1)
    return answers


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
