"""A run that goes on from another: more pictures, one class more."""

import json
import shutil

import numpy as np
import pytest

from keras_resnet import training
from keras_resnet.runner import learning
from keras_resnet.runner.errors import UserError
from keras_resnet.training.transfer.previous import Previous
from tests.helpers.pictures import discs
from tests.helpers.runs import silent

FOLDER = dict(dataset="folder", progress=silent)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return discs(root, 72, 80, count=30, names=["apple", "plum"])


@pytest.fixture(scope="module")
def old(photos, tmp_path_factory):
    directory = tmp_path_factory.mktemp("old")
    changes = dict(model="resnet8", data_dir=photos, learning_rate=1e-4, epochs=1)
    return training.train(**FOLDER, **changes, model_dir=directory)


@pytest.fixture(scope="module")
def more(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("more")
    shutil.copytree(photos, root, dirs_exist_ok=True)
    return discs(root, 72, 80, count=30, names=["lime"])


def test_a_class_is_added_and_the_layers_stay(old, more, tmp_path, capsys):
    run = training.train(**FOLDER, data_dir=more, weights=old, model_dir=tmp_path / "r")
    assert run.labels == ("apple", "lime", "plum", "unknown")
    before, now = old.load_model(), run.load_model()
    for ours, theirs in zip(
        now.get_weights()[:-2], before.get_weights()[:-2], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert run.metrics["epochs"] == 0 and run.metrics["top1"] > 0.9
    found = run.metrics["before"]
    assert found["examples"] == 12 and found["run"] == str(old.directory)
    assert found["top1_before"] == old.metrics["top1"]
    assert found["top1_now"] > found["top1_before"] - 0.1
    assert "the classifier alone learns" in capsys.readouterr().err
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["settings"]["model"] == "resnet8"
    assert config["settings"]["weights"] == str(old.directory)
    trained = json.loads((old.directory / "config.json").read_text())["recipe"]
    # Its layers know the pictures: what they had not learned decides on `unknown`.
    assert config["recipe"]["known_from"] <= trained["known_from"]
    assert config["recipe"]["temperature"] >= trained["temperature"]


def test_classes_that_stay_keep_their_rows(old):
    kept = Previous.open(old).kept(["apple", "lime", "plum"])
    assert sorted(kept) == [0, 2]
    recipe = json.loads((old.directory / "config.json").read_text())["recipe"]
    kernel = old.load_model().get_layer("predictions").get_weights()[0]
    np.testing.assert_allclose(kept[2], kernel[:, 1] * recipe["temperature"], rtol=1e-5)
    rng = np.random.default_rng(0)
    features, labels = rng.uniform(size=(30, 64)), np.arange(30) % 3
    (start,) = learning.fit(features, labels, 3, 3, [0.0], kept=kept)
    np.testing.assert_array_equal(start[0][:, 0], kept[0])
    means = 40 * learning.class_means(features, labels, 3)
    np.testing.assert_allclose(start[0][:, 1], means[1])


def test_all_layers_learn_on_if_a_rate_is_given(old, more, tmp_path):
    changes = dict(learning_rate=1e-4, epochs=1, weights=old.directory)
    run = training.train(**FOLDER, **changes, data_dir=more, model_dir=tmp_path / "r")
    assert run.metrics["epochs"] == 1
    kernels = [
        x.load_model().get_layer("conv2_block1_1_conv").get_weights()[0]
        for x in (old, run)
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


def test_changed_data_are_refused_with_the_way_on(old, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    discs(tmp_path / "photos", 72, 80, count=6, names=["lime"])
    changes = dict(model="resnet8", learning_rate=1e-4, epochs=1)
    shutil.copytree(old.directory, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["settings"]["data_dir"] = str(tmp_path / "photos")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    arguments = dict(data_dir=tmp_path / "photos", model_dir=tmp_path / "run")
    with pytest.raises(UserError, match=f"--weights={tmp_path / 'run'} to go on"):
        training.train(**FOLDER, **changes, **arguments)


def test_what_cannot_go_on_is_refused(old, photos, tmp_path):
    arguments = dict(FOLDER, data_dir=photos, model_dir=tmp_path / "run")
    with pytest.raises(UserError, match="--weights is a run of resnet8: leave "):
        training.train(**arguments, weights=old, model="resnet14")
    shutil.copytree(old.directory, tmp_path / "half")
    (tmp_path / "half" / "metrics.json").unlink()
    with pytest.raises(UserError, match="has not ended"):
        training.train(**arguments, weights=tmp_path / "half")
    with pytest.raises(UserError, match="weights"):
        training.train(**arguments, weights=tmp_path / "nowhere/run")
    assert not (tmp_path / "run").exists()
