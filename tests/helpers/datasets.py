"""Datasets that tests make, and the batches of their training."""

import collections
import dataclasses
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_sample_images

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training import recipes
from keras_resnet.training.data import batching

SMALL = Preprocessing((32, 32))
RECIPE = recipes.Recipe(
    epochs=2,
    batch_size=100,
    learning_rate=0.1,
    weight_decay=0.0,
    augmentation="pad_crop",
    image_size=32,
)
EVERYTHING = dict(
    policy="rand_augment_7", random_erasing=0.5, mixup=0.2, cutmix=1.0, batch_size=104
)


def train_batches(dataset, seed=0, first_step=0, share=batching.WHOLE, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    return batching.train_batches(dataset, SMALL, recipe, seed, first_step, share)


def batches(dataset, **arguments):
    return list(train_batches(dataset, **arguments).as_numpy_iterator())


def equal(some, others):
    return all(
        np.array_equal(a, b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def seen(batches):
    """Counts the images of batches, as bytes."""
    return collections.Counter(
        image.tobytes() for images, *_ in batches for image in images
    )


def as_file(pixels, file_format="JPEG", mode="RGB", orientation=None, **arguments):
    """Returns the content of an image file."""
    if orientation:
        arguments["exif"] = Image.Exif()
        arguments["exif"][0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, file_format, **arguments)
    return file.getvalue()


def photographs(count=24):
    """Returns JPEGs of many sizes and kinds, cut out of scikit-learn's photographs."""
    rng = np.random.default_rng(0)
    scenes = load_sample_images().images
    kinds = ({}, {"progressive": True}, {"subsampling": 0}, {"mode": "L"})
    files = []
    for index in range(count):
        scene = Image.fromarray(scenes[index % len(scenes)])
        width, height = (int(rng.uniform(0.5, 1) * side) for side in scene.size)
        left = rng.integers(scene.width - width + 1)
        top = rng.integers(scene.height - height + 1)
        scene = scene.crop((left, top, left + width, top + height))
        scale = rng.uniform(0.8, 3)
        scene = scene.resize((int(width * scale), int(height * scale)))
        files.append(
            as_file(
                np.asarray(scene),
                quality=int(rng.integers(70, 98)),
                orientation=int(rng.integers(1, 9)) if index % 3 == 0 else None,
                **kinds[index % len(kinds)],
            )
        )
    return files


def write_photos(folder):
    """Writes ten pictures of two classes, grey and RGBA among them."""
    rng = np.random.default_rng(0)
    for name, modes in (("cat", ("RGB", "L")), ("dog", ("RGB", "RGBA"))):
        (folder / name).mkdir(parents=True)
        for index in range(5):
            pixels = rng.integers(0, 256, (40, 50, 4), np.uint8)
            image = Image.fromarray(pixels).convert(modes[index % 2])
            image.save(folder / name / f"{index}.png")
    return folder


def prepare(dataset_name, folder, shards=None, version="1.0.0", **splits):
    """Prepares a dataset of tensorflow-datasets with three classes.

    Args:
        dataset_name: of it.
        folder: to write.
        shards: files of each split; None lets tfds choose.
        version: of it.
        splits: lists of (image, label) by the names of the splits.
    """

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset_name
        VERSION = tfds.core.Version(version)

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, manager):
            return {name: self._generate_examples(splits[name]) for name in splits}

        def _generate_examples(self, examples):
            for index, (image, label) in enumerate(examples):
                yield index, {"image": image, "label": label}

    Builder(data_dir=folder).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=shards)
    )
