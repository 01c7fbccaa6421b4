"""Features of pictures, computed once: any classifier is then fitted in seconds."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.training.data import batching
from keras_resnet.weights.tensors import CLASSIFIER

BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Features:
    """What a classifier learns from: the pictures of a split as a network sees them.

    Attributes:
        plain: float32 (pictures, channels), of the pictures in the order of the split.
        mirrored: likewise, of the pictures with left and right exchanged.
        labels: int64 (pictures,), or of several labels float32 (pictures, classes).
        classes: how many there are beside `unknown`.
        columns: how many logits the classifier has: one for each class, and one for
            `unknown` if there are pictures of it.
        kept: as for `learning.fit`.
    """

    plain: np.ndarray
    mirrored: np.ndarray
    labels: np.ndarray
    classes: int
    columns: int
    kept: dict = dataclasses.field(default_factory=dict)

    def of(self, chosen):
        """Returns the `Features` of some pictures, by numbers or a bool array."""
        names = ("plain", "mirrored", "labels")
        parts = {name: getattr(self, name)[chosen] for name in names}
        return dataclasses.replace(self, **parts)


def compute(network, dataset, preprocessing):
    """Returns the `Features` of the training pictures, as an evaluation shows them.

    The network is of the zoo, with a classifier, whose weights do not matter.
    """
    backbone = keras.Model(network.input, network.get_layer(CLASSIFIER).input)

    @tf.function
    def both(images):
        views = (images, tf.reverse(images, [2]))
        return [tf.cast(backbone(x, training=False), tf.float32) for x in views]

    split = dataset.train
    views, labels = batching.over_split(both, split, preprocessing, BATCH_SIZE)
    return Features(*views, labels, dataset.classes, len(dataset.labels))
