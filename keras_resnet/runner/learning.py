"""Learning: a classifier of features, and when it answers `unknown`.

Everything here is a function of arrays. A picture's features are a row; its label is
the number of its class, or the number of classes for a picture of nothing, which is to
be answered with `unknown`.
"""

import math

UNKNOWN = "unknown"  # the label of what belongs to no class
NOTHING = "_none"  # the folder of its pictures
KNOWN_SHARE = 0.95  # of new pictures of the classes, by default
# What cosines are multiplied by to become logits, as in Qi et al., "Low-shot learning
# with imprinted weights", arXiv 1712.07136, where it is learned.
SCALE = 40.0
# Inverse strengths of the penalty (scikit-learn's C) that are tried, strongest first.
# With 0, the class means are the classifier.
STRENGTHS = (0.0, 5.0, 50.0, 500.0, 5000.0)
# How sure a share of known pictures must be; see `known_from`.
CONFIDENCE = 0.95
TEMPERATURES = (0.1, 10.0)  # the least and the greatest


def unit(features):
    """Divides rows by their Euclidean length; a row of zeros stays as it is.

    Args:
        features: (..., channels).

    Returns:
        float64 array of the same shape.
    """
    import numpy as np

    features = np.asarray(features, np.float64)
    length = np.sqrt((features**2).sum(-1, keepdims=True))
    return features / np.where(length > 0, length, 1)


def class_means(features, labels, classes):
    """Returns the mean direction of each class.

    Args:
        features: (pictures, channels).
        labels: int (pictures,).
        classes: int; pictures of other labels do not count.

    Returns:
        float64 (classes, channels), rows of length 1: the means of the unit features,
        divided by their length. The row of a class without pictures is 0.
    """
    return unit(_one_hot(labels, classes).T @ unit(features))


def _one_hot(labels, classes):
    import numpy as np

    return np.float64(np.asarray(labels)[:, np.newaxis] == np.arange(classes))


def softmax(logits):
    """Returns the shares (..., classes) of logits."""
    import numpy as np

    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def losses(logits, labels):
    """Returns the cross entropy of each picture, in nats, (pictures,)."""
    import numpy as np

    logits = logits - logits.max(-1, keepdims=True)
    right = logits[np.arange(len(labels)), labels]
    return np.log(np.exp(logits).sum(-1)) - right


def fit(features, labels, classes, columns, strengths, weights=None, kept=None):
    """Fits classifiers of the directions of features, one for each strength.

    The logits are `unit(features) @ kernel + bias`. At first, the kernel is `SCALE`
    times the class means: a picture belongs to the class whose mean has the highest
    cosine with it. A logistic regression moves the kernel where that tells the classes
    apart better, and its penalty holds the kernel near the means. So the highest logit
    still says how near a picture is to what was learned.

    Args:
        features: (pictures, channels).
        labels: int (pictures,): of a class, or `classes` for a picture of nothing.
        classes: int, 1 or more.
        columns: int, `classes`, or one more for pictures of nothing, which have a mean
            too; without any such picture, its logits are 0.
        strengths: inverse strengths of the penalty, from the lowest to the highest;
            with 0, the means stay as they are.
        weights: (pictures,), how much each picture counts; None is 1.
        kept: {class: (channels,)}, what an earlier fit found for some classes; it
            stands in the place of their means.

    Yields:
        (kernel, bias): float64 (channels, columns) and (columns,).
    """
    import numpy as np

    units = unit(features)
    learned = columns
    if (np.asarray(labels) < classes).all():
        learned = classes
    means = np.zeros((units.shape[1], columns))
    means[:, :learned] = SCALE * class_means(units, labels, learned).T
    for index, column in (kept or {}).items():
        means[:, index] = column
    found = means.copy(), np.zeros(columns)
    for strength in strengths:
        if strength:
            found[0][:, :learned], found[1][:learned] = logistic_regression(
                units,
                labels,
                learned,
                strength,
                weights,
                means[:, :learned],
                (found[0][:, :learned], found[1][:learned]),
            )
        yield found[0].copy(), found[1].copy()


