"""Image files as splits of a dataset: what folders and csv files have in common."""

import collections
import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import random

import numpy as np
import tensorflow as tf

from keras_resnet.runner.errors import UserError
from keras_resnet.runner.sources import SUFFIXES
from keras_resnet.training.data.datasets import HELD_OUT_EVERY, Split

# Names of the split to evaluate on. Where there are several, the first is taken.
HELD_OUT = ("val", "validation", "valid", "test")
# Formats that only the optional package pillow-heif reads.
HEIF_SUFFIXES = (".heic", ".heif")
# What operating systems and programs leave behind, beside hidden files.
LITTER = (
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
)
# Classes are called uneven if the largest has so many times the pictures of another.
UNEVEN = 3


class LeftOut:
    """Counts what a dataset leaves out, by kind."""

    def __init__(self):
        """Counts nothing yet."""
        self._counts = collections.Counter()
        self._others = []

    def add(self, one, several=None):
        """Counts one thing of a kind, which has a name for one and for several."""
        self._counts[one, several or f"{one}s"] += 1

    def mention(self, what):
        """Adds something that is not counted."""
        self._others.append(what)

    def __str__(self):
        """Returns all as text, the largest number first; "" if there is nothing."""
        counts = [
            f"{count} {one if count == 1 else several}"
            for (one, several), count in self._counts.most_common()
        ]
        return ", ".join([*counts, *self._others])


@contextlib.contextmanager
def unreadable_named():
    """Raises a `UserError` in the place of an `OSError`.

    A link may lead to nowhere, and a folder may forbid to be read.
    """
    try:
        yield
    except OSError as error:
        reason = f"{error.filename} cannot be read: {error.strerror}"
        raise UserError(f"{reason}. Remove or repair it") from error


def is_litter(name):
    """Returns whether a file or folder is hidden or no work of the user."""
    return name.startswith(".") or name.lower() in LITTER


def is_readable(name, left_out):
    """Returns whether a file is a picture by its name; if not, counts it."""
    suffix = os.path.splitext(name)[1].lower()
    if is_litter(name):
        left_out.add("hidden or system file")
    elif not suffix:
        left_out.add("file without a suffix", "files without a suffix")
    elif suffix not in SUFFIXES:
        left_out.add(f"{suffix} file")
    elif suffix in HEIF_SUFFIXES and not importlib.util.find_spec("pillow_heif"):
        how = 'pip install "keras-resnet-zoo[heic]" to read them'
        left_out.add(f"{suffix} file ({how})", f"{suffix} files ({how})")
    else:
        return True
    return False


def images_below(folder, left_out, passed_over=()):
    """Yields the images of a folder; follows links, but reads no folder twice.

    Args:
        folder: path.
        left_out: `LeftOut`, which counts all other files.
        passed_over: tuple of endings of files that it does not count.
    """
    visited = set()

    def refuse(error):
        raise error

    for path, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real_path = os.path.realpath(path)
        if real_path in visited:
            folders.clear()
            continue
        visited.add(real_path)
        for name in filter(is_litter, sorted(folders)):
            folders.remove(name)
            left_out.add("hidden or system folder")
        folders.sort()  # of two links to one folder, the first is taken
        for name in names:
            if not name.lower().endswith(passed_over) and is_readable(name, left_out):
                yield os.path.join(path, name)


def hold_out_a_fifth(paths):
    """Returns (what stays, what is held out) of a sorted list, spread evenly."""
    stays = list(paths)
    del stays[1::HELD_OUT_EVERY]  # from the second on: a single one stays
    return stays, paths[1::HELD_OUT_EVERY]


def split(name, examples):
    """Returns the `Split` of (path, label) pairs, in an order that its name decides.

    A label is an int, or an array float32 (classes,).
    """
    examples = list(examples)
    # As tensorflow-datasets' ImageFolder does, which read folders in version 0.1.
    random.Random(name).shuffle(examples)
    return _of(examples)


def _of(examples):
    paths, labels = zip(*examples, strict=True)

    def read():
        arrays = [os.fsencode(path) for path in paths], np.array(labels)
        return tf.data.Dataset.from_tensor_slices(arrays).map(
            lambda path, label: (tf.io.read_file(path), label),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def select(chosen):
        return _of(list(itertools.compress(examples, chosen)))

    return Split(len(paths), read, paths, select=select)


def fingerprint(entries):
    """Returns a hash over tuples that JSON can hold, one for each picture."""
    listing = json.dumps(sorted(entries)).encode()
    return {"images": len(entries), "sha256": hashlib.sha256(listing).hexdigest()}


def is_uneven(numbers):
    """Returns whether the largest class has several times the pictures of another."""
    return max(numbers) >= UNEVEN * min(numbers)


def note(left_out, pictures):
    """Returns what the user should know of a dataset, beside its numbers.

    Args:
        left_out: a `LeftOut`.
        pictures: {name of a class: number of its pictures}.
    """
    parts = []
    if str(left_out):
        parts.append(f"left out: {left_out}")
    ordered = sorted(pictures, key=pictures.get)
    fewest, most = ordered[0], ordered[-1]
    if is_uneven(pictures.values()):
        parts.append(
            f"the classes are uneven, from {pictures[fewest]} pictures ({fewest!r}) "
            f"to {pictures[most]} ({most!r})"
        )
    return "; ".join(parts)
