"""Where datasets come from: one module for each kind of source."""

import dataclasses

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import damaged, datasets
from keras_resnet.training.data.sources import digits, folder, tfds


def load(name, data_dir=None, hold_out=None, damaged_images="stop"):
    """Opens a `datasets.Dataset`; the arguments are those of `train`.

    Raises:
        UserError: there is no such dataset, it is not for image classification, or
            it is not on disk and cannot be downloaded.
    """
    if name == "digits":
        dataset = digits.load()
    elif name == "folder":
        try:
            dataset = folder.load(data_dir)
        except OSError as error:  # a link to nowhere, a folder without permission
            reason = f"{error.filename} cannot be read: {error.strerror}"
            raise UserError(f"{reason}. Remove or repair it") from error
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
