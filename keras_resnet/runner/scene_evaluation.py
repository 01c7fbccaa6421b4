"""--evaluate: the average precision of boxes, and the mean IoU of masks."""

import os
import time

from keras_resnet.runner.annotations import (
    MASK_ENDINGS,
    MASK_FOLDERS,
    XML_FOLDERS,
    companion,
    mask_classes,
    read_mask,
    read_voc,
)
from keras_resnet.runner.boxes import (
    IGNORED,
    Objects,
    boxes_to_input,
    mask_to_input,
    nearest_rows,
)
from keras_resnet.runner.errors import UserError, printable, result_or_error
from keras_resnet.runner.images import geometry_of
from keras_resnet.runner.metrics import (
    PRECISIONS,
    AveragePrecision,
    confusion_matrix,
    mean_iou,
)
from keras_resnet.runner.pipeline import run_all
from keras_resnet.runner.sources import find_images_below

SHOWN_CLASSES = 5


class BoxesMeasured:
    """The average precision of a `Detector`; XML files of Pascal VOC say what is there.

    It is measured in the model's input, as in training.
    """

    def __init__(self, detector, folder):
        """Takes the `Detector`; the folder is not needed."""
        self._detector = detector
        self._labels = needed_labels(detector)
        self._precision = AveragePrecision(len(self._labels))

    def source_of(self, picture):
        """Returns the path of the annotation of a picture, or None."""
        return companion(picture, (".xml",), XML_FOLDERS)

    def read(self, source, messages):
        """Returns the size and the objects that an annotation states."""
        found = read_voc(source)
        kept = []
        for name, box, is_difficult in found.objects:
            top, left, bottom, right = box
            if not (top < bottom and left < right):  # nor is NaN
                messages.warning(
                    f"{source}: a box of {name} has no area "
                    f"({left:g}, {top:g}, {right:g}, {bottom:g}): left out"
                )
            elif name not in self._labels:
                raise UserError(
                    f"{source}: an object of class {name!r}, which is none of the "
                    f"{len(self._labels)} labels of the model"
                )
            else:
                kept.append((box, self._labels.index(name), is_difficult))
        return found.size, kept

    def add(self, target, result, source, messages):
        """Adds a picture."""
        import numpy as np

        stated, kept = target
        width, height = size = result.decoded.size
        if stated not in (None, size):
            raise UserError(
                f"{source}: is for {stated[0]} x {stated[1]} pixels, and the picture "
                f"has {width} x {height}, upright as its EXIF says"
            )
        corners = np.array([box for box, _, _ in kept], float).reshape(-1, 4)
        shares = (corners / (height, width, height, width)).clip(0, 1)
        inside = (shares[:, :2] < shares[:, 2:]).all(axis=1)
        if not inside.all():
            messages.warning(
                f"{source}: {(~inside).sum()} boxes lie outside of the picture of "
                f"{width} x {height} pixels: left out"
            )
        boxes = boxes_to_input(shares, size, geometry_of(self._detector))
        classes = np.array([index for _, index, _ in kept], int)
        ignored = np.array([is_difficult for _, _, is_difficult in kept], bool)
        crowd = np.zeros(len(kept), bool)
        objects = Objects(*(x[inside] for x in (boxes, classes, ignored, crowd)))
        self._precision.add(objects, result.answer)

    def report(self):
        """Returns the precisions: a dict, the worst class first."""
        return named(self._precision.result(), self._labels, "ap")


