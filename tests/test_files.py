import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import checkpoints
import files


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write_text(path, "one")
    files.write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        pathlib.Path(temporary).write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_json_comes_back_and_a_missing_file_is_none(tmp_path):
    files.write_json(tmp_path / "a.json", {"top1": 0.5})
    assert files.read_json(tmp_path / "a.json") == {"top1": 0.5}
    assert json.loads((tmp_path / "a.json").read_text()) == {"top1": 0.5}
    assert files.read_json(tmp_path / "none.json") is None


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    return [tf.Variable(rng.normal(size=(3, 2))), tf.Variable(np.int64(2**40 + 1))]


def test_checkpoint_comes_back_bit_for_bit(tmp_path, variables):
    before = [v.numpy() for v in variables]
    checkpoints.save(tmp_path, 3, variables, [{"loss": 0.1}])
    for v in variables:
        v.assign(tf.zeros_like(v))
    assert checkpoints.restore(tmp_path, variables) == (3, [{"loss": 0.1}])
    for v, old in zip(variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), old)


def test_no_checkpoint_changes_nothing(tmp_path, variables):
    assert checkpoints.restore(tmp_path / "none", variables) == (0, None)


def test_only_the_last_checkpoints_are_kept(tmp_path, variables):
    for epoch in range(1, 6):
        checkpoints.save(tmp_path, epoch, variables, [])
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == ["epoch-00004.npz", "epoch-00005.npz"]


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
    tmp_path, variables, damage, capsys
):
    checkpoints.save(tmp_path, 1, variables, ["first"])
    first = variables[0].numpy()
    variables[0].assign(first + 1)
    checkpoints.save(tmp_path, 2, variables, ["second"])
    newest = tmp_path / "epoch-00002.npz"
    newest.write_bytes(newest.read_bytes()[:200] if damage is None else damage)
    assert checkpoints.restore(tmp_path, variables) == (1, ["first"])
    np.testing.assert_array_equal(variables[0].numpy(), first)
    assert "epoch-00002.npz" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_not_assigned(tmp_path, variables):
    checkpoints.save(tmp_path, 1, variables, [])
    other = [tf.Variable(np.zeros((2, 2))), tf.Variable(np.int64(7))]
    assert checkpoints.restore(tmp_path, other) == (0, None)
    assert other[1].numpy() == 7
