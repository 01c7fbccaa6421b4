"""Mixing, erasing and the policies against what their definitions say."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import loop, recipes
from keras_resnet.training.data import augmentation, policies, sources
from keras_resnet.training.distribute import strategies

RECIPE = recipes.RECIPES["cifar"]
WHITE, BLACK = np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)


def seeds(number):
    return [tf.constant([7, n], tf.int64) for n in range(number)]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_are_mixed_as_the_pixels_are(kind):
    """The white share of an image is the share of the white class in its target."""
    recipe = dataclasses.replace(RECIPE, **{kind: 1.0})
    shares = []
    for seed in seeds(40):
        pixels, targets = augmentation.mix(
            recipe, tf.stack([WHITE, BLACK]), tf.eye(2), seed
        )
        white = pixels.numpy().mean((1, 2, 3)) / 255
        np.testing.assert_allclose(white, targets[:, 0], atol=1 / 510 + 1e-6)
        np.testing.assert_allclose(np.sum(targets, 1), 1, atol=1e-6)
        if kind == "cutmix":
            assert set(np.unique(pixels)) <= {0, 255}
        shares.append(white[0])
    # The beta distribution of (1, 1) is uniform; boxes are clipped at the border.
    assert np.std(shares) > 0.2 and 0.35 < np.mean(shares) < 0.8


def test_mixup_and_cutmix_take_turns():
    recipe = dataclasses.replace(RECIPE, mixup=1.0, cutmix=1.0)
    pairs = [
        augmentation.mix(recipe, tf.stack([WHITE, BLACK]), tf.eye(2), seed)[0]
        for seed in seeds(40)
    ]
    boxes = sum(set(np.unique(pair)) <= {0, 255} for pair in pairs)
    assert 10 < boxes < 30


def test_erasing_blanks_a_box_of_the_mean_colour():
    recipe = dataclasses.replace(RECIPE, random_erasing=0.5, augmentation="pad_crop")
    preprocessing = Preprocessing((32, 32), (200.0, 100.0, 50.0))
    image = tf.fill((32, 32, 3), tf.constant(7, tf.uint8))
    shares = []
    for seed in seeds(60):
        erased = augmentation.augment(recipe, preprocessing, image, seed).numpy()
        inside = (erased == (200, 100, 50)).all(-1)
        rows, columns = inside.any(1), inside.any(0)
        assert inside.sum() == rows.sum() * columns.sum()  # one box
        shares.append(inside.mean())
    assert 15 < np.count_nonzero(shares) < 45
    assert 0.01 < min(filter(None, shares)) and max(shares) < 0.36


@pytest.mark.parametrize("name", policies.POLICIES)
def test_a_policy_is_a_pure_function_of_its_seed(name):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    image = tf.constant(pixels)
    eager = [policies.apply(name, image, seed).numpy() for seed in seeds(20)]
    in_graph = tf.data.Dataset.from_tensor_slices(seeds(20)).map(
        lambda seed: policies.apply(name, image, seed)
    )
    np.testing.assert_array_equal(eager, list(in_graph.as_numpy_iterator()))
    changed = [not np.array_equal(one, pixels) for one in eager]
    assert 10 <= sum(changed) < 20  # some draw nothing to do
    assert eager[0].shape == (48, 48, 3) and eager[0].dtype == np.uint8


def test_every_operation_of_the_policies_works_at_every_level():
    ramp = np.arange(64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    image = PIL.Image.fromarray(ramp)
    for amounts in (policies._RAND_AUGMENT, policies._TRIVIAL_AUGMENT):
        for name, amount in amounts.items():
            for level in (0, 0.5, 1):
                result = policies._OPERATIONS[name](image, amount(level, 64))
                assert result.size == (64, 64) and result.mode == "RGB"
                if level == 0 and name in policies._SIGNED:
                    np.testing.assert_array_equal(result, ramp)


def test_solarize_add_brightens_the_dark_half():
    image = PIL.Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    added = policies._OPERATIONS["solarize_add"](image.convert("RGB"), 100)
    expected = [v + 100 if v < 128 else v for v in range(256)]
    np.testing.assert_array_equal(np.asarray(added)[..., 0].ravel(), expected)


def test_mixing_wants_pairs_for_every_replica():
    recipe = dataclasses.replace(RECIPE, mixup=0.2, batch_size=98)
    digits = sources.load("digits")
    replicas = strategies.create("mirrored", cpu_replicas=2)
    with pytest.raises(UserError, match="pairs for each of the 2 replicas: try 96"):
        loop.check_batch_size(recipe, digits, replicas)
