"""The distributions of shifts, crops and flips, measured on rulers.

In a ruler the colour of a pixel is its place, so an augmented image shows where it was
cut out. The expected distributions are those of the cited papers and of TensorFlow's
documentation, drawn with numpy.
"""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training.data import augmentation, decoding
from tests.helpers.datasets import SMALL, as_file
from tests.helpers.distributions import (
    NUMBER,
    as_likely,
    draw,
    same_distribution,
    share_is,
)

HEIGHT, WIDTH = 200, 250


def ruler(height, width):
    """Red is x + 1, green is y + 1, from 1 to the side: 0 is padding."""
    y, x = np.mgrid[:height, :width]
    return np.uint8(np.stack([x + 1, y + 1, 0 * x], -1))


@pytest.mark.parametrize("name", ["pad_crop", "pad_crop_flip"])
def test_images_are_shifted_by_up_to_four_of_32_pixels(name):
    """He et al., section 4.2: 4 pixels of padding, a random crop, half are flipped."""
    augment, _ = augmentation.AUGMENTATIONS[name]
    drawn = draw(lambda seed: augment(tf.constant(ruler(32, 32)), None, seed)).astype(
        int
    )
    middle = drawn[:, 16]  # a row: x grows by one, or shrinks in a flipped image
    flipped = middle[:, 17, 0] < middle[:, 16, 0]
    down = drawn[:, 16, 16, 1] - 17
    right = np.where(flipped, 16 - middle[:, 16, 0], middle[:, 16, 0] - 17)
    for shifts in (down, right):
        assert as_likely(shifts, range(-4, 5))
    assert abs(np.corrcoef(down, right)[0, 1]) < 4 / np.sqrt(NUMBER)
    assert share_is(flipped, 0.5) if "flip" in name else not flipped.any()
    black = (drawn == 0).all(-1).mean((1, 2))
    np.testing.assert_allclose(black, 1 - (1 - abs(down) / 32) * (1 - abs(right) / 32))


