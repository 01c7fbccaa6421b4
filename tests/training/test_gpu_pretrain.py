"""Training on JAX: the library's arithmetic, and a tiny run on the CPU."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from benchmarks import gpu_plan
from keras_resnet import training
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import (
    distillation,
    losses,
    optimizers,
    recipes,
    schedules,
)
from keras_resnet.training.data import augmentation
from tests.helpers.commands import one_error, run_command

jax = pytest.importorskip("jax")
jax.config.update("jax_platforms", "cpu")

from benchmarks import jax_steps  # noqa: E402

SMALLEST = Preprocessing((7, 7))
RNG = np.random.default_rng(0)
LOGITS, TAUGHT = RNG.normal(0, 3, (2, 50, 10)).astype(np.float32)
LABELS = RNG.integers(0, 10, 50)


def possible(image, flip):
    """Every result of shifting an image of 8x8 pixels by up to one, and flipping."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    crops = [padded[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    crops += [crop[:, ::-1] for crop in crops] if flip else []
    return {crop.tobytes() for crop in crops}


@pytest.mark.parametrize("name, flip", jax_steps.AUGMENTATIONS.items())
def test_images_are_augmented_as_the_library_does(name, flip):
    image = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    many = np.repeat(image[None], 400, axis=0)
    found = np.asarray(jax_steps.augmented(many, jax.random.key(0), flip))
    assert found.dtype == np.uint8
    assert {one.tobytes() for one in found} == possible(image, flip)
    augment, _ = augmentation.AUGMENTATIONS[name]
    seeds = [tf.constant([0, number], tf.int64) for number in range(400)]
    library = [augment(tf.constant(image), None, seed).numpy() for seed in seeds]
    assert {one.tobytes() for one in library} == possible(image, flip)


@pytest.mark.parametrize("name", ["zoo", "torch", "caffe"])
def test_pixels_are_normalized_as_the_library_does(name):
    pixels = RNG.integers(0, 256, (4, 8, 8, 3), np.uint8)
    told = Preprocessing((8, 8), **NORMALIZATIONS[name])
    found = jax_steps.normalized(jax.numpy.asarray(pixels), told)
    np.testing.assert_allclose(found, told.normalize(pixels), atol=1e-5)


