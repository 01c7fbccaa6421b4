"""Boxes and masks move with the pixels, as often and as far as it is said."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.runner.boxes import IGNORED, Objects
from keras_resnet.training.data.scenes import augmentation
from keras_resnet.training.data.scenes.scene_dataset import objects
from tests.helpers.distributions import share_is

INPUT = (48, 64)
FLIPS = augmentation.AUGMENTATIONS["scale_crop_flip_colour"]
PLAIN = dataclasses.replace(FLIPS, colour=False)
KEPT = PLAIN.kept_size(INPUT)
SEEDS = range(400)


def augmented(image, target, changes=PLAIN, seeds=SEEDS):
    """The same picture with many seeds: (images, list of targets), numpy arrays."""
    one = tf.function(
        lambda seed: augmentation.augment(changes, INPUT, image, target, seed)
    )
    made = [one(tf.constant([3, seed], tf.int64)) for seed in seeds]
    images = np.stack([image.numpy() for image, _ in made])
    return images, [tf.nest.map_structure(np.array, target) for _, target in made]


def rectangle(box):
    """A white rectangle on grey, at the size at which pictures are kept."""
    image = np.full((*KEPT, 3), 100, np.uint8)
    top, left, bottom, right = box
    image[top:bottom, left:right] = 255
    return tf.constant(image)


def as_tensors(found):
    return Objects(*map(tf.constant, found))


@pytest.fixture(scope="module")
def moved():
    """A rectangle left of the middle, 400 times."""
    box = (20, 15, 40, 35)
    return box, *augmented(
        rectangle(box), as_tensors(objects(np.array([box]) / (KEPT * 2), [4]))
    )


def test_boxes_move_with_the_pixels(moved):
    _, images, targets = moved
    assert images.shape == (len(SEEDS), *INPUT, 3) and images.dtype == np.uint8
    for image, target in zip(images, targets, strict=True):
        bright = image[..., 0] > 178
        (box,) = target.boxes * (INPUT * 2)
        rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
        seen = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        np.testing.assert_allclose(box, seen, atol=1.01)
        assert target.classes.tolist() == [4]


def test_the_sizes_and_places_are_spread_evenly(moved):
    """The scale from 0.75 to 1.25, the place in what room there is, half mirrored."""
    box, images, targets = moved
    boxes = np.concatenate([target.boxes for target in targets])
    whole = np.flatnonzero(((boxes > 0) & (boxes < 1)).all(1))
    # Relative to the share of the kept picture that the box has.
    scales = (boxes[:, 2:] - boxes[:, :2]) / (20 / np.array(KEPT))
    assert 0.73 < scales[whole].min() < 0.78 and 1.22 < scales[whole].max() < 1.27
    np.testing.assert_allclose(scales[whole, 0], scales[whole, 1], atol=0.03)
    black = (images == 0).all(-1).any((1, 2))  # scaled down, so that something is left
    assert share_is(black, 0.5)
    padding = (images[:, 24] == 0).all(-1)  # a row
    left = padding.argmin(1)
    right = padding[:, ::-1].argmin(1)
    room = left + right
    places = (left / np.maximum(room, 1))[room > 4]
    assert abs(places.mean() - 0.5) < 0.1 and places.min() < 0.1 and places.max() > 0.9


def test_half_are_mirrored_or_none():
    """The picture is a ramp from left to right."""
    ramp = np.tile(np.linspace(20, 200, KEPT[1]), (KEPT[0], 1))
    image = tf.constant(np.stack([ramp] * 3, -1).astype(np.uint8))
    target = as_tensors(objects([], []))

    def falls(changes):
        images, _ = augmented(image, target, changes)
        return images[:, 24, 28, 0] > images[:, 24, 36, 0]

    assert share_is(falls(PLAIN), 0.5)
    assert not falls(dataclasses.replace(PLAIN, flip=False)).any()
    assert not augmentation.AUGMENTATIONS["scale_crop_colour"].flip


def test_masks_move_with_the_pixels():
    rng = np.random.default_rng(0)
    mask = rng.integers(1, 3, (6, 8)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    assert mask.shape == KEPT
    image = tf.constant(np.stack([mask * 50] * 3, -1))
    images, targets = augmented(image, tf.constant(mask))
    for image, target in zip(images[..., 0], targets, strict=True):
        assert target.dtype == np.uint8 and target.shape == INPUT
        is_padding = target == IGNORED
        assert ((image == 0) == is_padding).all()
        # Not at the edges, where the picture is interpolated.
        flat = (image % 50 == 0) & ~is_padding
        assert flat.sum() > 0.3 * (~is_padding).sum()
        assert (image[flat] == target[flat] * 50).all()


def test_an_example_depends_on_nothing_but_its_seed():
    rng = np.random.default_rng(0)
    image = tf.constant(rng.integers(0, 256, (*KEPT, 3), np.uint8))
    target = as_tensors(objects(rng.random((3, 4)), [0, 1, 2]))
    tf.random.set_seed(1)
    first, boxes = augmented(image, target, FLIPS, range(5))
    try:
        tf.random.set_seed(2)
        again, same_boxes = augmented(image, target, FLIPS, range(5))
    finally:
        tf.random.set_seed(None)
    np.testing.assert_array_equal(first, again)
    for one, other in zip(boxes, same_boxes, strict=True):
        np.testing.assert_equal(one, other)
    assert len({image.tobytes() for image in first}) == 5


def test_an_object_whose_centre_is_outside_is_ignored():
    """Liu et al.: by its centre. Of one that is not to be seen nothing is left."""
    boxes = {
        "inside": (0.2, 0.2, 0.4, 0.4),
        "centre inside": (-0.1, 0.5, 0.3, 1.2),
        "centre outside": (0.5, -0.3, 0.9, 0.2),
        "outside": (0.5, 1.1, 0.9, 1.4),
        "at the edge": (-0.4, 0.0, 0.0, 0.5),
    }
    found = objects(list(boxes.values()), range(5))
    left = tf.nest.map_structure(np.array, augmentation.visible(as_tensors(found)))
    assert left.classes.tolist() == [0, 1, 2]
    assert left.ignored.tolist() == [False, False, True]
    np.testing.assert_allclose(
        left.boxes,
        [boxes["inside"], (0, 0.5, 0.3, 1), (0.5, 0, 0.9, 0.2)],
        atol=1e-6,
    )


WHOLE = dataclasses.replace(FLIPS, scales=(1.0, 1.0))
NOTHING = as_tensors(objects([], []))


def coloured(*rgb):
    return tf.fill((*INPUT, 3), tf.constant(0, tf.uint8)) + np.uint8(rgb)


def test_half_of_the_pictures_have_another_brightness():
    """Grey pictures show nothing of the other changes."""
    images, _ = augmented(coloured(100, 100, 100), NOTHING, WHOLE)
    levels = images[:, 0, 0, 0].astype(int)
    assert (images == levels[:, None, None, None]).all()
    assert 60 <= levels.min() < 62 and 118 < levels.max() <= 120
    assert share_is(levels != 100, 0.5 * 59 / 60)  # some come out as they were


def test_half_have_other_colours():
    images, _ = augmented(coloured(150, 100, 100), NOTHING, WHOLE)
    hsv = tf.image.rgb_to_hsv(images[:, 0, 0] / 255).numpy()
    saturation = hsv[:, 1] / (50 / 150)
    assert 0.45 < saturation.min() < 0.6 and 1.4 < saturation.max() < 1.55
    hue = (hsv[:, 0] + 0.5) % 1 - 0.5
    assert -0.06 < hue.min() < -0.04 and 0.04 < hue.max() < 0.06
    # Rounding to whole levels changes both a little.
    assert share_is(abs(saturation - 1) > 0.03, 0.5 * 0.94)
    assert share_is(abs(hue) > 0.004, 0.5 * 0.92)


def test_black_stays_black():
    """It is what pictures are padded with, here and on the device."""
    images, _ = augmented(coloured(0, 0, 0), NOTHING, WHOLE)
    assert not images.any()
