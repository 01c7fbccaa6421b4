"""The boxes or masks of a file beside those of the Keras model, on held-out images."""

import pathlib
import tempfile

import numpy as np

from keras_resnet.runner import Detector, Segmenter
from keras_resnet.training.scenes import answers


class Comparison:
    """Held-out images of a dataset, and the answers of a Keras model to them."""

    def __init__(self, model, preprocessing, anchors, dataset, limit):
        """Asks the Keras model.

        Args:
            model: the Keras model.
            preprocessing: what it expects.
            anchors: of a detector, or None.
            dataset: `SceneDataset`.
            limit: how many images, at most.
        """
        self._dataset, self._anchors = dataset, anchors
        pairs = list(answers.examples(dataset, dataset.held_out, preprocessing, limit))
        self._pixels = np.stack([image for image, _ in pairs])
        self._targets = [target for _, target in pairs]
        outputs = model.predict(
            preprocessing.normalize(self._pixels), batch_size=answers.BATCH, verbose=0
        )
        self._scores = outputs if anchors is None else outputs["scores"]
        self._of_keras = self._measures(answers.of_outputs(outputs, anchors))

    def compare(self, contents):
        """Measures files.

        Args:
            contents: {"tflite": bytes, and of a detector "boxes": bytes}.

        Returns:
            dict that JSON can hold: the dataset, the number of images, the largest and
            the mean difference of a score, and "ap50", "ap", "ap75" or "miou" of the
            file, with "keras_" in front those of the Keras model, and with "boxes_"
            those of the file with TFLite_Detection_PostProcess.
        """
        kind = Segmenter if self._anchors is None else Detector
        # Of a detector, boxes and scores.
        place = 0 if self._anchors is None else 1
        with tempfile.TemporaryDirectory() as folder:
            opened = {}
            for name, content in contents.items():
                path = pathlib.Path(folder) / f"{name}.tflite"
                path.write_bytes(content)
                opened[name] = kind(path)
            file = opened["tflite"]
            outputs = [file.outputs(image) for image in self._pixels]
            scores = [file.dequantized(place, values[place]) for values in outputs]
            compared = self._measures([file.interpret(values) for values in outputs])
            if "boxes" in opened:
                found = self._measures(answers.of_file(opened["boxes"])(self._pixels))
                compared |= {f"boxes_{name}": value for name, value in found.items()}
        difference = np.abs(np.stack(scores) - self._scores)
        return {
            "dataset": self._dataset.name,
            "images": len(self._pixels),
            "max_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
            **compared,
            **{f"keras_{name}": value for name, value in self._of_keras.items()},
        }

    def _measures(self, found):
        measured = answers.Measured(self._dataset)
        measured.add(self._targets, found)
        result = measured.result()
        del result["by_class"]
        return result
