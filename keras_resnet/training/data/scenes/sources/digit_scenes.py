"""Scenes of scikit-learn's digits on a canvas, with boxes and masks, embedded."""

import hashlib

import numpy as np
import PIL.Image
import tensorflow as tf

from keras_resnet.training.data.datasets import Split
from keras_resnet.training.data.scenes.scene_dataset import (
    BACKGROUND,
    SceneDataset,
    objects,
    objects_by_number,
)
from keras_resnet.training.data.sources import digits

SIDE = 64  # pixels, of a scene
SCENES = {"train": 1000, "held_out": 200}
MOST_DIGITS = 5  # in a scene, at least one
SIDES = (18, 32)  # pixels, of a digit with the 8x8 frame it was scanned in
LEVELS = (128, 255)  # of the brightest stroke
GROUND = (0, 64)  # levels of the background, which has noise on it
NOISE = 8.0  # its standard deviation
STROKE = 0.35  # share of its brightest level from which a pixel belongs to a digit
OVERLAP = 0.1  # largest share of the smaller of two digits' boxes that they share
ATTEMPTS = 20  # at placing a digit


def load(task):
    """Returns the `SceneDataset`: digits at random places, sizes and levels.

    The scenes to train on show digits that no held-out scene shows. A box encloses the
    strokes of a digit. Where two digits touch, the mask shows the later one.
    """
    source = digits.load()
    parts = {"train": source.train, "held_out": source.held_out}
    content = hashlib.sha256()
    splits = {}
    for seed, (name, split) in enumerate(parts.items()):
        decoded = split.read().map(lambda png, x: (tf.io.decode_png(png, 1)[..., 0], x))
        scans = list(decoded.as_numpy_iterator())
        rng = np.random.default_rng(seed)
        scenes = [_scene(rng, scans) for _ in range(SCENES[name])]
        for scene in scenes:
            content.update(b"".join(part.tobytes() for part in scene))
        splits[name] = _split(scenes, task)
    labels = source.labels
    return SceneDataset(
        "digit_scenes",
        labels if task == "detect" else (BACKGROUND, *labels),
        **splits,
        fingerprint={"sha256": content.hexdigest()},
        task=task,
        most_objects=MOST_DIGITS if task == "detect" else 0,
    )


def _scene(rng, scans):
    """Returns (pixels: uint8, boxes in pixels, digits, mask) of a scene."""
    pixels = np.full((SIDE, SIDE), rng.uniform(*GROUND))
    pixels += rng.normal(0, NOISE, pixels.shape)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    boxes, shown = [], []
    for _ in range(rng.integers(1, MOST_DIGITS + 1)):
        scan, digit = scans[rng.integers(len(scans))]
        side = rng.integers(SIDES[0], SIDES[1] + 1)
        image = PIL.Image.fromarray(scan).resize((side, side), PIL.Image.BICUBIC)
        strokes = np.asarray(image) / image.getextrema()[1]
        inside = strokes >= STROKE
        extent = _extent(inside)
        level = rng.uniform(*LEVELS)
        for _ in range(ATTEMPTS):
            top, left = rng.integers(0, SIDE - side + 1, 2)
            box = extent + np.array([top, left] * 2)
            if all(_shared(box, other) <= OVERLAP for other in boxes):
                break
        else:
            continue
        part = np.s_[top : top + side, left : left + side]
        pixels[part] += strokes * (level - pixels[part]).clip(0)
        mask[part][inside] = digit + 1
        boxes.append(box)
        shown.append(digit)
    pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    return pixels, np.array(boxes), np.array(shown), mask


def _extent(inside):
    """Returns (top, left, bottom, right) around what is true."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def _shared(box, other):
    """Returns how much of the smaller box lies in the other."""
    low, high = np.maximum(box, other)[:2], np.minimum(box, other)[2:]
    smaller = min(np.prod(x[2:] - x[:2]) for x in (box, other))
    return np.prod((high - low).clip(0)) / smaller


def _split(scenes, task):
    pixels, boxes, shown, masks = zip(*scenes, strict=True)
    pixels = np.stack(pixels)[..., np.newaxis]
    if task == "detect":
        found = [
            objects(corners / SIDE, of_picture)
            for corners, of_picture in zip(boxes, shown, strict=True)
        ]
        target, of = np.arange(len(scenes)), objects_by_number(found)
    else:
        target, of = np.stack(masks), tf.identity

    def read():
        return tf.data.Dataset.from_tensor_slices((pixels, target)).map(
            lambda pixels, target: (tf.io.encode_png(pixels), of(target)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    return Split(len(scenes), read)
