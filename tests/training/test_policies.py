"""RandAugment and TrivialAugment against what timm and torchvision do.

What a policy draws is noted where it applies an operation. What the operations do to
pixels is tested one by one.
"""

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from scipy import stats

from keras_resnet.training.data import policies
from tests.helpers.distributions import as_likely, draw, same_distribution, share_is

NUMBER = 6000
SIDE = 100

# timm's "rand-mM-mstd0.5-inc1", for a magnitude of `m` in 0..10: timm's
# `data/auto_augment.py`, the functions with "increasing" in their names.
RAND_AUGMENT = {
    "auto_contrast": None,
    "equalize": None,
    "invert": None,
    "rotate": lambda m: m / 10 * 30.0,  # degrees
    "posterize": lambda m: 4 - np.int32(m / 10 * 4),  # bits that stay
    "solarize": lambda m: 256 - np.int32(m / 10 * 256),  # threshold
    "solarize_add": lambda m: np.int32(m / 10 * 110),
    "color": lambda m: m / 10 * 0.9,  # added to the factor 1
    "contrast": lambda m: m / 10 * 0.9,
    "brightness": lambda m: m / 10 * 0.9,
    "sharpness": lambda m: m / 10 * 0.9,
    "shear_x": lambda m: m / 10 * 0.3,
    "shear_y": lambda m: m / 10 * 0.3,
    "translate_x": lambda m: m / 10 * 0.45 * SIDE,  # pixels
    "translate_y": lambda m: m / 10 * 0.45 * SIDE,
}
# torchvision's TrivialAugmentWide with 31 bins: `transforms/autoaugment.py`.
TRIVIAL_AUGMENT = {
    "identity": None,
    "shear_x": np.linspace(0, 0.99, 31),
    "shear_y": np.linspace(0, 0.99, 31),
    "translate_x": np.linspace(0, 32, 31),
    "translate_y": np.linspace(0, 32, 31),
    "rotate": np.linspace(0, 135, 31),
    "brightness": np.linspace(0, 0.99, 31),
    "color": np.linspace(0, 0.99, 31),
    "contrast": np.linspace(0, 0.99, 31),
    "sharpness": np.linspace(0, 0.99, 31),
    "posterize": 8 - np.round(np.arange(31) / (30 / 6)),
    "solarize": np.linspace(255, 0, 31),
    "auto_contrast": None,
    "equalize": None,
}
SIGNED = {
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness"),
}


@pytest.fixture
def drawn(monkeypatch):
    """Returns a function: a policy -> for each image the operations and amounts."""

    def of(name):
        noted = []

        def note(operation):
            def noting(image, amount):
                noted[-1].append((operation, amount))
                return image

            return noting

        monkeypatch.setattr(
            policies, "_OPERATIONS", {key: note(key) for key in policies._OPERATIONS}
        )
        image = PIL.Image.new("RGB", (SIDE, SIDE))
        for index in range(NUMBER):
            noted.append([])
            policies.POLICIES[name](image, np.random.default_rng((7, index)))
        return noted

    return of


def amounts(drawn):
    """Returns {operation: array of its amounts}."""
    found = {}
    for operation, amount in (pair for image in drawn for pair in image):
        found.setdefault(operation, []).append(amount)
    return {operation: np.array(values) for operation, values in found.items()}


def assert_half_are_negative(operation, values):
    changed = values[values != 0]
    if operation in SIGNED:
        assert share_is(changed < 0, 0.5), operation
    else:
        assert (values >= 0).all(), operation


@pytest.mark.parametrize("magnitude", [6, 7])
def test_rand_augment_draws_as_timm_does(drawn, magnitude):
    """Two operations, each applied half of the time, at magnitudes N(M, 0.5)."""
    images = drawn(f"rand_augment_{magnitude}")
    counts = np.bincount([len(image) for image in images], minlength=3)
    assert stats.chisquare(counts, NUMBER * np.array([1, 2, 1]) / 4).pvalue > 0.001
    pairs = [pair for image in images for pair in image]
    assert as_likely([operation for operation, _ in pairs], RAND_AUGMENT)
    magnitudes = np.random.default_rng(0).normal(magnitude, 0.5, 100_000).clip(0, 10)
    for operation, values in amounts(images).items():
        if RAND_AUGMENT[operation]:
            expected = RAND_AUGMENT[operation](magnitudes)
            assert same_distribution(np.abs(values), expected), operation
            assert_half_are_negative(operation, values)


def test_trivial_augment_draws_as_torchvision_does(drawn):
    """One operation at one of 31 strengths, all equally likely."""
    images = drawn("trivial_augment")
    assert {len(image) for image in images} == {1}
    assert as_likely([image[0][0] for image in images], TRIVIAL_AUGMENT)
    for operation, values in amounts(images).items():
        if TRIVIAL_AUGMENT[operation] is not None:
            bins = TRIVIAL_AUGMENT[operation]
            places = np.abs(bins[:, None] - np.abs(values)).argmin(0)
            np.testing.assert_allclose(np.abs(values), bins[places], atol=1e-9)
            assert same_distribution(bins[places], np.tile(bins, 4000)), operation
            assert {*bins} == {*bins[places]}, operation
            assert_half_are_negative(operation, values)


