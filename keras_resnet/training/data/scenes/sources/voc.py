"""Pascal VOC: an XML file for each picture."""

import xml.etree.ElementTree
import xml.parsers.expat

from keras_resnet.training.data.scenes import assembly
from keras_resnet.training.data.scenes.annotations import Annotated, Box
from keras_resnet.training.data.scenes.sources import layout
from keras_resnet.training.data.sources import pictures

FOLDERS = ("Annotations", "annotations", "labels")


def load(data_dir, task, faults):
    """Opens pictures with XML files beside them, or in a folder "Annotations".

    Corners are taken as the edges of a box, in pixels from 0, as LabelImg, CVAT, Label
    Studio and Roboflow write them. The original files of the challenge count pixels
    from 1: their boxes are half a pixel off. Objects that are "difficult" are ignored.
    Pictures without a file are left out: they may hold anything.

    Args:
        data_dir: folder, see `layout.picture_parts`.
        task: "detect".
        faults: `Faults`.
    """
    root = layout.root_of("voc_folder", data_dir, "pictures and their XML files")
    left_out = pictures.LeftOut()
    parts = {
        name: [
            annotated
            for picture in paths
            if (annotated := _annotated(picture, left_out, faults))
        ]
        for name, paths in layout.picture_parts(root, left_out).items()
    }
    return assembly.of_annotated(
        "voc_folder", root, task, None, parts, left_out, faults
    )


def _annotated(picture, left_out, faults):
    source = layout.companion(picture, (".xml",), FOLDERS)
    if source is None:
        left_out.add("picture without an XML file", "pictures without an XML file")
        return None
    try:
        with open(source, "rb") as file:
            root = parse(file.read())
        size, boxes = _size(root), [_box(found) for found in root.iter("object")]
    except (OSError, ValueError) as error:
        faults.report("damaged XML files", f"{source}: {error}")
        return None
    return Annotated(picture, source, size, boxes)


def parse(data):
    """Returns the root of an XML document that declares nothing.

    Entities can grow to gigabytes and name other files. Only a DOCTYPE can declare
    them, and no tool writes one here.

    Raises:
        ValueError: it is damaged, or has a DOCTYPE.
    """

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
    except xml.parsers.expat.ExpatError as error:
        raise ValueError(f"no valid XML: {error}") from error
    return builder.close()


def _size(root):
    """Returns the (width, height) that a document states; some tools write 0."""
    sides = [root.findtext(f"size/{side}") for side in ("width", "height")]
    if None in sides:
        return None
    size = tuple(int(float(side)) for side in sides)
    return size if all(size) else None


def _box(found):
    name = (found.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    corners = [
        found.findtext(f"bndbox/{side}") for side in ("ymin", "xmin", "ymax", "xmax")
    ]
    if None in corners:
        raise ValueError(f"an object {name!r} lacks a corner of its box")
    is_difficult = (found.findtext("difficult") or "0").strip() not in ("", "0")
    return Box(name, tuple(map(float, corners)), is_difficult)