def test_losses_are_those_of_the_library():
    found = jax_steps.cross_entropy(LOGITS, LABELS)
    expected = losses.cross_entropy(LOGITS, tf.one_hot(LABELS, 10), 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    found = jax_steps.distillation(LOGITS, TAUGHT, 4.0)
    expected = losses.distillation(tf.constant(LOGITS), tf.constant(TAUGHT), 4.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["cifar", "paper_cifar"])
def test_steps_are_those_of_the_librarys_optimizer(recipe):
    recipe = recipes.RECIPES[recipe]
    rates = schedules.learning_rates(recipe, 2)[:3]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    optimizer = optimizers.create(keras, model, recipe, rates)
    weights = [variable.numpy() for variable in model.trainable_variables]
    momenta = [np.zeros_like(weight) for weight in weights]
    settings = {name: getattr(recipe, name) for name in ("momentum", "nesterov")}
    for rate in rates:
        gradients = [RNG.normal(size=w.shape).astype(np.float32) for w in weights]
        optimizer.apply(list(map(tf.constant, gradients)))
        weights, momenta = jax_steps.descended(
            weights, momenta, gradients, np.float32(rate), settings
        )
    for weight, variable in zip(weights, model.trainable_variables, strict=True):
        np.testing.assert_allclose(weight, variable, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay_all, expected", [(False, 3.0), (True, 3.5)])
def test_the_decay_is_half_the_sum_of_squares_of_kernels(decay_all, expected):
    weights = [np.ones((2, 3), np.float32), np.ones(1, np.float32)]
    found = jax_steps.penalty(weights, dict(weight_decay=1.0, decay_all=decay_all))
    assert found == pytest.approx(expected)


def test_an_epoch_is_the_same_in_one_program_and_step_by_step():
    images = RNG.integers(0, 256, (10, 8, 8, 3), np.uint8)
    labels = RNG.integers(0, 3, 10)
    recipe = dict(
        augmentation="pad_crop_flip",
        batch_size=4,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.01,
        decay_all=False,
    )

    def logits_of(weights, statistics, images):
        flat = images.reshape(len(images), -1)
        return flat @ weights[0], [statistics[0] + 1]

    def taught_by(pixels):
        return pixels.reshape(len(pixels), -1)[:, :3] / 64

    told = Preprocessing((8, 8))
    plan = {"share": 0.9, "temperature": 4.0}
    start = RNG.normal(0, 0.01, (192, 3)).astype(np.float32)
    rates = np.float32([0.1, 0.05])
    found = []
    for one_program in (True, False):
        epoch = jax_steps.epoch_function(
            logits_of, taught_by, recipe, told, plan, one_program
        )
        zeros = jax.numpy.zeros_like(start)
        state = ([jax.numpy.array(start)], [zeros], [jax.numpy.zeros(())])
        key = jax.random.key(3)
        given = (jax.numpy.asarray(images), jax.numpy.asarray(labels), rates, key)
        (weights, momenta, statistics), sums = epoch(state, *given)
        assert sums.shape == (2, 2) and statistics[0] == 2
        found.append((weights[0], momenta[0], sums))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert np.abs(found[0][0] - start).max() > 1e-3


def test_a_step_follows_the_loss_of_the_library():
    """All images in one batch, too small to be shifted: nothing is left to chance."""
    images = RNG.integers(0, 256, (10, 7, 7, 3), np.uint8)
    labels = RNG.integers(0, 3, 10)
    start = RNG.normal(0, 0.01, (147, 3)).astype(np.float32)
    taught = RNG.normal(0, 3, (147, 3)).astype(np.float32) / 255
    recipe = dict(
        augmentation="pad_crop",
        batch_size=10,
        momentum=0.9,
        nesterov=False,
        weight_decay=0.01,
        decay_all=False,
    )
    epoch = jax_steps.epoch_function(
        lambda weights, statistics, x: (x.reshape(10, -1) @ weights[0], statistics),
        lambda pixels: pixels.reshape(10, -1) @ taught,
        recipe,
        SMALLEST,
        {"share": distillation.SHARE, "temperature": distillation.TEMPERATURE},
    )
    state = ([jax.numpy.array(start)], [jax.numpy.zeros_like(start)], [])
    given = (jax.numpy.asarray(images), jax.numpy.asarray(labels), np.float32([0.1]))
    (weights, *_), sums = epoch(state, *given, jax.random.key(0))

    kernel = tf.Variable(start)
    with tf.GradientTape() as tape:
        logits = SMALLEST.normalize(images).reshape(10, -1) @ kernel
        values = losses.cross_entropy(logits, tf.one_hot(labels, 3), 0.0)
        of_teacher = tf.constant(images.reshape(10, -1) @ taught, tf.float32)
        soft = losses.distillation(logits, of_teacher, distillation.TEMPERATURE)
        values = (1 - distillation.SHARE) * values + distillation.SHARE * soft
        loss = tf.reduce_mean(values) + 0.01 * tf.nn.l2_loss(kernel)
    expected = start - 0.1 * tape.gradient(loss, kernel).numpy()
    np.testing.assert_allclose(weights[0], expected, rtol=1e-4, atol=1e-5)
    right = np.sum(logits.numpy().argmax(-1) == labels)
    np.testing.assert_allclose(sums, [[values.numpy().sum(), right]], rtol=1e-4)


# --- the command --------------------------------------------------------------


def run(output, *flags):
    return run_command("benchmarks.gpu_pretrain", f"--output={output}", *flags)


@pytest.mark.slow
def test_networks_are_trained_taught_and_continued(tmp_path):
    """On the digits; the first of two networks teaches the second."""
    flags = ("--dataset=digits", "--networks=resnet14,resnet8", "--epochs=6")
    output = tmp_path / "gpu"
    done = run(output, *flags)
    assert done.returncode == 0, done.stderr
    plan = json.loads((output / gpu_plan.PLAN).read_text())
    teachers = [network["teacher"] for network in plan["networks"]]
    assert teachers == [None, "resnet14-digits"]
    for name in ("resnet14", "resnet8"):
        folder = output / f"{name}-digits"
        assert f"{folder}: top-1 " in done.stdout
        found = training.Run.open(folder)
        assert found.metrics["examples_evaluated"] == 360
        assert training.evaluate(found)["top1"] == pytest.approx(
            found.metrics["top1"], abs=0.003
        )
        assert keras_resnet.load(found).labels == list("0123456789")
        config = json.loads((folder / "config.json").read_text())
        assert config["recipe"]["batch_size"] == 2 * 64
        assert config["recipe"]["learning_rate"] == pytest.approx(0.2)
        rows = (folder / "history.csv").read_text().splitlines()
        assert len(rows) == 7 and rows[0].startswith("epoch,loss,top1,val_loss")
        top1 = [float(row.split(",")[2]) for row in rows[1:]]
        assert found.metrics["top1"] > 0.8 and top1[-1] > top1[0] + 0.3
    # Broken off after its checkpoint, a training ends with the same weights.
    expected = keras_resnet.load(output / "resnet8-digits").get_weights()
    for name in ("metrics.json", "model.keras", "history.csv"):
        (output / "resnet8-digits" / name).unlink()
    done = run(output)
    assert done.returncode == 0, done.stderr
    assert "resnet8 6/6" in done.stdout and "resnet8 5/6" not in done.stdout
    assert "resnet14 " not in done.stdout
    again = keras_resnet.load(output / "resnet8-digits").get_weights()
    for value, other in zip(again, expected, strict=True):
        np.testing.assert_array_equal(value, other)
    done = run(output, "--epochs=7")
    assert "planned with --epochs=6" in done.stderr and done.returncode == 2


def test_a_wrong_request_is_one_line(tmp_path):
    done = run(tmp_path / "gpu", "--networks=resnet21")
    assert re.search("must be some of .* Received: resnet21", one_error(done))
    assert not (tmp_path / "gpu").exists()


@pytest.mark.parametrize(
    "teacher, message",
    [
        ("resnet20", "must know the classes of digits"),
        ("plain20", "no weights ship for plain20"),
        ("none.keras", "no such file. Received: 'none.keras'"),
    ],
)
def test_who_cannot_teach_is_refused(teacher, message, tmp_path):
    wanted = dict(dataset="digits", data_dir=None, networks=["resnet8"], epochs=1)
    with pytest.raises(UserError, match=message):
        gpu_plan.write(tmp_path / "gpu", **wanted, teacher=teacher)
    assert not (tmp_path / "gpu").exists()
