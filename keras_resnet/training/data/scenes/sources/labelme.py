"""LabelMe: a JSON file for each picture, with polygons and other shapes."""

import base64
import io
import json

import numpy as np
import PIL.Image

from keras_resnet.runner.annotations import companion
from keras_resnet.training.data.scenes import assembly, shapes
from keras_resnet.training.data.scenes.annotations import Annotated, Box
from keras_resnet.training.data.scenes.sources import layout
from keras_resnet.training.data.sources import pictures

# What reading a file of another content raises.
BAD = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError),
    *(OverflowError, PIL.Image.DecompressionBombError),
)


def load(data_dir, task, faults):
    """Opens pictures with LabelMe's JSON files beside them.

    A shape hides those before it, as in LabelMe itself. Pictures without a file are
    left out: they may hold anything.

    Args:
        data_dir: folder, see `layout.picture_parts`.
        task: "detect" or "segment".
        faults: `Faults`.
    """
    root = layout.root_of("labelme_folder", data_dir, "pictures and their JSON files")
    left_out = pictures.LeftOut()
    parts = {
        name: [
            annotated
            for picture in paths
            if (annotated := _annotated(picture, task, left_out, faults))
        ]
        for name, paths in layout.picture_parts(root, left_out).items()
    }
    return assembly.of_annotated(
        "labelme_folder", root, task, None, parts, left_out, faults, in_order=True
    )


def _annotated(picture, task, left_out, faults):
    source = companion(picture, (".json",), ("annotations", "labels"))
    if source is None:
        left_out.add("picture without a JSON file", "pictures without a JSON file")
        return None
    text = layout.read_text(source, faults, "damaged JSON files")
    if text is None:
        return None
    try:
        content = json.loads(text)
        stated = content.get("imageWidth"), content.get("imageHeight")
        found = [_shape(each) for each in content["shapes"]]
    except BAD as error:
        faults.report(
            "damaged JSON files", f"{source} is no file of LabelMe: {error!r:.200}"
        )
        return None
    boxes = [Box(label, box) for label, box, _ in found]
    drawn = [shapes.Shape(label, fill) for label, _, fill in found]
    size = stated if all(stated) else None
    raw = json.dumps(content["shapes"]).encode()
    if task == "detect":
        return Annotated(picture, source, size, boxes)
    return Annotated(picture, source, size, [], drawn, raw)


def _shape(shape):
    """Returns (label, (top, left, bottom, right) in pixels, `Shape.fill`)."""
    kind = shape.get("shape_type") or "polygon"
    points = np.array(shape["points"], float).reshape(-1, 2)
    if not np.isfinite(points).all() or (points == points[0]).all():
        raise ValueError(f"a {kind} of {shape['label']!r} has no area")
    low, high = points.min(0), points.max(0)
    if kind == "circle":  # the centre, and a point of its edge
        radius = np.hypot(*(points[1] - points[0]))
        low, high = points[0] - radius, points[0] + radius
    box = (*low[::-1].tolist(), *high[::-1].tolist())
    if kind == "polygon":
        fill = shapes.polygons(shapes.checked_rings([points]))
    elif kind == "rectangle":
        corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
        fill = shapes.polygons(shapes.checked_rings([corners]))
    elif kind == "circle":
        fill = shapes.ellipse(box)
    elif kind == "mask":
        file = io.BytesIO(base64.b64decode(shape["mask"]))
        top, left = np.rint(low[::-1]).astype(int).tolist()
        pixels = np.asarray(PIL.Image.open(file))
        if pixels.ndim != 2:
            raise ValueError(f"the mask of {shape['label']!r} has colours")
        fill = shapes.bitmap(pixels > 0, top, left)
    else:
        raise ValueError(f"a {kind} of {shape['label']!r} has no area")
    return str(shape["label"]), box, fill
