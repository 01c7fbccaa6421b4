"""Images that cannot be decoded: they are found, named and left out."""

import contextlib
import dataclasses
import io
import re

import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.runner import images
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import datasets, decoding


def without_damaged(dataset):
    """Returns the dataset without images that cannot be decoded.

    Decodes every image once, because the number that is left must be known before the
    first epoch, and names the others on stderr. At least one must be left.
    """

    def of(split):
        whole = np.ones(split.examples, bool)
        for index, name, _ in _damaged(dataset, split):
            whole[index] = False
            console.warn(f"{name} cannot be decoded: left out")
        if not whole.any():
            raise UserError(f"no image of dataset {dataset.name} can be decoded")
        return split if whole.all() else datasets.subset(split, whole)

    return dataclasses.replace(
        dataset, train=of(dataset.train), held_out=of(dataset.held_out)
    )


@contextlib.contextmanager
def damaged_images_named(dataset):
    """While images are read, turns TensorFlow's error into one that names the image.

    Raises:
        UserError: an image cannot be decoded, is too elongated to be resized or is
            gone, or its label is none of the classes.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        _refuse_unknown_label(dataset, error)
        _refuse_elongated(dataset, error)
        for split in (dataset.train, dataset.held_out):
            for _, name, damage in _damaged(dataset, split):
                raise UserError(
                    f"{name} cannot be decoded: {damage}. "
                    "Remove or repair it (train.py --damaged_images=skip leaves it out)"
                ) from error
        raise  # something else
    except tf.errors.NotFoundError as error:
        path = error.message.partition("; No such file")[0].rpartition(": ")[2]
        raise UserError(
            f"{path} was there when the pictures were listed, and is gone. Put it "
            "back, or start again with another --model_dir"
        ) from error


def _damaged(dataset, split):
    """Yields (index, name, the reason) of images that cannot be decoded."""
    for index in _missing(split):
        try:
            (encoded, _), *_ = split.read().skip(index).take(1)
            decoding.decode(encoded)
        except tf.errors.InvalidArgumentError as error:
            _refuse_unknown_label(dataset, error)
            yield index, _name(split, index), _reason(encoded.numpy(), error)


def _name(split, index):
    return split.names[index] if split.names else f"image {index} of the dataset"


def _reason(encoded, error):
    """Returns the device's words on a damaged image, or else TensorFlow's."""
    try:
        images.read_image(io.BytesIO(encoded))
    except UserError as damage:
        return str(damage).removeprefix("image: ")
    return error.message.partition(" [Op:")[0]


def _missing(split):
    """Yields the indices of the images that are missing when all are decoded."""
    sizes = split.read().enumerate()
    sizes = sizes.map(
        lambda index, x: (index, tf.size(decoding.decode(x[0]))),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    expected = 0
    for index, _ in sizes.ignore_errors().as_numpy_iterator():
        yield from range(expected, index)
        expected = index + 1
    yield from range(expected, split.examples)


def _refuse_unknown_label(dataset, error):
    """Raises a `UserError` if TensorFlow's error is about a label."""
    label = re.search(rf"{datasets.UNKNOWN_LABEL}[^-0-9]*(-?[0-9]+)", error.message)
    if label:
        raise UserError(
            f"dataset {dataset.name} has an image of class {label[1]}, and classes 0 "
            f"to {len(dataset.labels) - 1} only: prepare it again, with labels"
        ) from error


def _refuse_elongated(dataset, error):
    """Raises a `UserError` if TensorFlow's error is about an image's proportions."""
    found = re.search(r"([0-9]+) x ([0-9]+) pixels: too elongated", error.message)
    if not found:
        return
    size = tuple(map(int, found.groups()))
    for split in (dataset.train, dataset.held_out):
        for index, (encoded, _) in enumerate(split.read()):
            height, width, _ = decoding.decode(encoded).shape
            if (width, height) == size:
                raise UserError(
                    f"{_name(split, index)} has {width} x {height} pixels: it is too "
                    "elongated to be resized. Crop it, or remove it"
                ) from error
