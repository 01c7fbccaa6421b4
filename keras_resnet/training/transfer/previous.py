"""The run that a fine-tuning goes on from: `--weights=RUN`."""

import dataclasses
import functools
import pathlib

import numpy as np

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import batching, datasets
from keras_resnet.training.reporting.answers import BATCH
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs.run import Run
from keras_resnet.training.transfer import head
from keras_resnet.weights.tensors import CLASSIFIER


@dataclasses.dataclass(frozen=True)
class Previous:
    """A finished run of `train`.

    Attributes:
        run: the `Run`.
        settings: those of its training, a dict.
        recipe: likewise.
    """

    run: Run
    settings: dict
    recipe: dict

    @classmethod
    def open(cls, path):
        """Opens the folder of a run.

        Raises:
            UserError: it has not ended, is damaged, or is no run of `train`.
        """
        run = Run.open(path)
        config = run_folder.read_config(run.directory)
        if "recipe" not in config["settings"]:
            raise UserError(
                "--weights needs the folder of a run of train.py, not of an adopted "
                f"model or of its fine-tuning. Received: {str(path)!r}"
            )
        return cls(run, config["settings"], config["recipe"])

    @property
    def file(self):
        """Path of its weights."""
        return str(pathlib.Path(self.run.directory) / "model.keras")

    @functools.cached_property
    def model(self):
        """The trained `keras.Model`."""
        return self.run.load_model()

    def kept(self, labels):
        """Returns {index: (channels,)} of the classes among `labels` that it knows.

        They are on the scale of `learning.fit`. A run whose classifier sees features
        and not their directions keeps none.
        """
        if not any(layer.name == head.DIRECTIONS for layer in self.model.layers):
            return {}
        kernel = self.model.get_layer(CLASSIFIER).get_weights()[0]
        kernel = np.float64(kernel) * self.recipe["temperature"]
        return {
            index: kernel[:, self.run.labels.index(label)]
            for index, label in enumerate(labels)
            if label in self.run.labels
        }

    @property
    def learned_nothing(self):
        """Whether it learned pictures of nothing, and not only a limit."""
        kernel = self.model.get_layer(CLASSIFIER).get_weights()[0]
        return self.run.labels[-1] == head.UNKNOWN and bool(kernel[:, -1].any())

    def compared(self, dataset, now):
        """Returns how it does on held-out pictures, beside another model.

        Args:
            dataset: `Dataset` that the other model was evaluated on.
            now: the `Answers` of the other model.

        Returns:
            Dictionary of "run", "examples" (the held-out pictures of classes that both
            know), "top1_before" and "top1_now" (of the scores of classes alone); None
            if there is no such picture.
        """
        staying = [x for x in self.run.labels if x in dataset.labels[: now.classes]]
        places = [dataset.labels.index(label) for label in staying]
        chosen = now.targets[:, places].any(1)
        if not chosen.any():
            return None
        shown = datasets.subset(dataset.held_out, chosen)
        scores, _ = batching.predictions(
            self.model, shown, self.run.preprocessing, min(BATCH, shown.examples)
        )
        own = [self.run.labels.index(label) for label in staying]
        known = [i for i, x in enumerate(self.run.labels) if x != head.UNKNOWN]
        before = np.array(known)[scores[:, known].argmax(1)]
        expected = np.array(own)[now.targets[chosen][:, places].argmax(1)]
        answered = now.scores[chosen, : now.classes].argmax(1)
        return {
            "run": str(self.run.directory),
            "examples": int(chosen.sum()),
            "top1_before": float(np.mean(before == expected)),
            "top1_now": float(now.targets[chosen, answered].mean()),
        }
