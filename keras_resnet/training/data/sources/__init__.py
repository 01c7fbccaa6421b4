"""The name of a dataset -> a `datasets.Dataset`."""

import dataclasses

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import damaged, datasets
from keras_resnet.training.data.sources import digits, folder, tfds


def load(name, data_dir=None, hold_out=None, damaged_images="stop"):
    """Opens a dataset.

    Args:
        name: "digits" (embedded), "folder" (images in class-named folders) or
            the name of a tensorflow-datasets dataset.
        data_dir: for "folder", DIR/CLASS/IMAGE (a fifth of each class is held out) or
            DIR/{train,val}/CLASS/IMAGE; for tensorflow-datasets, where it
            keeps its prepared datasets (default: ~/tensorflow_datasets).
        hold_out: split off so many training examples and evaluate on them, so that
            choices do not see the published split.
        damaged_images: "skip" leaves out what cannot be decoded; with "stop" the
            first one met ends the run.

    Returns:
        A `Dataset`. Held out is the split "validation" where the dataset has
        one, else "test", else a fifth of "train".

    Raises:
        UserError: there is no such dataset, it is no image classification, or
            it is not on disk and cannot be downloaded.
    """
    if name == "digits":
        dataset = digits.load()
    elif name == "folder":
        dataset = folder.load(data_dir)
    else:
        dataset = tfds.load(name, data_dir)
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
