"""Held-out pictures of a dataset as samples of a page."""

import io

from keras_resnet.edge.page import samples
from keras_resnet.runner.images import read_image
from keras_resnet.training.data import datasets

PICTURES = 6


def pictures(dataset):
    """Returns the samples of a `Dataset`, as `samples.of_image` does; None has none.

    They are spread evenly, since a source may be sorted by class.
    """
    if dataset is None:
        return []
    split = dataset.held_out
    count = min(PICTURES, split.examples)
    chosen = datasets.spread_evenly(count, split.examples)
    found = []
    for encoded, label in datasets.subset(split, chosen).read().as_numpy_iterator():
        name = ", ".join(dataset.classes_of(label)) or "no label"
        image = read_image(io.BytesIO(encoded)).image
        found.append(samples.of_image(image, name))
    return found
