"""`training.train`: the files of a run, resume, and what is refused."""

import dataclasses
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet import training
from keras_resnet.errors import Terminated
from keras_resnet.runner.errors import UserError
from keras_resnet.training import recipes
from keras_resnet.training.data import batching, sources
from keras_resnet.training.pace import Pace
from keras_resnet.training.runs import folder as run_folder
from tests.conftest import SMALL
from tests.helpers.runs import (
    SHORT,
    assert_equal_ends,
    break_after,
    history,
    without_times,
)


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return training.train(
        **SHORT, model_dir=tmp_path_factory.mktemp("finished") / "run"
    )


def train(directory, **changes):
    return training.train(**SHORT | changes, model_dir=directory)


def test_a_run_writes_its_files(finished):
    directory, metrics = finished.directory, finished.metrics
    assert metrics == json.loads((directory / "metrics.json").read_text())
    assert set(metrics) == {
        "top1",
        "top5",
        "loss",
        "examples_per_second",
        "epochs",
        "examples_evaluated",
        "balanced_accuracy",
        "calibration_error",
        "by_class",
    }
    assert metrics["examples_evaluated"] == 360 and metrics["epochs"] == 3
    rows = history(directory)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["val_top1"]) == metrics["top1"]
    config = json.loads((directory / "config.json").read_text())
    assert config["settings"]["recipe"] == "digits"
    assert config["recipe"]["batch_size"] == 478
    assert config["versions"]["keras"] == keras.__version__
    assert (directory / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((directory / "tensorboard").rglob("events.*"))
    assert run_folder.dataset_of(config).held_out.examples == 360


def test_choices_need_not_see_the_test_split(tmp_path):
    """Part of the training split is held out, and the rest trained on."""
    changes = dict(hold_out=100, batch_size=400, evaluation_epochs=2)
    run = train(tmp_path, **changes)
    assert run.metrics["examples_evaluated"] == 100
    evaluated = [bool(row["val_top1"]) for row in history(tmp_path)]
    assert evaluated == [False, True, True]  # the last epoch always is
    dataset = run_folder.dataset_of(run_folder.read_config(tmp_path))
    assert (dataset.train.examples, dataset.held_out.examples) == (1337, 100)
    with pytest.raises(UserError, match="1437 training images. Received: 1437"):
        train(tmp_path, **changes | {"hold_out": 1437})


def test_the_metrics_are_those_of_the_saved_model(finished):
    model, metrics = finished.load_model(), finished.metrics
    images, labels = zip(
        *batching.images(sources.load("digits").held_out, SMALL).as_numpy_iterator(),
        strict=True,
    )
    scores = model.predict(SMALL.normalize(np.stack(images)), verbose=0)
    assert np.mean(scores.argmax(-1) == labels) == pytest.approx(metrics["top1"])
    ranked = scores.argsort(axis=-1)[:, -5:]
    in_top5 = (ranked == np.array(labels)[:, None]).any(axis=-1)
    assert np.mean(in_top5) == pytest.approx(metrics["top5"])
    loss = -np.log(scores[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(metrics["loss"], rel=1e-4)


def test_the_saved_model_knows_its_input_and_its_classes(finished):
    for path in (finished, finished.directory, finished.directory / "model.keras"):
        model = keras_resnet.load(path)
        assert model.preprocessing == finished.preprocessing == SMALL
        assert tuple(model.labels) == finished.labels == tuple("0123456789")


@pytest.mark.parametrize("precision", ["mixed_bfloat16", slow("mixed_float16")])
def test_mixed_precision_saves_a_float32_model(tmp_path, precision, capsys):
    run = train(tmp_path / "run", precision=precision, epochs=1)
    warned = "CPUs compute slowly in float16" in capsys.readouterr().err
    assert warned == (precision == "mixed_float16")
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    config = run_folder.read_config(run.directory)
    assert config["settings"]["precision"] == precision
    assert keras.config.dtype_policy().name == "float32"


def test_a_complete_run_says_so_and_changes_nothing(finished, capsys):
    directory = finished.directory
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
    assert train(directory) == finished
    assert "is complete" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in directory.rglob("*")}


@pytest.mark.parametrize("strategy", [slow("one_device"), "mirrored"])
def test_a_broken_run_ends_with_the_same_weights_bit_for_bit(
    strategy, finished, tmp_path, monkeypatch, capsys
):
    changes, unbroken = {}, finished
    if strategy == "mirrored":
        changes = dict(strategy=strategy, cpu_replicas=2)
        unbroken = train(tmp_path / "unbroken", **changes)
    with monkeypatch.context() as patch:
        # Inside an epoch, between two, and inside the last.
        break_after(patch, 2, 3, 7)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path / "broken", checkpoint_steps=1, **changes)
    assert not (tmp_path / "broken" / "metrics.json").exists()
    for folder in ("broken/.writing-a", "broken/checkpoints/.writing-b"):
        (tmp_path / folder).mkdir()  # what a kill during a write leaves
    resumed = train(tmp_path / "broken", **changes)
    output = capsys.readouterr().out
    assert [f"continuing after step {n} of 9" in output for n in (2, 3, 7)] == [1] * 3

    assert not list((tmp_path / "broken").rglob(".writing-*"))
    assert_equal_ends(tmp_path / "broken", unbroken.directory)
    assert without_times(resumed.metrics) == without_times(unbroken.metrics)


def test_sigterm_does_not_wait_for_the_evaluation(finished, tmp_path, monkeypatch):
    add = Pace.add
    made = []

    def add_and_terminate(self, steps, waited, elapsed):
        add(self, steps, waited, elapsed)
        made.append(steps)
        if sum(made) == 3:  # the last of the epoch
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Pace, "add", add_and_terminate)
        with pytest.raises(Terminated):
            train(tmp_path)
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert saved.name == "step-00000003.npz"
    assert not (tmp_path / "history.csv").exists()
    resumed = train(tmp_path)
    assert_equal_ends(tmp_path, finished.directory)
    assert without_times(resumed.metrics) == without_times(finished.metrics)


