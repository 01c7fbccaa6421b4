"""Batches of scenes: fixed shapes, the same ones every time, every example once."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.boxes import boxes_to_input, mask_to_input
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.geometry import resize_and_crop
from keras_resnet.training import recipes
from keras_resnet.training.data import batching as plain
from keras_resnet.training.data import damaged
from keras_resnet.training.data.scenes import batching, sources
from tests.helpers.scenes import made_scenes, write_voc

TASKS = pytest.mark.parametrize("task", ["detect", "segment"])
RECIPE = recipes.Recipe(
    epochs=2,
    batch_size=4,
    learning_rate=0.1,
    weight_decay=0.0,
    augmentation="scale_crop_flip_colour",
    image_size=64,
)
HOW = Preprocessing((48, 64), resize="pad", **NORMALIZATIONS["raw"])


def batches(dataset, seed=0, first_step=0, share=plain.WHOLE, how=HOW, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    made = batching.train_batches(dataset, how, recipe, seed, first_step, share)
    return list(made.as_numpy_iterator())


def assert_equal(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)


def joined(parts):
    """The batches of several workers as those of one."""
    return [
        tf.nest.map_structure(lambda *x: np.concatenate(x), *pair)
        for pair in zip(*parts, strict=True)
    ]


@TASKS
def test_equal_seeds_give_equal_batches(task, annotated):
    dataset = annotated[1][task]
    first = batches(dataset)
    assert_equal(first, batches(dataset))
    others = batches(dataset, seed=1)
    assert not np.array_equal(first[0][0], others[0][0])


@TASKS
def test_batches_have_fixed_shapes(task, annotated):
    dataset = annotated[1][task]
    assert dataset.train.examples == 10
    found = batches(dataset)
    assert len(found) == 2 * 2 == 2 * plain.steps_per_epoch(dataset, 4)
    for images, target in found:
        assert images.shape == (4, *HOW.input_size, 3) and images.dtype == np.float32
        if task == "segment":
            assert target.shape == (4, *HOW.input_size) and target.dtype == np.uint8
            continue
        most = dataset.most_objects
        assert target.boxes.shape == (4, most, 4) and target.classes.shape == (4, most)
        assert target.ignored.shape == target.crowd.shape == (4, most)
        is_empty = target.classes == -1
        assert is_empty.any() and not target.boxes[is_empty].any()
        assert (target.boxes[~is_empty] >= 0).all()
        assert (target.boxes[~is_empty] <= 1).all()


@TASKS
def test_a_resumed_epoch_sees_what_an_unbroken_one_would(task, annotated):
    dataset = annotated[1][task]
    unbroken = batches(dataset, epochs=3)
    for first in (1, 2, 5):
        resumed = batches(dataset, epochs=3, first_step=first)
        assert_equal(unbroken[first:], resumed)


@TASKS
def test_workers_share_the_batches_of_one(task, annotated):
    dataset = annotated[1][task]
    parts = [batches(dataset, share=plain.Share(i, 2, 2)) for i in range(2)]
    assert_equal(batches(dataset), joined(parts))


@TASKS
def test_pictures_that_do_not_fit_into_memory_give_the_same(
    task, annotated, monkeypatch
):
    dataset = annotated[1][task]
    once = batches(dataset)
    monkeypatch.setattr(plain, "CACHE_BYTES", 0)
    assert_equal(once, batches(dataset))


def test_every_example_is_changed_with_a_seed_of_its_own(annotated, monkeypatch):
    seeds = []
    augment = batching.augmentation.augment

    def noted(changes, size, image, target, seed):
        tf.numpy_function(lambda seed: seeds.append(tuple(seed)), [seed], [])
        return augment(changes, size, image, target, seed)

    monkeypatch.setattr(batching.augmentation, "augment", noted)
    batches(annotated[1]["detect"], seed=5, epochs=3)
    assert len(set(seeds)) == len(seeds) >= 3 * 8
    assert {seed for seed, _ in seeds} == {5}


def evaluated(dataset, how=HOW, share=plain.WHOLE, batch_size=4):
    made = batching.evaluation_batches(dataset, dataset.train, how, batch_size, share)
    return list(made.as_numpy_iterator())


@TASKS
@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_evaluation_sees_every_example_once_as_the_device_does(task, annotated, resize):
    scenes, datasets = annotated
    dataset = datasets[task]
    how = dataclasses.replace(HOW, resize=resize)
    found = evaluated(dataset, how)
    assert [is_real.tolist() for *_, is_real in found] == [
        [True] * 4,
        [True] * 4,
        [True] * 2 + [False] * 2,
    ]
    by_name = {scene.name: scene for scene in scenes}
    for number, name in enumerate(dataset.train.names):
        scene = by_name[name[-7:-4]]
        (images, target, _), row = found[number // 4], number % 4
        expected = resize_and_crop(Image.fromarray(scene.pixels), how)
        np.testing.assert_array_equal(images[row], expected)
        if task == "segment":
            expected = mask_to_input(scene.mask, how)
            np.testing.assert_array_equal(target[row], expected)
            continue
        size = scene.pixels.shape[1::-1]
        boxes = np.reshape(scene.boxes, (-1, 4)) / np.array(size[::-1] * 2)
        objects = batching.unpadded(target, row)
        np.testing.assert_allclose(
            objects.boxes, boxes_to_input(boxes, size, how), atol=1e-6
        )
        assert objects.classes.tolist() == scene.classes


@TASKS
def test_workers_share_the_evaluation(task, annotated):
    dataset = annotated[1][task]
    parts = [evaluated(dataset, share=plain.Share(i, 2, 2)) for i in range(2)]
    assert_equal(evaluated(dataset), joined(parts))


@TASKS
def test_replicas_take_the_batches(task, annotated):
    """Each gets half of a batch; the last one of the evaluation is filled up."""
    dataset = annotated[1][task]
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    @tf.function
    def count(batch):
        def on_replica(images, target, is_real):
            tf.debugging.assert_equal(tf.shape(images)[0], 2)
            return tf.reduce_sum(tf.cast(is_real, tf.int32))

        return strategy.reduce("SUM", strategy.run(on_replica, batch), axis=None)

    counts = [
        int(count(batch))
        for batch in strategy.distribute_datasets_from_function(
            lambda context: batching.evaluation_batches(
                dataset, dataset.train, HOW, 4, plain.Share.of(context)
            )
        )
    ]
    assert counts == [4, 4, 2]


def test_pictures_that_lie_on_their_side_are_turned_with_their_boxes(tmp_path):
    """By EXIF, as phones store them: the boxes are those of the upright picture."""
    scenes = made_scenes(7)[2:]
    write_voc(tmp_path, scenes)
    upright = evaluated(sources.load("detect", "voc_folder", tmp_path))
    for scene in scenes:
        exif = Image.Exif()
        exif[0x0112] = 8
        stored = Image.fromarray(np.rot90(scene.pixels, -1))
        stored.save(tmp_path / f"{scene.name}.png", exif=exif)
    assert_equal(upright, evaluated(sources.load("detect", "voc_folder", tmp_path)))


@TASKS
def test_calibration_takes_training_pictures_as_the_device_sees_them(task, annotated):
    dataset = annotated[1][task]
    found = plain.calibration_images(dataset, HOW, 100)
    assert found.shape == (dataset.train.examples, *HOW.input_size, 3)


@pytest.mark.parametrize("damaged_images", ["stop", "skip"])
def test_a_truncated_picture_is_named(damaged_images, tmp_path, capsys):
    """Its beginning is whole, so that only decoding it shows the damage."""
    write_voc(tmp_path, made_scenes())
    path = tmp_path / "004.png"
    path.write_bytes(path.read_bytes()[:-200])
    dataset = sources.load(
        "detect", "voc_folder", tmp_path, damaged_images=damaged_images
    )
    if damaged_images == "skip":
        assert dataset.train.examples + dataset.held_out.examples == 9
        assert f"warning: {path} cannot be decoded" in capsys.readouterr().err
        batches(dataset)
    else:
        with pytest.raises(UserError, match=f"{path} cannot be decoded"):
            with damaged.damaged_images_named(dataset):
                batches(dataset)
