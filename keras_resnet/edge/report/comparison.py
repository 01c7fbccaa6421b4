"""The output of a file beside that of the Keras model, on held-out images."""

import pathlib
import tempfile

import numpy as np

from keras_resnet.edge.inspect import layer_error
from keras_resnet.runner import Classifier, learning
from keras_resnet.runner.errors import UserError
from keras_resnet.training import label_order, multi_label
from keras_resnet.training.data import batching, damaged

# Images for the error of each layer. A few are enough: a layer has thousands of values.
LAYER_IMAGES = 8


class Comparison:
    """Held-out images and what the Keras model gives them: scores or features."""

    def __init__(self, model, preprocessing, dataset, examples):
        """Reads images of a dataset, `examples` at most, and runs the Keras model."""
        held_out = batching.images(dataset.held_out, preprocessing)
        with damaged.damaged_images_named(dataset):
            pairs = list(held_out.take(examples).as_numpy_iterator())
        self._images, self._labels = zip(*pairs, strict=True)
        self._dataset = dataset
        normalized = preprocessing.normalize(np.stack(self._images))
        self._expected = model.predict(normalized, verbose=0)

    @property
    def images(self):
        """The held-out images, raw pixels, uint8 (images, height, width, 3)."""
        return np.stack(self._images)

    def scores(self, content):
        """Compares the scores of a .tflite, as the device computes them.

        Returns:
            dict that JSON can hold: the dataset, the number of images, the largest and
            the mean difference of a score, the share of equal top-1 classes, and if the
            dataset has the model's classes the top-1 accuracies (0..1). Of a
            `multi_label` dataset, the share is that of equal yes-or-no answers, and
            what `multi_label.measures` returns stands in the place of top-1.
        """
        actual = self._run(content)
        several = self._dataset.multi_label
        answers = _given if several else _best
        same = answers(actual) == answers(self._expected)
        compared = self._differences(actual) | {"agreement": float(np.mean(same))}
        if several:
            compared["multi_label"] = True
        if len(self._dataset.labels) == actual.shape[-1]:
            compared |= self._accuracy(actual)
            for name, value in self._accuracy(self._expected).items():
                compared[f"keras_{name}"] = value
        return compared

    def features(self, content):
        """Compares the features of a .tflite, as the device computes them.

        Returns:
            dict that JSON can hold: the dataset, the number of images, the largest and
            the mean difference of a feature, and the lowest and the mean cosine of the
            features of an image to those of the Keras model.
        """
        actual = self._run(content)
        cosines = (learning.unit(actual) * learning.unit(self._expected)).sum(-1)
        return self._differences(actual) | {
            "lowest_cosine": float(cosines.min()),
            "mean_cosine": float(cosines.mean()),
        }

    def _run(self, content):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.tflite"
            path.write_bytes(content)
            return _outputs(path, self._images)

    def _differences(self, actual):
        difference = np.abs(actual - self._expected)
        return {
            "dataset": self._dataset.name,
            "images": len(self._images),
            "max_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
        }

    def _accuracy(self, scores):
        """Returns the accuracy of scores, a dict of shares of 1."""
        if not self._dataset.multi_label:
            return {"top1": float(np.mean(_best(scores) == self._labels))}
        targets = np.stack(self._labels)
        # Without any label, there is no precision.
        return multi_label.measures(scores, targets) if targets.any() else {}

    def label_problem(self):
        """Returns as a sentence why the labels cannot be right, or None."""
        labels, several = self._dataset.labels, self._dataset.multi_label
        if len(labels) != self._expected.shape[-1]:
            return None
        targets = label_order.as_targets(np.stack(self._labels), len(labels))
        expected = self._expected
        if not several:  # `unknown` may be right for any of them
            classes = self._dataset.classes
            own = targets[:, :classes].any(1)
            if not own.any():
                return None
            labels = labels[:classes]
            targets, expected = targets[own, :classes], expected[own, :classes]
        problem = label_order.problem(targets, expected, labels, several)
        if problem or several or not label_order.is_chance(targets, expected):
            return problem
        return (
            f"the model is no better than chance on {len(targets)} held-out images of "
            f"{len(labels)} classes: its preprocessing or these are not those of its "
            "training. training/adopt.py finds it out"
        )

    def layers(self, content, model, preprocessing):
        """Returns `layer_error.measure` on a few of the images."""
        images = self._images[:LAYER_IMAGES]
        return layer_error.measure(model, preprocessing, content, images)


def _best(scores):
    return scores.argmax(-1)


def _given(scores):
    return scores >= multi_label.THRESHOLD


def _outputs(path, images):
    """Returns the scores or the features that a .tflite gives each of some images."""
    try:
        classifier = Classifier(path)
        return np.stack([classifier.outputs(image) for image in images])
    except UserError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise UserError(
            f"the exported file does not run: {reason}. Try another --quantize, such "
            "as int8 or float16, or build the model of other layers"
        ) from error