def test_other_settings_in_the_same_folder_are_refused(finished):
    for change, named in (
        (dict(epochs=4), "epochs=3 there, 4 received"),
        (dict(seed=1), "seed=0 there, 1 received"),
        (dict(image_size=48), "image_size"),
    ):
        with pytest.raises(UserError, match=named):
            train(finished.directory, **change)


def test_a_file_of_weights_is_the_same_from_another_folder(
    finished, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(finished.directory / "model.keras", tmp_path / "old.keras")
    runs = []
    for folder, path in ((tmp_path, "old"), (tmp_path / "elsewhere", "../old")):
        monkeypatch.chdir(folder)
        runs.append(train(tmp_path / "run", weights=f"{path}.keras", epochs=1))
    assert runs[0] == runs[1]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files but no run"):
        train(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        train(tmp_path / "thesis.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_complete_run_makes_a_model_file_that_was_deleted_again(finished, tmp_path):
    shutil.copytree(finished.directory, tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()
    again = train(tmp_path / "run")
    assert again.metrics == finished.metrics
    weights = [run.load_model().get_weights() for run in (finished, again)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(model="resnet51"), "resnet50"),
        (dict(model=7), "unknown model: .* Received: 7"),
        (dict(recipe="cifr"), "cifar"),
        (dict(weights="none.keras"), "no such file or folder. Received: 'none.keras'"),
        (dict(weights="runs/none"), "no such file or folder. Received: 'runs/none'"),
        (dict(batch_size=2000), "at most the 1437"),
        (dict(dataset="mnits"), "mnist"),
        (dict(dataset=7), "--dataset must be a name. Received: 7"),
        (dict(strategy="miror"), "unknown strategy: did you mean mirrored"),
        (dict(cpu_replicas=2), "--cpu_replicas needs --strategy=mirrored"),
        (dict(cpu_replicas=-1), "--cpu_replicas .* at least 0. Received: -1"),
        (dict(precision="half"), "unknown precision: .* mixed_float16"),
        (dict(damaged_images="drop"), "unknown damaged_images: .*stop"),
        (dict(epochs=0), "--epochs must be a whole number, at least 1. Received: 0"),
        (dict(epochs="3"), "--epochs must be a whole number, .* Received: '3'"),
        (dict(image_size=16), "--image_size .* at least 32. Received: 16"),
        (dict(hold_out=0), "--hold_out .* at least 1"),
        (dict(learning_rate=float("nan")), "--learning_rate must be a finite number"),
        (dict(learning_rate=0), "--learning_rate must be a finite number above 0"),
        (dict(evaluation_epochs=None), "--evaluation_epochs must be a whole number"),
        (dict(seed=1.5), "--seed must be a whole number"),
        (dict(data_dir=7), "--data_dir must be a path. Received: 7"),
        (dict(checkpoint_steps=0), "--checkpoint_steps .* at least 1"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    tmp_path, change, message
):
    with pytest.raises(UserError, match=message) as caught:
        train(tmp_path / "run", **change)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_diverging_loss_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="after step [12]: .*No checkpoint yet"):
        train(tmp_path / "run", learning_rate=1e30)
    assert not (tmp_path / "run" / "model.keras").exists()
    # Nothing was lost: the folder takes the next try.
    train(tmp_path / "run", epochs=1)
    assert run_folder.read_config(tmp_path / "run")["recipe"]["learning_rate"] == 0.1
    with pytest.raises(UserError, match="epochs=1 there, 2 received. Use"):
        train(tmp_path / "run", epochs=2)


def test_a_diverged_run_with_a_checkpoint_says_how_to_go_on(tmp_path):
    advice = "step-00000001.npz, but .* another --model_dir, or delete"
    for _ in range(2):
        with pytest.raises(UserError, match=f"loss is no .* step 1: .*{advice}"):
            train(tmp_path, learning_rate=1e30, checkpoint_steps=1)


def test_weights_that_diverged_are_not_saved(tmp_path):
    """The loss of a step is that of the weights before it."""
    with pytest.raises(UserError, match="weights are no .* step 1: .*No checkpoint"):
        train(tmp_path, learning_rate=1e60, checkpoint_steps=1)
    assert not list(tmp_path.rglob("*.npz"))


def photographs(folder, count=5):
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = np.full((40, 40, 3), 20 * index, np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


PHOTOGRAPHS = dict(dataset="folder", image_size=32, batch_size=2, epochs=1)


@pytest.mark.parametrize("content", [b"", b"text", "half"])
def test_a_damaged_image_is_named(tmp_path, content):
    bad = photographs(tmp_path / "photos") / "dog" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60] if content == "half" else content)
    with pytest.raises(UserError, match="dog/3.png cannot be decoded"):
        train(tmp_path / "run", **PHOTOGRAPHS, data_dir=tmp_path / "photos")


def test_damaged_images_are_left_out_where_the_flag_says_so(tmp_path, capsys):
    photos = photographs(tmp_path / "photos")
    for bad in ("dog/1.png", "dog/3.png"):  # one held out, one trained on
        (photos / bad).write_bytes(b"no image")
    changes = PHOTOGRAPHS | dict(batch_size=7, damaged_images="skip", cache=True)
    run = train(tmp_path / "run", **changes, data_dir=photos)
    assert run.metrics["examples_evaluated"] == 1
    warnings = capsys.readouterr().err
    for bad in ("dog/1.png", "dog/3.png"):
        assert f"{bad} cannot be decoded: left out" in warnings
    config = run_folder.read_config(tmp_path / "run")
    assert run_folder.dataset_of(config).train.examples == 7


@pytest.mark.parametrize("recipe", [slow("strikes_back_a1"), "torchvision_v2"])
def test_the_modern_recipes_train_and_resume(recipe, tmp_path, monkeypatch):
    """Smaller images, LAMB, BCE, mixing, repeats, stochastic depth and averages."""
    small = dataclasses.replace(
        recipes.RECIPES[recipe], train_size=32, image_size=48, warmup_epochs=0
    )
    monkeypatch.setitem(recipes.RECIPES, recipe, small)
    changes = dict(recipe=recipe, epochs=1, learning_rate=0.01)
    unbroken = train(tmp_path / "unbroken", **changes)
    with monkeypatch.context() as patch:
        break_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken", checkpoint_steps=1, **changes)
    broken = train(tmp_path / "broken", **changes)
    assert broken.metrics["loss"] == unbroken.metrics["loss"]
    models = [run.load_model() for run in (unbroken, broken)]
    assert models[0].input_shape == (None, 48, 48, 3)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
