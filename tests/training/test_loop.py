"""The loop on a small network: decay, clipping, averages, replicas, waiting."""

import dataclasses
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.training import loop, optimizers, recipes
from keras_resnet.training.averaging import Averages
from keras_resnet.training.data import sources
from keras_resnet.training.runs import checkpoints
from keras_resnet.training.steps import SUMS, step_function
from tests.conftest import SMALL
from tests.helpers.networks import small_model
from tests.helpers.runs import silent, two_replicas

# One step of all training images, without momentum.
ONE_STEP = dataclasses.replace(
    recipes.RECIPES["digits"],
    batch_size=1436,
    epochs=1,
    warmup_epochs=0,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
)


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


def fit(model, dataset, recipe, strategy, directory, checkpoint_steps=1000):
    return loop.fit(
        loop.Job(
            api=keras,
            model=model,
            dataset=dataset,
            preprocessing=SMALL,
            recipe=recipe,
            strategy=strategy,
            seed=0,
            directory=directory,
            checkpoint_steps=checkpoint_steps,
            progress=silent,
        )
    )


@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay_is_half_the_sum_of_squares_in_the_loss(
    digits, tmp_path, decay_all
):
    """One step without momentum: what is added is rate * decay * weight."""
    recipe = dataclasses.replace(ONE_STEP, decay_all=decay_all)
    strategy = two_replicas()
    start = [weights + 0.1 for weights in small_model().get_weights()]
    ends = []
    for decay in (0.0, 0.5):
        with strategy.scope():
            model = small_model()
            model.set_weights(start)
        with_decay = dataclasses.replace(recipe, weight_decay=decay)
        folder = tmp_path / str(decay)
        fit(model, digits, with_decay, strategy, folder)
        ends.append(model.get_weights())
    for plain, decayed, old in zip(*ends, start, strict=True):
        expected = 0.1 * 0.5 * old if decay_all or old.ndim > 1 else 0 * old
        np.testing.assert_allclose(plain - decayed, expected, atol=1e-6)


def test_two_replicas_on_one_batch_equal_one_replica(digits, tmp_path):
    recipe = dataclasses.replace(recipes.RECIPES["digits"], batch_size=718, epochs=1)
    keras.utils.set_random_seed(0)
    start = small_model().get_weights()
    ends = []
    for index, strategy in enumerate(
        (tf.distribute.OneDeviceStrategy("/cpu:0"), two_replicas())
    ):
        with strategy.scope():
            model = small_model()
            model.set_weights(start)
        fit(model, digits, recipe, strategy, tmp_path / str(index))
        ends.append(model.get_weights())
    for one, two, old in zip(*ends, start, strict=True):
        moved = np.abs(one - old).max()
        assert 0 < moved and np.abs(one - two).max() < 1e-4 * moved


def test_the_average_of_the_weights_is_evaluated_and_saved(
    digits, tmp_path, monkeypatch
):
    """Written out: each step the average moves towards the weights."""
    recipe = dataclasses.replace(
        recipes.RECIPES["digits"], batch_size=478, epochs=2, average_epochs=2.0
    )
    strategy = two_replicas()
    trail = []
    with strategy.scope():
        model = small_model()
    apply = Averages.apply
    expected = model.get_weights()

    def noted(self):
        trail.append(self._model.get_weights())
        apply(self)

    monkeypatch.setattr(Averages, "apply", noted)
    plain = dataclasses.replace(recipe, average_epochs=0.0)
    with strategy.scope():
        copy = small_model()
        copy.set_weights(expected)
    save = checkpoints.Checkpoints.save

    def note_and_save(self, step, state):
        steps.append(copy.get_weights())
        save(self, step, state)

    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", note_and_save)
        fit(copy, digits, plain, strategy, tmp_path / "plain", checkpoint_steps=1)
    assert len(steps) == 6
    for count, weights in enumerate(steps, 1):
        decay = min(1 - 1 / 6, (1 + count) / (10 + count))
        expected = [
            decay * average + (1 - decay) * weight
            for average, weight in zip(expected, weights, strict=True)
        ]
    fit(model, digits, recipe, strategy, tmp_path / "average", checkpoint_steps=1)
    for found, last in zip(trail[-1], steps[-1], strict=True):
        np.testing.assert_allclose(found, last, atol=1e-5)
    for found, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_over_all_replicas_together(digits, tmp_path):
    """A step without momentum is as long as the rate times the highest norm."""
    recipe = dataclasses.replace(ONE_STEP, clip_norm=1e-3)
    strategy = two_replicas()
    with strategy.scope():
        model = small_model()
    start = model.get_weights()
    fit(model, digits, recipe, strategy, tmp_path)
    moved = [old - new for old, new in zip(start, model.get_weights(), strict=True)]
    length = np.sqrt(sum(np.sum(part.astype(np.float64) ** 2) for part in moved))
    assert length == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_slow_input_is_noticed(digits):
    """The seconds that a step says it waited are those that the input took."""
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    recipe = dataclasses.replace(recipes.RECIPES["digits"], batch_size=4)
    with strategy.scope():
        model = small_model()
        optimizer = optimizers.create(keras, model, recipe, [0.1])
        totals = tf.Variable(tf.zeros(SUMS, tf.float64))
    run = step_function(model, optimizer, recipe, strategy, totals)
    batch = (np.zeros((4, 32, 32, 3), np.float32), np.eye(10, dtype=np.float32)[:4])

    def late(*batch):
        tf.numpy_function(lambda: time.sleep(0.5), [], [])
        return batch

    fast = tf.data.Dataset.from_tensors(batch).repeat()
    waited = {}
    for name, data in (("fast", fast), ("slow", fast.map(late))):
        batches = iter(strategy.experimental_distribute_dataset(data))
        run(batches, tf.constant(1))
        waited[name] = float(run(batches, tf.constant(5)))
    # Some of the five batches may be ready before, and a busy machine makes steps slow.
    assert 1.2 < waited["slow"] < 3 and waited["fast"] < 0.5 * waited["slow"]
