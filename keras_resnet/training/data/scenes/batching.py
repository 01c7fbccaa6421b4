"""Batches of normalized pictures with their boxes or masks, in fixed shapes.

They come in the order, the parts and the shares of `data.batching`.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_resnet.runner import boxes
from keras_resnet.runner.boxes import IGNORED, Objects
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import batching, decoding
from keras_resnet.training.data.batching import WHOLE
from keras_resnet.training.data.scenes import annotations, augmentation, scene_dataset


def train_batches(dataset, preprocessing, recipe, seed, first_step=0, share=WHOLE):
    """Returns the batches of a whole training run, from `first_step` on.

    Args:
        dataset: `SceneDataset`.
        preprocessing: `Preprocessing`, which pads or stretches.
        recipe: `Recipe` with one of `augmentation.AUGMENTATIONS`.
        seed: seed of the run.
        first_step: number of the first batch.
        share: `Share` of the worker.

    Returns:
        `tf.data.Dataset` of (images: float32 (batch, height, width, 3), target). The
        target is a mask, uint8 (batch, height, width), or `Objects` with
        `dataset.most_objects` places: boxes are shares of the input, and in places
        without an object the class is -1.
    """
    changes = augmentation.AUGMENTATIONS[recipe.augmentation]
    size = preprocessing.input_size
    kept = dataclasses.replace(preprocessing, input_size=changes.kept_size(size))
    channels = 3 + (dataset.task == "segment")
    bytes_of_one = math.prod(kept.input_size) * channels
    fits = dataset.train.examples * bytes_of_one <= batching.CACHE_BYTES

    def keep(encoded, target):
        target = _moved(encoded, target, kept)
        return decoding.device_pixels(encoded, kept) if fits else encoded, target

    def change(image, target, example_seed):
        if not fits:
            image = decoding.device_pixels(image, kept)
        image, target = augmentation.augment(changes, size, image, target, example_seed)
        return image, _filled(dataset, target)

    examples = batching.changed_examples(
        dataset.train,
        recipe,
        keep,
        change,
        fits,
        seed,
        first_step,
        share,
    )
    batches = examples.batch(recipe.batch_size // share.replicas, drop_remainder=True)
    return batching.parallel_map(
        batches,
        lambda pixels, target: (decoding.normalize(pixels, preprocessing), target),
    ).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(dataset, split, preprocessing, batch_size, share=WHOLE):
    """Returns every example of a split once, in batches of equal size.

    Args:
        dataset: `SceneDataset`, whose split it is.
        split: `Split`.
        preprocessing: `Preprocessing`, which pads or stretches.
        batch_size: examples of a batch, over all replicas together.
        share: `Share` of the worker.

    Returns:
        `tf.data.Dataset` of (images, target, is_real: bool (batch,)). The first two are
        as from `train_batches`; black pictures fill the last batch, and are not real.
    """

    def marked(read):
        return read and (lambda *span: read(*span).map(lambda *pair: (pair, True)))

    marked_split = dataclasses.replace(
        split, read=marked(split.read), part=marked(split.part)
    )
    black = tf.io.encode_png(tf.zeros((*preprocessing.input_size, 3), tf.uint8))
    nothing = scene_dataset.objects([], [])
    if dataset.task == "segment":
        nothing = np.full(preprocessing.input_size, IGNORED, np.uint8)
    filling = (black, tf.nest.map_structure(tf.constant, nothing)), False

    def prepared(example, is_real):
        encoded, target = example
        image = decoding.device_pixels(encoded, preprocessing)
        target = _filled(dataset, _moved(encoded, target, preprocessing))
        return image, target, is_real

    def to_model(pixels, target, is_real):
        return decoding.normalize(pixels, preprocessing), target, is_real

    mine = batching.filled_up(marked_split, filling, batch_size, share)
    batches = batching.parallel_map(mine, prepared).batch(batch_size // share.replicas)
    return batching.parallel_map(batches, to_model).prefetch(tf.data.AUTOTUNE)


def unpadded(target, row):
    """Returns the `Objects` of one example of a batch, numpy arrays."""
    there = np.asarray(target.classes[row]) >= 0
    return Objects(*(np.asarray(part[row])[there] for part in target))


def _moved(encoded, target, preprocessing):
    """Returns the target of the input for that of a picture, by the runner's code."""
    if not isinstance(target, Objects):

        def moved_mask(mask):
            return boxes.mask_to_input(mask, preprocessing)

        mask = tf.numpy_function(moved_mask, [target], tf.uint8)
        return tf.ensure_shape(mask, preprocessing.input_size)

    def moved_boxes(encoded, corners):
        try:
            size = annotations.upright_size(decoding.as_file(encoded))
        except UserError:  # decoding it will say what is wrong
            return corners
        return boxes.boxes_to_input(corners, size, preprocessing).astype(np.float32)

    moved = tf.numpy_function(moved_boxes, [encoded, target.boxes], tf.float32)
    return target._replace(boxes=tf.ensure_shape(moved, (None, 4)))


def _filled(dataset, target):
    """Fills `Objects` up to the largest number of the dataset; a mask stays."""
    if not isinstance(target, Objects):
        return target
    missing = dataset.most_objects - tf.shape(target.classes)[0]

    def filled(part, value):
        paddings = [[0, missing]] + [[0, 0]] * (part.shape.rank - 1)
        part = tf.pad(part, paddings, constant_values=value)
        return tf.ensure_shape(part, (dataset.most_objects, *part.shape[1:]))

    return Objects(
        filled(target.boxes, 0.0),
        filled(target.classes, -1),
        filled(target.ignored, False),
        filled(target.crowd, False),
    )
