"""From annotated pictures to a dataset: what all sources of files have in common."""

import functools

import numpy as np

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes import annotations, shapes
from keras_resnet.training.data.scenes.scene_dataset import (
    BACKGROUND,
    Scene,
    SceneDataset,
    digest_of,
    split,
)
from keras_resnet.training.data.sources import pictures

MOST_CLASSES = 255  # of masks, whose pixels are uint8 and 255 where they are ignored


def of_annotated(name, root, task, labels, parts, left_out, faults, in_order=False):
    """Returns the `SceneDataset` of annotated pictures.

    Args:
        name: of the dataset.
        root: folder below which all pictures lie.
        task: "detect" or "segment".
        labels: names of the classes; None for those that occur. Classes without
            objects to train on are left out.
        parts: dict of the name of each split and its list of `Annotated`, "train" and
            then the one to hold out.
        left_out: `pictures.LeftOut`.
        faults: `Faults`.
        in_order: as in `shapes.draw`.

    Raises:
        UserError: a fault that stops, or nothing to train on or to evaluate on.
    """
    found = {
        part: {x.label for each in annotated for x in (*each.boxes, *each.shapes)}
        for part, annotated in parts.items()
    }
    labels = labels or sorted(set().union(*found.values()))
    for label in labels:
        if len(f"{label}.".splitlines()) > 1:  # label files have one a line
            raise UserError(f"{root}: the name of a class has a line break: {label!r}")
    unused = [label for label in labels if label not in found["train"]]
    if unused:
        shown = ", ".join(map(repr, unused[:5])) + (", ..." if len(unused) > 5 else "")
        left_out.mention(f"classes without objects to train on: {shown}")
    labels = tuple(label for label in labels if label in found["train"])
    make = functools.partial(_scene, task, labels, in_order, faults)
    parts = {
        part: [scene for scene in map(make, annotated) if scene]
        for part, annotated in parts.items()
    }
    if task == "segment":
        labels = (BACKGROUND, *labels)
    return of_scenes(name, root, task, labels, parts, left_out, faults)


def of_scenes(name, root, task, labels, parts, left_out, faults):
    """Returns the `SceneDataset` of `Scene`s.

    The arguments are those of `of_annotated`, but `parts` holds `Scene`s.
    """
    faults.close()
    also = f". Left out: {left_out}" if str(left_out) else ""
    if not labels:
        raise UserError(f"{root}: the pictures to train on have no objects{also}")
    if task == "segment" and not 2 <= len(labels) <= MOST_CLASSES:
        raise UserError(
            f"{root}: masks must have 2 to {MOST_CLASSES} classes, the background "
            f"among them. Received: {len(labels)}"
        )
    for part, scenes in parts.items():
        if not scenes:
            raise UserError(f"{root}: no annotated pictures in the split {part}{also}")
        if task == "detect" and not any(len(x.target.classes) for x in scenes):
            raise UserError(f"{root}: the pictures of the split {part} have no objects")
    scenes = [scene for part in parts.values() for scene in part]
    notes, most = [], 0
    if task == "detect":
        counts = [len(scene.target.classes) for scene in scenes]
        most = max(counts)
        notes.append(f"{sum(counts)} objects, at most {most} in a picture")
        if 0 in counts:
            notes.append(f"{counts.count(0)} without objects, kept as negative ones")
        of_class = np.bincount(
            np.concatenate([scene.target.classes for scene in scenes]),
            minlength=len(labels),
        )
        if pictures.is_uneven(of_class):
            few, many = of_class.argmin(), of_class.argmax()
            notes.append(
                f"the classes are uneven, from {of_class[few]} objects "
                f"({labels[few]!r}) to {of_class[many]} ({labels[many]!r})"
            )
    if str(left_out):
        notes.append(f"left out: {left_out}")
    train, held_out = (split(part, scenes) for part, scenes in parts.items())
    return SceneDataset(
        name,
        tuple(labels),
        train,
        held_out,
        pictures.fingerprint([scene.entry(root) for scene in scenes]),
        "; ".join(notes),
        task=task,
        most_objects=most,
    )


def _scene(task, labels, in_order, faults, annotated):
    """Returns the `Scene` of an `Annotated`, or None where it has a fault."""
    picture, source, stated, boxes, drawn, content = annotated
    size = annotations.checked_size(picture, stated, source, faults)
    if size is None:
        return None
    if task == "detect":
        found = annotations.checked_objects(boxes, size, labels, source, faults)
        return Scene(picture, found, digest_of(*found))
    known = []
    for shape in drawn:
        index = annotations.class_index(shape.label, labels, source, faults)
        if index is not None:
            known.append((index + 1, shape.fill))
    draw = functools.partial(shapes.draw, known, size, in_order)
    return Scene(picture, draw, digest_of(content))
