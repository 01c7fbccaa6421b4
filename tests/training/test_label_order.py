"""Another order of the labels is found where it is there, and nowhere else."""

import itertools

import numpy as np
import pytest

from keras_resnet.training import label_order


def answers(classes, images, accuracy, seed, order=None):
    """Returns the targets and the scores of a classifier of about this accuracy."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % classes)
    said = np.where(
        rng.random(images) < accuracy, labels, rng.integers(0, classes, images)
    )
    scores = rng.dirichlet(np.ones(classes), images) * 0.5
    scores[np.arange(images), said] += 0.5
    if order is not None:
        scores = scores[:, np.argsort(order)]
    return np.eye(classes)[labels], scores


@pytest.mark.parametrize("accuracy", [1.0, 0.8, 0.5])
@pytest.mark.parametrize(
    ("classes", "images"), [(2, 24), (3, 36), (10, 120), (100, 300)]
)
def test_the_right_order_is_left_alone(classes, images, accuracy):
    for seed in range(10):
        targets, scores = answers(classes, images, accuracy, seed)
        assert label_order.better_order(targets, scores) is None


def test_two_swapped_classes_of_ten_are_found_at_eighty_percent():
    swapped = np.array([0, 1, 7, 3, 4, 5, 6, 2, 8, 9])
    targets, scores = answers(10, 100, 1.0, 0, swapped)
    assert label_order.right(targets, scores).mean() == 0.8
    order = label_order.better_order(targets, scores)
    np.testing.assert_array_equal(order, swapped)
    assert label_order.right(targets, scores[:, order]).mean() == 1.0


def test_every_order_of_four_classes_is_found():
    for order in itertools.permutations(range(4)):
        targets, scores = answers(4, 48, 0.9, 1, np.array(order))
        found = label_order.better_order(targets, scores)
        if order == (0, 1, 2, 3):
            assert found is None
        else:
            np.testing.assert_array_equal(found, order)


def test_noise_alone_has_another_order_in_one_of_a_hundred():
    """At 1%, of 300 classifiers that guess, at most 9 (three standard deviations)."""
    found = [
        label_order.better_order(*answers(3, 60, 0.0, seed)) is not None
        for seed in range(300)
    ]
    assert sum(found) <= 9


def test_labels_of_several_for_an_image_are_put_in_order_too():
    rng = np.random.default_rng(0)
    targets = (rng.random((80, 5)) < 0.4).astype(float)
    order = np.array([1, 0, 2, 4, 3])
    scores = np.clip(targets + rng.normal(0, 0.3, targets.shape), 0, 1)
    assert label_order.better_order(targets, scores, independent=True) is None
    found = label_order.better_order(
        targets, scores[:, np.argsort(order)], independent=True
    )
    np.testing.assert_array_equal(found, order)


def test_the_likelihood_of_answers_has_a_bound():
    """A single answer that is certain and wrong does not outweigh the right ones."""
    targets = np.eye(2)[[0, 0, 1, 1]]
    scores = np.float64([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [1.0, 0.0]])
    expected = (3 * np.log(0.9) + np.log(0.1 / 2)) / 4
    assert label_order.fit(targets, scores) == pytest.approx(expected)
