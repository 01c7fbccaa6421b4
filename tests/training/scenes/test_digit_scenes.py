"""The embedded scenes: the same ones every time, boxes and masks of the same digits."""

import runpy
import sys

import numpy as np
import tensorflow as tf

from keras_resnet.runner.annotations import (
    MASK_ENDINGS,
    MASK_FOLDERS,
    XML_FOLDERS,
    companion,
    mask_classes,
    read_mask,
    read_voc,
)
from keras_resnet.runner.metrics import intersection_over_union
from keras_resnet.training.data.scenes import sources
from keras_resnet.training.data.scenes.sources import digit_scenes as module
from tests.helpers.commands import ROOT


def pairs(dataset, split):
    return list(getattr(dataset, split).read().as_numpy_iterator())


def test_scenes_are_the_same_every_time(digit_scenes):
    for task, dataset in digit_scenes.items():
        again = sources.load(task, "digit_scenes")
        assert again.fingerprint == dataset.fingerprint
        for one, other in zip(
            pairs(dataset, "held_out"), pairs(again, "held_out"), strict=True
        ):
            assert one[0] == other[0]
            np.testing.assert_equal(one[1], other[1])


def test_boxes_and_masks_are_of_the_same_digits(digit_scenes):
    """A mask has the class of a box inside of it, and nothing outside of all boxes."""
    counts = set()
    for (picture, objects), (same, mask) in zip(
        *(pairs(dataset, "train") for dataset in digit_scenes.values()), strict=True
    ):
        assert picture == same
        counts.add(len(objects.classes))
        outside = np.ones(mask.shape, bool)
        boxes = np.rint(objects.boxes * module.SIDE).astype(int)
        for (top, left, bottom, right), digit in zip(
            boxes, objects.classes, strict=True
        ):
            part = np.s_[top:bottom, left:right]
            outside[part] = False
            found = mask[part] == digit + 1
            # A digit that touches it hides little of it.
            assert 0.1 < found.mean() < 1
        assert not mask[outside].any()
    assert counts == {1, 2, 3, 4, 5}
    assert digit_scenes["detect"].most_objects == max(counts)


def test_digits_overlap_little(digit_scenes):
    for _, objects in pairs(digit_scenes["detect"], "train"):
        boxes = objects.boxes.astype(float)
        # A box that is taken for a crowd: the share of the other that lies in it.
        shares = intersection_over_union(boxes, boxes, np.ones(len(boxes), bool))
        smaller = np.maximum(shares, shares.T)[~np.eye(len(boxes), dtype=bool)]
        assert not len(smaller) or smaller.max() <= 0.1 + 1e-6


def test_digits_have_many_sizes_and_levels(digit_scenes):
    """They fill the height of the frame that they were scanned in."""
    heights, levels, grounds = [], [], []
    for (picture, objects), (_, mask) in zip(
        *(pairs(dataset, "train") for dataset in digit_scenes.values()), strict=True
    ):
        pixels = tf.io.decode_png(picture).numpy()
        assert pixels.shape == (64, 64, 1)
        heights += ((objects.boxes[:, 2] - objects.boxes[:, 0]) * 64).tolist()
        levels.append(pixels.max())
        grounds.append(np.median(pixels[mask == 0]))
    assert (min(heights), max(heights)) == (18, 32)
    assert min(levels) > 110 and max(levels) > 250
    assert min(grounds) < 5 and 60 < max(grounds) < 70


def test_every_digit_is_shown(digit_scenes):
    dataset = digit_scenes["detect"]
    for split in ("train", "held_out"):
        shown = np.concatenate(
            [objects.classes for _, objects in pairs(dataset, split)]
        )
        assert (np.bincount(shown, minlength=10) > 20).all()
    assert dataset.labels == tuple("0123456789")
    assert digit_scenes["segment"].labels == ("background", *"0123456789")


def test_the_held_out_scenes_show_other_scans(digits, monkeypatch):
    """What a scene may show are the scans of its own split."""
    given = []
    make_scene = module._scene

    def noted(rng, scans):
        given.append(scans)
        return make_scene(rng, scans)

    monkeypatch.setattr(module, "SCENES", {"train": 1, "held_out": 1})
    monkeypatch.setattr(module, "_scene", noted)
    module.load("detect")
    for scans, split in zip(given, (digits.train, digits.held_out), strict=True):
        expected = [
            (tf.io.decode_png(image).numpy()[..., 0].tobytes(), int(digit))
            for image, digit in split.read()
        ]
        assert [(scan.tobytes(), digit) for scan, digit in scans] == expected


def test_scenes_of_the_training_split_can_be_held_out():
    dataset = sources.load("detect", "digit_scenes", hold_out=50)
    assert (dataset.train.examples, dataset.held_out.examples) == (950, 50)
    kept = {picture for picture, _ in pairs(dataset, "train")}
    assert not kept & {picture for picture, _ in pairs(dataset, "held_out")}


def test_the_example_writes_what_the_runner_evaluates(
    digit_scenes, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["digit_scenes.py", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "digit_scenes.py"))
    pictures = sorted((tmp_path / "images").glob("*.png"))
    assert len(pictures) == digit_scenes["detect"].held_out.examples
    boxes, masks = (data.held_out.read() for data in digit_scenes.values())
    names = digit_scenes["detect"].labels
    for path, (encoded, objects), (_, mask) in zip(
        pictures[:5], boxes.as_numpy_iterator(), masks.as_numpy_iterator(), strict=False
    ):
        assert path.read_bytes() == encoded
        found = read_voc(companion(str(path), (".xml",), XML_FOLDERS)).objects
        assert [name for name, _, _ in found] == [names[x] for x in objects.classes]
        corners = np.array([box for _, box, _ in found]) / np.tile(mask.shape, 2)
        np.testing.assert_allclose(corners, objects.boxes, atol=1e-6)
        path = companion(str(path), MASK_ENDINGS, MASK_FOLDERS)
        np.testing.assert_array_equal(read_mask(path, mask_classes(tmp_path)), mask)
