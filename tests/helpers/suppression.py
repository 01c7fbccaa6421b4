"""Suppression and the box coder in plain loops: the oracle for the runner's."""

import math

import numpy as np

SCALES = (10.0, 10.0, 5.0, 5.0)
MIN_SCORE, MAX_IOU, MOST = 0.05, 0.5, 100


def decode(offset, anchor):
    """One box in 64 bits: (top, left, bottom, right)."""
    move_y, move_x, height, width = (x / s for x, s in zip(offset, SCALES, strict=True))
    y, x = anchor[0] + move_y * anchor[2], anchor[1] + move_x * anchor[3]
    height, width = math.exp(height) * anchor[2], math.exp(width) * anchor[3]
    return y - height / 2, x - width / 2, y + height / 2, x + width / 2


def iou(one, other):
    down = min(one[2], other[2]) - max(one[0], other[0])
    across = min(one[3], other[3]) - max(one[1], other[1])
    if down <= 0 or across <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return down * across / (sum(areas) - down * across)


def find(offsets, scores, anchors):
    """The detections of a picture: a list of (box, class, score), the best first."""
    boxes = [
        decode(offset.tolist(), anchor.tolist())
        for offset, anchor in zip(offsets, anchors, strict=True)
    ]
    best = scores.max(axis=1).tolist()
    order = sorted(range(len(best)), key=lambda row: (-best[row], row))
    kept = []
    for row in order:
        if best[row] < np.float32(MIN_SCORE) or len(kept) == MOST:
            break
        if all(iou(boxes[row], box) <= MAX_IOU for box, _, _ in kept):
            kept.append((boxes[row], int(scores[row].argmax()), best[row]))
    return kept


def random_outputs(random, anchors, classes, share=1.0, steps=0):
    """Offsets, scores and anchors of a detector that saw nothing in particular.

    Args:
        random: `np.random.RandomState`.
        anchors: how many.
        classes: how many.
        share: of the scores that are not 0.
        steps: if not 0, scores are rounded to this many, so that many are equal.
    """
    offsets = random.randn(anchors, 4).astype(np.float32) * 3
    centres, sides = random.rand(anchors, 2), 0.05 + 0.3 * random.rand(anchors, 2)
    scores = random.rand(anchors, classes)
    scores *= random.rand(anchors, classes) < share
    if steps:
        scores = np.rint(scores * steps) / steps
    places = np.concatenate([centres, sides], axis=1).astype(np.float32)
    return offsets, scores.astype(np.float32), places
