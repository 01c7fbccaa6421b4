"""Detection and segmentation datasets of tensorflow-datasets."""

import functools

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_resnet.runner.boxes import IGNORED, Objects
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import datasets
from keras_resnet.training.data.scenes.scene_dataset import SceneDataset
from keras_resnet.training.data.sources import tfds as classification

# What datasets call objects that count little; not all have them.
IGNORED_KEY, CROWD_KEY = "is_difficult", "is_crowd"


def load(name, data_dir, task, others):
    """Opens NAME or NAME/CONFIG:VERSION, as for classification.

    For "detect", it must have an image and a sequence of objects with a box and a class
    label. For "segment", it must have an image and a mask; where the mask's classes
    have no names, they are the indices that occur, and all masks are read for them.

    Args:
        name: of the dataset.
        data_dir: folder where it lies, or is to lie; `None` is the default of tfds.
        task: "detect" or "segment".
        others: names of datasets that are not of tfds, for the error.

    Raises:
        UserError: there is no such dataset, it is not for this task, or it is not on
            disk and cannot be downloaded.
    """
    builder, prepare = classification.opened(name, data_dir, others)
    features = builder.info.features
    images = [key for key in features if type(features[key]) is tfds.features.Image]
    read = {"detect": _objects, "segment": _mask}[task](features)
    if "image" not in images or read is None:
        needed = {"detect": "objects with boxes and labels", "segment": "a mask"}[task]
        raise UserError(
            f"--task={task} needs a dataset with an image and {needed}. Received: "
            f"{name!r}, which has {', '.join(features)}"
        )
    prepare()
    labels, target = read

    def splits_of(target):
        return classification.parts(
            builder,
            lambda part: classification.split_of(
                builder, part, "image", lambda found: (found["image"], target(found))
            ),
        )

    splits = splits_of(target)
    fingerprint = classification.fingerprint_of(builder, *splits)
    most, notes = 0, []
    if task == "detect":
        most = _most_objects(name, splits, len(labels), notes)
        splits = splits_of(lambda found: _without_flat(target(found)))
    elif labels is None:
        labels, splits = _numbered(splits)
    return SceneDataset(
        name,
        tuple(labels),
        *splits,
        fingerprint,
        "; ".join(notes),
        task=task,
        most_objects=most,
    )


def _objects(features):
    """Returns (labels, function of an example that returns `Objects`), or None."""
    for key, feature in features.items():
        parts = getattr(feature, "feature", None)  # of a sequence
        if not isinstance(parts, tfds.features.FeaturesDict):
            continue
        boxes = [x for x in parts if isinstance(parts[x], tfds.features.BBoxFeature)]
        labels = [x for x in parts if isinstance(parts[x], tfds.features.ClassLabel)]
        labels = ["label"] if "label" in labels else labels
        if len(boxes) == len(labels) == 1:
            read = functools.partial(_read_objects, key, boxes[0], labels[0])
            return parts[labels[0]].names, read
    return None


def _read_objects(key, box, label, example):
    found = example[key]
    no = tf.zeros_like(found[label], tf.bool)
    return Objects(
        tf.cast(found[box], tf.float32),
        tf.cast(found[label], tf.int32),
        tf.cast(found.get(IGNORED_KEY, no), tf.bool),
        tf.cast(found.get(CROWD_KEY, no), tf.bool),
    )


def _without_flat(found):
    """Returns `Objects` without boxes of no area, which may be in tfds."""
    kept = tf.reduce_all(found.boxes[:, 2:] > found.boxes[:, :2], axis=1)
    return Objects(*(tf.boolean_mask(part, kept) for part in found))


def _most_objects(name, splits, classes, notes):
    """Returns the largest number of objects in a picture; reads all of them."""
    counts, flat = [], 0
    for split in splits:
        for target in split.read().map(lambda _, target: target).as_numpy_iterator():
            if ((target.classes < 0) | (target.classes >= classes)).any():
                raise UserError(
                    f"dataset {name} has objects without a known class: a split "
                    "without labels cannot be used"
                )
            has_area = (target.boxes[:, 2:] > target.boxes[:, :2]).all(axis=1)
            counts.append(int(has_area.sum()))
            flat += int((~has_area).sum())
    notes.append(f"{sum(counts)} objects, at most {max(counts)} in a picture")
    if 0 in counts:
        notes.append(f"{counts.count(0)} without objects, kept as negative ones")
    if flat:
        notes.append(f"left out: {flat} boxes of no area")
    return max(counts)


def _mask(features):
    """Returns (labels or None, function of an example that returns its mask), or None.

    `labels` is None where the dataset does not name them.
    """
    masks = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image) and feature.shape[-1] == 1
    ]
    if len(masks) != 1:
        return None
    labels = getattr(features[masks[0]], "names", None)
    return labels, lambda example: tf.cast(example[masks[0]][..., 0], tf.uint8)


def _numbered(splits):
    """Returns names of the indices in masks, and splits in which they are 0, 1, ..."""
    occurs = np.zeros(256, bool)
    for split in splits:
        for mask in split.read().map(lambda _, mask: mask).as_numpy_iterator():
            occurs |= np.bincount(mask.ravel(), minlength=256) > 0
    occurs[IGNORED] = False
    found = np.flatnonzero(occurs)
    lookup = np.full(256, IGNORED, np.uint8)
    lookup[found] = np.arange(len(found))

    def moved(split):
        def of(function):
            return lambda *span: function(*span).map(
                lambda image, mask: (image, tf.gather(lookup, tf.cast(mask, tf.int32)))
            )

        part = split.part and of(split.part)
        return datasets.Split(split.examples, of(split.read), part=part)

    return [str(index) for index in found], [moved(split) for split in splits]
