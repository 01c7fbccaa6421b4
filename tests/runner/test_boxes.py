"""Boxes and masks on their way to the input and back, against the pixels themselves."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.boxes import (
    IGNORED,
    boxes_to_input,
    boxes_to_picture,
    mask_to_input,
    mask_to_picture,
)
from keras_resnet.runner.geometry import placement, resize_and_crop
from keras_resnet.runner.preprocessing import RESIZES

SIZES = [(120, 80), (61, 97), (64, 64), (200, 33)]  # (width, height)
INPUTS = [(64, 64), (48, 96), (101, 37)]
EACH = pytest.mark.parametrize(
    "resize, antialias", list(itertools.product(RESIZES, (0, 1)))
)


def preprocessing(input_size, resize, antialias=True):
    fraction = 1.0 if resize == "pad" else 0.875
    return Preprocessing(
        input_size, resize=resize, antialias=bool(antialias), crop_fraction=fraction
    )


@EACH
@pytest.mark.parametrize("input_size", INPUTS)
@pytest.mark.parametrize("size", SIZES)
def test_a_box_moves_with_the_pixels(size, input_size, resize, antialias):
    """The edges of a white rectangle in the input lie where its box says."""
    how = preprocessing(input_size, resize, antialias)
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left, bottom, right = (
        int(side * share)
        for side, share in zip((height, width) * 2, (0.3, 0.4, 0.6, 0.7), strict=True)
    )
    pixels[top:bottom, left:right] = 255
    seen = resize_and_crop(Image.fromarray(pixels), how)[..., 0] / 255
    box = np.array([[top / height, left / width, bottom / height, right / width]])
    (moved,) = boxes_to_input(box, size, how)
    moved = (moved.reshape(2, 2) * input_size).clip(0, input_size)
    # The profile through its middle: an edge lies where the level passes one half.
    for axis, (low, high) in enumerate(moved.T):
        middle = int(moved[:, 1 - axis].mean())
        profile = seen[:, middle] if axis == 0 else seen[middle]
        bright = np.flatnonzero(profile >= 0.5)
        assert abs(bright[0] - low) <= 1 and abs(bright[-1] + 1 - high) <= 1


@EACH
def test_boxes_come_back_as_they_were(resize, antialias):
    how = preprocessing((48, 96), resize, antialias)
    boxes = np.sort(np.random.default_rng(0).random((50, 2, 2)), 1).reshape(-1, 4)
    for size in SIZES:
        moved = boxes_to_input(boxes, size, how)
        np.testing.assert_allclose(
            boxes_to_picture(moved, size, how), boxes, atol=1e-12
        )


def test_boxes_that_reach_into_the_padding_end_at_the_picture():
    how = preprocessing((64, 64), "pad")
    boxes = boxes_to_picture(np.array([[0.0, 0.1, 1.0, 0.9]]), (100, 50), how)
    np.testing.assert_allclose(boxes, [[0, 0.1, 1, 0.9]])


def test_the_places_of_a_picture_by_hand():
    pad = preprocessing((64, 64), "pad")
    assert placement((100, 50), pad) == (0, 0.25, 1, 0.75)
    stretched = Preprocessing((64, 32), resize="stretch")
    assert placement((100, 50), stretched) == (0, 0, 1, 1)
    cropped = Preprocessing((64, 64), resize="crop")
    assert placement((100, 50), cropped) == (-0.5, 0, 1.5, 1)
    part = Preprocessing((64, 64), resize="stretch", crop_fraction=0.5)
    assert placement((100, 50), part) == (-0.5, -0.5, 1.5, 1.5)


@EACH
@pytest.mark.parametrize("input_size", INPUTS)
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_moves_as_the_nearest_pixels_of_a_picture_do(
    size, input_size, resize, antialias
):
    """Of a picture whose levels are their places, resized by the runner's own code.

    Where a place falls on the edge between two pixels, either is nearest.
    """
    how = preprocessing(input_size, resize, antialias)
    nearest = dataclasses.replace(how, interpolation="nearest")
    rows, columns = np.uint8(np.mgrid[: size[1], : size[0]])
    picture = np.stack([rows, columns, np.ones_like(rows)], -1)
    expected = resize_and_crop(Image.fromarray(picture), nearest)
    is_padding = expected[..., 2] == 0
    for axis, places in enumerate((rows, columns)):
        found = mask_to_input(places, how)
        assert found.dtype == np.uint8 and found.shape == input_size
        assert (found[is_padding] == IGNORED).all()
        off = found[~is_padding] - expected[~is_padding, axis].astype(int)
        assert abs(off).max() <= 1 and (off != 0).mean() < 0.11


@pytest.mark.parametrize("resize", ["pad", "stretch"])
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_comes_back_in_the_size_of_the_picture(size, resize):
    """From an input that is larger than it, every pixel of it."""
    how = Preprocessing((256, 256), resize=resize)
    mask = np.random.default_rng(0).integers(0, 5, size[::-1], np.uint8)
    back = mask_to_picture(mask_to_input(mask, how), size, how)
    np.testing.assert_array_equal(back, mask)


def test_scores_come_back_from_a_coarser_grid():
    """A quarter of the input's resolution, as a network may return them."""
    how = Preprocessing((64, 64), resize="pad")
    scores = np.arange(16 * 16 * 3).reshape(16, 16, 3)
    back = mask_to_picture(scores, (32, 16), how)
    assert back.shape == (16, 32, 3)
    np.testing.assert_array_equal(back[0, 0], scores[4, 0])
    np.testing.assert_array_equal(back[-1, -1], scores[11, 15])