def windows(name, size):
    """Measures the crops of a ruler: left, top, width, height in pixels; flipped."""
    encoded = tf.io.encode_png(ruler(HEIGHT, WIDTH))
    augment, _ = augmentation.AUGMENTATIONS[name]
    drawn = draw(
        lambda seed: augment(encoded, Preprocessing((size, size)), seed)
    ).astype(float)
    inner = slice(size // 6, size - size // 6)  # not where the border is interpolated
    places = (np.arange(size) + 0.5)[inner]
    columns = drawn[:, inner, inner, 0].mean(1)
    rows = drawn[:, inner, inner, 1].mean(2)
    slope, left = np.polyfit(places, columns.T - 0.5, 1)
    flipped = slope < 0
    left = np.where(flipped, left + slope * size, left)
    vertical, top = np.polyfit(places, rows.T - 0.5, 1)
    return left, top, np.abs(slope) * size, vertical * size, flipped


@pytest.mark.parametrize(
    "name, least",
    [
        ("random_resized_crop_flip", 0.08),
        ("random_resized_crop_flip_30", 0.3),
        ("random_resized_crop_30", 0.3),
    ],
)
def test_crops_have_the_areas_and_shapes_of_their_name(name, least):
    """Szegedy et al.: 8% to 100% of the area, aspect ratio 3/4 to 4/3.

    As TensorFlow draws: a ratio, then a height.
    """
    left, top, width, height, flipped = windows(name, 32)
    rng = np.random.default_rng(0)
    ratios = rng.uniform(3 / 4, 4 / 3, 200_000)
    image = HEIGHT * WIDTH
    lowest = np.sqrt(least * image / ratios)
    highest = np.min([0 * ratios + HEIGHT, WIDTH / ratios, np.sqrt(image / ratios)], 0)
    areas = rng.uniform(lowest, highest) ** 2 * ratios / image
    ours = width * height / image
    assert same_distribution(ours, areas)
    assert same_distribution(width / height, ratios)
    # And to the ends of the ranges.
    assert least - 0.005 < ours.min() < np.quantile(areas, 0.01)
    assert 0.95 < ours.max() < 1.01
    assert 0.74 < (width / height).min() < 0.77 and 1.30 < (width / height).max() < 1.36
    # Anywhere in the image, where there is room.
    for place, room in ((left, WIDTH - width), (top, HEIGHT - height)):
        assert place.min() > -1 and (place - room).max() < 1
        assert same_distribution((place / room)[room > 10], stats.uniform.cdf)
    assert share_is(flipped, 0.5) if "flip" in name else not flipped.any()


def test_scales_are_256_to_480_of_224():
    """He et al., section 3.4: the shorter side is drawn from 256..480, uniformly."""
    left, top, width, height, flipped = windows("random_scale_crop_flip", 56)
    shorter = 224 * HEIGHT / height  # as if images of 224 pixels were cut out
    assert same_distribution(shorter, stats.uniform(256, 480 - 256).cdf)
    assert 254 < shorter.min() < 262 and 474 < shorter.max() < 482
    np.testing.assert_allclose(width, height, rtol=0.03)  # not distorted
    for place, room in ((left, WIDTH - width), (top, HEIGHT - height)):
        assert place.min() > -1 and (place - room).max() < 1
        assert same_distribution((place / room)[room > 30], stats.uniform.cdf)
    assert share_is(flipped, 0.5)


@pytest.mark.parametrize("name", augmentation.AUGMENTATIONS)
def test_augmentation_is_a_pure_function_of_its_seed(name):
    augment, takes_resized = augmentation.AUGMENTATIONS[name]
    image = tf.random.stateless_uniform((32, 32, 3), (0, 0), 0, 256, tf.int32)
    image = tf.cast(image, tf.uint8)
    if not takes_resized:
        image = tf.io.encode_jpeg(image)
    in_graph = draw(lambda seed: augment(image, SMALL, seed), 8)
    eager = [augment(image, SMALL, tf.constant([11, n], tf.int64)) for n in range(8)]
    np.testing.assert_array_equal(eager, in_graph)
    assert len({result.numpy().tobytes() for result in eager}) > 4
    assert in_graph.shape == (8, 32, 32, 3) and in_graph.dtype == np.uint8


def scene(height, width):
    """A smooth picture without symmetry, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / 20
    waves = [np.sin(x + y / 3), np.cos(y + x / 5), np.sin(x / 2 - y)]
    return np.uint8(128 + 100 * np.stack(waves, -1))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"mode": "L"},
        {"mode": "CMYK"},
        {"orientation": 1},
        {"orientation": 6},
        {"file_format": "PNG", "mode": "RGBA"},
    ],
    ids=str,
)
def test_a_crop_is_the_same_whether_decoded_in_part_or_whole(arguments):
    file = as_file(scene(375, 500), **arguments)
    whole = tf.io.encode_png(decoding.decode(file))  # a PNG has no short cut
    augment, _ = augmentation.AUGMENTATIONS["random_resized_crop_flip"]

    def crops(encoded):
        seeds = tf.constant([[5, n] for n in range(8)], tf.int64)
        image, how = tf.constant(encoded), Preprocessing((64, 64))
        return np.float32([augment(image, how, seed) for seed in seeds])

    ours, theirs = crops(file), crops(whole)
    # In part, the fast DCT is a level off; chroma at the edge of the part is
    # interpolated from one side only.
    assert np.abs(ours - theirs).mean() < 1
    assert np.abs(ours - theirs[::-1]).mean() > 5


def test_crops_of_large_photographs_are_antialiased():
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    augment, _ = augmentation.AUGMENTATIONS["random_resized_crop_flip"]
    encoded = tf.io.encode_jpeg(stripes, quality=100)
    for n in range(8):
        crop = augment(encoded, SMALL, tf.constant([0, n], tf.int64))
        assert np.abs(np.float32(crop) - 127.5).max() < 30
