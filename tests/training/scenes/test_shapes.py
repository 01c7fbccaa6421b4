"""Polygons, run lengths and other shapes, against pycocotools and geometry."""

import numpy as np
import pytest

from keras_resnet.runner.boxes import IGNORED
from keras_resnet.training.data.scenes import shapes


def blob(rng, points=40, radius=30, centre=(50, 60)):
    """A wobbly outline around a centre (x, y)."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    reach = radius * rng.uniform(0.7, 1, points)
    return np.stack([np.cos(angles) * reach, np.sin(angles) * reach], 1) + centre


def test_a_polygon_fills_the_pixels_whose_centres_it_encloses():
    path = pytest.importorskip("matplotlib.path").Path
    rng = np.random.default_rng(0)
    centres = np.mgrid[:90, :110][::-1].reshape(2, -1).T + 0.5
    for _ in range(20):
        ring = blob(rng, radius=rng.uniform(3, 70))  # some reach out of the picture
        expected = path(ring).contains_points(centres).reshape(90, 110)
        found = shapes.polygons([ring])(90, 110)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, expected)


def test_whole_numbers_are_the_edges_of_pixels():
    ring = np.array([(2, 1), (5, 1), (5, 3), (2, 3)])
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(shapes.polygons([ring])(4, 6), expected)
    np.testing.assert_array_equal(shapes.polygons([ring[::-1]])(4, 6), expected)


def test_polygons_are_nearly_those_of_pycocotools():
    """Which draws outlines on a grid five times as fine."""
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    for _ in range(20):
        rings = [blob(rng, radius=25), blob(rng, radius=20, centre=(80, 30))]
        encoded = mask.frPyObjects([ring.ravel().tolist() for ring in rings], 90, 110)
        expected = mask.decode(mask.merge(encoded)).astype(bool)
        found = shapes.polygons(rings)(90, 110)
        assert (found & expected).sum() / (found | expected).sum() > 0.97


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_run_lengths_are_those_of_pycocotools(share):
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(2)
    for size in ((7, 9), (90, 300)):
        pixels = rng.random(size) < share
        coded = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        counts = shapes.decoded_counts(coded["counts"].decode())
        np.testing.assert_array_equal(shapes.run_lengths(counts)(*size), pixels)


def test_run_lengths_count_down_the_columns():
    """By hand: COCO's uncompressed form, and what its first characters mean."""
    counts = shapes.decoded_counts([1, 2, 3])
    expected = [[False, True, False], [True, False, False]]
    np.testing.assert_array_equal(shapes.run_lengths(counts)(2, 3), expected)
    # 5 bits a character from "0" on, "P" with more to come; the fourth is a difference.
    assert shapes.decoded_counts("5Q221O").tolist() == [5, 65, 2, 66, 1]
    for damaged in ("5Q", "5 2", "5\x7f"):
        with pytest.raises(ValueError, match="damaged run lengths"):
            shapes.decoded_counts(damaged)


def test_an_ellipse_fills_its_box():
    found = shapes.ellipse((2, 10, 42, 70))(50, 80)
    assert found.sum() == pytest.approx(np.pi * 20 * 30, rel=0.01)
    rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (2, 41, 10, 69)


@pytest.mark.parametrize("place", [(0, 0), (3, 4), (-2, -1), (8, 9), (20, 20)])
def test_a_bitmap_is_cut_off_at_the_edges(place):
    pixels = np.random.default_rng(3).random((4, 5)) < 0.5
    around = np.zeros((60, 60), bool)
    top, left = (20 + x for x in place)
    around[top : top + 4, left : left + 5] = pixels
    found = shapes.bitmap(pixels, *place)(10, 12)
    np.testing.assert_array_equal(found, around[20:30, 20:32])


def test_a_later_shape_hides_an_earlier_one_if_the_order_is_known():
    both = [(1, shapes.bitmap(np.ones((2, 2), bool), 0, 0))]
    both.append((2, shapes.bitmap(np.ones((2, 2), bool), 1, 1)))
    both.append((2, shapes.bitmap(np.ones((1, 1), bool), 2, 2)))
    known = [[1, 1, 0], [1, 2, 2], [0, 2, 2]]
    np.testing.assert_array_equal(shapes.draw(both, (3, 3), in_order=True), known)
    known[1][1] = IGNORED
    np.testing.assert_array_equal(shapes.draw(both, (3, 3), in_order=False), known)
