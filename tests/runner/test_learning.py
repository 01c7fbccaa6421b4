"""Learning from features: against scikit-learn, and by its own promises."""

import numpy as np
import pytest
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

from keras_resnet.runner import learning


def clusters(counts, channels=512, spread=0.6, seed=0):
    """Returns (features, labels): as of a network, not negative, in cones."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = rng.gamma(1, 1, (len(counts), channels))
    noise = rng.gamma(1, spread, (len(labels), channels))
    return np.float32(centres[labels] + noise) * rng.uniform(1, 3, (len(labels), 1)), (
        labels
    )


def embedded(name):
    return getattr(datasets, f"load_{name}")(return_X_y=True)


@pytest.mark.parametrize(
    "features, labels, strength",
    [
        (*embedded("iris"), 1.0),
        (learning.unit(embedded("wine")[0]), embedded("wine")[1], 100.0),
        (learning.unit(embedded("breast_cancer")[0]), embedded("breast_cancer")[1], 10),
        (learning.unit(embedded("digits")[0][::9]), embedded("digits")[1][::9], 10.0),
        (*clusters((20, 20), spread=2), 0.01),  # fewer pictures than channels
    ],
    ids=["iris", "wine", "breast_cancer", "digits", "two classes"],
)
def test_the_regression_is_that_of_scikit_learn(features, labels, strength):
    classes = labels.max() + 1
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000)
    expected = theirs.fit(features, labels).predict_proba(features)
    kernel, bias = learning.logistic_regression(features, labels, classes, strength)
    actual = learning.softmax(features @ kernel + bias)
    assert np.ptp(expected, axis=0).min() > 0.1  # no constant could pass
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_class_means_are_the_directions_of_the_mean_unit_features():
    features, labels = clusters((3, 5, 2))
    means = learning.class_means(features, labels, 3)
    for number in range(3):
        rows = features[labels == number]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        expected = rows.mean(0) / np.linalg.norm(rows.mean(0))
        np.testing.assert_allclose(means[number], expected, rtol=1e-6)
    # Neither the length of features nor pictures of nothing matter.
    stretched = np.concatenate([7 * features, features[:2] ** 2])
    others = learning.class_means(stretched, [*labels, 3, 3], 3)
    np.testing.assert_allclose(others, means, rtol=1e-6)
    assert (learning.unit(np.zeros((1, 4))) == 0).all()
