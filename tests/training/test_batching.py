"""Batches: the same ones every time, every example once."""

import dataclasses
import hashlib
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.training import recipes
from keras_resnet.training.data import augmentation, batching, decoding, sources
from tests.helpers.datasets import (
    EVERYTHING,
    RECIPE,
    SMALL,
    batches,
    equal,
    seen,
    train_batches,
)


def test_equal_seeds_give_equal_batches(digits):
    first = batches(digits)
    assert equal(first, batches(digits))
    assert not equal(first, batches(digits, seed=1))


VERSION_0_1 = {
    "digits": "1a17c2ce0e5fa2e1e1f1ab21a11c5335079dc62dc70a318840eb20dacc06c325",
    "cifar": "a82a399c13553090be4bff06c343d2063d919b83b838d7ace1e8ab84d0af6790",
}


@pytest.mark.parametrize("name", VERSION_0_1)
def test_batches_are_those_of_version_0_1(digits, name):
    """Of more than an epoch, as hashed there: a run that it began goes on with them."""
    raw = Preprocessing((32, 32), **NORMALIZATIONS["raw"])
    made = batching.train_batches(digits, raw, recipes.RECIPES[name], seed=1).take(30)
    content = hashlib.sha256()
    for images, targets in made.as_numpy_iterator():
        content.update(images.astype(np.uint8).tobytes())
        content.update(targets.argmax(-1).astype(np.uint8).tobytes())
    assert content.hexdigest() == VERSION_0_1[name]


def test_the_global_seed_does_not_change_the_batches(digits):
    before = batches(digits)
    try:
        tf.random.set_seed(7)
        assert equal(before, batches(digits))
    finally:
        tf.random.set_seed(None)


def test_a_resumed_epoch_sees_what_an_unbroken_one_would(digits):
    steps = batching.steps_per_epoch(digits, 100)
    unbroken = batches(digits, epochs=3)
    assert steps == 14 and len(unbroken) == 3 * steps
    for first in (2 * steps, 2 * steps + 5, steps - 1):
        assert equal(unbroken[first:], batches(digits, epochs=3, first_step=first))


def test_epochs_differ_in_order_and_augmentation(digits):
    both = batches(digits, epochs=2)
    assert not equal(both[:14], both[14:])
    labels = [np.concatenate([b[1] for b in half]) for half in (both[:14], both[14:])]
    assert not np.array_equal(*labels)


@pytest.mark.parametrize("changes", [{}, EVERYTHING])
def test_batches_do_not_depend_on_the_number_of_threads(digits, changes):
    found = []
    for threads in (1, 8):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        made = train_batches(digits, epochs=1, **changes).with_options(options)
        found.append(list(made.as_numpy_iterator()))
    assert equal(*found)


@pytest.fixture
def without_augmentation(monkeypatch):
    monkeypatch.setattr(
        augmentation, "augment", lambda recipe, preprocessing, image, seed: image
    )


def test_an_epoch_sees_every_example_once(digits, without_augmentation):
    raw = Preprocessing((8, 8), **NORMALIZATIONS["raw"])
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=1437)
    found = batching.train_batches(digits, raw, recipe, seed=0)
    expected = [np.float32([image]) for image, _ in batching.images(digits.train, raw)]
    assert seen(found.as_numpy_iterator()) == seen(zip(expected, strict=True))


def test_an_epoch_leaves_other_examples_out_than_the_one_before(
    digits, without_augmentation
):
    found = batches(digits, batch_size=1000, epochs=2)
    first, second = (seen([epoch]) for epoch in found)
    assert sum(first.values()) == 1000 and first != second


@pytest.mark.parametrize("augmentation_name", ["pad_crop", "random_resized_crop_flip"])
def test_every_example_is_augmented_with_a_seed_of_its_own(
    digits, monkeypatch, augmentation_name
):
    """Over epochs and repeats too: the same seed twice would be the same picture."""
    _, takes_resized = augmentation.AUGMENTATIONS[augmentation_name]
    seeds = []

    def noted(image, preprocessing, seed):
        def note(seed):
            seeds.append(tuple(seed))
            return np.zeros((32, 32, 3), np.uint8)

        return tf.numpy_function(note, [seed], tf.uint8)

    monkeypatch.setitem(
        augmentation.AUGMENTATIONS, augmentation_name, (noted, takes_resized)
    )
    changes = dict(augmentation=augmentation_name, epochs=3, repeats=2, batch_size=1436)
    assert len(batches(digits, seed=5, **changes)) == 3
    assert {seed for seed, _ in seeds} == {5}
    assert len(set(seeds)) == len(seeds) >= 3 * 1436


