"""The classifier that a device learns: what is chosen, and what is unknown."""

import numpy as np
import pytest

from keras_resnet.runner import head as heads
from keras_resnet.runner import learning
from tests.runner.test_learning import clusters


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 1.0])
def test_the_share_of_new_pictures_reaches_the_threshold(share):
    features, labels = clusters((12, 20, 8), spread=2)
    threshold = heads.known_threshold(features, labels, 3, share)
    cosines = []
    for left_out in range(len(labels)):
        kept = np.arange(len(labels)) != left_out
        means = learning.class_means(features[kept], labels[kept], 3)
        cosines.append((means @ learning.unit(features[left_out])).max())
    below = np.array(cosines) - threshold
    rank = (below < -1e-9).sum() + 1
    assert np.abs(below).min() < 1e-9
    # The next picture may lie in each of the 41 gaps between these cosines.
    assert rank / 41 <= 1 - share or rank == 1
    assert (rank + 1) / 41 > 1 - share


def test_pictures_alone_in_their_class_do_not_move_the_threshold():
    features, labels = clusters((10, 10, 1), spread=2)
    two = heads.known_threshold(features[:20], labels[:20], 3, 0.9)
    assert heads.known_threshold(features, labels, 3, 0.9) == pytest.approx(two)
    assert heads.known_threshold(features[::10], labels[::10], 3, 0.9) == -1


@pytest.mark.parametrize("strength", [None, 10.0])
def test_unknown_is_answered_exactly_below_the_threshold(strength):
    features, labels = clusters((12, 20, 8), spread=2)
    noise = np.random.default_rng(0).gamma(1, 1, features.shape)
    others = features + noise * np.linspace(0, 20, 40)[:, np.newaxis]
    head = heads.fit_head(features, labels, 3, 0.9, strength)
    both = np.concatenate([features, others])
    scores = heads.head_scores(both, head)
    cosines = (learning.unit(both) @ head.means.T).max(1)
    unknown = cosines < head.threshold
    assert 5 < unknown.sum() < 75
    assert ((scores.argmax(1) == 3) == unknown).all()
    np.testing.assert_allclose(scores.sum(1), 1)
    # Among the classes, the scores are those of the classifier without `unknown`.
    plain = heads.head_scores(both, head._replace(threshold=None))
    shares = scores[:, :3] / scores[:, :3].sum(1, keepdims=True)
    np.testing.assert_allclose(shares, plain, atol=1e-12)
    # `unknown` lies 40 times the missing cosine above the best class.
    distance = np.log(scores[:, 3] / scores[:, :3].max(1))
    np.testing.assert_allclose(distance, 40 * (head.threshold - cosines), atol=1e-9)


def test_the_logits_of_class_means_are_40_times_the_cosines():
    features, labels = clusters((12, 20, 8), spread=2)
    head = heads.fit_head(features, labels, 3, 1.0)
    cosines = learning.unit(features) @ learning.class_means(features, labels, 3).T
    expected = learning.softmax(40 * cosines)
    np.testing.assert_allclose(heads.head_scores(features, head), expected)


@pytest.mark.parametrize("strength", [None, 10.0])
def test_pictures_of_nothing_are_learned_as_unknown(strength):
    features, labels = clusters((12, 20, 8, 15), spread=2)
    new, _ = clusters((1, 1, 1, 30), spread=1.5)
    head = heads.fit_head(features, labels, 3, 0.9, strength)
    # The classes are what they are without these pictures, and so is the threshold.
    without = heads.fit_head(features[:40], labels[:40], 3, 0.9, strength)
    assert without.nothing is None
    for one, other in zip(head[:4], without[:4], strict=True):
        np.testing.assert_array_equal(one, other)
    # A threshold that all reach: the pictures of nothing alone tell what is unknown.
    low = [one._replace(threshold=-1.0) for one in (head, without)]
    answers = [heads.head_scores(new[3:], one).argmax(1) for one in low]
    assert (answers[0] == 3).all() and (answers[1] < 3).all()
    units = learning.unit(np.concatenate([features, new]))
    unknown = units @ head.nothing > (units @ head.means.T).max(1)
    found = heads.head_scores(units, low[0]).argmax(1)
    assert ((found == 3) == unknown).all() and 0 < unknown.sum() < len(unknown)


def test_without_unknown_the_scores_are_those_of_the_classes():
    features, labels = clusters((12, 20, 8))
    head = heads.fit_head(features, labels, 3, 1.0)
    scores = heads.head_scores(features, head)
    assert head.threshold is None and scores.shape == (40, 3)
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
    seen = heads.head_scores(features, choice.head).argmax(1)
    assert np.mean(seen == labels) > 0.9


def test_the_method_that_answers_best_is_chosen():
    features, labels = clusters((10, 10, 10))
    choice = heads.choose_head(features, labels, 3, 1.0)
    assert (choice.answers == labels).all()  # whatever is tried
    assert choice.strength == 10
    methods = set()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        features = 1 + rng.normal(0, 1, (40, 100))
        labels = np.repeat([0, 1], 20)
        features[labels == 1, :40] += 0.4
        choice = heads.choose_head(features, labels, 2, 1.0)
        right = {}
        for strength in heads.TRIED:
            answers = heads.cross_validate(features, labels, 2, 1.0, strength)
            right[strength] = (answers == labels).sum()
        assert (choice.answers == labels).sum() == max(right.values())
        assert right[choice.strength] == max(right.values())
        methods.add(choice.method)
    assert methods == {heads.CLASS_MEANS, heads.LOGISTIC_REGRESSION}
