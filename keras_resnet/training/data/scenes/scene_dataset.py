"""Datasets for detection and segmentation: pictures with their objects or masks."""

import dataclasses
import hashlib
import itertools
import os
import random
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_resnet.runner.boxes import IGNORED, Objects
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import datasets, decoding

TASKS = ("detect", "segment")
BACKGROUND = "background"  # class 0 of masks that are drawn from shapes


@dataclasses.dataclass(frozen=True)
class SceneDataset(datasets.Dataset):
    """A dataset for detection or segmentation.

    Its splits yield (encoded image: string, target). The target of "detect" is an
    `Objects` of float32 boxes (n, 4), int32 classes and two bool arrays (n,). That of
    "segment" is a mask: uint8 (height, width) of the upright picture, class indices,
    `IGNORED` where a pixel has none.

    Attributes:
        task: one of `TASKS`.
        most_objects: largest number of objects in a picture; 0 for masks.
    """

    task: str = "detect"
    most_objects: int = 0

    def classes_of(self, label):
        """Returns the names of the classes that are in a picture by its target."""
        found = np.unique(label.classes if self.task == "detect" else label)
        return tuple(self.labels[index] for index in found if index != IGNORED)


@dataclasses.dataclass(frozen=True)
class Scene:
    """An annotated picture that is a file.

    Attributes:
        path: of the picture.
        target: `Objects`, or a function without arguments that returns the mask.
        digest: hash of what is annotated, for the fingerprint.
    """

    path: str
    target: Objects | Callable[[], np.ndarray]
    digest: str

    def entry(self, root):
        """Returns what the fingerprint of a dataset hashes of it."""
        path = os.path.relpath(self.path, root)
        return path, os.path.getsize(self.path), self.digest


def objects(boxes, classes, ignored=None, crowd=None):
    """Returns `Objects` of the types that a dataset has; nothing is ignored by default.

    Args:
        boxes: (top, left, bottom, right) of each, as shares of the picture.
        classes: indices.
        ignored: whether each is to be ignored, or None.
        crowd: whether each is a crowd, or None.
    """
    no = [False] * len(classes)
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int32),
        np.array(no if ignored is None else ignored, bool),
        np.array(no if crowd is None else crowd, bool),
    )


def digest_of(*parts):
    """Returns the `Scene.digest` of bytes or arrays."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part if isinstance(part, bytes) else part.tobytes())
    return content.hexdigest()


def split(name, scenes):
    """Returns the `Split` of `Scene`s, in an order that its name decides."""
    scenes = list(scenes)
    random.Random(name).shuffle(scenes)  # a source may be sorted
    return _of(scenes)


def _of(scenes):
    paths = [os.fsencode(scene.path) for scene in scenes]
    targets = [scene.target for scene in scenes]
    is_objects = isinstance(targets[0], Objects)
    target = (objects_by_number if is_objects else _masks_by_number)(targets)

    def read():
        numbered = tf.data.Dataset.from_tensor_slices((paths, np.arange(len(paths))))
        return numbered.map(
            lambda path, number: (tf.io.read_file(path), target(number)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def select(chosen):
        return _of(list(itertools.compress(scenes, chosen)))

    names = tuple(scene.path for scene in scenes)
    return datasets.Split(len(scenes), read, names, select=select)


def objects_by_number(targets):
    """Returns a function that returns one of many `Objects` by its number.

    The number is a tensor, and so are the `Objects`. They are kept in one array each.
    """
    together = Objects(*map(np.concatenate, zip(*targets, strict=True)))
    ends = np.cumsum([len(target.classes) for target in targets])
    starts = np.insert(ends, 0, 0)

    def of(number):
        first, last = tf.gather(starts, number), tf.gather(ends, number)
        return Objects(*(tf.constant(part)[first:last] for part in together))

    return of


def _masks_by_number(targets):
    """Returns a function that returns the mask of a number, both tensors."""

    def pixels_and_error(number):
        try:
            return targets[number](), b""
        except UserError as error:
            return np.zeros((1, 1), np.uint8), str(error).encode()

    return lambda number: decoding.checked(pixels_and_error, [number], (None, None))
