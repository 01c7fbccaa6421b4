"""Looks at the user's pictures once: their sizes, and which are there twice."""

import dataclasses
import os
import pathlib

import numpy as np
import tensorflow as tf

from keras_resnet import console, files
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import damaged, duplicates
from keras_resnet.training.data.previews import preview

FILE = "data_warnings.json"
SHOWN = 3  # examples in a warning


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of a dataset.

    Attributes:
        name: path below the folder that all pictures have in common.
        split: "train" or "held_out".
        labels: names of its classes; one, unless the dataset is multi-label or for
            detection or segmentation.
        size: (width, height) in pixels, upright; None if it cannot be decoded.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    size: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is to be known of the pictures of a dataset.

    Attributes:
        pictures: all of them.
        in_both_splits: lists of `Picture`s that are the same one, at least one of each
            split.
        two_labels: such lists in which the labels differ.
    """

    pictures: list[Picture]
    in_both_splits: list[list[Picture]]
    two_labels: list[list[Picture]]

    def warning(self):
        """Returns what is wrong with the pictures as one line; "" if nothing is."""
        held_out = sum(picture.split == "held_out" for picture in self.pictures)
        leaked = [
            picture
            for group in self.in_both_splits
            for picture in group
            if picture.split == "held_out"
        ]
        parts = []
        if leaked:
            parts.append(
                f"{len(leaked)} of {held_out} held-out pictures "
                f"{'are' if len(leaked) > 1 else 'is'} among the training pictures "
                "too, so that the accuracy looks better than it is "
                f"({_examples(self.in_both_splits)})"
            )
        if self.two_labels:
            count = len(self.two_labels)
            several = f"{count} pictures are" if count > 1 else "1 picture is"
            parts.append(
                f"{several} there under different labels ({_examples(self.two_labels)})"
            )
        return "; ".join(parts)

    def write(self, directory):
        """Writes the pictures that are there twice to `data_warnings.json`."""
        found = {"pictures": len(self.pictures)}
        for name in ("in_both_splits", "two_labels"):
            groups = getattr(self, name)
            found[name] = [[_as_json(picture) for picture in x] for x in groups]
        files.write_json(pathlib.Path(directory) / FILE, found)


def examine(dataset, directory):
    """Surveys a dataset of the user's own pictures.

    Decodes each picture once, small. A warning on stderr names some pictures that are
    in both splits, or there under different labels, and `data_warnings.json` in
    `directory` lists all of them.

    Raises:
        UserError: a picture is gone since the dataset was opened.

    Returns:
        `Survey`, or None where the pictures are no files of the user.
    """
    if dataset.train.names is None:
        return None
    with damaged.damaged_images_named(dataset):
        found = of(dataset)
    found.write(directory)
    if text := found.warning():
        console.warn(f"{text}. {pathlib.Path(directory) / FILE} lists all")
    return found


def of(dataset):
    """Returns the `Survey` of a dataset whose examples have names."""
    splits = {"train": dataset.train, "held_out": dataset.held_out}
    root = _common_folder([name for split in splits.values() for name in split.names])
    pictures, bits, colours = [], [], []
    for split_name, split in splits.items():
        seen = set()
        for path, (size, its_bits, its_colours, label) in zip(
            split.names, _looks(split), strict=True
        ):
            if path in seen:  # --balance repeats pictures
                continue
            seen.add(path)
            labels = dataset.classes_of(label)
            name = os.path.abspath(path).removeprefix(root)
            whole = tuple(size.tolist()) if size.all() else None
            pictures.append(Picture(name, split_name, labels, whole))
            bits.append(its_bits)
            colours.append(its_colours)
    # Damaged pictures are all alike, and not the same.
    whole = np.array([i for i, x in enumerate(pictures) if x.size], int)
    groups = []
    if len(whole):
        found = duplicates.groups(np.stack(bits)[whole], np.stack(colours)[whole])
        groups = [[pictures[i] for i in whole[group]] for group in found]
    return Survey(
        pictures,
        [group for group in groups if len({x.split for x in group}) > 1],
        [group for group in groups if len({x.labels for x in group}) > 1],
    )


def _looks(split):
    """Yields (size, hash, colours, label) of each picture; size is 0 if damaged."""
    nothing = (
        np.zeros(2, np.int64),
        np.zeros(duplicates.HASH_SIDE**2, bool),
        np.zeros(3 * duplicates.COLOUR_SIDE**2, np.uint8),
    )

    def look(encoded):
        try:
            image, size = preview(encoded, duplicates.PREVIEW_SIDE)
        except UserError:  # the training names it, or leaves it out
            return nothing
        return np.array(size, np.int64), *duplicates.look(image)

    types = [part.dtype for part in nothing]
    looks = split.read().map(
        lambda encoded, label: (*tf.numpy_function(look, [encoded], types), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return looks.as_numpy_iterator()


def _common_folder(paths):
    """Returns the folder, with its last separator, that all paths begin with."""
    prefix = os.path.commonprefix([os.path.abspath(path) for path in paths])
    return prefix[: prefix.rfind(os.sep) + 1]


def _examples(groups):
    """Returns some groups as text, two pictures of each."""
    shown = [" and ".join(_pair(group)) for group in groups[:SHOWN]]
    return "; ".join(shown) + ("; ..." if len(groups) > SHOWN else "")


def _pair(group):
    """Returns the names of two pictures of a group, of different splits or labels."""
    first = group[0]
    other = next(
        (x for x in group if (x.split, x.labels) != (first.split, first.labels)),
        group[1],
    )
    return first.name, other.name


def _as_json(picture):
    return {
        "name": picture.name,
        "split": picture.split,
        "labels": list(picture.labels),
    }
