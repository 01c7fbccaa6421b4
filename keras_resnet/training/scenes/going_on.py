"""A detector or a segmenter that goes on from a run: `--weights=RUN`."""

import dataclasses
import re
import sys

from keras_resnet import model_metadata

# The layers whose last channels are the classes.
CLASS_LAYERS = re.compile(r"P\d+_scores|logits")


def take_over(model, previous, labels):
    """Gives a model the weights of a run, but for classes that the run does not know.

    It expects the pixels that the run expects, and has its licence.

    Args:
        model: of `heads`, of the same network and head.
        previous: the `transfer.previous.Previous`.
        labels: names of the classes of the model.
    """
    known = [label for label in labels if label in previous.run.labels]
    new = [index for index, label in enumerate(labels) if label in known]
    old = [previous.run.labels.index(label) for label in known]
    for layer in model.layers:
        own = layer.get_weights()
        if not own:
            continue
        weights = previous.model.get_layer(layer.name).get_weights()
        if CLASS_LAYERS.fullmatch(layer.name):
            for mine, theirs in zip(own, weights, strict=True):
                mine[..., new] = theirs[..., old]
            weights = own
        layer.set_weights(weights)
    preprocessing = dataclasses.replace(
        previous.run.preprocessing, input_size=tuple(model.input_shape[1:3])
    )
    licence = getattr(previous.model, "licence", None)
    model_metadata.attach(model, preprocessing, licence=licence)
    begin = [label for label in labels if label not in known]
    if begin:
        print(
            f"{previous.run.directory} does not know {', '.join(begin)}: their scores "
            "are learned from the start",
            file=sys.stderr,
        )
