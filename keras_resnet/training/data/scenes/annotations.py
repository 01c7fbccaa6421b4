"""From what a file says about a picture to checked objects of the dataset."""

import collections
import math
import os

import numpy as np
import PIL.Image

from keras_resnet.runner import images
from keras_resnet.runner.errors import UserError, open_file, user_errors
from keras_resnet.training.data.scenes.scene_dataset import objects

# Boxes may reach beyond the picture by so many pixels: tools round.
TOLERANCE = 1.0
# `label` is the name of a class; `box` is (top, left, bottom, right) in pixels of the
# upright picture, edges counted from 0.
Box = collections.namedtuple("Box", "label box ignored crowd", defaults=(False, False))
# A picture as a file annotates it. `source` is what errors call that file; `size` is
# the (width, height) that it states, or None. `shapes` are `shapes.Shape`s, and
# `content` is the part of the file that says where they lie.
Annotated = collections.namedtuple(
    "Annotated", "picture source size boxes shapes content", defaults=((), b"")
)


def upright_size(source):
    """Returns the (width, height) of a picture, turned upright by its EXIF.

    Reads the beginning of the file only.

    Args:
        source: path, or binary file.

    Raises:
        UserError: it is no picture, or missing.
    """
    if isinstance(source, (str, os.PathLike)):
        with open_file(source) as file:
            return upright_size(file)
    with user_errors(getattr(source, "name", "image"), Exception):
        start = source.read(12)
        source.seek(0)
        if start[4:8] == b"ftyp":
            images.teach_pillow_heif()
        image = PIL.Image.open(source)
        turned = images.orientation_of(image) in (5, 6, 7, 8)
        return image.size[::-1] if turned else image.size


def checked_size(path, stated, source, faults):
    """Returns the size of a picture, or None if it has a fault.

    Args:
        path: of the picture.
        stated: (width, height) that the annotation says it has, or None.
        source: name of the annotation.
        faults: `Faults`.
    """
    try:
        size = upright_size(path)
    except UserError as error:
        faults.report("pictures that cannot be read", str(error))
        return None
    if stated is not None and tuple(stated) != size:
        faults.report(
            "pictures of another size than annotated",
            f"{source} is for {stated[0]} x {stated[1]} pixels, but {path} has "
            f"{size[0]} x {size[1]}, upright as its EXIF says",
        )
        return None
    return size


def checked_objects(boxes, size, labels, source, faults):
    """Returns the `Objects` of a picture, without boxes that have a fault.

    What reaches beyond the picture is cut off.

    Args:
        boxes: list of `Box`.
        size: (width, height) of the picture.
        labels: names of the classes.
        source: name of the annotation.
        faults: `Faults`.
    """
    kept = []
    for found in boxes:
        index = class_index(found.label, labels, source, faults)
        if index is not None:
            what = f"{source}: the box of {labels[index]}"
            box = _checked(found.box, size, what, faults)
            if box is not None:
                shares = box / np.array(size[::-1] * 2)
                kept.append((shares, index, found.ignored, found.crowd))
    return objects(*zip(*kept, strict=True)) if kept else objects([], [])


def class_index(label, labels, source, faults):
    """Returns the index of a class by its name, or None if it is none of them."""
    if label in labels:
        return labels.index(label)
    faults.report(
        "objects of unknown classes",
        f"{source}: an object of class {label!r}, which is none of the {len(labels)} "
        "classes to train on",
    )
    return None


def _checked(box, size, what, faults):
    """Returns a box in pixels, cut off at the picture's edges; None for no area."""
    shown = ", ".join(f"{x:g}" for x in (box[1], box[0], box[3], box[2]))
    what = f"{what} from x, y to x, y = {shown}"
    if not all(map(math.isfinite, box)):
        faults.report("boxes of no finite numbers", f"{what} is no finite number")
        return None
    top, left, bottom, right = box
    if bottom <= top or right <= left:
        faults.report("boxes of no area", f"{what} has no area", slight=True)
        return None
    limit = np.array(size[::-1] * 2)
    cut = np.clip(box, 0, limit)
    if (cut[2:] <= cut[:2]).any():
        reason = f"{what} lies outside of the picture of {size[0]} x {size[1]} pixels"
        faults.report("boxes outside of their pictures", reason, slight=True)
        return None
    if np.abs(cut - box).max() > TOLERANCE:
        faults.report(
            "boxes that reach beyond their pictures",
            f"{what} reaches beyond the picture of {size[0]} x {size[1]} pixels",
            done="cut off at its edge",
            slight=True,
        )
    return cut
