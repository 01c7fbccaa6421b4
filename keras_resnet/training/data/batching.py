"""Batches of normalized images, for training, evaluation and calibration.

Random choices depend on nothing but the seed, the epoch and the example: equal seeds
give equal batches, however many threads, replicas or workers make them.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_resnet.training.data import augmentation, datasets, decoding
from keras_resnet.training.data.damaged import damaged_images_named

# Decoded training images stay in memory if together they have at most so many bytes.
CACHE_BYTES = 1 << 30
# If they do not, each is shuffled among so many others.
SHUFFLE_BUFFER = 8192


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that one worker computes; `replicas` are of all."""

    index: int
    workers: int
    replicas: int

    @classmethod
    def of(cls, context):
        """Returns the `Share` of a `tf.distribute.InputContext`."""
        return cls(
            context.input_pipeline_id,
            context.num_input_pipelines,
            context.num_replicas_in_sync,
        )

    def of_batches(self, dataset, batch_size):
        """Returns this worker's part of every `batch_size` elements of a dataset."""
        if self.workers == 1:
            return dataset
        part = batch_size // self.workers
        return (
            dataset.enumerate()
            .filter(lambda place, _: place % batch_size // part == self.index)
            .map(lambda _, element: element)
        )

    def span(self, total):
        """Returns this worker's (start, stop) of `total` examples, shared evenly."""
        return tuple(i * total // self.workers for i in (self.index, self.index + 1))


WHOLE = Share(0, 1, 1)


def train_batches(dataset, preprocessing, recipe, seed, first_step=0, share=WHOLE):
    """Returns the batches of a whole training run, from `first_step` on.

    Each epoch is shuffled anew and has `steps_per_epoch(...)` batches. The examples
    that remain and fill no batch are left out, other ones in each epoch. A run that is
    continued gets the batches that it would have seen from there on.

    Returns:
        `tf.data.Dataset` of (images: float32 (batch, height, width, 3), targets:
        float32 (batch, classes)). If there are several replicas, each batch comes in as
        many consecutive parts.
    """
    takes_resized = augmentation.takes_resized(recipe)
    height, width = preprocessing.input_size
    area = height * width * (1 if takes_resized else decoding.CROPPED_AREA)
    fits = dataset.train.examples * area * 3 <= CACHE_BYTES
    keep = decoding.kept_for_crops if fits else None
    if takes_resized:
        keep = decoding.device_pixels

    def augmented(image, label, example_seed):
        image = augmentation.augment(recipe, preprocessing, image, example_seed)
        target = label
        if not dataset.multi_label:
            target = tf.one_hot(label, len(dataset.labels))
        return image, target, example_seed

    def mixed(images, targets, seeds):
        return *augmentation.mix(recipe, images, targets, seeds[0]), seeds

    def to_model(images, targets, _):
        if images.shape.rank > 4:  # pairs
            images = tf.reshape(images, (-1, height, width, 3))
            targets = tf.reshape(targets, (-1, len(dataset.labels)))
        return decoding.normalize(images, preprocessing), targets

    batches = changed_examples(
        dataset.train,
        recipe,
        keep and (lambda image, label: (keep(image, preprocessing), label)),
        augmented,
        fits,
        seed,
        first_step,
        share,
    )
    part = recipe.batch_size // share.replicas
    if augmentation.mixes(recipe):
        batches = parallel_map(batches.batch(2, drop_remainder=True), mixed)
        part //= 2
    batches = batches.batch(part, drop_remainder=True)
    return parallel_map(batches, to_model).prefetch(tf.data.AUTOTUNE)


def changed_examples(split, recipe, keep, change, fits, seed, first_step, share):
    """Returns the examples of a whole training run, from `first_step` on.

    Args:
        split: `Split` to train on.
        recipe: `Recipe`: the epochs, the repeats and the batch size.
        keep: function of (encoded image, label) that returns what is changed anew in
            each epoch, or None.
        change: function of (image, label, seed: int64 (2,)), which differs for each
            example, epoch and repeat.
        fits: whether what `keep` returns stays in memory.
        seed: seed of the run.
        first_step: number of the first batch.
        share: `Share` of the worker.

    Returns:
        `tf.data.Dataset` of what `change` returns.
    """
    batch_size, repeats = recipe.batch_size, recipe.repeats
    examples = split.examples
    used = examples // batch_size * batch_size
    first_epoch, skipped = divmod(first_step, examples // batch_size)

    # A worker reads only its part of a large dataset. It reads all of a small one, so
    # that batches do not depend on the number of workers.
    own_part = share.workers > 1 and not fits and split.part is not None
    start, stop = share.span(examples) if own_part else (0, examples)
    source = split.part(start, stop) if own_part else split.read()
    if keep:
        source = parallel_map(source, keep)
    source = source.enumerate(start)
    if fits:
        source = source.cache()

    def one_epoch(epoch):
        def changed(index, example):
            number = epoch * examples * repeats + index
            return change(*example, tf.stack([tf.constant(seed, tf.int64), number]))

        # Otherwise the order would also depend on tf.random.set_seed, beside which
        # TensorFlow refuses a seed that is a tensor.
        tf.compat.v1.get_default_graph().seed = None
        # With repeats, an epoch has room for one in `repeats` examples. Epochs take
        # turns, or each would see the beginning of a large dataset. If the number of
        # examples is no multiple of `repeats`, the first one fills the gap.
        chosen = source.filter(lambda index, _: index % repeats == epoch % repeats)
        shuffled = (chosen if repeats > 1 else source).shuffle(
            examples if fits else SHUFFLE_BUFFER, seed=seed * 1_000_003 + epoch
        )
        if repeats > 1:
            shuffled = shuffled.concatenate(source.take(1))
            of_worker = batch_size // share.workers if own_part else batch_size
            shuffled = _repeated(shuffled, repeats, of_worker)
        if own_part:
            ordered = shuffled.take(used // share.workers)
        else:
            ordered = share.of_batches(shuffled.take(used), batch_size)
        # The steps of the interrupted epoch are skipped before anything is decoded.
        mine = skipped * batch_size // share.workers
        ordered = ordered.skip(mine * tf.cast(epoch == first_epoch, tf.int64))
        return parallel_map(ordered, changed)

    return tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(one_epoch)


def _repeated(numbered, repeats, batch_size):
    """Repeats examples, where possible within one batch, and numbers the copies."""
    chunk = math.ceil(batch_size / repeats)

    def of_chunk(*examples):
        examples = tf.data.Dataset.zip(examples)
        return tf.data.Dataset.range(repeats).flat_map(
            lambda copy: examples.map(
                lambda index, example: (index * repeats + copy, example)
            )
        )

    # Windows, not batches: images that are kept for crops have many sizes.
    return numbered.window(chunk).flat_map(of_chunk)


def steps_per_epoch(dataset, batch_size):
    """Returns the number of full batches in the training split."""
    return dataset.train.examples // batch_size


def evaluation_batches(split, preprocessing, batch_size, share=WHOLE):
    """Returns every example of a split once, in batches of equal size.

    Black images with the label -1, or a vector of it, fill the last batch: replicas
    share each batch, and TensorFlow's batch normalization fails on an empty share. The
    batch size is that of all replicas together.

    Returns:
        `tf.data.Dataset` of (images: float32 (batch, height, width, 3), labels: int64
        (batch,), or if the dataset is `multi_label` float32 (batch, classes)), in parts
        as `train_batches` has them.
    """
    black = tf.io.encode_png(tf.zeros((*preprocessing.input_size, 3), tf.uint8))
    spec = split.read().element_spec[1]
    unknown = tf.fill(spec.shape, tf.constant(-1, spec.dtype))
    mine = filled_up(split, (black, unknown), batch_size, share)
    batches = _mapped(mine, decoding.device_pixels, preprocessing).batch(
        batch_size // share.replicas
    )
    return parallel_map(
        batches,
        lambda pixels, labels: (decoding.normalize(pixels, preprocessing), labels),
    ).prefetch(tf.data.AUTOTUNE)


def filled_up(split, filling, batch_size, share):
    """Returns a worker's part of every example of a split once, and what fills up.

    Args:
        split: `Split`.
        filling: an example, which is repeated until all batches are full.
        batch_size: images of a batch, over all replicas together.
        share: `Share` of the worker.
    """
    filling = tf.data.Dataset.from_tensors(filling)
    places = math.ceil(split.examples / batch_size) * batch_size
    if share.workers > 1 and split.part is not None:
        start, stop = share.span(split.examples)
        missing = places // share.workers - (stop - start)
        return split.part(start, stop).concatenate(filling.repeat(missing))
    whole = split.read().concatenate(filling.repeat(places - split.examples))
    return share.of_batches(whole, batch_size)


def predictions(model, split, preprocessing, batch_size):
    """Returns (outputs of a model, labels) of every example of a split, in its order.

    The model is of Keras 3 or tf_keras; its outputs are float32 (examples, ...).
    """

    @tf.function
    def predict(images):
        return tf.cast(model(images, training=False), tf.float32)

    return over_split(predict, split, preprocessing, batch_size)


def over_split(function, split, preprocessing, batch_size):
    """Applies a function to every example of a split once, in the order of the split.

    Args:
        function: of images as `evaluation_batches` has them, which returns an array or
            tensor (batch, ...), or a list of these.
        split: `Split`.
        preprocessing: of the images.
        batch_size: images that the function gets at a time.

    Returns:
        (what the function returns of all examples, their labels), numpy arrays.
    """
    batches = evaluation_batches(split, preprocessing, batch_size)
    parts = [(function(images), labels) for images, labels in batches]
    # The last batch is filled up.
    return tf.nest.map_structure(
        lambda *arrays: np.concatenate(arrays)[: split.examples], *parts
    )


def images(split, preprocessing):
    """Returns every example of a split once, as the raw pixels that a device sees.

    `tf.data.Dataset` of (image: uint8 (height, width, 3), label: int64).
    """
    return _mapped(split.read(), decoding.device_pixels, preprocessing)


def calibration_images(dataset, preprocessing, examples, seed=0):
    """Returns some training images to calibrate quantization with.

    Returns:
        uint8 array (examples, height, width, 3); at most the whole training split.

    Raises:
        UserError: an image cannot be decoded.
    """
    count = min(examples, dataset.train.examples)
    chosen = np.random.default_rng(seed).permutation(dataset.train.examples)[:count]
    wanted = np.zeros(dataset.train.examples, bool)
    wanted[chosen] = True
    pixels = images(datasets.subset(dataset.train, wanted), preprocessing)
    with damaged_images_named(dataset):
        return np.stack([image for image, _ in pixels.as_numpy_iterator()])


def _mapped(encoded, function, preprocessing):
    """Makes an image of each in a dataset of (encoded image, label)."""
    return parallel_map(
        encoded, lambda image, label: (function(image, preprocessing), label)
    )


def parallel_map(dataset, function):
    """Applies a function to the elements of a dataset, several at a time, in order."""
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)
