"""The state of a run comes back bit for bit, or not at all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet.runner.errors import UserError
from keras_resnet.training import optimizers, recipes, scopes
from keras_resnet.training.averaging import Averages
from keras_resnet.training.runs.checkpoints import Checkpoints, named
from keras_resnet.training.stochastic_depth import with_stochastic_depth
from tests.helpers.runs import two_replicas


def of(directory, variables, strategy=None):
    if not isinstance(variables, dict):
        variables = {f"v/{index}": v for index, v in enumerate(variables)}
    return Checkpoints(directory, variables, strategy or tf.distribute.get_strategy())


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    return [tf.Variable(rng.normal(size=(3, 2))), tf.Variable(np.int64(2**40 + 1))]


def test_variables_come_back_by_their_names(tmp_path, variables):
    one, other = variables
    values = one.numpy(), other.numpy()
    of(tmp_path, {"a": one, "b": other}).save(1, [])
    one.assign(tf.zeros_like(one))
    other.assign(0)
    of(tmp_path, {"b": other, "a": one}).restore()
    np.testing.assert_array_equal(one.numpy(), values[0])
    assert other.numpy() == values[1]


@pytest.mark.parametrize("recipe", ["digits", "strikes_back_a1"])
def test_names_do_not_depend_on_what_the_process_made_before(recipe):
    found = []
    for _ in range(2):
        recipe_ = recipes.RECIPES[recipe]
        model = with_stochastic_depth(keras_resnet.ResNet8(weights=None), 0.1)
        optimizer = optimizers.create(keras, model, recipe_, [0.1])
        variables = named(
            model=model.variables,
            optimizer=optimizer.variables,
            averages=Averages(model, 10).variables,
            epoch=[tf.Variable(0.0, name="totals")],
        )
        found.append(list(variables))
    assert found[0] == found[1]
    assert "model/conv1_conv/kernel" in found[0] and "epoch/totals" in found[0]
    name = "sgd" if recipe == "digits" else "lamb"
    assert f"optimizer/{name}/iteration" in found[0]


def test_loss_scaling_has_names_of_its_own():
    with scopes.dtype_policy("mixed_float16"):
        model = keras_resnet.ResNet8(weights=None)
    found = []
    for _ in range(2):
        optimizer = optimizers.create(keras, model, recipes.RECIPES["digits"], [0.1])
        found.append(list(named(optimizer=optimizer.variables)))
    assert found[0] == found[1]
    assert "optimizer/loss_scale/dynamic_scale" in found[0]


def test_two_variables_of_one_name_are_a_bug_that_shows():
    with pytest.raises(ValueError, match="two variables are named 'x/same'"):
        named(x=[tf.Variable(0.0, name="same"), tf.Variable(0.0, name="same")])


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


def test_a_checkpoint_of_another_model_is_refused(tmp_path, variables):
    of(tmp_path, variables).save(1, [])
    other = [tf.Variable(np.zeros((2, 2))), tf.Variable(np.int64(7))]
    for names, reason in (
        (("v/0", "v/1"), r"its v/0 has shape \(3, 2\)"),
        (("v/0", "w"), "it has the variable v/1"),
        (("v/0", "a"), "it lacks the variable a"),
    ):
        with pytest.raises(UserError, match=f"{reason}. Use another --model_dir"):
            of(tmp_path, dict(zip(names, other, strict=True))).restore()
        assert other[1].numpy() == 7


def test_a_checkpoint_of_version_0_1_is_refused(tmp_path, variables):
    """Its variables are numbered: they cannot be told apart."""
    arrays = {f"{index:05}": v.numpy() for index, v in enumerate(variables)}
    np.savez(tmp_path / "step-00000007.npz", state="[]", **arrays)
    with pytest.raises(UserError, match="version 0.1 .* wrote it.* or delete"):
        of(tmp_path, variables).restore()


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
    spoilt = {"v/0": np.full((3, 2), np.nan), "v/1": np.int64(1), "state": "[]"}
    np.savez(tmp_path / "step-00000002.npz", **spoilt)
    assert saved.newest() == tmp_path / "step-00000001.npz"
    assert saved.restore() == (1, [])


def test_what_each_replica_has_for_itself_comes_back(tmp_path):
    strategy = two_replicas()
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
