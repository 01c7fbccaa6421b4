"""The boxes or masks of a file beside those of the Keras model, on held-out images."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from keras_resnet.runner import Detector, Segmenter
from keras_resnet.runner.boxes import Detections, nearest_rows
from keras_resnet.runner.detections import find_objects
from keras_resnet.runner.metrics import (
    PRECISIONS,
    AveragePrecision,
    confusion_matrix,
    mean_iou,
)
from keras_resnet.training.data.scenes import batching as scene_batching

BATCH = 16


def examples(dataset, split, preprocessing, limit):
    """Yields (image, target) of a split, `limit` at most.

    The image is uint8 (height, width, 3), raw pixels of the model's input; the target
    is that of `scene_batching.evaluation_batches`, in the input too.
    """
    raw = dataclasses.replace(
        preprocessing,
        mean_rgb_255=(0.0,) * 3,
        std_rgb_255=(1.0,) * 3,
        channel_order="rgb",
    )
    batches = scene_batching.evaluation_batches(dataset, split, raw, BATCH)
    left = limit
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


def images(dataset, split, preprocessing, limit):
    """Returns the images of `examples`, uint8 (images, height, width, 3)."""
    return np.stack(
        [image for image, _ in examples(dataset, split, preprocessing, limit)]
    )


def compare(model, preprocessing, anchors, dataset, limit, contents):
    """Measures a Keras model and its files on the held-out split.

    Args:
        model: the Keras model.
        preprocessing: what it expects.
        anchors: of a detector, or None.
        dataset: `SceneDataset`.
        limit: how many images, at most.
        contents: {"tflite": bytes, and of a detector "boxes": bytes}.

    Returns:
        dict that JSON can hold: the dataset, the number of images, the largest and the
        mean difference of a score, and "ap50", "ap", "ap75" or "miou" of the file,
        with "keras_" in front those of the Keras model, and with "boxes_" those of the
        file with TFLite_Detection_PostProcess.
    """
    pairs = list(examples(dataset, dataset.held_out, preprocessing, limit))
    pixels = np.stack([image for image, _ in pairs])
    targets = [target for _, target in pairs]
    expected = model.predict(
        preprocessing.normalize(pixels), batch_size=BATCH, verbose=0
    )
    compared = {"dataset": dataset.name, "images": len(pairs)}
    classes = len(dataset.labels)
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, content in contents.items():
            paths[name] = pathlib.Path(folder) / f"{name}.tflite"
            paths[name].write_bytes(content)
        if anchors is None:
            segmenter = Segmenter(paths["tflite"])
            outputs = [segmenter.tensors(image)[0] for image in pixels]
            scores = np.stack([segmenter.dequantized(0, values) for values in outputs])
            compared |= _differences(scores, expected)
            masks = [segmenter.interpret([values]) for values in outputs]
            compared |= _iou(masks, targets, classes)
            of_keras = _iou(expected.argmax(-1), targets, classes)
        else:
            detector = Detector(paths["tflite"])
            outputs = [detector.outputs(image) for image in pixels]
            scores = np.stack([detector.dequantized(1, pair[1]) for pair in outputs])
            compared |= _differences(scores, expected["scores"])
            found = map(detector.interpret, outputs)
            compared |= _precision(found, targets, classes)
            with_operator = Detector(paths["boxes"])
            found = (with_operator.interpret(with_operator.outputs(x)) for x in pixels)
            for name, value in _precision(found, targets, classes).items():
                compared[f"boxes_{name}"] = value
            pairs = zip(expected["boxes"], expected["scores"], strict=True)
            found = (find_objects(*pair, anchors) for pair in pairs)
            of_keras = _precision(found, targets, classes)
    for name, value in of_keras.items():
        compared[f"keras_{name}"] = value
    return compared


def _differences(scores, expected):
    difference = np.abs(scores - expected)
    return {
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
    }


def _precision(found, targets, classes):
    """Returns the mean average precisions of `Detections` in the input, a dict."""
    measured = AveragePrecision(classes)
    for one, target in zip(found, targets, strict=True):
        measured.add(target, Detections(*one))
    result = measured.result()
    return {name: result[name] for name, _ in PRECISIONS}


def _iou(masks, targets, classes):
    """Returns the mean IoU of masks at the resolution of the output, a dict."""
    confusion = np.zeros((classes, classes), np.int64)
    for mask, target in zip(masks, targets, strict=True):
        rows, columns = (
            nearest_rows(length, (0, 1), source_length)[0]
            for length, source_length in zip(target.shape, mask.shape, strict=True)
        )
        confusion += confusion_matrix(target, mask[rows][:, columns], classes)
    return {"miou": mean_iou(confusion)["miou"]}
