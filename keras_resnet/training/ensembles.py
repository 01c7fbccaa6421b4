"""Several networks whose scores are averaged, as in the paper's table 5."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import heads
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.image_model import ImageModel
from keras_resnet.training import accuracy
from keras_resnet.training.data import batching, decoding
from keras_resnet.training.reporting.answers import Answers

BATCH = 64


@dataclasses.dataclass(frozen=True)
class Member:
    """A network that is evaluated, alone or with others.

    Attributes:
        name: what the user called it, for messages.
        model: a `keras.Model` that returns probabilities, or what runs a file: a
            `Classifier`, or alone a `Detector` or a `Segmenter`.
        preprocessing: the `Preprocessing` of its images.
        labels: names of its classes in the order of the scores, or None.
        config: the `config.json` of its run, or None.
    """

    name: str
    model: Any
    preprocessing: Preprocessing
    labels: Any
    config: dict | None

    @property
    def on_device(self):
        """Whether it is a file for the device."""
        return isinstance(self.model, ImageModel)

    @property
    def task(self):
        """What it does, one of `settings.TASKS`."""
        return self.model.task if self.on_device else heads.task_of(self.model)

    @property
    def classes(self):
        """The number of its classes."""
        if self.on_device:  # TFLite_Detection_PostProcess does not tell it
            return self.model.classes or len(self.labels or ())
        return self.model.outputs[-1].shape[-1]


def check_same_classes(members):
    """Raises `UserError` unless all members have the same classes in the same order.

    Members that do not know their labels need the same number of classes.
    """
    first, *others = sorted(members, key=lambda member: member.labels is None)
    for other in others:
        known = other.labels is not None
        if other.classes != first.classes or (
            known and list(other.labels) != list(first.labels)
        ):
            raise UserError(
                f"--model={other.name} has other classes than --model={first.name}, or "
                f"the same in another order: {_told(other)}, not {_told(first)}"
            )


def _told(member):
    if member.labels is None:
        return f"{member.classes} of them"
    few = ", ".join(member.labels[:5])
    return few + (", ..." if len(member.labels) > 5 else "")


def evaluate(members, data, views=None):
    """Returns the accuracy of the mean of the members' scores.

    Args:
        members: list of `Member`.
        data: the `Dataset` whose held-out split is classified.
        views: one of the functions of `views`, or None for the centre crop.

    Returns:
        As `accuracy.of_scores`. If `UNKNOWN` is a label, as `Answers.accuracy` and
        `Answers.of_unknown`.
    """
    total = 0.0
    for member in members:
        scores, labels = _scores(member, data, views)
        total = total + scores
    scores = total / len(members)
    if data.has_unknown:
        answers = Answers.of_scores(data, scores, labels)
        return {**answers.accuracy(), **answers.of_unknown()}
    pairs = zip(scores, labels, strict=True)
    return accuracy.of_scores(lambda scores: scores, pairs, data.multi_label)


def _scores(member, data, views):
    """Returns (scores, labels) of the held-out split, one row for each example."""
    if views is not None or member.on_device:
        score, images = by_image(member, data, views)
        pairs = [(score(image), label) for image, label in images]
        return tuple(np.stack(column) for column in zip(*pairs, strict=True))
    split = data.held_out
    size = min(BATCH, split.examples)
    return batching.predictions(member.model, split, member.preprocessing, size)


def by_image(member, data, views):
    """Returns how a member scores an image, and the examples that it scores.

    Returns:
        (function of an image -> scores, iterator of (image, label) over the held-out
        split).
    """
    if member.on_device:
        images = batching.images(data.held_out, member.preprocessing)
        return member.model.scores, images.as_numpy_iterator()
    images = data.held_out.read().map(
        lambda encoded, label: (decoding.decode(encoded), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return views(member.model, member.preprocessing), images.as_numpy_iterator()
