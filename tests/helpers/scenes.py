"""Annotated pictures that tests make, and the files that annotation tools write."""

import collections
import json
import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np
import yaml
from PIL import Image

from tests.helpers.runs import silent

LABELS = ("cup", "plate")
COLOURS = ((0, 0, 0), (250, 50, 50), (50, 50, 250))  # of the background and of these
# Arguments of `training.train` for a run of six steps, three in an epoch.
SHORT = dict(
    model="resnet8",
    dataset="labelme_folder",
    weights="none",
    image_size=32,
    batch_size=4,
    epochs=2,
    progress=silent,
)
# `boxes` are (top, left, bottom, right) in pixels, `mask` has class 0 as background.
Made = collections.namedtuple("Made", "name pixels boxes classes mask")


def train(task, scenes, directory, **changes):
    """Trains a tiny detector or segmenter on a folder of `write_labelme`."""
    from keras_resnet import training

    arguments = {**SHORT, "data_dir": scenes, **changes}
    return training.train(task=task, model_dir=directory, **arguments)


def made_scenes(count=10, seed=0):
    """Rectangles in pictures of several sizes; the second has none."""
    rng = np.random.default_rng(seed)
    scenes = []
    for number in range(count):
        height, width = 60 + number, 90 - number
        pixels = rng.integers(100, 150, (height, width, 3), np.uint8)
        mask = np.zeros((height, width), np.uint8)
        boxes, classes = [], []
        for column in range(0 if number == 1 else rng.integers(1, 4)):
            # Side by side: no format says what lies on top.
            low = rng.integers((0, 0), (20, 8)) + (0, 25 * column)
            high = low + rng.integers((10, 5), (40, 17))
            index = int(rng.integers(len(LABELS)))
            part = np.s_[low[0] : high[0], low[1] : high[1]]
            pixels[part], mask[part] = COLOURS[index + 1], index + 1
            boxes.append((*low.tolist(), *high.tolist()))
            classes.append(index)
        scenes.append(Made(f"{number:03}", pixels, boxes, classes, mask))
    return scenes


def _corners(box):
    top, left, bottom, right = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def _write_picture(folder, scene):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scene.name}.png"
    Image.fromarray(scene.pixels).save(path)
    return path


def write_voc(root, scenes):
    """Pictures with XML files beside them."""
    for scene in scenes:
        path = _write_picture(root, scene)
        tree = ElementTree.Element("annotation")
        size = ElementTree.SubElement(tree, "size")
        height, width, _ = scene.pixels.shape
        ElementTree.SubElement(size, "width").text = str(width)
        ElementTree.SubElement(size, "height").text = str(height)
        for box, index in zip(scene.boxes, scene.classes, strict=True):
            each = ElementTree.SubElement(tree, "object")
            ElementTree.SubElement(each, "name").text = LABELS[index]
            place = ElementTree.SubElement(each, "bndbox")
            for name, value in zip(("ymin", "xmin", "ymax", "xmax"), box, strict=True):
                ElementTree.SubElement(place, name).text = str(value)
        path.with_suffix(".xml").write_bytes(ElementTree.tostring(tree))
    return root


def coco_content(scenes):
    """What a COCO file says of scenes; ids start where nobody expects it."""
    annotations, images = [], []
    for number, scene in enumerate(scenes, 7):
        height, width, _ = scene.pixels.shape
        entry = {"id": number, "file_name": f"{scene.name}.png"}
        images.append({**entry, "width": width, "height": height})
        for box, index in zip(scene.boxes, scene.classes, strict=True):
            top, left, bottom, right = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": index + 3,
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": [sum(_corners(box), [])],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i + 3, "name": name} for i, name in enumerate(LABELS)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root, scenes):
    """Pictures with one JSON file, as Roboflow names it."""
    for scene in scenes:
        _write_picture(root, scene)
    content = json.dumps(coco_content(scenes))
    pathlib.Path(root, "_annotations.coco.json").write_text(content)
    return root


def write_yolo(root, scenes, outlines=False):
    """Pictures and texts in folders "images" and "labels", and data.yaml beside."""
    root = pathlib.Path(root)
    parts = {"train": scenes[:-2], "val": scenes[-2:]}
    for part, of_part in parts.items():
        texts = root / "labels" / part
        texts.mkdir(parents=True)
        for scene in of_part:
            _write_picture(root / "images" / part, scene)
            size = np.array(scene.pixels.shape[1::-1])
            lines = []
            for box, index in zip(scene.boxes, scene.classes, strict=True):
                corners = np.array(_corners(box)) / size
                low, high = corners[0], corners[2]
                values = [*(low + high) / 2, *(high - low)]
                values = corners.ravel() if outlines else values
                lines.append(" ".join([str(index), *map(repr, map(float, values))]))
            if lines:
                (texts / f"{scene.name}.txt").write_text("\n".join(lines))
    content = {f"{part}": f"images/{part}" for part in parts}
    content |= {"nc": len(LABELS), "names": list(LABELS)}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root


def write_labelme(root, scenes):
    """Pictures with LabelMe's JSON files, of polygons and of rectangles."""
    for scene in scenes:
        path = _write_picture(root, scene)
        shapes = []
        for box, index in zip(scene.boxes, scene.classes, strict=True):
            corners = _corners(box)
            kind = ("polygon", corners), ("rectangle", [corners[2], corners[0]])
            kind, points = kind[len(shapes) % 2]
            shapes.append(
                {"label": LABELS[index], "shape_type": kind, "points": points}
            )
        height, width, _ = scene.pixels.shape
        content = {"imageWidth": width, "imageHeight": height, "shapes": shapes}
        path.with_suffix(".json").write_text(json.dumps(content))
    return root


def write_masks(root, scenes, colours=False):
    """Pictures and masks in folders "images" and "masks", and names of the classes."""
    root = pathlib.Path(root)
    names = ("background", *LABELS)
    (root / "masks").mkdir(parents=True)
    for scene in scenes:
        _write_picture(root / "images", scene)
        mask = np.uint8(COLOURS)[scene.mask] if colours else scene.mask
        Image.fromarray(mask).save(root / "masks" / f"{scene.name}.png")
    if colours:
        lines = ["# label:color_rgb:parts:actions"]
        lines += [
            f"{name}:{','.join(map(str, colour))}::"
            for name, colour in zip(names, COLOURS, strict=True)
        ]
        (root / "labelmap.txt").write_text("\n".join(lines))
    else:
        (root / "classes.txt").write_text("\n".join(names))
    return root


WRITERS = {
    "voc_folder": write_voc,
    "coco_json": write_coco,
    "yolo_folder": write_yolo,
    "labelme_folder": write_labelme,
    "mask_folder": write_masks,
}


def targets_of(dataset):
    """Returns {name of a picture without suffix: its target} of both splits."""
    return {
        pathlib.Path(name).stem: target
        for split in (dataset.train, dataset.held_out)
        for name, (_, target) in zip(
            split.names, split.read().as_numpy_iterator(), strict=True
        )
    }
