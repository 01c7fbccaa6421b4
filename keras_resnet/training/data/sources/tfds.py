"""Datasets of tensorflow-datasets."""

import functools
import http.client
import math
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request

import tensorflow as tf
import tensorflow_datasets as tfds

from keras_resnet.errors import first_line, unknown
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import datasets


def load(name, data_dir):
    """Opens NAME or NAME/CONFIG:VERSION, prepared in `data_dir` or downloaded to it.

    The split "validation" is held out, or else "test", or else a fifth of "train".

    Raises:
        UserError: there is no such dataset, it is not for image classification, or
            it is not on disk and cannot be downloaded.
    """
    builder, prepare = opened(name, data_dir)
    features, keys = builder.info.features, builder.info.supervised_keys or ()
    if not (
        len(keys) == 2
        and isinstance(features[keys[0]], tfds.features.Image)
        and isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        raise UserError(
            "--dataset must be an image-classification dataset (an image and a class "
            f"label). Received: {name!r}, which has {', '.join(features)}"
        )
    prepare()
    train, held_out = parts(builder, functools.partial(_split, builder))
    labels = tuple(features[keys[1]].names)
    fingerprint = fingerprint_of(builder, train, held_out)
    return datasets.Dataset(name, labels, train, held_out, fingerprint)


def opened(name, data_dir, others=("digits", "folder")):
    """Opens NAME or NAME/CONFIG:VERSION.

    Args:
        name: of the dataset.
        data_dir: folder where it lies, or is to lie; `None` is the default of tfds.
        others: names of datasets that are not of tfds, for the error.

    Returns:
        (builder, a function that downloads the dataset to `data_dir` if it is not
        there).

    Raises:
        UserError: there is no such dataset.
    """
    base_name = re.split("[:/]", name)[0]  # NAME/CONFIG:VERSION
    known = tfds.list_builders(with_community_datasets=False)
    if base_name not in known:
        raise unknown("dataset", name, [*others, *known])
    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        # Reads what lies on disk alone. `tfds.builder` would insist on the
        # version that its own code would prepare.
        builder = tfds.core.read_only_builder.builder_from_files(
            name, data_dir=data_dir
        )
        return builder, lambda: None
    except tfds.core.DatasetNotFoundError:
        try:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
        except Exception as error:  # unknown version or config, missing package
            raise UserError(f"--dataset={name}: {error}") from error
    return builder, functools.partial(_download, builder, data_dir)


def parts(builder, split):
    """Returns the `Split`s to train on and to hold out.

    Args:
        builder: of the dataset, which is on disk.
        split: function of the name of a split that returns a `Split`.
    """
    train = split("train")
    published = [s for s in ("validation", "test") if s in builder.info.splits]
    if published:
        return train, split(published[0])
    fifth = math.ceil(train.examples / datasets.HELD_OUT_EVERY)
    return datasets.hold_out(train, fifth)


def fingerprint_of(builder, train, held_out):
    """Returns the `Dataset.fingerprint` of a dataset and its two splits."""
    count = train.examples + held_out.examples
    return {"name": builder.info.full_name, "images": count}


def _download(builder, data_dir):
    def refuse(reason):
        return UserError(
            f"dataset {builder.name} is not in {data_dir} and cannot be downloaded: "
            f"{reason}. Prepare it where there is a network (`tfds build "
            f"{builder.name} --data_dir=DIR`), copy DIR here and pass --data_dir=DIR; "
            "--dataset=digits needs nothing"
        )

    # Without a network, tfds would try for minutes and leave folders behind.
    hosts = {urllib.parse.urlsplit(url)[:2]: url for url in builder.url_infos}
    for url in hosts.values():
        request = urllib.request.Request(url, method="HEAD")
        try:  # a new opener, because `urlopen` keeps the first proxies that it saw
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
        raise refuse(first_line(error)[:200]) from error


def _split(builder, name):
    image, label = builder.info.supervised_keys
    classes = builder.info.features[label].num_classes

    def checked(example):
        # Some published splits have no labels: all are -1.
        found = example[label]
        known = (found >= 0) & (found < classes)
        assertion = tf.debugging.Assert(known, [datasets.UNKNOWN_LABEL, found])
        with tf.control_dependencies([assertion]):
            return tf.identity(example[image]), tf.identity(found)

    return split_of(builder, name, image, checked)


def split_of(builder, name, image, function):
    """Returns a `Split` of what a function makes of each example, its image encoded.

    Args:
        builder: of the dataset, which is on disk.
        name: of the split.
        image: name of the feature that is the image.
        function: of a dict of the features.
    """

    def read(span=""):
        return builder.as_dataset(
            split=name + span,
            shuffle_files=False,
            read_config=tfds.ReadConfig(try_autocache=False, add_tfds_id=False),
            decoders={image: tfds.decode.SkipDecoding()},
        ).map(function)

    return datasets.Split(
        builder.info.splits[name].num_examples,
        read,
        part=lambda start, stop: read(f"[{start}:{stop}]"),
    )
