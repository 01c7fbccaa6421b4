"""The time from a detector's raw outputs to boxes, with 3,000 anchors and 20 classes.

    python -m benchmarks.suppression

Measured are the runner's `find_objects` and, beside it, the loop that people write:
the best box suppresses the others with NumPy until none is left. Both get the same
boxes and must keep the same ones. "photograph" has 10 objects, each found by some 20
anchors, and little else above the lowest score; in "noise", every anchor is above it.
"""

import statistics

import numpy as np

from benchmarks import turns
from keras_resnet.runner import detections
from keras_resnet.runner.metrics import MAX_DETECTIONS

ANCHORS, CLASSES, OBJECTS, ROUNDS = 3000, 20, 10, 201


def outputs(objects, seed=0):
    """Returns (offsets, scores, anchors); without objects, all scores are high."""
    random = np.random.default_rng(seed)
    anchors = np.concatenate(
        [random.uniform(0, 1, (ANCHORS, 2)), random.uniform(0.1, 0.3, (ANCHORS, 2))], 1
    )
    offsets = random.normal(0, 0.3, (ANCHORS, 4))
    if not objects:
        return offsets, random.uniform(0.05, 1, (ANCHORS, CLASSES)), anchors
    scores = random.uniform(0, 0.045, (ANCHORS, CLASSES))
    for centre in random.uniform(0.1, 0.9, (objects, 2)):
        near = np.linalg.norm(anchors[:, :2] - centre, axis=1).argsort()[:20]
        scores[near, random.integers(CLASSES)] = random.uniform(0.1, 1, 20)
    return offsets, scores, anchors


def loop(offsets, scores, anchors):
    """Returns the boxes (n, 4) that the plain loop keeps, the highest score first."""
    best = scores.max(axis=1)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] >= np.float32(detections.MIN_SCORE)]
    boxes = detections.decode_boxes(offsets[order], anchors[order])
    kept = []
    while len(boxes) and len(kept) < MAX_DETECTIONS:
        kept.append(boxes[0])
        boxes = boxes[1:][
            ~detections.overlaps(boxes[:1], boxes[1:], detections.MAX_IOU)[0]
        ]
    return np.stack(kept)


def main():
    """Prints a line for each of the two."""
    for name, objects in (("photograph", OBJECTS), ("noise", 0)):
        given = outputs(objects)
        found = detections.find_objects(*given).boxes
        np.testing.assert_array_equal(found, loop(*given))
        sides = {"ours": detections.find_objects, "loop": loop}
        times = turns.in_turns(
            lambda side, given=given: turns.seconds(side, *given), sides, ROUNDS, 5
        )
        ours, theirs = (1000 * statistics.median(times[side]) for side in sides)
        print(
            f"{name}: {len(found)} boxes, {ours:.2f} ms; the loop {theirs:.2f} ms, "
            f"{turns.ratio(times['loop'], times['ours']):.2f} times as long"
        )


if __name__ == "__main__":
    main()
