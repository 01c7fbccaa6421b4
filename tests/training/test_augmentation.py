"""Mixing and erasing against what their papers say."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import checks, recipes
from keras_resnet.training.data import augmentation, sources
from keras_resnet.training.distribute import strategies
from tests.helpers.distributions import draw, same_distribution, share_is

RECIPE = dataclasses.replace(recipes.RECIPES["cifar"], augmentation="pad_crop")


def pairs(size=32, **changes):
    """Mixes white, the first class, and black, the second one, many times."""
    recipe = dataclasses.replace(RECIPE, **changes)
    shape = (2, size, size, 1)
    images = tf.constant(np.broadcast_to([[[[255]]], [[[0]]]], shape), tf.uint8)
    return draw(lambda seed: augmentation.mix(recipe, images, tf.eye(2), seed))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_are_mixed_as_the_pixels_are(kind):
    """The white share of an image is the share of the white class in its target."""
    pixels, targets = pairs(**{kind: 1.0})
    white = pixels.mean((2, 3, 4)) / 255
    np.testing.assert_allclose(white, targets[..., 0], atol=1 / 510 + 1e-6)
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(targets[:, 0], targets[:, 1, ::-1])  # of both alike
    if kind == "cutmix":
        assert set(np.unique(pixels)) == {0, 255}


def beta(alpha):
    """Both papers draw lambda, the share of an image, from Beta(alpha, alpha)."""
    return np.random.default_rng(0).beta(alpha, alpha, 100_000).astype(np.float32)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0])
def test_mixup_shares_are_beta_distributed(alpha):
    _, targets = pairs(mixup=alpha)
    assert same_distribution(targets[:, 0, 0], beta(alpha))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_cutmix_boxes_have_the_published_sizes(alpha):
    """Yun et al.: sides of sqrt(1 - lambda), the centre anywhere, clipped."""
    rng = np.random.default_rng(1)
    side, area = np.sqrt(1 - beta(alpha)), 1
    for _ in ("height", "width"):
        centre = rng.uniform(0, 1, len(side))
        area *= np.minimum(centre + side / 2, 1) - np.maximum(centre - side / 2, 0)
    _, targets = pairs(size=200, cutmix=alpha)
    assert same_distribution(targets[:, 0, 0], 1 - area)


def test_cutmix_boxes_are_anywhere():
    """Boxes of sides s, 1/2 in the mean of s * s: a corner is in those within s / 2."""
    pixels, _ = pairs(size=64, cutmix=1.0)
    box = pixels[:, 0, :, :, 0] == 0
    assert (box.sum((1, 2)) == box.any(1).sum(1) * box.any(2).sum(1)).all()
    covered = box.mean(0)[[[0], [32], [63]], [0, 32, 63]]
    expected = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 8
    np.testing.assert_allclose(covered, expected, atol=0.05)


def test_mixup_and_cutmix_are_equally_likely():
    pixels, _ = pairs(mixup=1.0, cutmix=1.0)
    assert share_is(((pixels == 0) | (pixels == 255)).all((1, 2, 3, 4)), 0.5)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_boxes_are_erased_as_often_as_the_recipe_says(probability):
    erased = erase(probability)
    assert share_is(erased.any((1, 2)), probability)


def erase(probability, size=64):
    """Returns for many seeds which pixels have the mean colour."""
    recipe = dataclasses.replace(RECIPE, random_erasing=probability)
    preprocessing = Preprocessing((size, size), (200.0, 100.0, 50.0))
    # Padding is black, and no pixel of the image is.
    image = tf.fill((size, size, 3), tf.constant(7, tf.uint8))
    images = draw(lambda seed: augmentation.augment(recipe, preprocessing, image, seed))
    erased = (images == (200, 100, 50)).all(-1)
    assert np.isin(images[~erased], (0, 7)).all()
    return erased


def test_erased_boxes_have_the_published_areas_and_shapes():
    """Zhong et al., as in torchvision: area 2% to 33%, aspect ratio 0.3 to 3.3."""
    erased = erase(1.0)
    heights, widths = erased.any(2).sum(1), erased.any(1).sum(1)
    assert (erased.sum((1, 2)) == heights * widths).all()  # one box
    areas = heights * widths / 64**2
    assert same_distribution(areas, stats.uniform(0.02, 0.33 - 0.02).cdf)
    assert 0.015 < areas.min() < 0.03 and 0.30 < areas.max() < 0.34
    # In a large box the ratio is limited by the image, in a small one by whole pixels.
    middle = (areas > 0.05) & (areas < 0.28)
    ratios = np.log(heights / widths)[middle]
    limit = np.log(3.3)
    assert same_distribution(ratios, stats.uniform(-limit, 2 * limit).cdf)
    for axis, extents in ((2, heights), (1, widths)):
        start = erased.any(axis).argmax(1)
        room = 64 - extents
        assert (start <= room).all()
        place = (start + 0.5) / (room + 1)
        assert same_distribution(place[room > 20], stats.uniform.cdf)


def test_mixing_wants_pairs_for_every_replica():
    recipe = dataclasses.replace(RECIPE, mixup=0.2, batch_size=98)
    digits = sources.load("digits")
    replicas = strategies.create("mirrored", cpu_replicas=2)
    with pytest.raises(UserError, match="pairs for each of the 2 replicas: try 96"):
        checks.batch_size(recipe, digits, replicas)
