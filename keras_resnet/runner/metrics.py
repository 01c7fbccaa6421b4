"""How good boxes and masks are: COCO's average precision, and the mean IoU."""

from keras_resnet.runner.boxes import IGNORED

MAX_DETECTIONS = 100  # of a class in a picture, those of the highest scores
THRESHOLDS = 10  # of the IoU: 0.5, 0.55, ... 0.95
RECALLS = 101  # 0, 0.01, ... 1
# Names of the precisions averaged over all thresholds, and over one of them.
PRECISIONS = (("ap", slice(None)), ("ap50", slice(0, 1)), ("ap75", slice(5, 6)))


class AveragePrecision:
    """Average precision of boxes, with the rules and the numbers of pycocotools.

    They are described at cocodataset.org/#detection-eval. Pictures are added one by
    one. Boxes may be in pixels or in shares, of the picture or of the model's input:
    the IoU is the same.
    """

    def __init__(self, classes):
        """Counts nothing yet.

        Args:
            classes: number of classes.
        """
        import numpy as np

        self._thresholds = np.linspace(0.5, 0.95, THRESHOLDS)
        self._objects = np.zeros(classes, int)
        # Of each class, for each picture: scores, whether each is right and whether it
        # counts at each threshold.
        self._scores = [[] for _ in range(classes)]
        self._right = [[] for _ in range(classes)]
        self._counts = [[] for _ in range(classes)]

    def add(self, objects, found):
        """Adds a picture.

        Args:
            objects: `Objects` that are there.
            found: `Detections`. Of equal scores, the first counts first.
        """
        import numpy as np

        for index in np.unique(np.append(objects.classes, found.classes)).tolist():
            there = [part[objects.classes == index] for part in objects]
            boxes, _, scores = (part[found.classes == index] for part in found)
            best = np.argsort(-scores, kind="stable")[:MAX_DETECTIONS]
            crowd = there[3]
            ignored = there[2] | crowd
            iou = intersection_over_union(boxes[best], there[0], crowd)
            right, counts = match_objects(iou, ignored, crowd, self._thresholds)
            self._objects[index] += (~ignored).sum()
            self._scores[index].append(scores[best])
            self._right[index].append(right)
            self._counts[index].append(counts)

    def precisions(self):
        """Returns the precision at each recall, the highest at that recall or above.

        float64 array (thresholds, recalls, classes): the IoU from 0.5 to 0.95, the
        recall from 0 to 1; NaN for a class of which there are no objects.
        """
        import numpy as np

        recalls = np.linspace(0, 1, RECALLS)
        result = np.full((THRESHOLDS, RECALLS, len(self._objects)), np.nan)
        for index in np.flatnonzero(self._objects):
            result[:, :, index] = 0
            if not self._scores[index]:
                continue
            order = np.argsort(-np.concatenate(self._scores[index]), kind="stable")
            right, counts = (
                np.concatenate(parts[index], axis=1)[:, order]
                for parts in (self._right, self._counts)
            )
            hits = (right & counts).cumsum(axis=1)
            found = counts.cumsum(axis=1)
            precision = hits / (found + np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            for threshold in range(THRESHOLDS):
                recall = hits[threshold] / self._objects[index]
                places = np.searchsorted(recall, recalls, side="left")
                reached = places < len(order)
                result[threshold, reached, index] = precision[
                    threshold, places[reached]
                ]
        return result

    def result(self):
        """Returns the average precisions, shares of 1.

        dict of "ap" (the mean over the thresholds 0.5 to 0.95), "ap50", "ap75", which
        are means over the classes, and "classes": one dict for each class of "objects"
        and the same three. All are None where there are no objects.
        """
        import numpy as np

        precisions = self.precisions()
        known = np.flatnonzero(self._objects)

        def averages(classes):
            return {
                name: float(precisions[part][:, :, classes].mean())
                if len(classes)
                else None
                for name, part in PRECISIONS
            }

        each = [
            dict(objects=int(number), **averages([index] if number else []))
            for index, number in enumerate(self._objects)
        ]
        return dict(averages(known), classes=each)


def intersection_over_union(boxes, others, crowd=None):
    """Returns the IoU of each box with each other one, float64 (boxes, others).

    Args:
        boxes: array (n, 4): two corners of each, the lesser first.
        others: array (m, 4), likewise.
        crowd: bool array (m,): where it is true, the share of the box that lies in the
            other is returned instead.
    """
    import numpy as np

    boxes, others = (np.asarray(x, np.float64).reshape(-1, 4) for x in (boxes, others))
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    area, other_area = ((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (boxes, others))
    union = area[:, None] + other_area - shared
    if crowd is not None:
        union = np.where(crowd, area[:, None], union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def match_objects(iou, ignored, crowd, thresholds):
    """Decides which detections of one class in one picture are right.

    Each takes the object of the highest IoU that none before it has taken, and one that
    is ignored only if there is no other. Crowds can be taken again and again.

    Args:
        iou: float array (detections, objects), the highest score first.
        ignored: bool array (objects,).
        crowd: bool array (objects,).
        thresholds: float array: the least IoU.

    Returns:
        Two bool arrays (thresholds, detections): whether each is right, and whether it
        counts.
    """
    import numpy as np

    right = np.zeros((len(thresholds), len(iou)), bool)
    counts = np.ones_like(right)
    taken = np.zeros((len(thresholds), len(ignored)), bool)
    least = thresholds[:, None]
    every = np.arange(len(thresholds))
    if not len(ignored):
        return right, counts
    for place in np.flatnonzero((iou >= least[0]).any(axis=1)):
        possible = (iou[place] >= least) & (crowd | ~taken)
        preferred = possible & ~ignored
        has_preferred = preferred.any(axis=1, keepdims=True)
        chosen = np.where(has_preferred, preferred, possible)
        # Of equal ones the last, as in pycocotools, where ignored ones come last.
        values = np.where(chosen, iou[place], -1)[:, ::-1]
        best = len(ignored) - 1 - values.argmax(axis=1)
        matched = chosen.any(axis=1)
        right[:, place] = matched
        counts[:, place] = ~(matched & ignored[best])
        taken[every[matched], best[matched]] = True
    return right, counts


def confusion_matrix(expected, found, classes):
    """Counts the pixels of one or more masks.

    Args:
        expected: uint8 array of class indices; `IGNORED` ones are left out.
        found: int array of the same shape.
        classes: number of classes.

    Returns:
        int64 array (expected class, found class).
    """
    import numpy as np

    counted = expected != IGNORED
    pairs = expected[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(confusion):
    """Returns the IoU of classes, of all pixels together, from a confusion matrix.

    A class counts if any pixel is of it or is taken for it (Everingham et al., "The
    Pascal visual object classes challenge: a retrospective", section 3.3).

    Returns:
        dict of "miou", the mean over the classes that count, and "classes": one dict
        for each class of "pixels" that are of it and "iou"; shares of 1, None where
        nothing counts.
    """
    right, of_class = confusion.diagonal(), confusion.sum(axis=1)
    union = of_class + confusion.sum(axis=0) - right
    each = [
        {"pixels": int(pixels), "iou": float(hits / every) if every else None}
        for hits, pixels, every in zip(right, of_class, union)
    ]
    known = [found["iou"] for found in each if found["iou"] is not None]
    return {"miou": sum(known) / len(known) if known else None, "classes": each}