def logistic_regression(
    features, labels, classes, strength, weights=None, centre=0.0, start=None
):
    """Fits a multinomial logistic regression with an L2 penalty of the kernel.

    It minimizes what scikit-learn's `LogisticRegression(C=strength)` minimizes, by
    Newton's method with conjugate gradients (Nocedal and Wright, "Numerical
    Optimization", algorithm 7.1). For two classes scikit-learn penalizes the difference
    of the two columns, which is half as strict.

    Args:
        features: (pictures, channels).
        labels: int (pictures,).
        classes: int, 2 or more.
        strength: inverse strength of the penalty, above 0.
        weights: (pictures,), how much each picture counts; None is 1.
        centre: (channels, classes), the kernel that is not penalized.
        start: (kernel, bias) to begin with; None is 0.

    Returns:
        (kernel, bias): float64 (channels, classes) and (classes,).
    """
    import numpy as np

    features = np.asarray(features, np.float64)
    # The bias takes up the mean, without which far fewer steps are needed.
    mean = features.mean(0)
    inputs = np.column_stack([features - mean, np.ones(len(features))])
    counts = np.ones((len(inputs), 1)) if weights is None else weights[:, np.newaxis]
    wanted = _one_hot(labels, classes)
    penalty = np.full((inputs.shape[1], 1), (2 if classes == 2 else 1) / strength)
    penalty[-1] = 0  # of the bias
    middle = np.zeros((inputs.shape[1], classes))
    middle[:-1] = centre

    def loss_of(found):
        of_pictures = losses(inputs @ found, labels)
        return of_pictures @ counts[:, 0] + (penalty * (found - middle) ** 2).sum() / 2

    found = np.zeros_like(middle)
    if start is not None:
        found[:-1], found[-1] = start[0], start[1] + mean @ start[0]
    loss, first = loss_of(found), None
    while True:
        shares = softmax(inputs @ found)
        gradient = inputs.T @ (counts * (shares - wanted))
        gradient += penalty * (found - middle)
        size = np.sqrt((gradient**2).sum())
        first = first or size
        if not size > max(1e-6 * first, 1e-9 * counts.sum()):  # nor is NaN
            break
        # As exact as the weights are; more would be lost in rounding.
        tolerance = min(0.1, max(size / first, 1e-4))
        step = _newton_step(inputs, counts, shares, penalty, gradient, tolerance)
        slope, length = (gradient * step).sum(), 1.0
        # What is left at the end is smaller than the rounding of the loss.
        while loss_of(found + length * step) > loss + 1e-4 * length * slope:
            length /= 2
            if length < 1e-6:
                return found[:-1], found[-1] - mean @ found[:-1]
        found = found + length * step
        loss = loss_of(found)
    return found[:-1], found[-1] - mean @ found[:-1]


def _newton_step(inputs, counts, shares, penalty, gradient, tolerance):
    """Solves Hessian @ step = -gradient by conjugate gradients."""
    import numpy as np

    def hessian_times(step):
        change = inputs @ step
        change = shares * (change - (shares * change).sum(1, keepdims=True))
        return inputs.T @ (counts * change) + penalty * step

    step, residual = np.zeros_like(gradient), -gradient
    direction, square = residual, (residual**2).sum()
    enough = tolerance**2 * square
    for _ in range(gradient.size):
        bent = hessian_times(direction)
        length = square / (direction * bent).sum()
        step = step + length * direction
        residual = residual - length * bent
        before, square = square, (residual**2).sum()
        if square <= enough:
            break
        direction = residual + square / before * direction
    return step


def temperature(logits, labels):
    """Returns what logits are divided by, so that their softmax is calibrated.

    That is the least cross entropy on pictures that the classifier did not learn (Guo
    et al., "On calibration of modern neural networks", arXiv 1706.04599). Few pictures
    may all be right, and then no temperature would be low enough: the targets are
    (right + 1) / (pictures + 2) instead of 1, as in Platt's "Probabilistic outputs for
    support vector machines", 1999.

    Args:
        logits: (pictures, classes).
        labels: int (pictures,).

    Returns:
        float, within `TEMPERATURES`.
    """
    import numpy as np

    number, classes = logits.shape
    if classes < 2:
        return 1.0
    share = (number + 1) / (number + 2)
    targets = np.full_like(logits, (1 - share) / (classes - 1), dtype=np.float64)
    targets[np.arange(number), labels] = share
    tried = np.geomspace(*TEMPERATURES, 401)

    def loss(value):
        scaled = logits / value
        scaled = scaled - scaled.max(1, keepdims=True)
        return (np.log(np.exp(scaled).sum(1)) - (targets * scaled).sum(1)).mean()

    return float(min(tried, key=loss))


