"""YOLO: a text file for each picture, and data.yaml with the splits and the names."""

import pathlib

import numpy as np
import yaml

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes import assembly, shapes
from keras_resnet.training.data.scenes.annotations import Annotated, Box, upright_size
from keras_resnet.training.data.scenes.sources import layout
from keras_resnet.training.data.sources import pictures

WHAT = "data.yaml, which names the splits and the classes"
LINE = (
    "class x y width height, or class x1 y1 x2 y2 x3 y3 ..., as shares of the picture"
)


def load(data_dir, task, faults):
    """Opens pictures that a data.yaml lists, with a text file each.

    The text of .../images/NAME.jpg is .../labels/NAME.txt, or lies beside it. A picture
    without one has no objects, as with Ultralytics. A line is `LINE`; of an outline,
    "detect" takes the box around it.

    Args:
        data_dir: folder with a data.yaml, or the path of the .yaml file.
        task: "detect" or "segment"; the latter needs outlines.
        faults: `Faults`.
    """
    if data_dir and pathlib.Path(data_dir).is_file():
        file = pathlib.Path(data_dir)
    else:
        root = layout.root_of("yolo_folder", data_dir, WHAT)
        found = [root / "data.yaml", *sorted(root.glob("*.yaml"))]
        file = next((path for path in found if path.is_file()), None)
        if file is None:
            raise UserError(f"{root}: no data.yaml; --dataset=yolo_folder needs {WHAT}")
    config, names = _read(file)
    left_out = pictures.LeftOut()
    held_out = [name for name in ("val", "test") if config.get(name)]
    if not config.get("train") or not held_out:
        raise UserError(f"{file}: needs 'train' and 'val', the folders of pictures")
    for name in held_out[1:]:
        left_out.mention(f"the split {name!r}")
    parts = {
        part: [
            annotated
            for picture in _listed(file, config, part, left_out)
            if (annotated := _annotated(picture, names, task, faults))
        ]
        for part in ("train", held_out[0])
    }
    return assembly.of_annotated(
        "yolo_folder", file.parent, task, names, parts, left_out, faults
    )


def _read(file):
    """Returns (content of a data.yaml, names of the classes)."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
        names = config["names"]
        if isinstance(names, dict):
            if sorted(names) != list(range(len(names))):
                raise ValueError("'names' must be numbered from 0")
            names = [names[number] for number in range(len(names))]
        names = [str(name) for name in names]
    except KeyError as error:
        raise UserError(f"{file} lacks {error}: the names of the classes") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is no data.yaml: {reason}") from error
    if not names or len(set(names)) < len(names):
        raise UserError(f"{file}: every class needs a name of its own")
    return config, names


def _listed(file, config, part, left_out):
    """Returns the pictures of a split: of folders, or of text files that list them."""
    base = file.parent / str(config.get("path") or "")
    found = []
    places = config[part]
    for place in places if isinstance(places, list) else [places]:
        path = base / str(place)
        # Roboflow writes "../train/images" of a folder beside data.yaml.
        if not path.exists() and str(place).startswith("../"):
            path = file.parent / str(place)[3:]
        if path.is_dir():
            found += sorted(pictures.images_below(path, left_out, layout.ANNOTATIONS))
        elif path.is_file():
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            found += [str(path.parent / x.strip()) for x in lines if x.strip()]
        else:
            raise UserError(f"{file}: {part}: no such folder: {path}")
    return found


def _annotated(picture, names, task, faults):
    """Returns the `Annotated` of a picture, or None where it has a fault."""
    try:
        width, height = upright_size(picture)
    except UserError as error:
        faults.report("pictures that cannot be read", str(error))
        return None
    source = _text_of(picture)
    text = layout.read_text(source, faults, "damaged text files") if source else ""
    if text is None:
        return None
    boxes, drawn = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            index, *values = line.split()
            index, values = int(index), np.array(values, float)
            if len(values) != 4 and (len(values) < 6 or len(values) % 2):
                raise ValueError(f"expected {LINE}; received {len(values) + 1} numbers")
            if task == "segment" and len(values) == 4:
                raise ValueError("a box, but --task=segment needs outlines")
            if len(values) == 4:
                centre, extent = values[:2], values[2:]
                corners = np.stack([centre - extent / 2, centre + extent / 2])
            else:
                (corners,) = shapes.checked_rings([values.reshape(-1, 2)])
        except ValueError as error:
            faults.report("damaged lines", f"{where}: {error}")
            continue
        known = 0 <= index < len(names)
        label = names[index] if known else f"number {index}"
        corners = corners * (width, height)
        if task == "segment":
            drawn.append(shapes.Shape(label, shapes.polygons([corners])))
        else:
            low, high = corners.min(0), corners.max(0)
            boxes.append(Box(label, (*low[::-1].tolist(), *high[::-1].tolist())))
    return Annotated(picture, source or picture, None, boxes, drawn, text.encode())


def _text_of(picture):
    """Returns the text file of a picture, or None."""
    beside = pathlib.Path(picture).with_suffix(".txt")
    folders = list(beside.parts[:-1])
    paths = [beside]
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        folders[last] = "labels"
        paths.insert(0, pathlib.Path(*folders, beside.name))
    return next((str(path) for path in paths if path.is_file()), None)
