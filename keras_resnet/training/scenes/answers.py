"""What detectors and segmenters answer to pictures, and how good their answers are.

Keras models and files for the device are measured on the same pixels by the same code.
"""

import dataclasses
import itertools

import numpy as np

from keras_resnet import heads
from keras_resnet.runner.boxes import nearest_rows
from keras_resnet.runner.detections import find_objects
from keras_resnet.runner.metrics import AveragePrecision, confusion_matrix, mean_iou
from keras_resnet.training.data.scenes import batching as scene_batching

BATCH = 16


def examples(dataset, split, preprocessing, limit=None):
    """Yields (image, target) of a split, `limit` at most.

    The image is uint8 (height, width, 3), raw pixels of the model's input; the target
    is that of `scene_batching.evaluation_batches`, in the input too: `Objects`, or a
    mask.
    """
    raw = dataclasses.replace(
        preprocessing,
        mean_rgb_255=(0.0,) * 3,
        std_rgb_255=(1.0,) * 3,
        channel_order="rgb",
    )
    left = split.examples if limit is None else limit
    batches = scene_batching.evaluation_batches(dataset, split, raw, BATCH)
    for pixels, target, is_real in batches.as_numpy_iterator():
        for row in np.flatnonzero(is_real)[:left]:
            one = (
                scene_batching.unpadded(target, row)
                if dataset.task == "detect"
                else target[row]
            )
            yield pixels[row].astype(np.uint8), one
            left -= 1
        if not left:
            return


def images(dataset, preprocessing, limit):
    """Returns training images to calibrate with, uint8 (images, height, width, 3)."""
    found = examples(dataset, dataset.train, preprocessing, limit)
    return np.stack([image for image, _ in found])


def of_outputs(outputs, anchors):
    """Returns the answers of a Keras model by its outputs, as arrays.

    Args:
        outputs: of `heads.detector` or `heads.segmenter`, with activations.
        anchors: of a detector, or None.

    Returns:
        List of `Detections`, or of masks (rows, columns).
    """
    if anchors is None:
        return list(outputs.argmax(-1).astype(np.uint8))
    pairs = zip(outputs["boxes"], outputs["scores"], strict=True)
    return [find_objects(*pair, anchors) for pair in pairs]


def of_model(model, preprocessing, task):
    """Returns a function of images that returns a model's answers; see `of_outputs`.

    Args:
        model: of `heads`, with activations; of Keras 3 or tf_keras.
        preprocessing: what it expects.
        task: "detect" or "segment".

    Returns:
        Function of uint8 (images, height, width, 3).
    """
    anchors = heads.anchors(model) if task == "detect" else None

    def answer(pixels):
        outputs = model.predict_on_batch(preprocessing.normalize(pixels))
        return of_outputs(outputs, anchors)

    return answer


def of_file(runner):
    """Returns a function of images that returns the answers of a file.

    Args:
        runner: the `Detector` or the `Segmenter` that runs it.
    """
    return lambda pixels: [runner.interpret(runner.outputs(x)) for x in pixels]


def measured(dataset, preprocessing, answer):
    """Measures answers on the held-out split.

    Args:
        dataset: `SceneDataset`.
        preprocessing: of the input; its normalization does not matter.
        answer: function of uint8 (images, height, width, 3), as `of_model` returns it.

    Returns:
        As `Measured.result`, with "examples_evaluated".
    """
    counts, pairs = (
        Measured(dataset),
        examples(dataset, dataset.held_out, preprocessing),
    )
    number = 0
    for batch in batched(pairs):
        pixels, targets = zip(*batch, strict=True)
        counts.add(targets, answer(np.stack(pixels)))
        number += len(batch)
    return {**counts.result(), "examples_evaluated": number}


def batched(pairs):
    """Yields lists of at most `BATCH` of `examples`."""
    while batch := list(itertools.islice(pairs, BATCH)):
        yield batch


class MeanIou:
    """The mean IoU of masks; pictures are added as to `AveragePrecision`."""

    def __init__(self, classes):
        """Counts nothing yet."""
        self._confusion = np.zeros((classes, classes), np.int64)

    def add(self, target, mask):
        """Adds a picture.

        Args:
            target: the expected mask, at the resolution of the model's input.
            mask: the found one, at that of its output.
        """
        found = enlarged(mask, target.shape)
        self._confusion += confusion_matrix(target, found, len(self._confusion))

    def result(self):
        """Returns what `runner.metrics.mean_iou` makes of all pictures."""
        return mean_iou(self._confusion)


def enlarged(mask, shape):
    """Returns a mask at the resolution of the input, by the nearest cell."""
    rows, columns = (
        nearest_rows(length, (0, 1), source_length)[0]
        for length, source_length in zip(shape, mask.shape, strict=True)
    )
    return mask[rows][:, columns]


class Measured:
    """How good the answers to pictures of a `SceneDataset` are."""

    def __init__(self, dataset):
        """Counts nothing yet."""
        kind = AveragePrecision if dataset.task == "detect" else MeanIou
        self._labels = dataset.labels
        self.counts = kind(len(dataset.labels))

    def add(self, targets, found):
        """Adds the answers to some pictures."""
        for pair in zip(targets, found, strict=True):
            self.counts.add(*pair)

    def result(self):
        """Returns the measures.

        Dictionary of "ap50", "ap" and "ap75" or of "miou", shares of 1 (None where
        nothing is annotated), and "by_class", {label: what is measured of it}; see
        `runner.metrics`.
        """
        found = self.counts.result()
        by_class = dict(zip(self._labels, found.pop("classes"), strict=True))
        return {**found, "by_class": by_class}
