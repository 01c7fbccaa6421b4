"""The scores of a file beside those of the Keras model, on held-out images."""

import pathlib
import tempfile

import numpy as np

from keras_resnet.edge.inspect import layer_error
from keras_resnet.runner import Classifier
from keras_resnet.training.data import batching, damaged

# Images for the error of each layer. A few are enough: a layer has thousands of values.
LAYER_IMAGES = 8


class Comparison:
    """Held-out images and the scores that the Keras model gives them."""

    def __init__(self, model, preprocessing, dataset, examples):
        """Reads images of a dataset, `examples` at most, and runs the Keras model."""
        held_out = batching.images(dataset.held_out, preprocessing)
        with damaged.damaged_images_named(dataset):
            pairs = list(held_out.take(examples).as_numpy_iterator())
        self._images, self._labels = zip(*pairs, strict=True)
        self._dataset = dataset
        normalized = preprocessing.normalize(np.stack(self._images))
        self._expected = model.predict(normalized, verbose=0)

    def scores(self, content):
        """Compares the scores of a .tflite, as the device computes them.

        Returns:
            dict that JSON can hold: the dataset, the number of images, the largest and
            the mean difference of a score, the share of equal top-1 classes, and if the
            dataset has the model's classes the top-1 accuracies (0..1).
        """
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.tflite"
            path.write_bytes(content)
            classifier = Classifier(path)
            actual = np.stack([classifier.scores(image) for image in self._images])
        difference = np.abs(actual - self._expected)
        best, expected = actual.argmax(-1), self._expected.argmax(-1)
        compared = {
            "dataset": self._dataset.name,
            "images": len(self._images),
            "max_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
            "agreement": float(np.mean(best == expected)),
        }
        if len(self._dataset.labels) == actual.shape[-1]:
            compared["top1"] = float(np.mean(best == self._labels))
            compared["keras_top1"] = float(np.mean(expected == self._labels))
        return compared

    def layers(self, content, model, preprocessing):
        """Returns `layer_error.measure` on a few of the images."""
        images = self._images[:LAYER_IMAGES]
        return layer_error.measure(model, preprocessing, content, images)
