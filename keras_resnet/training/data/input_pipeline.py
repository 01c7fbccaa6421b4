"""A dataset name -> `tf.data` batches.

Every source becomes the same thing, a `Split` of encoded images and labels in
a fixed order; one path decodes, augments and batches it. What is random in an
example depends on (seed, epoch, example) only.
"""

import contextlib
import dataclasses
import functools
import http.client
import math
import os
import pathlib
import re
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_resnet.errors import unknown
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import augmentation, decoding

# Decoded training images are kept in memory up to this size, in bytes.
CACHE_BYTES = 1 << 30
# Examples among which streamed ones are shuffled.
SHUFFLE_BUFFER = 8192
# One in so many images is held out where a dataset has but one part.
HELD_OUT_EVERY = 5
UNKNOWN_LABEL = "a label beyond the classes"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # those of tfds's ImageFolder


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of a dataset.

    Attributes:
        examples: their number.
        read: returns a `tf.data.Dataset` of (encoded image: string, label:
            int64), every example once, always in the same order.
        names: likewise of the names of the examples, where they have any.
        part: where it can be had without reading the rest, a function of (start,
            stop) -> so many examples, like `read`. Parts that do not overlap have no
            example in common; which ones are in it, and their order, differ from
            those of `read`.
    """

    examples: int
    read: Callable[[], tf.data.Dataset]
    names: Callable[[], tf.data.Dataset] | None = None
    part: Callable[[int, int], tf.data.Dataset] | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An image-classification dataset.

    Attributes:
        name: as given to `load`.
        labels: the names of the classes, in the order of their indices.
        train: the `Split` to train on.
        held_out: the `Split` to evaluate on.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    held_out: Split


# --- Sources ----------------------------------------------------------------


def load(name, data_dir=None, hold_out=None, damaged_images="stop"):
    """Opens a dataset.

    Args:
        name: "digits" (embedded), "folder" (images in class-named folders) or
            the name of a tensorflow-datasets dataset.
        data_dir: for "folder", DIR/CLASS/IMAGE (a fifth of each class is held out) or
            DIR/{train,val}/CLASS/IMAGE; for tensorflow-datasets, where it
            keeps its prepared datasets (default: ~/tensorflow_datasets).
        hold_out: split off so many training examples and evaluate on them, so that
            choices do not see the published split.
        damaged_images: "skip" leaves out what cannot be decoded; with "stop" the
            first one met ends the run.

    Returns:
        A `Dataset`. Held out is the split "validation" where the dataset has
        one, else "test", else a fifth of "train".

    Raises:
        UserError: there is no such dataset, it is no image classification, or
            it is not on disk and cannot be downloaded.
    """
    if name == "digits":
        dataset = _digits()
    elif name == "folder":
        dataset = _folder(data_dir)
    else:
        dataset = _tfds(name, data_dir)
    if damaged_images == "skip":
        dataset = without_damaged(dataset)
    if hold_out is None:
        return dataset
    if hold_out >= dataset.train.examples:
        raise UserError(
            f"--hold_out must leave some of the {dataset.train.examples} training "
            f"images. Received: {hold_out}"
        )
    train, held_out = _hold_out(dataset.train, hold_out)
    return dataclasses.replace(dataset, train=train, held_out=held_out)


def _digits():
    """scikit-learn's digits: 1,797 scans of 8x8 pixels, 16 greys."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    train, held_out = train_test_split(
        np.arange(len(labels)),
        test_size=1 / HELD_OUT_EVERY,
        stratify=labels,
        random_state=0,
    )

    def split(indices):
        def read():
            arrays = images[indices], labels[indices].astype(np.int64)
            dataset = tf.data.Dataset.from_tensor_slices(arrays)
            return dataset.map(lambda image, label: (tf.io.encode_png(image), label))

        return Split(len(indices), read)

    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits", names, split(train), split(held_out))


