"""The state of a run comes back bit for bit, or not at all."""

import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.training.distribute import strategies
from keras_resnet.training.runs.checkpoints import Checkpoints


def of(directory, variables, strategy=None):
    return Checkpoints(directory, variables, strategy or tf.distribute.get_strategy())


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    return [tf.Variable(rng.normal(size=(3, 2))), tf.Variable(np.int64(2**40 + 1))]


def test_checkpoint_comes_back_bit_for_bit(tmp_path, variables):
    before = [v.numpy() for v in variables]
    of(tmp_path, variables).save(3, [{"loss": 0.1}])
    for v in variables:
        v.assign(tf.zeros_like(v))
    assert of(tmp_path, variables).restore() == (3, [{"loss": 0.1}])
    for v, old in zip(variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), old)


def test_no_checkpoint_changes_nothing(tmp_path, variables):
    assert of(tmp_path / "none", variables).restore() == (0, None)


def test_only_the_last_checkpoints_are_kept(tmp_path, variables):
    for step in range(1, 6):
        of(tmp_path, variables).save(step, [])
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == ["step-00000004.npz", "step-00000005.npz"]


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
    tmp_path, variables, damage, capsys
):
    of(tmp_path, variables).save(1, ["first"])
    first = variables[0].numpy()
    variables[0].assign(first + 1)
    of(tmp_path, variables).save(2, ["second"])
    newest = tmp_path / "step-00000002.npz"
    newest.write_bytes(newest.read_bytes()[:200] if damage is None else damage)
    assert of(tmp_path, variables).restore() == (1, ["first"])
    np.testing.assert_array_equal(variables[0].numpy(), first)
    assert "step-00000002.npz" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_not_assigned(tmp_path, variables):
    of(tmp_path, variables).save(1, [])
    other = [tf.Variable(np.zeros((2, 2))), tf.Variable(np.int64(7))]
    assert of(tmp_path, other).restore() == (0, None)
    assert other[1].numpy() == 7


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, variables, value):
    saved = of(tmp_path, variables)
    saved.save(1, [])
    variables[0].assign(variables[0] * value)
    with pytest.raises(FloatingPointError):
        saved.save(2, [])
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001.npz"]


def test_the_newest_checkpoint_is_one_that_loads(tmp_path, variables):
    saved = of(tmp_path, variables)
    assert saved.newest() is None
    saved.save(1, [])
    (tmp_path / "step-00000003.npz").write_bytes(b"no archive")
    spoilt = {"00000": np.full((3, 2), np.nan), "00001": np.int64(1), "state": "[]"}
    np.savez(tmp_path / "step-00000002.npz", **spoilt)
    assert saved.newest() == tmp_path / "step-00000001.npz"
    assert saved.restore() == (1, [])


def test_what_each_replica_has_for_itself_comes_back(tmp_path):
    strategy = strategies.create("mirrored", cpu_replicas=2)
    with strategy.scope():
        own = tf.Variable(
            [0.0, 0.0],
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )
        common = tf.Variable([1.0, 2.0, 3.0])
    for part, value in zip(own.values, (1.0, 2.0), strict=True):
        part.assign([value, 1 / 3])
    of(tmp_path, [own, common], strategy).save(1, None)
    for variable in (own, common):
        variable.assign(tf.zeros_like(variable))
    assert of(tmp_path, [own, common], strategy).restore() == (1, None)
    third = np.float32(1 / 3)
    assert [part.numpy().tolist() for part in own.values] == [[1, third], [2, third]]
    assert common.numpy().tolist() == [1, 2, 3]

    alone = tf.Variable([0.0, 0.0])  # on another number of replicas: the mean
    of(tmp_path, [alone, tf.Variable([0.0, 0.0, 0.0])]).restore()
    assert alone.numpy().tolist() == [1.5, third]