@pytest.mark.parametrize("name", policies.POLICIES)
def test_a_policy_is_a_pure_function_of_its_seed(name):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    image = tf.constant(pixels)
    in_graph = draw(lambda seed: policies.apply(name, image, seed), 20)
    seeds = [tf.constant([11, n], tf.int64) for n in range(20)]
    eager = [policies.apply(name, image, seed).numpy() for seed in seeds]
    np.testing.assert_array_equal(eager, in_graph)
    changed = [not np.array_equal(one, pixels) for one in eager]
    assert 10 <= sum(changed) < 20  # some draw nothing to do
    assert eager[0].shape == (48, 48, 3) and eager[0].dtype == np.uint8


def changed(operation, pixels, amount):
    """Returns what an operation makes of an array."""
    image = policies._OPERATIONS[operation](PIL.Image.fromarray(pixels), amount)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.fixture
def levels():
    """Every level once, uint8 (16, 16, 3), grey."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)


def test_operations_on_levels_do_what_their_names_say(levels):
    grey = levels.astype(int)
    for bits in range(1, 9):
        step = 2 ** (8 - bits)
        posterized = changed("posterize", levels, bits)
        np.testing.assert_array_equal(posterized, grey // step * step)
    solarized = changed("solarize", levels, 100)
    np.testing.assert_array_equal(solarized, np.where(grey < 100, grey, 255 - grey))
    np.testing.assert_array_equal(changed("invert", levels, 0), 255 - grey)
    added = np.where(grey < 128, np.minimum(255, grey + 100), grey)
    np.testing.assert_array_equal(changed("solarize_add", levels, 100), added)
    brighter = np.minimum(255, grey * 1.5)
    np.testing.assert_allclose(changed("brightness", levels, 0.5), brighter, atol=1)
    darker = grey * 0.5
    np.testing.assert_allclose(changed("brightness", levels, -0.5), darker, atol=1)
    flatter = grey.mean() + (grey - grey.mean()) * 0.5
    np.testing.assert_allclose(changed("contrast", levels, -0.5), flatter, atol=1)
    narrow = np.uint8(levels // 2 + 50)
    np.testing.assert_allclose(changed("auto_contrast", narrow, 0), grey, atol=2)


def test_equalize_spreads_levels_evenly(noise):
    equalized = changed("equalize", np.tile(noise // 3 + 50, (4, 4, 1)), 0)
    quantiles = np.quantile(equalized, np.linspace(0, 1, 11))
    np.testing.assert_allclose(quantiles, np.linspace(0, 255, 11), atol=5)


def test_colour_and_sharpness_change_by_their_factors(noise):
    weights = [0.299, 0.587, 0.114]  # ITU-R 601, Pillow's greys
    grey = (noise @ weights)[..., None]
    paler = grey + 0.5 * (noise - grey)
    np.testing.assert_allclose(changed("color", noise, -0.5), paler, atol=2)
    blurred, same = changed("sharpness", noise, -0.9), changed("sharpness", noise, 0)
    sharper = changed("sharpness", noise, 0.9)
    assert blurred.std() < same.std() < sharper.std()


def test_images_are_moved_by_the_amounts(noise):
    image = noise.astype(int)
    right = changed("translate_x", noise, -10)
    np.testing.assert_array_equal(right[:, 10:], image[:, :-10])
    assert (right[:, :10] == (124, 116, 104)).all()  # ImageNet's mean colour
    up = changed("translate_y", noise, 10)
    np.testing.assert_array_equal(up[:-10], image[10:])
    np.testing.assert_array_equal(changed("rotate", noise, 90), np.rot90(image))


@pytest.mark.parametrize("angle", [-20, 45])
@pytest.mark.parametrize("shear", [-0.3, 0.5])
def test_images_are_sheared_and_rotated_by_the_amounts(angle, shear):
    y, x = np.mgrid[:64, :64]
    ruler = np.uint8(np.stack([3 * x, 3 * y, 0 * x + 255], -1))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    dx, dy = x - 31.5, y - 31.5
    for operation, amount, from_x, from_y in (
        ("shear_x", shear, x + shear * (y + 0.5), y),
        ("shear_y", shear, x, y + shear * (x + 0.5)),
        ("rotate", angle, 31.5 + cos * dx - sin * dy, 31.5 + sin * dx + cos * dy),
    ):
        moved = changed(operation, ruler, amount)
        places = np.stack([from_x, from_y], -1)
        inside = ((places >= 0) & (places <= 63)).all(-1)
        assert 0.5 < inside.mean() < 1
        np.testing.assert_allclose(moved[inside][:, :2], 3 * places[inside], atol=2)
        outside = ((places < -1) | (places > 64)).any(-1)
        assert (moved[outside] == (124, 116, 104)).all()


@pytest.mark.parametrize("operation", sorted(SIGNED))
def test_a_strength_of_zero_changes_nothing(noise, operation):
    np.testing.assert_array_equal(changed(operation, noise, 0), noise)
