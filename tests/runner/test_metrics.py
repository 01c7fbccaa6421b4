"""Average precision against pycocotools, and the IoU of masks against scikit-learn."""

import contextlib
import io

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.boxes import (
    IGNORED,
    Detections,
    Objects,
    boxes_to_input,
)
from keras_resnet.runner.metrics import (
    AveragePrecision,
    confusion_matrix,
    intersection_over_union,
    mean_iou,
)

CLASSES = 4


def random_boxes(rng, count, grid):
    """Boxes in pixels of 200 x 100; on a grid, so that some IoUs are equal."""
    low = rng.integers(0, 8, (count, 2)) * grid
    return np.concatenate([low, low + rng.integers(1, 6, (count, 2)) * grid], 1).astype(
        float
    )


def random_scenes(seed, pictures=40, empty=0.2, crowd=0.2, ignored=0.2):
    """Pictures of objects, and detections that lie near some of them."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(pictures):
        count = 0 if rng.random() < empty else rng.integers(1, 9)
        grid = (0.1, 7.3)[rng.integers(2)]
        objects = Objects(
            random_boxes(rng, count, grid),
            rng.integers(0, CLASSES - 1, count),  # of the last class there are none
            rng.random(count) < ignored,
            rng.random(count) < crowd,
        )
        near = objects.boxes.repeat(rng.integers(0, 3), axis=0)
        near = near + rng.normal(0, grid / 3, near.shape) * rng.integers(0, 2)
        boxes = np.concatenate([near, random_boxes(rng, rng.integers(0, 5), grid)])
        boxes = np.sort(boxes.reshape(-1, 2, 2), 1).reshape(-1, 4)
        classes = np.append(
            objects.classes.repeat(len(near) // max(count, 1)),
            rng.integers(0, CLASSES, len(boxes) - len(near)),
        )
        scores = rng.random(len(boxes)).round(rng.integers(1, 9))  # some are equal
        scenes.append((objects, Detections(boxes, classes, scores)))
    return scenes


def ours(scenes):
    metric = AveragePrecision(CLASSES)
    for objects, found in scenes:
        metric.add(objects, found)
    return metric


def pycocotools_precisions(scenes):
    """The same of pycocotools.

    It ignores crowds alone, and what has another area than is asked for: the objects
    that are to be ignored get one.
    """
    coco = pytest.importorskip("pycocotools.coco").COCO
    evaluation = pytest.importorskip("pycocotools.cocoeval").COCOeval

    def entry(number, box, label, **more):
        top, left, bottom, right = box.tolist()
        place = {"bbox": [left, top, right - left, bottom - top]}
        return {"image_id": number, "category_id": int(label), **place, **more}

    there, found = [], []
    for number, (objects, detections) in enumerate(scenes):
        for box, label, ignored, crowd in zip(*objects, strict=True):
            there.append(
                entry(
                    number,
                    box,
                    label,
                    iscrowd=int(crowd),
                    area=1e9 if ignored else 1,
                    id=len(there) + 1,
                )
            )
        for box, label, score in zip(*detections, strict=True):
            found.append(entry(number, box, label, score=float(score)))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco()
        truth.dataset = {
            "images": [{"id": number} for number in range(len(scenes))],
            "annotations": there,
            "categories": [{"id": number} for number in range(CLASSES)],
        }
        truth.createIndex()
        judge = evaluation(truth, truth.loadRes(found), "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e8]], ["all"]
        judge.params.maxDets = [100]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][..., 0, 0]
    return np.where(precision == -1, np.nan, precision)


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_is_that_of_pycocotools(seed):
    scenes = random_scenes(seed)
    expected = pycocotools_precisions(scenes)
    metric = ours(scenes)
    np.testing.assert_allclose(metric.precisions(), expected, atol=1e-12)
    result = metric.result()
    for name, part in (("ap", expected), ("ap50", expected[0]), ("ap75", expected[5])):
        assert abs(result[name] - np.nanmean(part)) < 1e-12
        of_class = [found[name] for found in result["classes"]]
        of_class = np.array([np.nan if x is None else x for x in of_class])
        each = np.nanmean(part[..., :-1].reshape(-1, CLASSES - 1), 0)
        np.testing.assert_allclose(of_class, [*each, np.nan], atol=1e-12)


def test_only_the_hundred_best_of_a_class_in_a_picture_count():
    box, other = (0, 0, 10, 10), (50, 50, 60, 60)
    scores = np.linspace(1, 0.1, 101)
    for place, expected in ((99, 1 / 100), (100, 0)):
        found = [other] * 101
        found[place] = box
        assert one_picture([box], found, scores) == pytest.approx(expected)


def test_the_hundred_best_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    objects = Objects(
        random_boxes(rng, 1, 5.0),
        np.zeros(1, int),
        np.zeros(1, bool),
        np.zeros(1, bool),
    )
    boxes = random_boxes(rng, 150, 5.0)
    boxes[120] = objects.boxes[0]
    scores = np.linspace(1, 0.1, 150)
    scenes = [(objects, Detections(boxes, np.zeros(150, int), scores))]
    np.testing.assert_allclose(
        ours(scenes).precisions(), pycocotools_precisions(scenes), atol=1e-12
    )


def one_picture(boxes, found, scores, ignored=(), crowd=()):
    """The AP50 of one class in one picture."""
    count = len(boxes)
    flags = [np.isin(np.arange(count), marked) for marked in (ignored, crowd)]
    metric = AveragePrecision(1)
    metric.add(
        Objects(np.array(boxes).reshape(-1, 4), np.zeros(count, int), *flags),
        Detections(
            np.array(found).reshape(-1, 4), np.zeros(len(found), int), np.array(scores)
        ),
    )
    return metric.result()["ap50"]


def test_average_precision_of_a_few_boxes():
    """By hand: what each rule of COCO does to the precision."""
    one, other = (0, 0, 10, 10), (50, 50, 60, 60)
    small = (50, 50, 52, 52)
    twice = [other, other, one], [0.9, 0.8, 0.5]
    for expected, found in (
        (1, one_picture([one], [one], [0.5])),
        (0, one_picture([one], [], [])),
        (1 / 2, one_picture([one], [other, one], [0.9, 0.5])),
        # A second box on the same object is wrong; here it comes after the first.
        (1, one_picture([one], [one, one], [0.9, 0.5])),
        # The recalls 0 to 0.5 have the precision 1, the other fifty 2/3.
        (
            (51 + 50 * 2 / 3) / 101,
            one_picture([one, other], [one, one, other], [0.9, 0.8, 0.5]),
        ),
        # What is ignored counts neither way, once; a crowd any number of times.
        (1 / 2, one_picture([one, other], *twice, ignored=[1])),
        (1, one_picture([one, other], *twice, crowd=[1])),
        # In a crowd, a box need not cover it.
        (1, one_picture([one, other], [small, one], [0.9, 0.5], crowd=[1])),
    ):
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_average_precision_is_the_same_in_the_input_of_a_model(resize):
    """Where boxes are compared: both geometries move and scale all alike."""
    how = Preprocessing((96, 128), resize=resize)
    scenes = random_scenes(0)
    moved = [
        [
            found._replace(boxes=boxes_to_input(found.boxes / 100, (640, 480), how))
            for found in pair
        ]
        for pair in scenes
    ]
    np.testing.assert_allclose(
        ours(moved).precisions(), ours(scenes).precisions(), atol=1e-12
    )


def between_two(second):
    """A picture of two objects: a box that fits both equally, then another one."""
    corners = np.array([(0, 0), (0, 4), (0, 2), second])
    boxes = np.concatenate([corners, corners + 10], 1).astype(float)
    no = np.zeros(2, bool)
    there = Objects(boxes[:2], np.zeros(2, int), no, no)
    return there, Detections(boxes[2:], np.zeros(2, int), np.array([0.9, 0.5]))


@pytest.mark.parametrize("second, expected", [((0, 0), 1), ((0, 4), 51 / 101)])
def test_of_objects_that_fit_equally_the_last_is_found(second, expected):
    """So that the other box is right if it fits the first."""
    metric = ours([between_two(second)])
    assert metric.result()["ap50"] == pytest.approx(expected)


@pytest.mark.parametrize("second", [(0, 0), (0, 4)])
def test_pycocotools_finds_the_last_too(second):
    scenes = [between_two(second)]
    np.testing.assert_allclose(
        ours(scenes).precisions(), pycocotools_precisions(scenes), atol=1e-12
    )


def test_the_mean_is_over_ten_thresholds():
    """A box of IoU 2/3 is right at 0.5, 0.55, 0.6 and 0.65."""
    no = np.zeros(1, bool)
    there = Objects(np.array([[0.0, 0, 10, 10]]), np.zeros(1, int), no, no)
    found = Detections(np.array([[0.0, 2, 10, 12]]), np.zeros(1, int), np.ones(1))
    result = ours([(there, found)]).result()
    precisions = [result[name] for name in ("ap", "ap50", "ap75")]
    assert precisions == pytest.approx([0.4, 1, 0])


def test_nothing_to_find_has_no_average_precision():
    nothing = np.zeros((0, 4))
    assert one_picture(nothing, [(0, 0, 1, 1)], [0.5]) is None
    result = AveragePrecision(2).result()
    assert result["ap"] is None and len(result["classes"]) == 2
    everything_ignored = one_picture([(0, 0, 1, 1)], [(0, 0, 1, 1)], [1], ignored=[0])
    assert everything_ignored is None


def test_the_iou_of_boxes():
    boxes = [(0, 0, 2, 2), (0, 0, 1, 1), (5, 5, 5, 9)]
    others = [(0, 0, 2, 2), (1, 1, 3, 3), (2, 2, 4, 4)]
    expected = [(1, 1 / 7, 0), (1 / 4, 0, 0), (0, 0, 0)]
    np.testing.assert_allclose(intersection_over_union(boxes, others), expected)
    crowd = np.array([False, True, False])
    of_crowd = intersection_over_union(boxes, others, crowd)
    np.testing.assert_allclose(of_crowd[0], (1, 1 / 4, 0))


def test_the_iou_of_masks_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 3, (50, 60)).astype(np.uint8)
    found = np.where(rng.random(expected.shape) < 0.7, expected, 3)
    expected[rng.random(expected.shape) < 0.1] = IGNORED
    halves = [
        confusion_matrix(a, b, 5)
        for a, b in zip(np.split(expected, 2), np.split(found, 2), strict=True)
    ]
    result = mean_iou(sum(halves))
    counted = expected != IGNORED
    scores = jaccard_score(expected[counted], found[counted], average=None)
    of_class = [found["iou"] for found in result["classes"]]
    np.testing.assert_allclose(of_class[:4], scores, rtol=1e-12)
    assert of_class[3] == 0 and of_class[4] is None  # found wrongly, not there
    assert result["miou"] == pytest.approx(scores.mean(), rel=1e-12)
    pixels = [found["pixels"] for found in result["classes"]]
    assert pixels == [(expected == index).sum() for index in range(5)]


def test_masks_without_any_pixel_have_no_iou():
    nothing = np.full((2, 2), IGNORED, np.uint8)
    result = mean_iou(confusion_matrix(nothing, np.zeros((2, 2), int), 2))
    assert result["miou"] is None
