"""The end of a fine-tuned network: directions of features, temperature, `unknown`."""

import dataclasses

import keras
import numpy as np

from keras_resnet.runner import learning
from keras_resnet.runner.learning import UNKNOWN
from keras_resnet.training.data import datasets
from keras_resnet.weights.tensors import CLASSIFIER, DIRECTIONS

# A file of 8 bits moves cosines by some thousandths. Where all pictures of a class are
# as near to it, this would make many of them unknown: the limit is lower by so much.
SLACK = 0.01 * learning.SCALE


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How logits become scores that can be believed.

    Attributes:
        temperature: what the logits are divided by.
        known_from: bias of `unknown` beside the logits, before that division; None for
            a classifier without `unknown`.
    """

    temperature: float = 1.0
    known_from: float | None = None

    @classmethod
    def of(cls, logits, labels, classes, known_share):
        """Returns what pictures say that the classifier did not learn.

        Args:
            logits: (pictures, classes), or with one more of `unknown`; None where
                there are no such pictures.
            labels: int64 (pictures,).
            classes: int.
            known_share: share of the pictures of classes that must be known; 1 leaves
                `unknown` out.
        """
        if logits is None:
            return cls()
        temperature, known = learning.calibrated(logits, labels, classes, known_share)
        return cls(temperature, None if known is None else known - SLACK)

    def beside(self, recipe, same_kind):
        """Returns the more modest one of this and that of an earlier run.

        The layers of that run learned its pictures, which are nearer than new ones are;
        its calibration comes from pictures that they had not learned.

        Args:
            recipe: of that run, a dict.
            same_kind: whether both have learned pictures of nothing, or neither has;
                `known_from` is on another scale otherwise.
        """
        known = self.known_from
        if same_kind and None not in (known, recipe["known_from"]):
            known = min(known, recipe["known_from"])
        return Calibration(max(self.temperature, recipe["temperature"]), known)


def with_directions(model):
    """Returns a model of the zoo whose classifier sees the directions of features.

    Its logits are proportional to cosines, and those say how near a picture is to what
    was learned. The model has a classifier.
    """
    old = model.get_layer(CLASSIFIER)
    directions = keras.layers.UnitNormalization(name=DIRECTIONS)(old.input)
    scores = type(old).from_config(old.get_config())(directions)
    end = keras.Model(model.input, scores, name=model.name)
    for name in ("preprocessing", "licence"):
        if hasattr(model, name):
            setattr(end, name, getattr(model, name))
    return end


def set_start(network, kernel, bias, features):
    """Gives a network, which sees features, a classifier of their directions.

    Args:
        network: of the zoo, which returns logits.
        kernel: (channels, columns), of unit features.
        bias: (columns,).
        features: (pictures, channels), from which the usual length follows.
    """
    length = np.linalg.norm(features, axis=1).mean()
    network.get_layer(CLASSIFIER).set_weights([kernel / length, bias])


def with_unknown(dataset, recipe):
    """Returns a `Dataset` with the classes that the trained model answers with."""
    if recipe.known_from is None or dataset.labels[-1] == UNKNOWN:
        return dataset
    return datasets.of_classes(dataset, (*dataset.labels, UNKNOWN))


def calibrated(kernel, bias, classes, recipe):
    """Returns (kernel, bias) of the classifier whose scores can be believed.

    Args:
        kernel: (channels, columns), of unit features.
        bias: (columns,).
        classes: int, how many there are beside `unknown`.
        recipe: `Recipe` with the `Calibration`.
    """
    kernel, bias = learning.with_unknown(kernel, bias, classes, recipe.known_from)
    return kernel / recipe.temperature, bias / recipe.temperature