def _folder(data_dir):
    import tensorflow_datasets as tfds

    if not data_dir:
        raise UserError(
            "--dataset=folder needs --data_dir=DIR with class-named folders"
        )
    root = pathlib.Path(data_dir)
    if not root.is_dir():
        raise UserError(f"--data_dir is no folder. Received: {data_dir!r}")

    if (root / "train").is_dir():
        held_out = next(
            (s for s in ("val", "validation", "test") if (root / s).is_dir()), None
        )
        if held_out is None:
            raise UserError(
                f"{root} has a folder 'train' but none named 'val', 'validation' or "
                "'test' to evaluate on (a class cannot be named 'train')"
            )
        folders, trained_on = (root / "train", root / held_out), root / "train"
        builder = tfds.ImageFolder(str(root))
    else:
        # ImageFolder wants ROOT/SPLIT/CLASS/IMAGE: it gets folders of links.
        linked = tempfile.TemporaryDirectory(prefix="keras_resnet-")
        folders = tuple(pathlib.Path(linked.name, s) for s in ("train", "held_out"))
        trained_on = root
        _link_images(root, *folders)
        builder = tfds.ImageFolder(linked.name)
        builder.keep_linked_root = linked  # removed with the builder

    labels = tuple(builder.info.features["label"].names)
    if len(labels) < 2:
        raise UserError(
            f"{root} must have at least two folders with images "
            f"({', '.join(IMAGE_SUFFIXES)}), one for each class. Received: "
            f"{len(labels)}" + (f" ({labels[0]!r})" if labels else "")
        )
    for label in labels:
        # ImageFolder makes a class of every folder: caches, empty ones, and those
        # of the held-out split alone.
        if not _images_in(folders[0] / label):
            raise UserError(
                f"folder {label!r} has no images ({', '.join(IMAGE_SUFFIXES)}) in "
                f"{trained_on}: remove it or fill it"
            )
    train, held_out = (_tfds_split(builder, folder.name) for folder in folders)
    if not held_out.examples:
        raise UserError(f"{root} has no held-out images: add images to a class")
    return Dataset("folder", labels, train, held_out)


