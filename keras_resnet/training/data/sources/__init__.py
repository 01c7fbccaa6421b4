"""Where datasets come from: one module for each kind of source."""

import dataclasses
import sys

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import damaged, datasets
from keras_resnet.training.data.sources import csv_file, digits, folder, pictures, tfds

_OWN_PICTURES = {"folder": folder.load, "csv": csv_file.load}
NAMES = ("digits", *_OWN_PICTURES)  # of those that tensorflow-datasets does not have


def load(name, data_dir=None, hold_out=None, damaged_images="stop", balance=None):
    """Opens a `datasets.Dataset`; the arguments are those of `train`.

    Of the user's own pictures, a line on stderr says how many there are and what was
    left out.

    Raises:
        UserError: there is no such dataset, it is not for image classification, or
            it is not on disk and cannot be downloaded.
    """
    if name == "digits":
        dataset = digits.load()
    elif name in _OWN_PICTURES:
        with pictures.unreadable_named():
            dataset = _OWN_PICTURES[name](data_dir)
    else:
        dataset = tfds.load(name, data_dir)
    dataset = datasets.with_unknown_last(dataset)
    dataset = whole_and_held_out(dataset, hold_out, damaged_images)
    if balance:
        if dataset.multi_label:
            raise UserError(
                "--balance needs pictures with one label each. Received: a csv file in "
                "which pictures have any number of labels"
            )
        train = datasets.balanced(dataset.train)
        dataset = dataclasses.replace(dataset, train=train)
    if name in _OWN_PICTURES:
        print(f"{data_dir}: {dataset.summary()}", file=sys.stderr)
    return dataset


def whole_and_held_out(dataset, hold_out, damaged_images):
    """Returns a dataset as the arguments of `load` say, which are those of `train`."""
    if damaged_images == "skip":
        dataset = damaged.without_damaged(dataset)
    if hold_out is None:
        return dataset
    if hold_out >= dataset.train.examples:
        raise UserError(
            f"--hold_out must leave some of the {dataset.train.examples} training "
            f"images. Received: {hold_out}"
        )
    train, held_out = datasets.hold_out(dataset.train, hold_out)
    return dataclasses.replace(dataset, train=train, held_out=held_out)
