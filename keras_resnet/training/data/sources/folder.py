"""Photographs in class-named folders."""

import itertools
import os
import pathlib

import numpy as np

from keras_resnet.runner.errors import UserError
from keras_resnet.runner.learning import NOTHING
from keras_resnet.training.data.datasets import Dataset
from keras_resnet.training.data.sources import pictures


def load(data_dir):
    """Opens DIR/CLASS/IMAGE or DIR/{train,val}/CLASS/IMAGE.

    "val" may also be called "validation", "valid" or "test". If there is no folder
    "train", a fifth of each class is held out. The sub-folders of a class are part of
    it. The folder "_none" holds pictures that belong to no class; it may be in one
    split alone.

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
        raise UserError(
            f"--data_dir is no folder. Received: {data_dir!r}"
            + (" (for a csv file: --dataset=csv)" if root.suffix == ".csv" else "")
        )

    left_out = pictures.LeftOut()
    if (root / "train").is_dir():
        names = [s for s in pictures.HELD_OUT if (root / s).is_dir()]
        if not names:
            raise UserError(
                f"{root} has a folder 'train' but none named 'val', 'validation', "
                "'valid' or 'test' to evaluate on (a class cannot be named 'train')"
            )
        trained_on, name = root / "train", names[0]
        train = _images_by_class(trained_on, left_out)
        held_out = _images_by_class(root / name, left_out)
        for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
            used = entry.name in ("train", name) or pictures.is_litter(entry.name)
            if entry.is_dir() and not used:
                left_out.mention(f"the folder {entry.name!r}")
    else:
        trained_on, name = root, "held_out"
        train, held_out = {}, {}
        for label, paths in _images_by_class(root, left_out).items():
            train[label], held_out[label] = pictures.hold_out_a_fifth(paths)

    labels = tuple(sorted({*train, *held_out}))
    suffixes = ", ".join(pictures.SUFFIXES)
    also = f". Left out: {left_out}" if str(left_out) else ""
    own = [label for label in labels if label != NOTHING]
    if len(labels) < 2 or not own:
        raise UserError(
            f"{root} must have at least two folders with images ({suffixes}), one for "
            f"each class. Received: {len(labels)}"
            + (f" ({labels[0]!r})" if labels else "")
            + also
        )
    for label in own:
        if not train.get(label):
            raise UserError(
                f"folder {label!r} has no images ({suffixes}) in {trained_on}: remove "
                f"it or fill it{also}"
            )
    if not any(held_out.values()):
        raise UserError(f"{root} has no held-out images: add images to a class{also}")
    for label in labels:
        if not held_out.get(label):
            left_out.mention(f"class {label!r} in the evaluation (no held-out images)")
    splits = _split("train", train, labels), _split(name, held_out, labels)
    entries = [
        (os.path.relpath(path, root), os.path.getsize(path))
        for path in itertools.chain(*(split.names for split in splits))
    ]
    counts = {x: len(train.get(x, ())) + len(held_out.get(x, ())) for x in own}
    return Dataset(
        "folder",
        labels,
        *splits,
        pictures.fingerprint(entries),
        note=pictures.note(left_out, counts),
    )


def _images_by_class(folder, left_out):
    """Returns {name of a folder in `folder`: its images at all levels, sorted}."""
    found = {}
    for entry in os.scandir(folder):
        if entry.is_dir() and not pictures.is_litter(entry.name):
            found[entry.name] = sorted(pictures.images_below(entry.path, left_out))
        elif entry.is_dir():
            left_out.add("hidden or system folder")
        elif pictures.is_readable(entry.name, left_out):
            outside = "outside of the class folders"
            left_out.add(f"picture {outside}", f"pictures {outside}")
    return found


def _split(name, images, labels):
    """Returns the `Split` of {class: paths}."""
    return pictures.split(
        name,
        (
            (path, np.int64(index))
            for index, label in enumerate(labels)
            for path in images.get(label, ())
        ),
    )
