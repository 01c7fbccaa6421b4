"""From what a detector computes to its boxes: the box coder, and the suppression."""

from keras_resnet.runner.boxes import Detections
from keras_resnet.runner.metrics import MAX_DETECTIONS

# What the offsets of a box are multiplied with in training: y, x, height, width. They
# are those of SSD (Liu et al., "SSD: Single Shot MultiBox Detector").
BOX_SCALES = (10.0, 10.0, 5.0, 5.0)
# As RetinaNet has them (Lin et al., "Focal Loss for Dense Object Detection", 4.1).
MIN_SCORE = 0.05  # lower ones are no detections
MAX_IOU = 0.5  # of two boxes with a larger IoU, one is suppressed
# Pairs of so many boxes are compared at once: more cost memory, fewer cost time.
BOXES_AT_ONCE = 192


def find_objects(offsets, scores, anchors, scales=BOX_SCALES):
    """Returns the `Detections` of a picture from the outputs of a detector.

    They are those of the operator TFLite_Detection_PostProcess with the options
    `max_detections` of `MAX_DETECTIONS`, `nms_score_threshold` of `MIN_SCORE` and
    `nms_iou_threshold` of `MAX_IOU`, so that training, a raw file and one with the
    operator give the same boxes. Like it, an anchor has its best class alone, and boxes
    of all classes suppress each other.

    Args:
        offsets: float array (anchors, 4), see `decode_boxes`.
        scores: float array (anchors, classes), each from 0 to 1.
        anchors: float array (anchors, 4), see `decode_boxes`.
        scales: of the offsets.

    Returns:
        `Detections` in the model's input, the highest score first, at most
        `MAX_DETECTIONS`: of several boxes around one object, the best.
    """
    import numpy as np

    classes = scores.argmax(axis=1)
    best = scores.max(axis=1)
    # Only boxes that may be found are decoded.
    possible = np.flatnonzero(best >= np.float32(MIN_SCORE))
    boxes = decode_boxes(offsets[possible], anchors[possible], scales)
    kept = suppress(boxes, best[possible], MAX_IOU, MAX_DETECTIONS)
    rows = possible[kept]
    return Detections(boxes[kept], classes[rows], best[rows])


def decode_boxes(offsets, anchors, scales=BOX_SCALES):
    """Turns offsets to anchors into boxes.

    Args:
        offsets: float array (n, 4): how far the box's centre lies from the anchor's (y,
            x), in heights and widths of the anchor, and the logarithms of the quotients
            of height and width, all multiplied with the scales.
        anchors: float array (n, 4): y and x of the centre, height and width, as shares
            of the input.
        scales: four numbers.

    Returns:
        float32 array (n, 4): top, left, bottom and right edge, shares of the input.
    """
    import numpy as np

    shares = np.asarray(offsets, np.float64) / scales
    anchors = np.asarray(anchors, np.float64)
    centres = shares[:, :2] * anchors[:, 2:] + anchors[:, :2]
    halves = np.exp(shares[:, 2:]) * anchors[:, 2:] / 2
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    return boxes.astype(np.float32)


def suppress(boxes, scores, max_iou, most):
    """Keeps of boxes that overlap the one with the highest score.

    Of equal scores, the box that comes first is the higher one.

    Args:
        boxes: float array (n, 4), as in `Detections`.
        scores: float array (n,).
        max_iou: the largest IoU of two boxes that are both kept.
        most: how many to keep.

    Returns:
        int array: the indices of those that are kept, the highest score first.
    """
    import numpy as np

    boxes = np.asarray(boxes, np.float32)
    kept = np.empty(0, int)
    for part in by_score(scores):
        free = ~overlaps(boxes[part], boxes[kept], max_iou).any(axis=1)
        part = part[free]
        clashes = overlaps(boxes[part], boxes[part], max_iou)
        alive = np.ones(len(part), bool)
        for number in np.flatnonzero(clashes.sum(axis=1) > 1).tolist():
            if alive[number]:
                alive[number + 1 :] &= ~clashes[number, number + 1 :]
        kept = np.append(kept, part[alive])
        if len(kept) >= most:
            break
    return kept[:most]


def by_score(scores):
    """Yields indices from the highest score to the lowest, `BOXES_AT_ONCE` a time.

    Most often the first ones are enough, and the others need not be sorted.
    """
    import numpy as np

    left = np.arange(len(scores))
    while len(left):
        values = scores[left]
        best = np.ones(len(left), bool)
        if len(left) > BOXES_AT_ONCE:
            best = values >= np.partition(values, -BOXES_AT_ONCE)[-BOXES_AT_ONCE]
        order = np.argsort(-values[best], kind="stable")
        sorted_part = left[best][order]
        for start in range(0, len(sorted_part), BOXES_AT_ONCE):
            yield sorted_part[start : start + BOXES_AT_ONCE]
        left = left[~best]


def overlaps(ones, others, max_iou):
    """Returns which boxes have an IoU above `max_iou`.

    In 32 bits, as TFLite_Detection_PostProcess computes it: quantized boxes lie on a
    grid, where an IoU may be exactly the limit.

    Args:
        ones: float32 array (n, 4).
        others: float32 array (m, 4).
        max_iou: float.

    Returns:
        bool array (n, m).
    """
    import numpy as np

    first, second = [side[:, None] for side in ones.T], list(others.T)
    down = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    across = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    shared = np.maximum(down, 0) * np.maximum(across, 0)
    area, other_area = (
        (bottom - top) * (right - left) for top, left, bottom, right in (first, second)
    )
    union = area + other_area - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return iou > np.float32(max_iou)
