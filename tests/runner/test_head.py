"""The classifier that a device learns: what is chosen, and what is unknown."""

import numpy as np
import pytest

from keras_resnet.runner import head as heads
from keras_resnet.runner import learning
from tests.runner.test_learning import clusters


def answers_of(features, head):
    return heads.head_scores(features, head).argmax(1)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_new_pictures_are_known_and_strangers_are_not(share):
    features, labels = clusters((40, 40, 40), spread=2)
    new, _ = clusters((200, 200, 200), spread=2)
    noise = np.random.default_rng(1).gamma(1, 1, new.shape)
    choice = heads.choose_head(features, labels, 3, share)
    known = np.mean(answers_of(new, choice.head) < 3)
    assert share - 0.05 < known < share + 0.1
    assert np.mean(choice.answers < 3) >= share
    assert np.mean(answers_of(new + 20 * noise, choice.head) < 3) < known / 2


def test_pictures_of_nothing_are_learned_as_unknown():
    features, labels = clusters((12, 20, 8, 15), spread=2)
    new, _ = clusters((20, 20, 20, 30), spread=2, seed=0)
    # They resemble the first class, so that a limit alone lets them pass.
    nothing = clusters((45,), spread=2, seed=0)[0] + clusters((45,), seed=5)[0] / 3
    features = np.concatenate([features[:40], nothing[:15]])
    new = np.concatenate([new[:60], nothing[15:]])
    answers = {}
    for number in (40, 55):  # without and with pictures of nothing
        choice = heads.choose_head(features[:number], labels[:number], 3, 0.95)
        answers[number] = answers_of(new, choice.head)
    assert np.mean(answers[55][60:] == 3) > 0.8 > 0.2 > np.mean(answers[40][60:] == 3)
    assert np.mean(answers[55][:60] == np.repeat([0, 1, 2], 20)) > 0.9


def test_without_unknown_the_scores_are_those_of_the_classes():
    features, labels = clusters((12, 20, 8))
    head = heads.choose_head(features, labels, 3, 1.0).head
    scores = heads.head_scores(features, head)
    assert scores.shape == (40, 3)
    assert (scores.argmax(1) == labels).all()


@pytest.mark.parametrize("counts", [(2, 2), (2, 30), (5, 7, 20)])
def test_folds_split_every_class_and_keep_neighbours_together(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    folds = heads.fold_numbers(labels)
    for label, count in enumerate(counts):
        own = folds[labels == label]
        assert (np.diff(own) >= 0).all()
        assert len(np.unique(own)) == min(count, 5)


def test_the_cross_validation_does_not_see_what_it_answers():
    rng = np.random.default_rng(0)
    features = rng.gamma(1, 1, (60, 512))
    labels = np.repeat([0, 1], 30)
    choice = heads.choose_head(features, labels, 2, 1.0)
    # Noise can be learned by heart, but not foretold.
    assert np.mean(choice.answers == labels) < 0.75
    assert np.mean(answers_of(features, choice.head) == labels) > 0.9


def test_the_class_means_stay_unless_a_regression_is_better():
    features, labels = clusters((10, 10, 10))
    choice = heads.choose_head(features, labels, 3, 1.0)
    assert choice.strength == 0 and (choice.answers == labels).all()
    cosines = learning.unit(features) @ learning.class_means(features, labels, 3).T
    scale = choice.head.kernel / learning.class_means(features, labels, 3).T
    assert np.ptp(scale) < 1e-9 * scale.max()  # 40 divided by the temperature
    np.testing.assert_allclose(
        heads.head_scores(features, choice.head),
        learning.softmax(scale.mean() * cosines),
    )
    # Channels that differ among pictures of one class hide those that tell the classes.
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (60, 20)) * np.geomspace(6, 0.2, 20)
    features += np.repeat(rng.normal(0, 1, (3, 20)), 20, axis=0)
    labels = np.repeat([0, 1, 2], 20)
    choice = heads.choose_head(features, labels, 3, 1.0)
    means = learning.class_means(features, labels, 3)
    assert choice.strength > 0
    by_means = (learning.unit(features) @ means.T).argmax(1)
    assert np.mean(choice.answers == labels) > np.mean(by_means == labels)