def best_of(measured):
    """Returns which strength answers best pictures that the classifiers did not learn.

    It is the strongest penalty, unless a weaker one `is_better`: the nearer a
    classifier is to the class means, the better it tells what is unknown.

    Args:
        measured: list of (losses, share of right answers) of each picture, as for
            `is_better`, the strongest penalty first.

    Returns:
        int, the place of the strength.
    """
    best = 0
    for place, found in enumerate(measured):
        if is_better(found, measured[best]):
            best = place
    return best


def calibrated_measures(logits, labels):
    """Returns cross entropy and whether it is right, of each picture, as a pair.

    The logits are divided by the temperature that suits them.
    """
    scaled = logits / temperature(logits, labels)
    return losses(scaled, labels), scaled.argmax(1) == labels


def is_better(one, other):
    """Returns whether a classifier is better than another, beyond chance.

    Its losses must be lower by more than a standard error of the difference. More
    pictures must be right, too: a loss alone may be lower because a strong penalty has
    made the other classifier too modest.

    Args:
        one: (losses, share of right answers) of each picture, two arrays (pictures,).
        other: likewise, of the same pictures.
    """
    gain = other[0] - one[0]
    beyond_chance = gain.mean() > gain.std() / len(gain) ** 0.5
    return bool(beyond_chance and one[1].mean() > other[1].mean())


def known_from(logits, classes, share):
    """Returns the bias of `unknown` with which a share of the pictures is known.

    A picture is known if the highest logit of a class exceeds that of `unknown`. Of
    new pictures, at least the given share is known with a probability of `CONFIDENCE`:
    that is the lower tolerance limit of Wilks, "Determination of sample sizes for
    setting tolerance limits", 1941. Where the pictures are too few for it, all of them
    are known.

    Args:
        logits: (pictures, columns), of pictures of classes that the classifier did not
            learn.
        classes: int, the first columns; one more is that of `unknown` without bias.
        share: in (0, 1).

    Returns:
        float.
    """
    import numpy as np

    margins = logits[:, :classes].max(1)
    if logits.shape[1] > classes:
        margins = margins - logits[:, classes]
    below = _tolerated(len(margins), share)
    return float(np.sort(margins)[max(below - 1, 0)])


def _tolerated(number, share):
    """Returns how many of some pictures may be no better than the limit.

    It is the highest number k for which fewer than k pictures outside of a share occur
    with a probability of at most 1 - CONFIDENCE, by the binomial distribution.
    """
    total, count = 0.0, 0
    while count < number:
        ways = math.lgamma(number + 1) - math.lgamma(count + 1)
        ways -= math.lgamma(number - count + 1)
        logarithm = count * math.log(1 - share) + (number - count) * math.log(share)
        total += math.exp(ways + logarithm)
        if total > 1 - CONFIDENCE:
            break
        count += 1
    return count


def calibrated(logits, labels, classes, share):
    """Returns (temperature, bias of `unknown`), from pictures that were not learned.

    Args:
        logits: (pictures, columns), as for `known_from`, of all pictures.
        labels: int (pictures,): of a class, or `classes` for a picture of nothing.
        classes: int.
        share: of the pictures of classes that must be known; 1 gives None for a bias.
    """
    own = labels < classes
    scale = temperature(logits[own, :classes], labels[own])
    return scale, known_from(logits[own], classes, share) if share < 1 else None


def with_unknown(kernel, bias, classes, known):
    """Gives a classifier the column of `unknown`.

    Args:
        kernel: (channels, classes), or with a column for pictures of nothing.
        bias: likewise.
        classes: int.
        known: of `known_from`; None leaves the classifier as it is.

    Returns:
        (kernel, bias) with one more column than classes.
    """
    import numpy as np

    if known is None:
        return kernel, bias
    if len(bias) == classes:
        kernel = np.concatenate([kernel, np.zeros((len(kernel), 1))], axis=1)
        bias = np.append(bias, 0.0)
    else:
        bias = np.array(bias)
    bias[classes] += known
    return kernel, bias
