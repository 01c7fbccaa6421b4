"""Annotation files beside pictures: Pascal VOC's XML, and PNG masks of classes."""

import collections
import os
import re

from keras_resnet.runner.boxes import IGNORED
from keras_resnet.runner.errors import UserError, open_file, read_at_most, user_errors

XML_FOLDERS = ("Annotations", "annotations", "labels")
MASK_FOLDERS = ("masks", "SegmentationClass", "SegmentationClassPNG")
MASK_ENDINGS = ("_mask.png", ".png")
NAME_FILES = ("labelmap.txt", "_classes.csv", "classes.txt", "class_names.txt")
NO_CLASS = -1  # in a label map, of a colour that it does not list
MAX_XML_BYTES = 16 << 20

# `size` is the (width, height) that a file states, or None. `objects` are tuples (name
# of the class, (top, left, bottom, right) in pixels, whether it is "difficult").
VocFile = collections.namedtuple("VocFile", "size objects")
# `names` of the classes; `lookup`, an array of the class for each value of a pixel;
# whether pixels are colours instead of indices.
MaskClasses = collections.namedtuple("MaskClasses", "names lookup is_colour")


def companion(picture, endings, folders):
    """Returns the file that belongs to a picture, or None.

    It has the name of the picture with another ending, and lies beside it or in one of
    some folders beside that of the picture.

    Args:
        picture: path.
        endings: what may follow the name without its suffix.
        folders: names of folders.
    """
    parent, name = os.path.split(picture)
    stem = os.path.splitext(name)[0]
    beside = [os.path.join(os.path.dirname(parent), name) for name in folders]
    for folder in (parent, *beside):
        for ending in endings:
            path = os.path.join(folder, stem + ending)
            if os.path.isfile(path) and path != picture:
                return path
    return None


def read_voc(path):
    """Reads an XML file of Pascal VOC.

    Returns:
        `VocFile`.

    Raises:
        UserError: it is damaged or has a DOCTYPE, or an object lacks its name or a
            corner.
    """
    with open_file(path) as file, user_errors(path, OSError, ValueError):
        root = parse_xml(read_at_most(file, MAX_XML_BYTES))
        return VocFile(_stated_size(root), list(map(_voc_object, root.iter("object"))))


def parse_xml(data):
    """Returns the root of an XML document that declares nothing.

    Entities can grow to gigabytes and name other files. Only a DOCTYPE can declare
    them, and no tool writes one here.

    Raises:
        ValueError: it is damaged, or has a DOCTYPE.
    """
    import xml.etree.ElementTree
    import xml.parsers.expat

    def refuse(*_):
        raise ValueError("it has a DOCTYPE, which annotations do not need: remove it")

    builder = xml.etree.ElementTree.TreeBuilder()
    parser = xml.parsers.expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (xml.parsers.expat.ExpatError, LookupError) as error:  # or its encoding
        raise ValueError(f"no valid XML: {error}") from error
    return builder.close()


def _stated_size(root):
    """Returns the (width, height) that a document states; some tools write 0."""
    sides = [root.findtext(f"size/{side}") for side in ("width", "height")]
    if None in sides:
        return None
    try:
        size = tuple(int(float(side)) for side in sides)
    except OverflowError as error:
        raise ValueError(f"no size of a picture: {sides}") from error
    return size if all(size) else None


def _voc_object(found):
    name = (found.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    corners = [
        found.findtext(f"bndbox/{side}") for side in ("ymin", "xmin", "ymax", "xmax")
    ]
    if None in corners:
        raise ValueError(f"an object {name!r} lacks a corner of its box")
    is_difficult = (found.findtext("difficult") or "0").strip() not in ("", "0")
    return name, tuple(map(float, corners)), is_difficult


def mask_classes(root):
    """Returns the `MaskClasses` of a folder by the file in it that names them.

    Raises:
        UserError: there is none, or it is damaged.
    """
    import csv

    import numpy as np

    folders = (str(root), os.path.join(str(root), "train"))
    places = [os.path.join(folder, name) for folder in folders for name in NAME_FILES]
    file = next(filter(os.path.isfile, places), None)
    if file is None:
        raise UserError(
            f"{root}: nothing names the classes. Write their names into {root}"
            "/classes.txt, one a line, in the order of the mask's indices from 0"
        )
    with user_errors(file, OSError, ValueError, IndexError):
        with open(file, encoding="utf-8-sig") as opened:
            text = opened.read()
        name = os.path.basename(file)
        if name == "labelmap.txt":
            found = _colours(text)
        elif name == "_classes.csv":
            rows = csv.reader(text.splitlines()[1:], skipinitialspace=True)
            found = {int(row[0]): row[1].strip() for row in rows if row}
        else:
            lines = enumerate(text.splitlines())
            found = {index: line.strip() for index, line in lines if line.strip()}
        if not found or min(found) < 0 or max(found) >= 1 << 24:
            raise ValueError("no classes in it, or indices out of range")
    names, values = [], {}
    for value, name in found.items():
        if name.lower() in ("ignore", "void", "unlabeled", "__ignore__"):
            values[value] = IGNORED
            continue
        if name not in names:
            names.append(name)
        values[value] = names.index(name)
    is_colour = os.path.basename(file) == "labelmap.txt"
    if not is_colour and values.get(IGNORED, IGNORED) != IGNORED:
        raise UserError(
            f"{file}: the index {IGNORED} of a mask means that a pixel is ignored, and "
            f"here it is the class {found[IGNORED]!r}: give it another index, or write "
            "colours into labelmap.txt"
        )
    lookup = np.full(max(*values, 255) + 1, NO_CLASS, np.int16)
    lookup[list(values)] = list(values.values())
    if not is_colour:
        lookup[IGNORED] = IGNORED
    return MaskClasses(names, lookup, is_colour)


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


def read_mask(file, classes):
    """Returns a mask, uint8 (height, width): the places in the names, or `IGNORED`.

    Args:
        file: path of a PNG.
        classes: `MaskClasses`.

    Raises:
        UserError: it is damaged, has colours where it needs indices, or has an index or
            a colour that is none of the classes.
    """
    import numpy as np
    from PIL import Image

    lookup = classes.lookup
    with user_errors(file, Exception), Image.open(file) as image:
        if classes.is_colour:
            parts = np.asarray(image.convert("RGB"), np.int32)
            values = parts @ (1 << 16, 1 << 8, 1)
        elif image.mode in ("1", "L", "P", "I", "I;16"):
            values = np.asarray(image).astype(np.int64)
        else:
            raise ValueError(
                f"a mask of class indices has one number a pixel, not {image.mode}; "
                "for colours, write labelmap.txt with lines name:red,green,blue::"
            )
        found = lookup[values.clip(0, len(lookup) - 1)]
        wrong = values[(found == NO_CLASS) | (values >= len(lookup))]
        if len(wrong):
            red, rest = divmod(int(wrong[0]), 1 << 16)
            colour = f"colour {red},{rest >> 8},{rest & 255}"
            what = colour if classes.is_colour else f"index {wrong[0]}"
            raise ValueError(f"{what} is none of the classes ({len(wrong)} pixels)")
        return found.astype(np.uint8)
