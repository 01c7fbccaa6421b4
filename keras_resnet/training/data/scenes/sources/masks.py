"""Masks as pictures: PNGs of class indices, or of colours with a label map."""

import functools
import os

from keras_resnet.runner.annotations import (
    MASK_ENDINGS,
    MASK_FOLDERS,
    companion,
    mask_classes,
    read_mask,
)
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes import assembly
from keras_resnet.training.data.scenes.annotations import checked_size
from keras_resnet.training.data.scenes.scene_dataset import Scene, digest_of
from keras_resnet.training.data.scenes.sources import layout
from keras_resnet.training.data.sources import pictures


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
    classes = mask_classes(root)
    parts = {
        part: [
            scene
            for path in paths
            if (scene := _scene(path, classes, left_out, faults))
        ]
        for part, paths in layout.picture_parts(root, left_out, _is_picture).items()
    }
    return assembly.of_scenes(
        "mask_folder", root, task, classes.names, parts, left_out, faults
    )


def _is_picture(path):
    folder = os.path.basename(os.path.dirname(path))
    return folder not in MASK_FOLDERS and not path.endswith(MASK_ENDINGS[0])


def _scene(path, classes, left_out, faults):
    """Returns the `Scene` of a picture, or None where it has a fault or no mask."""
    file = companion(path, MASK_ENDINGS, MASK_FOLDERS)
    if file is None:
        left_out.add("picture without a mask", "pictures without a mask")
        return None
    draw = functools.partial(read_mask, file, classes)
    try:
        mask = draw()
    except UserError as error:
        faults.report("damaged masks", str(error))
        return None
    if checked_size(path, mask.shape[::-1], file, faults) is None:
        return None
    with open(file, "rb") as content:
        return Scene(path, draw, digest_of(content.read()))
