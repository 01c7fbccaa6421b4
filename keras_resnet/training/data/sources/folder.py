"""Photographs in class-named folders."""

import hashlib
import json
import os
import pathlib
import random

import numpy as np
import tensorflow as tf

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.datasets import HELD_OUT_EVERY, Dataset, Split

SUFFIXES = (".jpg", ".jpeg", ".png")


def load(data_dir):
    """Opens DIR/CLASS/IMAGE or DIR/{train,val}/CLASS/IMAGE.

    "val" may also be called "validation" or "test". If there is no folder "train", a
    fifth of each class is held out.

    Raises:
        UserError: the folder is missing, or a class or the held-out part has no
            images.
    """
    if not data_dir:
        raise UserError(
            "--dataset=folder needs --data_dir=DIR with class-named folders"
        )
    root = pathlib.Path(data_dir)
    if not root.is_dir():
        raise UserError(f"--data_dir is no folder. Received: {data_dir!r}")

    if (root / "train").is_dir():
        names = [s for s in ("val", "validation", "test") if (root / s).is_dir()]
        if not names:
            raise UserError(
                f"{root} has a folder 'train' but none named 'val', 'validation' or "
                "'test' to evaluate on (a class cannot be named 'train')"
            )
        trained_on, name = root / "train", names[0]
        train, held_out = _images_by_class(trained_on), _images_by_class(root / name)
    else:
        trained_on, name = root, "held_out"
        train = _images_by_class(root)
        held_out = {label: paths[1::HELD_OUT_EVERY] for label, paths in train.items()}
        for paths in train.values():
            del paths[1::HELD_OUT_EVERY]  # from the second on: a single one stays

    labels = tuple(sorted({*train, *held_out}))
    suffixes = ", ".join(SUFFIXES)
    if len(labels) < 2:
        raise UserError(
            f"{root} must have at least two folders with images ({suffixes}), one for "
            f"each class. Received: {len(labels)}"
            + (f" ({labels[0]!r})" if labels else "")
        )
    for label in labels:
        if not train.get(label):
            raise UserError(
                f"folder {label!r} has no images ({suffixes}) in {trained_on}: remove "
                "it or fill it"
            )
    if not any(held_out.values()):
        raise UserError(f"{root} has no held-out images: add images to a class")
    splits = _split("train", train, labels), _split(name, held_out, labels)
    return Dataset("folder", labels, *splits, _fingerprint(root, *splits))


def _images_by_class(folder):
    """Returns {name of a folder in `folder`: its images, sorted}."""
    return {
        entry.name: sorted(
            image.path
            for image in os.scandir(entry.path)
            if image.name.lower().endswith(SUFFIXES)
        )
        for entry in os.scandir(folder)
        if entry.is_dir()
    }


def _split(name, images, labels):
    """Returns the `Split` of {class: paths}, in an order that its name decides."""
    examples = [
        (path, index)
        for index, label in enumerate(labels)
        for path in images.get(label, ())
    ]
    # As tensorflow-datasets' ImageFolder does, which read folders in version 0.1.
    random.Random(name).shuffle(examples)
    paths, indices = zip(*examples, strict=True)

    def read():
        arrays = [os.fsencode(path) for path in paths], np.array(indices, np.int64)
        return tf.data.Dataset.from_tensor_slices(arrays).map(
            lambda path, label: (tf.io.read_file(path), label),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    return Split(len(paths), read, paths)


def _fingerprint(root, *splits):
    """Returns a hash over the files' names and sizes: a copy has the same."""
    files = sorted(
        (os.path.relpath(path, root), os.path.getsize(path))
        for split in splits
        for path in split.names
    )
    listing = json.dumps(files).encode()
    return {"images": len(files), "sha256": hashlib.sha256(listing).hexdigest()}
