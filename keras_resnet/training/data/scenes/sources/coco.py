"""COCO JSON: boxes, and masks as polygons or run lengths."""

import collections
import json
import os
import pathlib

import numpy as np

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes import assembly, shapes
from keras_resnet.training.data.scenes.annotations import Annotated, Box
from keras_resnet.training.data.scenes.sources import layout
from keras_resnet.training.data.sources import pictures

WHAT = (
    "one COCO file, or one for each split: train/*.json and valid/*.json, or "
    "annotations/instances_train*.json and annotations/instances_val*.json"
)

DAMAGED = "damaged annotations of COCO files"


def load(data_dir, task, faults):
    """Opens COCO files as CVAT, Label Studio, Roboflow and COCO itself lay them out.

    If there is one file only, a fifth of its pictures is held out. Pictures without
    objects are negative examples; those that no file lists are not seen.

    Args:
        data_dir: a file, or a folder with `WHAT`.
        task: "detect" or "segment".
        faults: `Faults`.
    """
    left_out = pictures.LeftOut()
    if data_dir and pathlib.Path(data_dir).is_file():
        root, files = pathlib.Path(data_dir).parent, {"all": pathlib.Path(data_dir)}
    else:
        root = layout.root_of("coco_json", data_dir, WHAT)
        files = _files(root, left_out)
    labels, parts = None, {}
    for part, file in files.items():
        content = _read(file)
        names = _names(file, content["categories"])
        labels = labels or list(names.values())
        parts[part] = list(_pictures(root, part, file, content, names, task, faults))
    if "all" in parts:
        train, held_out = pictures.hold_out_a_fifth(
            sorted(parts["all"], key=lambda annotated: annotated.picture)
        )
        parts = {"train": train, "held_out": held_out}
    return assembly.of_annotated(
        "coco_json", root, task, labels, parts, left_out, faults
    )


def _files(root, left_out):
    """Returns the COCO file of each split in a folder, or the only one as "all"."""
    found = [
        *sorted(root.glob("*.json")),
        *sorted(root.glob("annotations/*.json")),
        *(
            x
            for name in ("train", *pictures.HELD_OUT)
            for x in root.glob(f"{name}/*.json")
        ),
    ]
    instances = [path for path in found if path.name.startswith("instances_")]
    found = instances or found
    if len(found) == 1:
        return {"all": found[0]}
    by_part = collections.defaultdict(list)
    for path in found:
        name = os.path.relpath(path, root).lower()
        for part in ("train", *pictures.HELD_OUT):
            if part in name:
                by_part[part].append(path)
                break
    parts = ["train", *(part for part in pictures.HELD_OUT if by_part[part])][:2]
    if len(parts) == 2 and all(len(by_part[part]) == 1 for part in parts):
        for path in found:
            if path not in (by_part[part][0] for part in parts):
                left_out.mention(f"the file {os.path.relpath(path, root)}")
        return {part: by_part[part][0] for part in parts}
    shown = ", ".join(os.path.relpath(path, root) for path in found[:5])
    raise UserError(
        f"--dataset=coco_json needs {WHAT}. Received: {root} with {shown or 'none'}"
        f"{', ...' if len(found) > 5 else ''}"
    )


def _read(file):
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        for part in ("images", "annotations", "categories"):
            if not isinstance(content[part], list):
                raise ValueError(f"{part!r} is no list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is no COCO file: {error!r:.200}") from error
    return content


def _names(file, categories):
    """Returns {id of a category: its name}, sorted by the id."""
    try:
        names = {each["id"]: str(each["name"]) for each in categories}
        names = dict(sorted(names.items()))
    except KeyError as error:
        raise UserError(f"{file}: a category lacks {error}") from error
    except TypeError as error:
        raise UserError(
            f"{file}: categories must be objects whose ids are all numbers or all "
            f"strings: {error}"
        ) from error
    twice = [
        x for x, number in collections.Counter(names.values()).items() if number > 1
    ]
    if twice:
        raise UserError(f"{file}: two categories have the name {twice[0]!r}")
    return names


def _pictures(root, part, file, listed, names, task, faults):
    """Yields the `Annotated` pictures of a file."""
    of_picture = collections.defaultdict(list)
    for number, annotation in enumerate(listed["annotations"]):
        try:
            of_picture[annotation["image_id"]].append((number, annotation))
        except (KeyError, TypeError) as error:
            faults.report(DAMAGED, f"{file}, annotation {number}: {error!r:.200}")
    # Where COCO, CVAT, Label Studio and Roboflow put the pictures.
    folder = file.stem.rpartition("_")[2]
    bases = [file.parent, file.parent / "images", root, root / "images"]
    bases += [root / name for name in (folder, f"images/{folder}", part)]
    seen = set()
    for number, entry in enumerate(listed["images"]):
        try:
            if entry["id"] in seen:
                raise ValueError(f"another image has the id {entry['id']!r} too")
            seen.add(entry["id"])
            annotations = of_picture.pop(entry["id"], [])
            name = entry["file_name"].replace("\\", "/")
            stated = entry.get("width"), entry.get("height")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            faults.report(
                "damaged entries of COCO files", f"{file}, image {number}: {error!r}"
            )
            continue
        found = (base / name for base in bases)
        path = next((path for path in found if path.is_file()), None)
        if path is None:
            faults.report(
                "pictures that are missing",
                f"{file}: no such picture: {name} (searched from {root})",
            )
            continue
        size = stated if all(stated) else None
        boxes, drawn = _objects(file, annotations, size, names, task, faults)
        content = json.dumps([annotation for _, annotation in annotations]).encode()
        yield Annotated(str(path), f"{file}, {name}", size, boxes, drawn, content)
    for image_id, annotations in of_picture.items():
        faults.report(
            "annotations of pictures that are not listed",
            f"{file}: {len(annotations)} annotations of image {image_id!r}, which is "
            "not listed",
        )


def _objects(file, annotations, size, names, task, faults):
    """Returns the boxes or the shapes of one picture: two lists, one of them empty."""
    boxes, drawn = [], []
    for place, annotation in annotations:
        try:
            number = annotation["category_id"]
            label = names.get(number, f"id {number}")
            if task == "detect":
                boxes.append(_box(annotation, label))
            else:
                drawn.append(shapes.Shape(label, _fill(annotation, size)))
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            name = annotation.get("id", place)
            faults.report(DAMAGED, f"{file}, annotation {name}: {error!r:.200}")
    return boxes, drawn


def _box(annotation, label):
    left, top, width, height = map(float, annotation["bbox"])
    return Box(
        label,
        (top, left, top + height, left + width),
        bool(annotation.get("ignore", 0)),
        bool(annotation.get("iscrowd", 0)),
    )


def _fill(annotation, picture_size):
    """Returns `Shape.fill` of an annotation's segmentation."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        height, width = segmentation["size"]
        counts = shapes.decoded_counts(segmentation["counts"])
        # As Python's numbers, whose sum does not overflow.
        fits = counts.min() >= 0 and sum(counts.tolist()) == height * width
        if picture_size not in (None, (width, height)) or not fits:
            raise ValueError(f"run lengths do not fit the picture of {picture_size}")
        return shapes.run_lengths(counts)
    rings = [np.array(ring, float).reshape(-1, 2) for ring in segmentation]
    if not rings:
        raise ValueError("no mask, only a box")
    return shapes.polygons(shapes.checked_rings(rings))