def _images_in(folder):
    """Returns the images that ImageFolder sees in a folder, sorted."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)


def _link_images(root, train, held_out):
    """Links ROOT/CLASS/IMAGE into two folders, a fifth of each class held out."""
    for label in sorted(path for path in root.iterdir() if path.is_dir()):
        for index, image in enumerate(_images_in(label)):
            # Of a class of one or two images, one is trained on.
            folder = (held_out if index % HELD_OUT_EVERY == 1 else train) / label.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / image.name).symlink_to(image.resolve())
        (train / label.name).mkdir(parents=True, exist_ok=True)  # an empty class


def _tfds(name, data_dir):
    import tensorflow_datasets as tfds

    base_name = re.split("[:/]", name)[0]  # NAME/CONFIG:VERSION
    known = tfds.list_builders(with_community_datasets=False)
    if base_name not in known:
        raise unknown("dataset", name, ["digits", "folder", *known])
    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        # Reads what lies on disk alone. `tfds.builder` would insist on the
        # version that its own code would prepare.
        builder = tfds.core.read_only_builder.builder_from_files(
            name, data_dir=data_dir
        )
        prepared = True
    except tfds.core.DatasetNotFoundError:
        prepared = False
        try:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
        except Exception as error:  # unknown version or config, missing package
            raise UserError(f"--dataset={name}: {error}") from error

    features, keys = builder.info.features, builder.info.supervised_keys
    if (
        not keys
        or len(keys) != 2
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        raise UserError(
            "--dataset must be an image-classification dataset (an image and a class "
            f"label). Received: {name!r}, which has {', '.join(features)}"
        )
    if not prepared:
        _download(builder, data_dir)
    labels = tuple(features[keys[1]].names)
    train = _tfds_split(builder, "train")
    for split in ("validation", "test"):
        if split in builder.info.splits:
            return Dataset(name, labels, train, _tfds_split(builder, split))
    fifth = math.ceil(train.examples / HELD_OUT_EVERY)
    return Dataset(name, labels, *_hold_out(train, fifth))


def _download(builder, data_dir):
    import tensorflow_datasets as tfds

    def refuse(reason):
        return UserError(
            f"dataset {builder.name} is not in {data_dir} and cannot be downloaded: "
            f"{reason}. Prepare it where there is a network (`tfds build "
            f"{builder.name} --data_dir=DIR`), copy DIR here and pass --data_dir=DIR; "
            "--dataset=digits needs nothing"
        )

    # tfds would try for minutes, and leave folders behind.
    hosts = {urllib.parse.urlsplit(url)[:2]: url for url in builder.url_infos}
    for url in hosts.values():
        request = urllib.request.Request(url, method="HEAD")
        try:
            # `urlopen` would keep the proxies that it saw first.
            urllib.request.build_opener().open(request, timeout=10).close()
        except urllib.error.HTTPError:
            pass  # it answers
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise refuse(f"{url} cannot be reached ({reason})") from error
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except Exception as error:  # tfds, requests and urllib3 raise many kinds
        lines = str(error).strip().splitlines()
        raise refuse(lines[0][:200] if lines else type(error).__name__) from error


def _tfds_split(builder, name):
    import tensorflow_datasets as tfds

    image, label = builder.info.supervised_keys
    read_config = tfds.ReadConfig(try_autocache=False, add_tfds_id=False)
    classes = builder.info.features[label].num_classes

    def read(*keys, span=""):
        dataset = builder.as_dataset(
            split=name + span,
            shuffle_files=False,
            read_config=read_config,
            decoders={image: tfds.decode.SkipDecoding()},
        )

        def checked(example):
            # Some published splits have no labels: all are -1.
            found = example[label]
            known = (found >= 0) & (found < classes)
            with tf.control_dependencies(
                [tf.debugging.Assert(known, [UNKNOWN_LABEL, found])]
            ):
                return tuple(tf.identity(example[key]) for key in keys)

        return dataset.map(checked)

    splits = builder.info.splits
    filename = "image/filename"  # a feature of ImageFolder's
    return Split(
        splits[name].num_examples if name in splits else 0,
        lambda: read(image, label),
        (lambda: read(filename)) if filename in builder.info.features else None,
        # Opens the files that hold them. A folder of images is listed as a whole.
        None
        if isinstance(builder, tfds.ImageFolder)
        else lambda start, stop: read(image, label, span=f"[{start}:{stop}]"),
    )


def _hold_out(split, held_out):
    """Splits off `held_out` examples, spread evenly: a source may be sorted."""
    chosen = np.zeros(split.examples, bool)
    chosen[np.arange(held_out) * split.examples // held_out] = True
    return _part(split, ~chosen), _part(split, chosen)


def _part(split, chosen):
    """Returns the examples of a split for which the array `chosen` is true."""

    def of(dataset):
        numbered = dataset.enumerate()
        numbered = numbered.filter(lambda index, _: tf.gather(chosen, index))
        return numbered.map(lambda _, example: example)

    return Split(
        int(chosen.sum()),
        lambda: of(split.read()),
        split.names and (lambda: of(split.names())),
    )


def in_memory(dataset):
    """Keeps the encoded images in memory once they have been read."""

    def of(split):
        kept = split.read().cache()
        part = split.part and functools.cache(
            lambda start, stop: split.part(start, stop).cache()
        )
        return dataclasses.replace(split, read=lambda: kept, part=part)

    return dataclasses.replace(
        dataset, train=of(dataset.train), held_out=of(dataset.held_out)
    )


def without_damaged(dataset):
    """Leaves out images that cannot be decoded, and names them on stderr.

    All are decoded once: what is left must be known before the first epoch.

    Raises:
        UserError: too few are left.
    """

    def of(split):
        whole = np.ones(split.examples, bool)
        for index, error in _damaged(split):
            if unknown_label := _unknown_label(dataset, error):
                raise unknown_label from error
            whole[index] = False
            name = _example_name(split, index)
            print(f"warning: {name} cannot be decoded: left out", file=sys.stderr)
        if not whole.any():
            raise UserError(f"no image of dataset {dataset.name} can be decoded")
        return split if whole.all() else _part(split, whole)

    return dataclasses.replace(
        dataset, train=of(dataset.train), held_out=of(dataset.held_out)
    )


def _damaged(split):
    """Yields (number, TensorFlow's error) of the images that cannot be decoded."""
    for index in _missing(split):
        try:
            (encoded, _), *_ = split.read().skip(index).take(1)
            decoding.decode(encoded)
        except tf.errors.InvalidArgumentError as error:
            yield index, error


def _missing(split):
    """Yields the numbers of the images that decoding all of them leaves out."""
    sizes = _parallel_map(
        split.read().enumerate(),
        lambda index, x: (index, tf.size(decoding.decode(x[0]))),
    )
    expected = 0
    for index, _ in sizes.ignore_errors().as_numpy_iterator():
        yield from range(expected, index)
        expected = index + 1
    yield from range(expected, split.examples)


def _unknown_label(dataset, error):
    """Returns the `UserError` where TensorFlow met a label beyond the classes."""
    label = re.search(rf"{UNKNOWN_LABEL}[^-0-9]*(-?[0-9]+)", error.message)
    return label and UserError(
        f"dataset {dataset.name} has an image of class {label[1]}, and classes 0 to "
        f"{len(dataset.labels) - 1} only: prepare it again, with labels"
    )


@contextlib.contextmanager
def damaged_images_named(dataset):
    """Turns the failure to decode an image into an error that names it.

    Raises:
        UserError: an image inside `dataset` cannot be decoded, or has a label that is
            none of the classes.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if unknown_label := _unknown_label(dataset, error):
            raise unknown_label from error
        for split in (dataset.train, dataset.held_out):
            for index, damage in _damaged(split):
                reason = damage.message.partition(" [Op:")[0]
                raise UserError(
                    f"{_example_name(split, index)} cannot be decoded: {reason}. "
                    "Remove or repair it, or train with --damaged_images=skip"
                ) from damage
        raise  # something else


def _example_name(split, index):
    if split.names is None:
        return f"image {index} of the dataset"
    (name,) = next(split.names().skip(index).as_numpy_iterator())
    return os.path.realpath(name.decode(errors="replace"))  # not our link to it


# --- Batches ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that one worker takes.

    Attributes:
        index: number of the worker, from 0.
        workers: their number.
        replicas: of all workers together.
    """

    index: int
    workers: int
    replicas: int

    @classmethod
    def of(cls, context):
        """Returns the share that a `tf.distribute.InputContext` stands for."""
        return cls(
            context.input_pipeline_id,
            context.num_input_pipelines,
            context.num_replicas_in_sync,
        )

    def of_batches(self, dataset, batch_size):
        """Leaves the worker's part of every `batch_size` elements."""
        if self.workers == 1:
            return dataset
        part = batch_size // self.workers
        return (
            dataset.enumerate()
            .filter(lambda place, _: place % batch_size // part == self.index)
            .map(lambda _, element: element)
        )

    def examples(self, total, batch_size):
        """Returns how many of `total` elements `of_batches` leaves."""
        part = batch_size // self.workers
        whole, rest = divmod(total, batch_size)
        return whole * part + min(part, max(0, rest - self.index * part))

    def span(self, total):
        """Returns the worker's (start, stop) of `total` examples, shared evenly."""
        return tuple(
            index * total // self.workers for index in (self.index, self.index + 1)
        )


WHOLE = Share(0, 1, 1)


def train_batches(
    dataset,
    preprocessing,
    recipe,
    seed,
    first_step=0,
    share=WHOLE,
):
    """Returns the batches of a whole training run.

    Args:
        dataset: a `Dataset`.
        preprocessing: a `Preprocessing`.
        recipe: a `recipes.Recipe`. The remainder of an epoch that fills no batch is
            left out; as every epoch is shuffled anew, it is another one each time.
        seed: int. Equal seeds give equal batches.
        first_step: number of the first step: batches are then those that an
            unbroken run would see from there on.
        share: the `Share` of this worker.

    Returns:
        `tf.data.Dataset` of (float32 (batch, height, width, 3), targets float32
        (batch, classes)), with `steps_per_epoch(...)` batches for each epoch.
        With several replicas a batch comes in that many parts.
    """
    takes_resized = augmentation.takes_resized(recipe)
    height, width = preprocessing.input_size
    batch_size = recipe.batch_size
    examples, repeats = dataset.train.examples, recipe.repeats
    used = examples // batch_size * batch_size
    first_epoch, skipped = divmod(first_step, steps_per_epoch(dataset, batch_size))
    keeps = takes_resized and examples * height * width * 3 <= CACHE_BYTES

    # Of a large dataset a worker reads its part; of a small one all, so that batches
    # do not depend on the number of workers.
    alone = share.workers > 1 and not keeps and dataset.train.part is not None
    if alone:
        start, stop = share.span(examples)
        source = dataset.train.part(start, stop).enumerate(start)
    else:
        source = dataset.train.read().enumerate()
    if takes_resized:
        source = _parallel_map(
            source,
            lambda index, x: (
                index,
                (decoding.resize_and_crop(decoding.decode(x[0]), preprocessing), x[1]),
            ),
        )
    if keeps:
        source = source.cache()

    def one_epoch(epoch):
        def augmented(index, example):
            image, label = example
            example_seed = tf.stack(
                [tf.constant(seed, tf.int64), epoch * examples * repeats + index]
            )
            image = augmentation.augment(recipe, preprocessing, image, example_seed)
            return image, tf.one_hot(label, len(dataset.labels)), example_seed

        # Without this the order would depend on tf.random.set_seed too (and a
        # seed that is a tensor would be refused beside it).
        tf.compat.v1.get_default_graph().seed = None
        # Epochs with repeats take turns: each would be the beginning of a large
        # dataset. Where the turns are uneven, one example more fills them up.
        chosen = source.filter(lambda index, _: index % repeats == epoch % repeats)
        shuffled = (chosen if repeats > 1 else source).shuffle(
            examples if keeps else SHUFFLE_BUFFER, seed=seed * 1_000_003 + epoch
        )
        if repeats > 1:
            shuffled = shuffled.concatenate(source.take(1))
            of_worker = batch_size // share.workers if alone else batch_size
            shuffled = _repeated(shuffled, repeats, of_worker)
        if alone:
            ordered = shuffled.take(used // share.workers)
        else:
            ordered = share.of_batches(shuffled.take(used), batch_size)
        # Of the epoch that was broken off, nothing is decoded again.
        mine = skipped * batch_size // share.workers
        ordered = ordered.skip(mine * tf.cast(epoch == first_epoch, tf.int64))
        return _parallel_map(ordered, augmented)

    def mixed(images, targets, seeds):
        return *augmentation.mix(recipe, images, targets, seeds[0]), seeds

    def to_model(images, targets, _):
        if images.shape.rank > 4:  # pairs
            images = tf.reshape(images, (-1, height, width, 3))
            targets = tf.reshape(targets, (-1, len(dataset.labels)))
        return decoding.normalize(images, preprocessing), targets

    batches = tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(one_epoch)
    part = batch_size // share.replicas
    if augmentation.mixes(recipe):
        batches = _parallel_map(batches.batch(2, drop_remainder=True), mixed)
        part //= 2
    batches = batches.batch(part, drop_remainder=True)
    return _parallel_map(batches, to_model).prefetch(tf.data.AUTOTUNE)


def _repeated(numbered, repeats, batch_size):
    """Repeats examples, within a batch where it can, and numbers them apart."""
    chunk = math.ceil(batch_size / repeats)

    def of_chunk(indices, examples):
        return tf.data.Dataset.range(repeats).flat_map(
            lambda copy: tf.data.Dataset.from_tensor_slices(
                (indices * repeats + copy, examples)
            )
        )

    return numbered.batch(chunk).flat_map(of_chunk)


def steps_per_epoch(dataset, batch_size):
    """Returns the number of whole batches in the training split."""
    return dataset.train.examples // batch_size


def evaluation_batches(split, preprocessing, batch_size, share=WHOLE):
    """Returns every example of a split once, in batches of equal size.

    The last batch is filled up with black images of label -1: replicas share
    batches, and TensorFlow cannot normalize the empty share of a small remainder.

    Args:
        split: a `Split`.
        preprocessing: a `Preprocessing`.
        batch_size: examples in a batch.
        share: the `Share` of this worker.

    Returns:
        `tf.data.Dataset` of (float32 (batch, height, width, 3), int64 (batch,)).
        With several replicas a batch comes in that many parts.
    """
    black = tf.zeros((*preprocessing.input_size, 3), tf.uint8)
    filling = tf.data.Dataset.from_tensors((black, tf.constant(-1, tf.int64)))
    if share.workers > 1 and split.part is not None:
        start, stop = share.span(split.examples)
        mine = Split(stop - start, lambda: split.part(start, stop))
    else:
        mine = Split(
            share.examples(split.examples, batch_size),
            lambda: share.of_batches(split.read(), batch_size),
        )
    # All workers have equally many batches, also where the rest is not shared evenly.
    places = math.ceil(split.examples / batch_size) * (batch_size // share.workers)
    filling = filling.repeat(places - mine.examples)
    batches = images(mine, preprocessing).concatenate(filling)
    batches = batches.batch(batch_size // share.replicas)
    return _parallel_map(
        batches,
        lambda pixels, labels: (decoding.normalize(pixels, preprocessing), labels),
    ).prefetch(tf.data.AUTOTUNE)


def images(split, preprocessing):
    """Returns raw pixels as the device sees them, every example once.

    Returns:
        `tf.data.Dataset` of (uint8 (height, width, 3), int64 label).
    """
    return _parallel_map(
        split.read(),
        lambda encoded, label: (
            decoding.resize_and_crop(decoding.decode(encoded), preprocessing),
            label,
        ),
    )


def calibration_images(dataset, preprocessing, examples, seed=0):
    """Returns images of the training split to calibrate quantization with.

    Args:
        dataset: a `Dataset`.
        preprocessing: a `Preprocessing`.
        examples: how many, at most.
        seed: chooses them.

    Returns:
        uint8 (number, height, width, 3).
    """
    count = min(examples, dataset.train.examples)
    chosen = np.random.default_rng(seed).permutation(dataset.train.examples)[:count]
    wanted = np.zeros(dataset.train.examples, bool)
    wanted[chosen] = True
    pixels = images(_part(dataset.train, wanted), preprocessing)
    with damaged_images_named(dataset):
        return np.stack([image for image, _ in pixels.as_numpy_iterator()])


def _parallel_map(dataset, function):
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)
