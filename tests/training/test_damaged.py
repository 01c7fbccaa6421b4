"""Images that cannot be decoded: they are named, or left out and named."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import batching, damaged, sources
from tests.helpers.datasets import SMALL, batches

# Of five pictures of a class, tests/helpers/datasets.py holds out the second.
HELD_OUT, TRAINED_ON = "dog/1.png", "dog/3.png"


def damage(photos, name, content):
    path = photos / name
    path.write_bytes(path.read_bytes()[:200] if content == "half" else content)
    return path


@pytest.mark.parametrize("name", [HELD_OUT, TRAINED_ON])
@pytest.mark.parametrize("content", [b"", b"text", "half"])
def test_a_damaged_image_is_named(photos, name, content):
    path = damage(photos, name, content)
    dataset = sources.load("folder", photos)
    with pytest.raises(UserError, match=f"^{path} cannot be decoded: .*skip"):
        with damaged.damaged_images_named(dataset):
            batches(dataset, batch_size=4)
            list(batching.evaluation_batches(dataset.held_out, SMALL, 2))


def test_calibration_names_a_damaged_image(photos):
    path = damage(photos, TRAINED_ON, b"text")
    with pytest.raises(UserError, match=f"^{path} cannot be decoded"):
        batching.calibration_images(sources.load("folder", photos), SMALL, 100)


def test_damaged_images_are_left_out_and_named(photos, capsys):
    paths = [damage(photos, name, b"text") for name in (HELD_OUT, TRAINED_ON)]
    whole = sources.load("folder", photos)
    dataset = sources.load("folder", photos, damaged_images="skip")
    assert (dataset.train.examples, dataset.held_out.examples) == (7, 1)
    for split in (dataset.train, dataset.held_out):
        found = [encoded.numpy() for encoded, _ in split.read()]
        assert found == [open(name, "rb").read() for name in split.names]
        assert not {str(path) for path in paths} & set(split.names)
    first, *warnings, last = capsys.readouterr().err.splitlines()
    assert warnings == [
        f"warning: {path} cannot be decoded: left out" for path in reversed(paths)
    ]
    assert "10 pictures" in first and "8 pictures" in last
    assert dataset.fingerprint == whole.fingerprint


def test_a_dataset_without_a_whole_image_is_refused(photos):
    for label in ("cat", "dog"):
        for index in range(5):
            damage(photos, f"{label}/{index}.png", b"text")
    with pytest.raises(UserError, match="no image of dataset folder can be decoded"):
        sources.load("folder", photos, damaged_images="skip")


def test_a_picture_too_elongated_for_the_crop_is_named(photos):
    Image.new("RGB", (100_000, 1)).save(photos / "dog" / "3.png")
    dataset = sources.load("folder", photos)
    expected = f"{photos / 'dog' / '3.png'} has 100000 x 1 pixels: it is too elongated"
    with pytest.raises(UserError, match=expected):
        with damaged.damaged_images_named(dataset):
            batches(dataset, batch_size=4)


def test_other_errors_of_tensorflow_pass(photos):
    dataset = sources.load("folder", photos)
    with pytest.raises(tf.errors.InvalidArgumentError, match="something else"):
        with damaged.damaged_images_named(dataset):
            raise tf.errors.InvalidArgumentError(None, None, "something else")


def test_an_image_of_a_dataset_without_names_is_numbered(digits):
    def read():
        broken = tf.data.Dataset.from_tensors((b"text", np.int64(0)))
        whole = digits.train.read()
        return whole.take(2).concatenate(broken).concatenate(whole.take(1))

    split = type(digits.train)(4, read)
    dataset = type(digits)("digits", digits.labels, split, digits.held_out, {})
    with pytest.raises(UserError, match="^image 2 of the dataset cannot be decoded"):
        with damaged.damaged_images_named(dataset):
            list(batching.images(split, SMALL))
