"""Masks as pictures: PNGs of class indices, or of colours with a label map."""

import csv
import functools
import os
import re

import numpy as np
import PIL.Image

from keras_resnet.runner.boxes import IGNORED
from keras_resnet.runner.errors import UserError, user_errors
from keras_resnet.training.data.scenes import assembly
from keras_resnet.training.data.scenes.annotations import checked_size
from keras_resnet.training.data.scenes.scene_dataset import Scene, digest_of
from keras_resnet.training.data.scenes.sources import layout
from keras_resnet.training.data.sources import pictures

FOLDERS = ("masks", "SegmentationClass", "SegmentationClassPNG")
ENDINGS = ("_mask.png", ".png")
NAME_FILES = ("labelmap.txt", "_classes.csv", "classes.txt", "class_names.txt")
NO_CLASS = -1  # in a label map, of a colour that it does not list


def load(data_dir, task, faults):
    """Opens pictures with a mask each, and a file that names the classes.

    The mask of NAME.jpg is NAME_mask.png beside it, or NAME.png in a folder "masks" or
    "SegmentationClass" beside its folder. The names stand in one of these, in DIR or in
    DIR/train:

    - labelmap.txt of CVAT, lines "name:red,green,blue::": masks have these colours.
    - _classes.csv of Roboflow, lines "index,name": masks have these indices.
    - classes.txt, or class_names.txt of LabelMe, one name a line: indices from 0.

    Index 255 is ignored, and so is a class named "ignore" or "void" or "unlabeled".

    Args:
        data_dir: folder, see `layout.picture_parts`.
        task: "segment".
        faults: `Faults`.
    """
    root = layout.root_of("mask_folder", data_dir, "pictures and their masks")
    left_out = pictures.LeftOut()
    names, lookup, is_colour = _classes(root)
    parts = {
        part: [
            scene
            for path in paths
            if (scene := _scene(path, lookup, is_colour, left_out, faults))
        ]
        for part, paths in layout.picture_parts(root, left_out, _is_picture).items()
    }
    return assembly.of_scenes("mask_folder", root, task, names, parts, left_out, faults)


def _is_picture(path):
    folder = os.path.basename(os.path.dirname(path))
    return folder not in FOLDERS and not path.endswith(ENDINGS[0])


def _classes(root):
    """Returns (names, class index by pixel value, whether masks have colours)."""
    places = [root / folder / name for folder in ("", "train") for name in NAME_FILES]
    file = next((path for path in places if path.is_file()), None)
    if file is None:
        raise UserError(
            f"{root}: nothing names the classes. Write their names into {root}"
            "/classes.txt, one a line, in the order of the mask's indices from 0"
        )
    with user_errors(file, OSError, ValueError, IndexError):
        text = file.read_text(encoding="utf-8-sig")
        if file.name == "labelmap.txt":
            found = _colours(text)
        elif file.name == "_classes.csv":
            rows = csv.reader(text.splitlines()[1:], skipinitialspace=True)
            found = {int(row[0]): row[1].strip() for row in rows if row}
        else:
            lines = enumerate(text.splitlines())
            found = {index: line.strip() for index, line in lines if line.strip()}
        if not found or min(found) < 0:
            raise ValueError("no classes in it")
    names, values = [], {}
    for value, name in found.items():
        if name.lower() in ("ignore", "void", "unlabeled", "__ignore__"):
            values[value] = IGNORED
            continue
        if name not in names:
            names.append(name)
        values[value] = names.index(name)
    is_colour = file.name == "labelmap.txt"
    lookup = np.full(max(*values, 255) + 1, NO_CLASS, np.int16)
    lookup[list(values)] = list(values.values())
    if not is_colour:
        lookup[IGNORED] = IGNORED
    return names, lookup, is_colour


def _colours(text):
    """Returns {colour as one number: name} of CVAT's labelmap.txt."""
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = re.match(r"(.+?):\s*(\d+),\s*(\d+),\s*(\d+)", line)
        if not match or max(map(int, match.groups()[1:])) > 255:
            raise ValueError(f"expected name:red,green,blue::, received {line!r:.80}")
        red, green, blue = map(int, match.groups()[1:])
        found[red << 16 | green << 8 | blue] = match[1].strip()
    return found


def _scene(path, lookup, is_colour, left_out, faults):
    """Returns the `Scene` of a picture, or None where it has a fault or no mask."""
    file = layout.companion(path, ENDINGS, FOLDERS)
    if file is None:
        left_out.add("picture without a mask", "pictures without a mask")
        return None
    draw = functools.partial(_read, file, lookup, is_colour)
    try:
        mask = draw()
    except UserError as error:
        faults.report("damaged masks", str(error))
        return None
    if checked_size(path, mask.shape[::-1], file, faults) is None:
        return None
    with open(file, "rb") as content:
        return Scene(path, draw, digest_of(content.read()))


def _read(file, lookup, is_colour):
    """Returns a mask, uint8 (height, width).

    Raises:
        UserError: it is damaged, has colours where it needs indices, or has an index or
            a colour that is none of the classes.
    """
    with user_errors(file, Exception), PIL.Image.open(file) as image:
        if is_colour:
            parts = np.asarray(image.convert("RGB"), np.int32)
            values = parts @ (1 << 16, 1 << 8, 1)
        elif image.mode in ("1", "L", "P", "I", "I;16"):
            values = np.asarray(image).astype(np.int64)
        else:
            raise ValueError(
                f"a mask of class indices has one number a pixel, not {image.mode}; "
                "for colours, write labelmap.txt with lines name:red,green,blue::"
            )
        classes = lookup[values.clip(0, len(lookup) - 1)]
        wrong = values[(classes == NO_CLASS) | (values >= len(lookup))]
        if len(wrong):
            red, rest = divmod(int(wrong[0]), 1 << 16)
            colour = f"colour {red},{rest >> 8},{rest & 255}"
            what = colour if is_colour else f"index {wrong[0]}"
            raise ValueError(f"{what} is none of the classes ({len(wrong)} pixels)")
        return classes.astype(np.uint8)