class MasksMeasured:
    """The mean IoU of a `Segmenter`; PNG files of classes say what is there.

    It is measured at the resolution of the model's input, as in training.
    """

    def __init__(self, segmenter, folder):
        """Takes the `Segmenter`, and the folder whose names of classes are read."""
        import numpy as np

        self._segmenter = segmenter
        self._labels = needed_labels(segmenter)
        self._classes = mask_classes(folder)
        unknown = [name for name in self._classes.names if name not in self._labels]
        if unknown:
            raise UserError(
                f"{folder}: names a class {unknown[0]!r}, which is none of the "
                f"{len(self._labels)} labels of the model"
            )
        places = [self._labels.index(name) for name in self._classes.names]
        self._places = np.full(256, IGNORED, np.uint8)
        self._places[: len(places)] = places
        self._confusion = np.zeros((len(self._labels),) * 2, int)

    def source_of(self, picture):
        """Returns the path of the mask of a picture, or None."""
        return companion(picture, MASK_ENDINGS, MASK_FOLDERS)

    def read(self, source, messages):
        """Returns the mask, uint8 (height, width) of the model's classes."""
        return self._places[read_mask(source, self._classes)]

    def add(self, target, result, source, messages):
        """Adds a picture."""
        width, height = result.decoded.size
        if target.shape != (height, width):
            raise UserError(
                f"{source}: is for {target.shape[1]} x {target.shape[0]} pixels, and "
                f"the picture has {width} x {height}, upright as its EXIF says"
            )
        how = geometry_of(self._segmenter)
        expected = mask_to_input(target, how)
        rows, columns = (
            nearest_rows(length, (0, 1), source_length)[0]
            for length, source_length in zip(how.input_size, result.answer.shape)
        )
        found = result.answer[rows][:, columns]
        if found.max() >= len(self._labels):
            raise UserError(f"the model found class {found.max()}, which has no label")
        self._confusion += confusion_matrix(expected, found, len(self._labels))

    def report(self):
        """Returns the mean IoU: a dict, the worst class first."""
        return named(mean_iou(self._confusion), self._labels, "iou")


MEASURED = {"detect": BoxesMeasured, "segment": MasksMeasured}


def needed_labels(model):
    """Returns the labels of a model; raises `UserError` if it has none."""
    if not model.labels:
        raise UserError(
            f"{model.path}: has no labels, by which annotations name classes; give "
            "--labels"
        )
    return model.labels


def named(result, labels, key):
    """Adds the labels to the classes of a result, and sorts them by a value."""
    classes = [
        dict({"index": index, "label": labels[index]}, **one)
        for index, one in enumerate(result["classes"])
    ]
    known = [one for one in classes if one[key] is not None]
    unknown = [one for one in classes if one[key] is None]
    ordered = sorted(known, key=lambda one: one[key]) + unknown
    return dict(result, classes=ordered)


def evaluate_scenes(model, folder, messages, state):
    """Measures a detector or a segmenter on a folder of annotated pictures.

    Pictures without an annotation are left out. What is wrong with a picture or its
    annotation is reported, and the picture is counted and left out.

    Returns:
        dict of the JSON output, as the help describes it.
    """
    measured = MEASURED[model.task](model, folder)
    sources = {
        path: measured.source_of(path)
        for path in find_images_below(folder, messages)
        if os.path.basename(os.path.dirname(path)) not in MASK_FOLDERS
    }
    # Masks may lie among the pictures, and have none.
    pictures = {path: source for path, source in sources.items() if source}
    failures, images, start = [], 0, time.perf_counter()
    if not pictures:
        raise UserError(
            f"{folder}: no picture with an annotation beside it or in a folder "
            f"{' or '.join(XML_FOLDERS if model.task == 'detect' else MASK_FOLDERS)}"
        )

    def add(path, result):
        target = measured.read(pictures[path], messages)
        measured.add(target, result, pictures[path], messages)

    for path, result in run_all(pictures, model, state):
        error = result
        if not isinstance(result, UserError):
            error = result_or_error(add, path, result)
        if isinstance(error, UserError):
            messages.error(error)
            failures.append({"file": path, "error": str(error)})
        else:
            images += 1
        messages.progress(images + len(failures), len(pictures), start)
    if not images:
        raise UserError(f"{folder}: none of the pictures can be used")
    return dict(
        {"model": model.path, "images": images, "failed": len(failures)},
        **measured.report(),
        failures=failures,
    )


def print_scene_evaluation(report):
    """Prints an evaluation for people: the means, and the worst classes."""
    for name in ("images", "failed"):
        print(f"{name:8}{report[name]:9d}")
    names = [name for name, _ in PRECISIONS] if "ap" in report else ["miou"]
    for name in names:
        value = report[name]
        print(f"{name:8}" + ("     none" if value is None else f"{value:9.2%}"))
    key = "ap50" if "ap" in report else "iou"
    for one in report["classes"][:SHOWN_CLASSES]:
        if one[key] is not None:
            print(f"{printable(one['label'])}: {key} {one[key]:.2%}")
