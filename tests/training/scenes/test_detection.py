"""What a detector learns: assignment and loss beside plain loops."""

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet import heads
from keras_resnet.runner import detections, metrics
from keras_resnet.runner.boxes import Objects
from keras_resnet.training import tasks
from keras_resnet.training.recipes import RECIPES
from keras_resnet.training.scenes import detection

LEVELS = [(8, 12), (4, 6)]
SIDES = (64, 96)  # pixels: strides of 8 and 16
ANCHORS = heads.anchors(LEVELS)


def targets(rng, places=6, there=4):
    """Objects of a picture, some ignored and some crowds, with empty places."""
    low = rng.uniform(0, 0.7, (places, 2))
    high = np.minimum(low + rng.uniform(0.02, 0.7, (places, 2)), 1)
    classes = np.where(np.arange(places) < there, rng.integers(0, 3, places), -1)
    ignored, crowd = (rng.uniform(size=places) < 0.25 for _ in range(2))
    boxes = np.concatenate([low, high], 1).astype(np.float32)
    return Objects(boxes, classes.astype(np.int32), ignored, crowd)


def batch_of(pictures):
    return Objects(
        *(tf.constant(np.stack(part)) for part in zip(*pictures, strict=True))
    )


def plainly_assigned(objects):
    """Object of each cell by loops in pixels, and whether it shows an ignored one."""
    sizes = np.array(SIDES)
    chosen, hidden = [], []
    for level, (rows, columns) in enumerate(LEVELS):
        stride = SIDES[0] // rows
        for cell in np.ndindex(rows, columns):
            place = (np.array(cell) + 0.5) * stride
            candidates, is_hidden = [], False
            for index, (box, of_class, ignored, crowd) in enumerate(
                zip(*objects, strict=True)
            ):
                if of_class < 0:
                    continue
                low, high = box[:2] * sizes, box[2:] * sizes
                away = abs(place - (low + high) / 2)
                if ignored or crowd:
                    is_hidden |= bool((away <= (high - low) / 2).all())
                    continue
                side = math.sqrt((high - low).prod())
                misfits = [
                    abs(math.log(side / (4 * SIDES[0] // other))) for other, _ in LEVELS
                ]
                half = (high - low) / 2
                reach = np.maximum(np.minimum(half, 1.5 * stride), stride / 2)
                if np.argmin(misfits) == level and (away <= reach).all():
                    candidates.append(((high - low).prod(), index))
            chosen.append(min(candidates)[1] if candidates else -1)
            hidden.append(is_hidden)
    return chosen, hidden


@pytest.mark.parametrize("seed", range(5))
def test_cells_find_the_objects_that_plain_loops_find(seed):
    rng = np.random.default_rng(seed)
    pictures = [targets(rng) for _ in range(8)]
    found, hidden = detection.assign(batch_of(pictures), ANCHORS)
    expected = [plainly_assigned(objects) for objects in pictures]
    np.testing.assert_array_equal(found, [chosen for chosen, _ in expected])
    np.testing.assert_array_equal(hidden, [passed for _, passed in expected])
    assert (found.numpy() >= 0).sum() > 20 and hidden.numpy().any()


def test_every_object_is_found_by_the_cell_of_its_centre():
    """Even one that is much smaller than a cell, or larger than the picture."""
    for side in (0.01, 0.2, 0.5, 1.0):
        centre = np.array([0.3, 0.6])
        box = np.concatenate([centre - side / 2, centre + side / 2])
        objects = Objects([[box.astype(np.float32)]], [[2]], [[False]], [[False]])
        found, _ = detection.assign(
            Objects(*(tf.constant(part) for part in objects)), ANCHORS
        )
        found = found.numpy()[0] >= 0
        distance = abs(ANCHORS[found, :2] - centre) * [8, 12]
        assert found.any() and distance.max(1).min() <= 1  # of the coarser cells half


def test_boxes_are_those_of_the_runner():
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 5, ANCHORS.shape).astype(np.float32)
    expected = detections.decode_boxes(offsets, ANCHORS)
    np.testing.assert_allclose(
        detection.corners(offsets, ANCHORS), expected, rtol=1e-4, atol=1e-5
    )
    far = np.full_like(offsets, 1e6)
    assert np.isfinite(detection.corners(far, ANCHORS)).all()


def test_the_iou_is_that_of_the_metric_and_the_generalized_one_punishes_distance():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 1, (2, 50, 2))
    boxes, others = np.concatenate(
        [low, low + rng.uniform(0.1, 0.8, low.shape)], 2
    ).astype(np.float32)
    iou, generalized = detection.overlaps(boxes, others)
    expected = metrics.intersection_over_union(boxes, others).diagonal()
    np.testing.assert_allclose(iou, expected, atol=1e-5)
    found_ones = zip(boxes, others, iou.numpy(), generalized.numpy(), strict=True)
    for box, other, overlap, found in found_ones:
        around = np.maximum(box[2:], other[2:]) - np.minimum(box[:2], other[:2])
        areas = [(x[2:] - x[:2]).prod() for x in (box, other)]
        union = sum(areas) / (1 + overlap)
        empty = (around.prod() - union) / around.prod()
        assert found == pytest.approx(overlap - empty, abs=1e-5)
    apart = np.float32([[0, 0, 1, 1]]), np.float32([[0, 2, 1, 3]])
    assert [float(x[0]) for x in detection.overlaps(*apart)] == pytest.approx(
        [0, -1 / 3]
    )


class _Detector:
    """Stands for a model in `loss_function`."""


@pytest.fixture
def loss(monkeypatch):
    monkeypatch.setattr(heads, "anchors", lambda model: ANCHORS)
    return detection.loss_function(_Detector())


def test_the_loss_is_that_of_plain_loops(loss):
    rng = np.random.default_rng(1)
    pictures = [targets(rng) for _ in range(4)]
    boxes = rng.normal(0, 2, (4, len(ANCHORS), 4)).astype(np.float32)
    logits = rng.normal(-2, 2, (4, len(ANCHORS), 3)).astype(np.float32)
    outputs = {"boxes": tf.constant(boxes), "scores": tf.constant(logits)}
    values = loss(outputs, batch_of(pictures))
    for picture, objects in enumerate(pictures):
        chosen, hidden = plainly_assigned(objects)
        decoded = detections.decode_boxes(boxes[picture], ANCHORS)
        total, positives = 0.0, sum(index >= 0 for index in chosen)
        for cell, index in enumerate(chosen):
            wanted = np.zeros(3)
            if index >= 0:
                pair = decoded[cell : cell + 1], objects.boxes[index][None]
                iou = metrics.intersection_over_union(*pair)[0, 0]
                wanted[objects.classes[index]] = iou
                total += 2 * (1 - float(detection.overlaps(*pair)[1][0]))
            elif hidden[cell]:
                continue
            scores = 1 / (1 + np.exp(-logits[picture, cell].astype(float)))
            entropy = -wanted * np.log(scores) - (1 - wanted) * np.log(1 - scores)
            total += (entropy * (wanted - scores) ** 2).sum()
        assert float(values[picture]) == pytest.approx(
            total / max(1, positives), rel=1e-3
        )


def test_a_picture_without_objects_is_all_background(loss):
    nothing = Objects(
        tf.zeros((1, 2, 4)), -tf.ones((1, 2), tf.int32), *2 * [tf.zeros((1, 2), bool)]
    )
    outputs = {
        "boxes": tf.zeros((1, len(ANCHORS), 4)),
        "scores": tf.fill((1, len(ANCHORS), 3), -20.0),
    }
    assert float(loss(outputs, nothing)[0]) < 1e-6
    outputs["scores"] += 20
    assert float(loss(outputs, nothing)[0]) == pytest.approx(
        3 * len(ANCHORS) * math.log(2) / 4, rel=1e-4
    )


@pytest.fixture(scope="module")
def model():
    backbone = keras_resnet.create_model(
        "resnet8", include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    return heads.detector(backbone, 10)


def test_every_variable_of_a_detector_learns(model, digit_scenes):
    task, recipe = tasks.TASKS["detection"], RECIPES["detect_digits"]
    how = keras_resnet.Preprocessing((64, 64), resize="stretch")
    batches = task.train_batches(digit_scenes["detect"], how, recipe, 0)
    images, objects = next(iter(batches))
    loss = task.loss_function(model, recipe)
    with tf.GradientTape() as tape:
        values = loss(task.logits_of(model(images, training=True)), objects)
    gradients = tape.gradient(values, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.abs(gradient).max() > 0, variable.path
