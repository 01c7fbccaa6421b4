"""Learning: a classifier of features, by class means or by logistic regression.

Everything here is a function of arrays. A picture's features are a row; its label is
the number of its class, or the number of classes for a picture of nothing, which is to
be answered with `unknown`.
"""

UNKNOWN = "unknown"  # the label of what belongs to no class
NOTHING = "_none"  # the folder of its pictures
# What cosines are multiplied by to become logits.
SCALE = 40.0


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


def logistic_regression(features, labels, classes, strength):
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

    Returns:
        (kernel, bias): float64 (channels, classes) and (classes,).
    """
    import numpy as np

    features = np.asarray(features, np.float64)
    # The bias takes up the mean, without which far fewer steps are needed.
    mean = features.mean(0)
    inputs = np.column_stack([features - mean, np.ones(len(features))])
    wanted = _one_hot(labels, classes)
    penalty = np.full((inputs.shape[1], 1), (2 if classes == 2 else 1) / strength)
    penalty[-1] = 0  # of the bias

    def loss_of(weights):
        logits = inputs @ weights
        logits -= logits.max(1, keepdims=True)
        losses = np.log(np.exp(logits).sum(1)) - (wanted * logits).sum(1)
        return losses.sum() + (penalty * weights**2).sum() / 2

    weights = np.zeros((inputs.shape[1], classes))
    loss, first = loss_of(weights), None
    while True:
        shares = softmax(inputs @ weights)
        gradient = inputs.T @ (shares - wanted) + penalty * weights
        size = np.sqrt((gradient**2).sum())
        first = first or size
        if size <= 1e-9 * first:
            break
        # As exact as the weights are; more would be lost in rounding.
        tolerance = min(0.1, max(size / first, 1e-4))
        step = _newton_step(inputs, shares, penalty, gradient, tolerance)
        slope, length = (gradient * step).sum(), 1.0
        # What is left at the end is smaller than the rounding of the loss.
        while loss_of(weights + length * step) > loss + 1e-4 * length * slope:
            length /= 2
            if length < 1e-6:
                return weights[:-1], weights[-1] - mean @ weights[:-1]
        weights = weights + length * step
        loss = loss_of(weights)
    return weights[:-1], weights[-1] - mean @ weights[:-1]


def _newton_step(inputs, shares, penalty, gradient, tolerance):
    """Solves Hessian @ step = -gradient by conjugate gradients."""
    import numpy as np

    def hessian_times(step):
        change = inputs @ step
        change = shares * (change - (shares * change).sum(1, keepdims=True))
        return inputs.T @ change + penalty * step

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
