"""The classifier alone, fitted to features and chosen by cross-validation.

Where a picture has one class, `runner.learning` fits it, as on a device. Where it may
have several labels, each has a logistic regression of its own, with scikit-learn.
"""

import dataclasses
import functools
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from keras_resnet.runner import learning

# Inverse strengths of the L2 penalty (scikit-learn's C) that are tried for several
# labels, strongest first, on standardized features.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
# Taken where a class has too few pictures to try, of `learning.STRENGTHS` and these.
USUAL = {False: 5.0, True: 0.01}
FOLDS = 5
# More pictures than these tell no more of the strength.
MOST_TRIED = 2000


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a classifier is fitted, and what it said of pictures that it did not learn.

    Attributes:
        strength: one of `learning.STRENGTHS`, or with several labels of `STRENGTHS`.
        mirrored: whether it learns mirror images too.
        logits: float64 (pictures, classes), of a cross-validation; None without one.
        labels: those of its pictures, as in `features.Features`; likewise.
    """

    strength: float
    mirrored: bool
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None

    @functools.cached_property
    def measures(self):
        """Loss and share of right answers of each picture, for `learning.is_better`.

        With one label each, the logits are divided by the temperature that suits them.
        """
        if self.labels.ndim == 1:
            return learning.calibrated_measures(self.logits, self.labels)
        return measures(self.logits, self.labels)


def choose(features, balance=False):
    """Returns the `Choice` that a cross-validation on training pictures makes.

    The strength is chosen as by `learning.best_of`. Mirror images are learned, unless
    the loss is lower without them by more than one standard error: some pictures cannot
    be mirrored, as digits.

    Args:
        features: `features.Features` of the pictures.
        balance: whether every class weighs the same.
    """
    number = len(features.labels)
    if number > MOST_TRIED:
        features = features.of(_some(features.labels))
    groups, several = features.labels, features.labels.ndim == 2
    if several:
        groups = np.unique(groups, axis=0, return_inverse=True)[1].ravel()
        counts = np.full(1, len(groups))
    else:
        counts = np.unique(groups, return_counts=True)[1]
    if counts.min() < 2:
        return Choice(USUAL[several], mirrored=True)
    folds = StratifiedKFold(int(min(FOLDS, counts.min())), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # Sets of labels that occur once cannot be in each fold.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(folds.split(features.plain, groups))
    strengths = STRENGTHS if several else learning.STRENGTHS
    tried = []
    for mirrored in (True, False):
        logits = [[] for _ in strengths]
        for learned, tested in parts:
            fits = _fits(features.of(learned), strengths, mirrored, balance)
            with _one_thread():
                for found, (kernel, bias) in zip(logits, fits, strict=True):
                    inputs = features.plain[tested]
                    inputs = inputs if several else learning.unit(inputs)
                    found.append(inputs @ kernel + bias)
        labels = features.labels[np.concatenate([tested for _, tested in parts])]
        choices = [
            Choice(strength, mirrored, np.concatenate(found), labels)
            for strength, found in zip(strengths, logits, strict=True)
        ]
        tried.append(_best(choices))
    choice, other = tried
    gain = choice.measures[0] - other.measures[0]
    return choice if gain.mean() <= gain.std() / np.sqrt(len(gain)) else other


def _some(labels):
    """Returns the numbers of `MOST_TRIED` pictures, and `FOLDS` of each class."""
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = set(order[:MOST_TRIED])
    if labels.ndim == 1:
        for label in np.unique(labels):
            chosen.update(order[labels[order] == label][:FOLDS])
    return np.sort(list(chosen))


def best_on(learned, tested, mirrored, balance=False):
    """Returns the `Choice` whose classifier is best on pictures that it did not learn.

    Args:
        learned: `features.Features` of the pictures to learn from, each of one class.
        tested: those of the others.
        mirrored: whether it learns mirror images too.
        balance: whether every class weighs the same.
    """
    with _one_thread():
        choices = [
            Choice(strength, mirrored, learning.unit(tested.plain) @ kernel + bias)
            for strength, (kernel, bias) in zip(
                learning.STRENGTHS,
                _fits(learned, learning.STRENGTHS, mirrored, balance),
                strict=True,
            )
        ]
    return _best([dataclasses.replace(c, labels=tested.labels) for c in choices])


def _best(choices):
    """Returns the best of some `Choice`s, the strongest penalty coming first."""
    return choices[learning.best_of([choice.measures for choice in choices])]


def fit(features, choice, balance=False):
    """Fits a classifier.

    Args:
        features: `features.Features` of the pictures to learn from.
        choice: `Choice`.
        balance: whether every class weighs the same.

    Returns:
        (kernel, bias): float32 (channels, columns) and (columns,). They give the logits
        of a softmax from unit features, or for several labels those of sigmoids from
        features.
    """
    with _one_thread():
        (fitted,) = _fits(features, (choice.strength,), choice.mirrored, balance)
    return tuple(np.float32(part) for part in fitted)


def _one_thread():
    """Lets NumPy compute in one thread.

    The matrices are small: several threads are no faster, and much slower where other
    work makes them wait for each other.
    """
    return threadpool_limits(1)


def _fits(features, strengths, mirrored, balance):
    """Yields (kernel, bias) for each strength, each fit beginning at the last one."""
    inputs, labels = features.plain, features.labels
    if mirrored:
        inputs = np.concatenate([inputs, features.mirrored])
        labels = np.concatenate([labels, labels])
    if labels.ndim == 2:
        return _several_labels(inputs, labels, strengths, balance)
    weights = None
    if balance:
        _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
        weights = len(labels) / len(counts) / counts[places]
    shape = features.classes, features.columns
    return learning.fit(inputs, labels, *shape, strengths, weights, features.kept)


def _several_labels(inputs, labels, strengths, balance):
    """Yields (kernel, bias) of a logistic regression for each label."""
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-3
    inputs = (inputs - mean) / deviation
    columns = labels.T > 0.5
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
            if column.min() == column.max():
                # No picture has the label, or every one.
                odds = np.log((column.sum() + 0.5) / ((~column).sum() + 0.5))
                parts.append((np.zeros((inputs.shape[1], 1)), np.array([odds])))
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=strength).fit(inputs, column)
            parts.append((model.coef_.T, model.intercept_))
        kernel, bias = (np.concatenate(x, axis=-1) for x in zip(*parts, strict=True))
        kernel = kernel / deviation[:, np.newaxis]
        yield kernel, bias - mean @ kernel


def measures(logits, labels):
    """Returns loss and share of right answers of each picture of several labels."""
    losses = np.logaddexp(0, logits) - labels * logits
    right = (logits >= 0) == (labels > 0.5)
    return losses.mean(1), right.mean(1)
