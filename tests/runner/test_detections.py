"""Boxes of a detector: the box coder and the suppression, beside plain loops."""

import statistics
import time

import numpy as np
import pytest

from keras_resnet.runner import detections
from keras_resnet.runner.detections import BOXES_AT_ONCE
from keras_resnet.runner.metrics import MAX_DETECTIONS
from tests.helpers import suppression

CASES = {
    "few": dict(anchors=40, classes=3),
    "many": dict(anchors=700, classes=4),
    "one class": dict(anchors=500, classes=1),
    "sparse": dict(anchors=900, classes=20, share=0.01),
    "equal scores": dict(anchors=300, classes=3, steps=4),
    "all scores equal": dict(anchors=500, classes=2, steps=1),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_the_boxes_are_those_of_plain_loops(case, seed):
    outputs = suppression.random_outputs(np.random.RandomState(seed), **CASES[case])
    found = detections.find_objects(*outputs)
    expected = suppression.find(*outputs)
    assert len(found.scores) == len(expected) > 5
    boxes, classes, scores = zip(*expected, strict=True)
    assert found.classes.tolist() == list(classes)
    assert found.scores.tolist() == list(scores)
    np.testing.assert_allclose(found.boxes, boxes, rtol=1e-6, atol=1e-6)


def test_at_most_max_detections_are_kept_the_best():
    random = np.random.RandomState(0)
    offsets, scores, anchors = suppression.random_outputs(random, 2000, 20)
    found = detections.find_objects(offsets, scores, anchors)
    assert len(found.scores) == MAX_DETECTIONS == suppression.MOST
    assert (np.diff(found.scores) <= 0).all()


def test_a_picture_without_detections_has_no_boxes():
    random = np.random.RandomState(0)
    offsets, scores, anchors = suppression.random_outputs(random, 30, 3)
    found = detections.find_objects(offsets, scores * np.float32(0.04), anchors)
    assert found.boxes.shape == (0, 4)
    assert found.classes.shape == found.scores.shape == (0,)


def test_boxes_beyond_the_first_part_are_suppressed_by_those_before():
    """Two boxes alternate, so that each part holds both: one of each may stay."""
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]] * BOXES_AT_ONCE, np.float32)
    scores = np.linspace(1, 0.1, len(boxes), dtype=np.float32)
    kept = detections.suppress(boxes, scores, 0.5, 100)
    assert kept.tolist() == [0, 1]


def test_an_iou_of_exactly_the_limit_suppresses_nothing():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 1, 0.75]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert detections.suppress(boxes, scores, 0.5, 9).tolist() == [0, 1]
    assert detections.suppress(boxes, scores, 0.75, 9).tolist() == [0, 1, 2]


def test_an_anchor_has_its_best_class_and_suppresses_other_classes():
    anchors = np.tile(np.array([0.5, 0.5, 0.4, 0.4], np.float32), (2, 1))
    scores = np.array([[0.6, 0.5, 0.1], [0.2, 0.3, 0.7]], np.float32)
    found = detections.find_objects(np.zeros((2, 4), np.float32), scores, anchors)
    assert found.classes.tolist() == [2]
    assert found.scores.tolist() == [np.float32(0.7)]


def test_boxes_without_area_overlap_nothing():
    boxes = np.array([[0.2, 0.2, 0.2, 0.2]] * 2, np.float32)
    kept = detections.suppress(boxes, np.ones(2), 0.5, 9)
    assert kept.tolist() == [0, 1]


def test_3000_anchors_and_20_classes_take_less_than_5_milliseconds():
    """Every score is a possible box: no detector's outputs take longer."""
    random = np.random.RandomState(0)
    outputs = suppression.random_outputs(random, 3000, 20)
    assert (outputs[1] >= detections.MIN_SCORE).mean() > 0.9
    times = []
    for _ in range(30):
        start = time.perf_counter()
        detections.find_objects(*outputs)
        times.append(time.perf_counter() - start)
    assert 1000 * min(times) < 5, statistics.median(times)
