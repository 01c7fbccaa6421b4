"""The classifier alone: a logistic regression on features, with scikit-learn."""

import dataclasses
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

# Inverse strengths of the L2 penalty (scikit-learn's C) that are tried, strongest
# first, on standardized features.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
# Taken where a class has too few pictures to try.
USUAL = 0.01
FOLDS = 5
# More pictures than these tell no more of the strength.
MOST_TRIED = 2000


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a classifier is fitted.

    Attributes:
        strength: one of `STRENGTHS`.
        mirrored: whether it learns mirror images too.
        loss: mean cross entropy in nats in the cross-validation; None without one.
        top1: share of pictures that were right there; likewise, and with several
            labels the share of labels that were.
    """

    strength: float
    mirrored: bool
    loss: float | None = None
    top1: float | None = None


def choose(features, balance=False):
    """Returns the `Choice` that a cross-validation on training pictures makes.

    On few pictures, a loss is lowest by chance. That is why the usual is chosen unless
    something else is better by more than one standard error (the rule of Breiman et
    al., "Classification and Regression Trees", 1984, section 3.4.3): mirror images are
    learned, unless the pictures cannot be mirrored, as digits; and of the strengths,
    it is the strongest penalty.

    Args:
        features: `features.Features` of the pictures.
        balance: whether every class weighs the same.
    """
    number = len(features.labels)
    if number > MOST_TRIED:
        chosen = np.random.default_rng(0).permutation(number)[:MOST_TRIED]
        features = features.of(np.sort(chosen))
    groups = features.labels
    if groups.ndim == 2:
        groups = np.unique(groups, axis=0, return_inverse=True)[1].ravel()
        counts = np.full(1, len(groups))
    else:
        counts = np.unique(groups, return_counts=True)[1]
    if counts.min() < 2:
        return Choice(USUAL, mirrored=True)
    folds = StratifiedKFold(int(min(FOLDS, counts.min())), shuffle=True, random_state=0)
    tried = {}
    with warnings.catch_warnings():
        # Sets of labels that occur once cannot be in each fold.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(folds.split(features.plain, groups))
    for mirrored in (True, False):
        losses = np.empty((len(STRENGTHS), len(features.labels)))
        right = np.empty_like(losses)
        for learned, tested in parts:
            train, test = features.of(learned), features.of(tested)
            fits = _fits(train, STRENGTHS, mirrored, balance)
            for row, (kernel, bias) in enumerate(fits):
                logits = test.plain @ kernel + bias
                losses[row, tested], right[row, tested] = measures(logits, test.labels)
        tried[mirrored] = losses, right
    best = {mirrored: of[0].mean(1).argmin() for mirrored, of in tried.items()}
    gain = tried[True][0][best[True]] - tried[False][0][best[False]]
    mirrored = bool(gain.mean() <= _error(gain))
    losses, right = tried[mirrored]
    lowest = losses[best[mirrored]]
    row = np.flatnonzero(losses.mean(1) <= lowest.mean() + _error(lowest))[0]
    found = losses[row].mean(), right[row].mean()
    return Choice(STRENGTHS[row], mirrored, *map(float, found))


def _error(values):
    """Returns the standard error of the mean."""
    return values.std() / np.sqrt(len(values))


def fit(features, choice, balance=False):
    """Fits a classifier.

    Args:
        features: `features.Features` of the pictures to learn from.
        choice: `Choice`.
        balance: whether every class weighs the same.

    Returns:
        (kernel, bias): float32 (channels, classes) and (classes,), which give logits:
        of a softmax, or for several labels of sigmoids.
    """
    (fitted,) = _fits(features, (choice.strength,), choice.mirrored, balance)
    return tuple(np.float32(part) for part in fitted)


def _fits(features, strengths, mirrored, balance):
    """Yields (kernel, bias) for each strength, each fit beginning at the last one."""
    inputs, labels = features.plain, features.labels
    if mirrored:
        inputs = np.concatenate([inputs, features.mirrored])
        labels = np.concatenate([labels, labels])
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-3
    inputs = (inputs - mean) / deviation
    several = labels.ndim == 2
    columns = labels.T > 0.5 if several else [labels]
    models = [
        LogisticRegression(
            class_weight="balanced" if balance else None,
            max_iter=1000,
            tol=1e-3,
            warm_start=True,
        )
        for _ in columns
    ]
    for strength in strengths:
        parts = []
        for model, column in zip(models, columns, strict=True):
            if several and column.min() == column.max():
                # No picture has the label, or every one.
                odds = np.log((column.sum() + 0.5) / ((~column).sum() + 0.5))
                parts.append((np.zeros((inputs.shape[1], 1)), np.array([odds])))
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=strength).fit(inputs, column)
            kernel, bias = model.coef_.T, model.intercept_
            if not several and len(bias) == 1:  # two classes: a softmax needs two
                kernel, bias = kernel * [-0.5, 0.5], bias * [-0.5, 0.5]
            parts.append((kernel, bias))
        kernel, bias = (np.concatenate(x, axis=-1) for x in zip(*parts, strict=True))
        kernel = kernel / deviation[:, np.newaxis]
        yield kernel, bias - mean @ kernel


def measures(logits, labels):
    """Returns loss and share of right answers of each picture, from logits."""
    if labels.ndim == 2:
        losses = np.logaddexp(0, logits) - labels * logits
        right = (logits >= 0) == (labels > 0.5)
        return losses.mean(1), right.mean(1)
    logits = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return losses, logits.argmax(1) == labels
