"""A dataset name -> `tf.data` batches.

Every source becomes the same thing, a `Split` of encoded images and labels in
a fixed order; one path decodes, augments and batches it. What is random in an
example depends on (seed, epoch, example) only.
"""

import contextlib
import dataclasses
import functools
import http.client
import io
import math
import os
import pathlib
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

import numpy as np
import PIL.Image
import tensorflow as tf

from command_line import UserError, unknown

# Decoded training images are kept in memory up to this size, in bytes.
CACHE_BYTES = 1 << 30
# Examples among which streamed ones are shuffled.
SHUFFLE_BUFFER = 8192
# One in so many images is held out where a dataset has but one part.
HELD_OUT_EVERY = 5
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # those of tfds's ImageFolder


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of a dataset.

    Attributes:
        examples: their number.
        read: returns a `tf.data.Dataset` of (encoded image: string, label:
            int64), every example once, always in the same order.
        names: likewise of the names of the examples, where they have any.
    """

    examples: int
    read: Callable[[], tf.data.Dataset]
    names: Callable[[], tf.data.Dataset] | None = None


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


def load(name, data_dir=None, hold_out=None):
    """Opens a dataset.

    Args:
        name: "digits" (embedded), "folder" (images in class-named folders) or
            the name of a tensorflow-datasets dataset.
        data_dir: for "folder", DIR/CLASS/IMAGE (a fifth of each class is held out) or
            DIR/{train,val}/CLASS/IMAGE; for tensorflow-datasets, where it
            keeps its prepared datasets (default: ~/tensorflow_datasets).
        hold_out: split off so many training examples and evaluate on them, so that
            choices do not see the published split.

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

    def read(*keys):
        dataset = builder.as_dataset(
            split=name,
            shuffle_files=False,
            read_config=read_config,
            decoders={image: tfds.decode.SkipDecoding()},
        )
        return dataset.map(lambda example: tuple(example[key] for key in keys))

    splits = builder.info.splits
    filename = "image/filename"  # a feature of ImageFolder's
    return Split(
        splits[name].num_examples if name in splits else 0,
        lambda: read(image, label),
        (lambda: read(filename)) if filename in builder.info.features else None,
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


@contextlib.contextmanager
def damaged_images_named(dataset):
    """Turns the failure to decode an image into an error that names it.

    Raises:
        UserError: an image inside `dataset` cannot be decoded.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError:
        for split in (dataset.train, dataset.held_out):
            for index, (encoded, _) in enumerate(split.read()):
                try:
                    decode(encoded)
                except tf.errors.InvalidArgumentError as error:
                    reason = error.message.partition(" [Op:")[0]
                    raise UserError(
                        f"{_example_name(split, index)} cannot be decoded: {reason}. "
                        "Remove or repair it"
                    ) from error
        raise  # something else


def _example_name(split, index):
    if split.names is None:
        return f"image {index} of the dataset"
    (name,) = next(split.names().skip(index).as_numpy_iterator())
    return os.path.realpath(name.decode(errors="replace"))  # not our link to it


# --- Images -----------------------------------------------------------------


def decode(encoded):
    """Decodes a JPEG, PNG, BMP or GIF to uint8 (height, width, 3), RGB, upright.

    The device turns photographs upright as EXIF says; TensorFlow alone does not.
    """
    # TensorFlow's default for JPEG is a fast approximation: a level away on average.
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, 3, expand_animations=False),
    )
    image.set_shape((None, None, 3))
    turned = tf.cond(
        _has_exif(encoded),
        lambda: tf.numpy_function(_upright, [image, encoded], tf.uint8),
        lambda: image,
    )
    return tf.ensure_shape(turned, (None, None, 3))


def _has_exif(encoded):
    # JPEG and PNG name it so, and XMP can hold an orientation too. Splitting finds
    # bytes many times faster than a regular expression.
    def holds(marker):
        parts = tf.raw_ops.StringSplitV2(input=[encoded], sep=marker, maxsplit=1)
        return tf.size(parts.values) > 1

    return holds(b"Exif\x00") | holds(b"eXIf") | holds(b"Orientation")


def _upright(image, encoded):
    """Turns an array as the EXIF of its file says, as the device reads it."""
    try:
        orientation = PIL.Image.open(io.BytesIO(encoded)).getexif().get(0x0112)
    except Exception:  # damaged EXIF: the pixels are whole
        return image
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def resize_and_crop(image, preprocessing):
    """Resizes and crops as `preprocessing` says, as PIL would.

    Args:
        image: uint8 (height, width, 3).
        preprocessing: a `keras_resnet.preprocessing.Preprocessing`.

    Returns:
        uint8 (*preprocessing.input_size, 3).
    """
    height, width = preprocessing.input_size
    image = resize(image, preprocessing.resize_size, preprocessing.interpolation)
    margins = tf.cast(tf.shape(image)[:2] - [height, width], tf.float32)
    top, left = tf.unstack(tf.cast(tf.round(margins / 2), tf.int32))
    return tf.image.crop_to_bounding_box(image, top, left, height, width)


def resize(image, size, interpolation):
    """Resizes the shorter side to `size`, as PIL would.

    Args:
        image: uint8 (height, width, 3).
        size: pixels.
        interpolation: one of `keras_resnet.preprocessing.INTERPOLATIONS`.

    Returns:
        uint8 (height, width, 3).
    """
    shape = tf.shape(image)[:2]
    # The longer side in whole numbers, rounded down like PIL's users do.
    resized = shape * size // tf.reduce_min(shape)
    # PIL antialiases when it shrinks and rounds to whole levels.
    method = _METHODS[interpolation]
    return tf.cond(
        tf.reduce_all(resized == shape),
        lambda: image,
        lambda: _to_uint8(tf.image.resize(image, resized, method, antialias=True)),
    )


def _to_uint8(image):
    return tf.saturate_cast(tf.round(image), tf.uint8)


_METHODS = {
    "nearest": tf.image.ResizeMethod.NEAREST_NEIGHBOR,
    "bilinear": tf.image.ResizeMethod.BILINEAR,
    "bicubic": tf.image.ResizeMethod.BICUBIC,
    "lanczos": tf.image.ResizeMethod.LANCZOS3,
}


def _pad_crop(image, size, seed, flip=False):
    """Shifts by up to an eighth, filling with black; flips if asked."""
    padding = size // 8  # 4 of 32 pixels: the paper, section 4.2
    image = tf.pad(image, [[padding, padding], [padding, padding], [0, 0]])
    image = tf.image.stateless_random_crop(image, (size, size, 3), seed)
    if flip:
        image = tf.image.stateless_random_flip_left_right(image, seed + 1)
    return image


def _random_resized_crop_flip(encoded, size, seed):
    """Cuts out 8% to 100% of the image, stretched by up to 4/3, and flips it.

    Szegedy et al., "Going deeper with convolutions", section 6.
    """

    def window(shape):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.zeros((0, 0, 4)),
            seed,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        return begin, extent

    def decoded_in_part():
        begin, extent = window(tf.io.extract_jpeg_shape(encoded))
        return tf.image.decode_and_crop_jpeg(
            encoded,
            tf.concat([begin[:2], extent[:2]], 0),
            channels=3,
            dct_method="INTEGER_FAST",
        )

    def decoded_whole():
        image = decode(encoded)
        return tf.slice(image, *window(tf.shape(image)))

    # A JPEG's metadata come before its first scan: the rest need not be searched.
    parts = tf.raw_ops.StringSplitV2(input=[encoded], sep=b"\xff\xda", maxsplit=1)
    image = tf.cond(
        tf.io.is_jpeg(encoded) & ~_has_exif(parts.values[0]),
        decoded_in_part,
        decoded_whole,
    )
    # Shrunk to a half at most, plain interpolation leaves out no pixel; the
    # antialiased one takes three times as long.
    image = tf.cond(
        tf.reduce_max(tf.shape(image)[:2]) <= 2 * size,
        lambda: tf.image.resize(image, (size, size)),
        lambda: tf.image.resize(image, (size, size), antialias=True),
    )
    image = tf.cast(tf.round(image), tf.uint8)  # this kind stays within 0..255
    return tf.image.stateless_random_flip_left_right(image, seed + 1)


def _random_scale_crop_flip(encoded, size, seed):
    """Resizes the shorter side to 256..480 of 224, cuts a square out, flips it.

    He et al., "Deep residual learning", section 3.4.
    """
    image = decode(encoded)
    least, most = size * 256 // 224, size * 480 // 224
    shorter = tf.random.stateless_uniform((), seed + 2, least, most + 1, tf.int32)
    shape = tf.shape(image)[:2]
    resized = shape * shorter // tf.reduce_min(shape)
    image = _to_uint8(tf.image.resize(image, resized, antialias=True))
    image = tf.image.stateless_random_crop(image, (size, size, 3), seed)
    return tf.image.stateless_random_flip_left_right(image, seed + 1)


# name: (function of (image, size, seed), whether the image is uint8 and already
# resized, once and not in every epoch; else it is the encoded one).
AUGMENTATIONS = {
    "pad_crop": (_pad_crop, True),
    "pad_crop_flip": (functools.partial(_pad_crop, flip=True), True),
    "random_resized_crop_flip": (_random_resized_crop_flip, False),
    "random_scale_crop_flip": (_random_scale_crop_flip, False),
}


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


WHOLE = Share(0, 1, 1)


def train_batches(
    dataset,
    preprocessing,
    augmentation,
    batch_size,
    seed,
    epochs,
    first_step=0,
    share=WHOLE,
):
    """Returns the batches of a whole training run.

    Args:
        dataset: a `Dataset`.
        preprocessing: a `Preprocessing`.
        augmentation: a name of `AUGMENTATIONS`.
        batch_size: examples in a batch. An epoch's remainder is left out; as
            every epoch is shuffled anew, it is another one each time.
        seed: int. Equal seeds give equal batches.
        epochs: number of epochs of the whole run.
        first_step: number of the first step: batches are then those that an
            unbroken run would see from there on.
        share: the `Share` of this worker.

    Returns:
        `tf.data.Dataset` of (float32 (batch, height, width, 3), one-hot float32
        (batch, classes)), with `steps_per_epoch(...)` batches for each epoch.
        With several replicas a batch comes in that many parts.
    """
    augment, takes_resized = AUGMENTATIONS[augmentation]
    size = preprocessing.input_size[0]
    examples = dataset.train.examples
    used = examples // batch_size * batch_size
    first_epoch, skipped = divmod(first_step, steps_per_epoch(dataset, batch_size))
    in_memory = takes_resized and examples * size * size * 3 <= CACHE_BYTES

    source = dataset.train.read().enumerate()
    if takes_resized:
        source = _parallel_map(
            source,
            lambda index, x: (
                index,
                (resize_and_crop(decode(x[0]), preprocessing), x[1]),
            ),
        )
    if in_memory:
        source = source.cache()

    def one_epoch(epoch):
        def augmented(index, example):
            image, label = example
            example_seed = tf.stack(
                [tf.constant(seed, tf.int64), epoch * examples + index]
            )
            return augment(image, size, example_seed), label

        # Without this the order would depend on tf.random.set_seed too (and a
        # seed that is a tensor would be refused beside it).
        tf.compat.v1.get_default_graph().seed = None
        shuffled = source.shuffle(
            examples if in_memory else SHUFFLE_BUFFER, seed=seed * 1_000_003 + epoch
        )
        ordered = share.of_batches(shuffled.take(used), batch_size)
        # Of the epoch that was broken off, nothing is decoded again.
        mine = skipped * batch_size // share.workers
        ordered = ordered.skip(mine * tf.cast(epoch == first_epoch, tf.int64))
        return _parallel_map(ordered, augmented)

    def to_model(images, labels):
        return normalize(images, preprocessing), tf.one_hot(labels, len(dataset.labels))

    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)
    batches = batches.batch(batch_size // share.replicas, drop_remainder=True)
    return _parallel_map(batches, to_model).prefetch(tf.data.AUTOTUNE)


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
        batches, lambda pixels, labels: (normalize(pixels, preprocessing), labels)
    ).prefetch(tf.data.AUTOTUNE)


def images(split, preprocessing):
    """Returns raw pixels as the device sees them, every example once.

    Returns:
        `tf.data.Dataset` of (uint8 (height, width, 3), int64 label).
    """
    return _parallel_map(
        split.read(),
        lambda encoded, label: (resize_and_crop(decode(encoded), preprocessing), label),
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


def normalize(pixels, preprocessing):
    """Normalizes as `Preprocessing.normalize` does, in TensorFlow."""
    # By rows of the image: TensorFlow is eight times slower at three numbers.
    shape = tf.shape(pixels)
    rows = tf.reshape(tf.cast(pixels, tf.float32), (-1, shape[-2] * 3))
    rows -= tf.tile(preprocessing.mean_rgb_255, shape[-2:-1])
    rows /= tf.tile(preprocessing.std_rgb_255, shape[-2:-1])
    pixels = tf.ensure_shape(tf.reshape(rows, shape), pixels.shape)
    return pixels if preprocessing.channel_order == "rgb" else pixels[..., ::-1]


def _parallel_map(dataset, function):
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)
