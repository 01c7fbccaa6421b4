"""Masks from polygons, run lengths and other shapes."""

import collections
import functools

import numpy as np

from keras_resnet.runner.boxes import IGNORED

# `label` is the name of a class; `fill` is a function of (height, width)
# that returns a bool array, true inside of the shape.
Shape = collections.namedtuple("Shape", "label fill")


def draw(shapes, size, in_order):
    """Draws shapes over class 0, the background.

    Args:
        shapes: list of (class index, function as `Shape.fill`).
        size: (width, height) of the picture.
        in_order: whether a shape hides those before it. If not, pixels in shapes of
            several classes are ignored, as in torchvision's references/segmentation:
            the file does not say which lies on top.

    Returns:
        uint8 array (height, width).
    """
    mask = np.zeros(size[::-1], np.uint8)
    for index, fill in shapes:
        inside = fill(*mask.shape)
        unclear = inside & (mask != 0) & (mask != index)
        mask[inside] = index
        if not in_order:
            mask[unclear] = IGNORED
    return mask


def polygons(rings):
    """Returns `Shape.fill` of one or more polygons.

    Args:
        rings: list of arrays (points, 2): x, y in pixels.
    """
    return functools.partial(_fill_polygons, rings)


def _fill_polygons(rings, height, width):
    inside = np.zeros((height, width), bool)
    for ring in rings:
        inside |= _fill_ring(np.asarray(ring, float), height, width)
    return inside


def _fill_ring(ring, height, width):
    """Fills the pixels whose centres an odd number of edges lies to the left of.

    Pillow's polygons are up to a pixel larger: they have whole-numbered corners, and
    the pixels of their edges are part of them.
    """
    start, stop = ring, np.roll(ring, -1, axis=0)
    low, high = np.sort([start[:, 1], stop[:, 1]], axis=0)
    # The rows whose centres an edge crosses, and where.
    first, last = (np.ceil(y - 0.5).clip(0, height).astype(int) for y in (low, high))
    counts = last - first
    edges = np.repeat(np.arange(len(ring)), counts)
    rows = np.arange(len(edges)) - np.repeat(counts.cumsum() - counts, counts)
    rows += first[edges]
    (x, y), (across, down) = start[edges].T, (stop - start)[edges].T
    crossings = x + (rows + 0.5 - y) / down * across
    columns = np.ceil(crossings - 0.5).clip(0, width).astype(int)
    toggles = np.zeros((height, width + 1), bool)
    np.logical_xor.at(toggles, (rows, columns), True)
    return np.logical_xor.accumulate(toggles, axis=1)[:, :width]


def ellipse(box):
    """Returns `Shape.fill` of an ellipse in a box (top, left, bottom, right)."""
    return functools.partial(_fill_ellipse, box)


def _fill_ellipse(box, height, width):
    top, left, bottom, right = box
    rows = (2 * np.arange(height) + 1 - top - bottom) / (bottom - top)
    columns = (2 * np.arange(width) + 1 - left - right) / (right - left)
    return rows[:, None] ** 2 + columns**2 <= 1


def bitmap(pixels, top, left):
    """Returns `Shape.fill` of a bool array whose first pixel lies at (top, left)."""
    return functools.partial(_fill_bitmap, pixels, top, left)


def _fill_bitmap(pixels, top, left, height, width):
    inside = np.zeros((height, width), bool)
    # One that begins behind the picture's edge must not count from the other end.
    last_row, last_column = max(height - top, 0), max(width - left, 0)
    pixels = pixels[max(-top, 0) : last_row, max(-left, 0) : last_column]
    top, left = min(max(top, 0), height), min(max(left, 0), width)
    inside[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return inside


def run_lengths(counts):
    """Returns `Shape.fill` of COCO's run lengths, as `decoded_counts` has them."""
    return functools.partial(_fill_run_lengths, counts)


def _fill_run_lengths(counts, height, width):
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return inside.reshape(width, height).T  # column by column


def decoded_counts(counts):
    """Returns COCO's run lengths as an int64 array: outside, inside, outside, ...

    Args:
        counts: a list, or a string of 5 bits a character: the differences between each
            number and the last but one, the lowest bits first.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(counts, str):
        return np.array(counts, np.int64)
    found, place = [], 0
    while place < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if place == len(counts) or not 48 <= ord(counts[place]) < 112:
                raise ValueError("damaged run lengths")
            bits = ord(counts[place]) - 48
            value |= (bits & 0x1F) << shift
            shift += 5
            more = bits & 0x20
            place += 1
        if bits & 0x10:
            value -= 1 << shift
        found.append(value + (found[-2] if len(found) > 2 else 0))
    return np.array(found, np.int64)


def checked_rings(rings):
    """Returns polygons; raises `ValueError` if one has no finite points, or too few."""
    for ring in rings:
        if len(ring) < 3 or not np.isfinite(ring).all():
            raise ValueError(f"a polygon needs 3 finite points, received {len(ring)}")
    return rings