def test_repeats_are_of_one_batch_and_augmented_differently(monkeypatch, digits):
    """The examples of a batch come so many times each; none is the same picture."""
    recipe = dataclasses.replace(RECIPE, batch_size=12, repeats=3)

    def numbered(image, preprocessing, seed):
        number = tf.cast([seed[1] // 256, seed[1] % 256, 0], tf.uint8)
        return tf.fill((32, 32, 1), tf.constant(1, tf.uint8)) * number

    monkeypatch.setitem(augmentation.AUGMENTATIONS, "pad_crop", (numbered, True))
    raw = Preprocessing((32, 32), **NORMALIZATIONS["raw"])
    batches = batching.train_batches(digits, raw, recipe, seed=0)
    found = list(batches.take(50).as_numpy_iterator())
    assert len(found) == 50
    for images, targets in found:
        labels = targets.argmax(-1).reshape(3, 4)
        assert (labels == labels[0]).all()
        assert len(np.unique(images[:, 0, 0], axis=0)) == 12


CROPS = dict(augmentation="random_resized_crop_flip", batch_size=4, epochs=3)


def test_pictures_to_crop_are_decoded_once_if_all_fit(photos, monkeypatch):
    (photos / "cat" / "5.png").write_bytes((photos / "cat" / "0.png").read_bytes())
    decoded = []
    kept_for_crops = decoding.kept_for_crops

    def noted(encoded, preprocessing):
        tf.py_function(lambda: decoded.append(1), [], [])
        return kept_for_crops(encoded, preprocessing)

    monkeypatch.setattr(decoding, "kept_for_crops", noted)
    dataset = sources.load("folder", photos)
    once = batches(dataset, **CROPS)
    assert len(once) == 6 and len(decoded) == dataset.train.examples
    # From the middle of an epoch on, and for several workers, they are the same.
    assert equal(once[3:], batches(dataset, first_step=3, **CROPS))
    parts = [
        batches(dataset, share=batching.Share(index, 2, 2), **CROPS)
        for index in range(2)
    ]
    together = [
        tuple(np.concatenate(pair) for pair in zip(*both, strict=True))
        for both in zip(*parts, strict=True)
    ]
    assert equal(once, together)
    # Where they do not fit, they are decoded for each crop; these are no larger than
    # what would be kept of them, so that the crops are the same.
    most = dataset.train.examples * decoding.CROPPED_AREA * 32 * 32 * 3
    monkeypatch.setattr(batching, "CACHE_BYTES", most - 1)
    decoded.clear()
    assert equal(once, batches(dataset, **CROPS)) and not decoded


def test_repeats_are_of_pictures_of_any_size(photos):
    """Those that are kept for crops are not all of one."""
    Image.new("RGB", (70, 20)).save(photos / "cat" / "5.png")
    dataset = sources.load("folder", photos)
    found = batches(dataset, repeats=2, **CROPS)
    assert len(found) == 6
    for _, targets in found:
        assert sorted(targets[:2].argmax(-1)) == sorted(targets[2:].argmax(-1))


def test_repeats_reach_every_example_of_a_large_dataset(
    streamed, without_augmentation, monkeypatch
):
    """So many epochs as there are repeats see all of it, also what is read last."""
    monkeypatch.setattr(batching, "SHUFFLE_BUFFER", 16)
    found = batches(streamed, batch_size=40, epochs=3, repeats=3)
    assert len(found) == 3 * 10
    epochs = [seen(found[start : start + 10]) for start in (0, 10, 20)]
    assert [sum(epoch.values()) for epoch in epochs] == [400] * 3
    together = epochs[0] + epochs[1] + epochs[2]
    assert len(together) >= 399
    # 134, 133 and 133 different ones make 400: one fills up.
    assert sum(count > 3 for count in together.values()) == 1


def test_eval_sees_every_example_once(digits):
    found = list(
        batching.evaluation_batches(digits.held_out, SMALL, 100).as_numpy_iterator()
    )
    assert [len(labels) for _, labels in found] == [100, 100, 100, 100]
    expected = [int(label) for _, label in digits.held_out.read()]
    assert np.concatenate([y for _, y in found]).tolist() == expected + 40 * [-1]


@pytest.mark.parametrize("mode", NORMALIZATIONS)
def test_batches_are_normalized_as_the_preprocessing_says(digits, mode):
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
    pixels = [i for i, _ in batching.images(digits.held_out, preprocessing).take(5)]
    batch, _ = next(
        iter(batching.evaluation_batches(digits.held_out, preprocessing, 5))
    )
    np.testing.assert_allclose(
        batch, preprocessing.normalize(np.stack(pixels)), rtol=1e-6, atol=1e-6
    )


def test_calibration_reads_only_the_pictures_that_it_takes(photos):
    dataset = sources.load("folder", photos)
    chosen = batching.calibration_images(dataset, SMALL, 3, seed=1)
    order = np.random.default_rng(1).permutation(dataset.train.examples)
    for index in order[3:]:
        pathlib.Path(dataset.train.names[index]).unlink()
    again = batching.calibration_images(dataset, SMALL, 3, seed=1)
    np.testing.assert_array_equal(chosen, again)


def test_calibration_reads_training_images_chosen_by_seed(digits):
    chosen = batching.calibration_images(digits, SMALL, 50, seed=1)
    assert chosen.shape == (50, 32, 32, 3) and chosen.dtype == np.uint8
    train = {
        i.tobytes() for i, _ in batching.images(digits.train, SMALL).as_numpy_iterator()
    }
    assert len({image.tobytes() for image in chosen} & train) == 50
    again = batching.calibration_images(digits, SMALL, 50, seed=1)
    np.testing.assert_array_equal(chosen, again)
    other = batching.calibration_images(digits, SMALL, 50, seed=2)
    assert not np.array_equal(chosen, other)
    assert len(batching.calibration_images(digits, SMALL, 9999)) == 1437
