"""One loop for all training: evaluation, resume, files, refusals."""

import csv
import dataclasses
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.errors import Terminated
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import loop, recipes
from keras_resnet.training.data import batching, sources
from keras_resnet.training.distribute import strategies
from keras_resnet.training.runs import checkpoints
from keras_resnet.training.runs import folder as run_folder

SMALL = Preprocessing((32, 32))
SETTINGS = loop.Settings(
    model="resnet8",
    dataset="digits",
    data_dir=None,
    hold_out=None,
    recipe=None,
    strategy="one_device",
    cpu_replicas=0,
    batch_size=478,  # three steps an epoch
    epochs=3,
    learning_rate=0.1,
    image_size=None,
    precision="float32",
    weights=None,
    teacher=None,
    damaged_images=None,
    evaluation_epochs=1,
    seed=0,
)


def two_replicas():
    return strategies.create("mirrored", cpu_replicas=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "run"
    return directory, loop.train(SETTINGS, directory)


def history(directory):
    with open(directory / "history.csv") as file:
        return list(csv.DictReader(file))


def test_a_run_writes_its_files(finished):
    directory, metrics = finished
    assert metrics == json.loads((directory / "metrics.json").read_text())
    assert set(metrics) == {
        "top1",
        "top5",
        "loss",
        "examples_per_second",
        "epochs",
        "examples_evaluated",
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


def test_choices_need_not_see_the_test_split(tmp_path, finished):
    """Part of the training split is held out, and the rest trained on."""
    settings = dataclasses.replace(
        SETTINGS, hold_out=100, batch_size=400, evaluation_epochs=2
    )
    metrics = loop.train(settings, tmp_path)
    assert metrics["examples_evaluated"] == 100
    evaluated = [bool(row["val_top1"]) for row in history(tmp_path)]
    assert evaluated == [False, True, True]  # the last epoch always is
    dataset = run_folder.dataset_of(run_folder.read_config(tmp_path))
    assert (dataset.train.examples, dataset.held_out.examples) == (1337, 100)
    with pytest.raises(UserError, match="1437 training images. Received: 1437"):
        loop.train(dataclasses.replace(settings, hold_out=1437), tmp_path)


def test_the_metrics_are_those_of_the_saved_model(finished):
    directory, metrics = finished
    model = keras.saving.load_model(directory / "model.keras")
    images, labels = zip(
        *batching.images(sources.load("digits").held_out, SMALL).as_numpy_iterator(),
        strict=True,
    )
    scores = model.predict(SMALL.normalize(np.stack(images)), verbose=0)
    assert np.mean(scores.argmax(-1) == labels) == pytest.approx(metrics["top1"])
    in_top5 = [label in row.argsort()[-5:] for row, label in zip(scores, labels)]  # noqa: B905
    assert np.mean(in_top5) == pytest.approx(metrics["top5"])
    loss = -np.log(scores[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(metrics["loss"], rel=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_saves_a_float32_model(tmp_path, precision, capsys):
    settings = dataclasses.replace(SETTINGS, precision=precision, epochs=1)
    try:
        loop.train(settings, tmp_path / "run")
    finally:
        keras.config.set_dtype_policy("float32")
    warned = "CPUs compute slowly in float16" in capsys.readouterr().err
    assert warned == (precision == "mixed_float16")
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["precision"] == precision


def test_a_complete_run_says_so_and_changes_nothing(finished, capsys):
    directory, metrics = finished
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
    assert loop.train(SETTINGS, directory) == metrics
    assert "is complete" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in directory.rglob("*")}


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_a_broken_run_ends_with_the_same_weights_bit_for_bit(
    strategy, finished, tmp_path, monkeypatch, capsys
):
    settings, (directory, metrics) = SETTINGS, finished
    if strategy == "mirrored":
        settings = dataclasses.replace(SETTINGS, strategy=strategy, cpu_replicas=2)
        directory = tmp_path / "unbroken"
        metrics = loop.train(settings, directory)
    save = checkpoints.Checkpoints.save

    def save_and_break(self, step, state):
        save(self, step, state)
        if step in (2, 3, 7):  # inside an epoch, between two, inside the last
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", save_and_break)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                loop.train(settings, tmp_path / "broken", checkpoint_steps=1)
    assert not (tmp_path / "broken" / "metrics.json").exists()
    for folder in ("broken/.writing-a", "broken/checkpoints/.writing-b"):
        (tmp_path / folder).mkdir()  # what a kill during a write leaves
    resumed = loop.train(settings, tmp_path / "broken")
    output = capsys.readouterr().out
    assert [f"continuing after step {n} of 9" in output for n in (2, 3, 7)] == [1] * 3

    assert not list((tmp_path / "broken").rglob(".writing-*"))
    assert_equal_ends(tmp_path / "broken", directory)
    assert without_times(resumed) == without_times(metrics)


def test_sigterm_does_not_wait_for_the_evaluation(finished, tmp_path, monkeypatch):
    directory, metrics = finished
    add = loop._Pace.add
    made = []

    def add_and_terminate(self, steps, waited, elapsed):
        add(self, steps, waited, elapsed)
        made.append(steps)
        if sum(made) == 3:  # the last of the epoch
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Pace, "add", add_and_terminate)
        with pytest.raises(Terminated):
            loop.train(SETTINGS, tmp_path)
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert saved.name == "step-00000003.npz"
    assert not (tmp_path / "history.csv").exists()
    resumed = loop.train(SETTINGS, tmp_path)
    assert_equal_ends(tmp_path, directory)
    assert without_times(resumed) == without_times(metrics)


def without_times(values):
    return {**values, "examples_per_second": 0}


def assert_equal_ends(one, other):
    """Of two runs of nine steps: history, weights and optimizer."""
    for row, unbroken in zip(history(one), history(other), strict=True):
        assert without_times(row) == without_times(unbroken)
    last = "checkpoints/step-00000009.npz"
    with np.load(one / last) as ours, np.load(other / last) as theirs:
        assert ours.files == theirs.files
        for name in ours.files:
            if name != "state":
                np.testing.assert_array_equal(ours[name], theirs[name])


def test_other_flags_in_the_same_folder_are_refused(finished):
    directory, _ = finished
    for change, named in (
        (dict(epochs=4), "epochs=3 there, 4 received"),
        (dict(seed=1), "seed=0 there, 1 received"),
        (dict(image_size=48), "image_size"),
    ):
        with pytest.raises(UserError, match=named):
            loop.train(dataclasses.replace(SETTINGS, **change), directory)


def test_a_file_of_weights_is_the_same_from_another_folder(
    finished, tmp_path, monkeypatch
):
    directory, _ = finished
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(directory / "model.keras", tmp_path / "old.keras")
    metrics = []
    for folder, path in ((tmp_path, "old"), (tmp_path / "elsewhere", "../old")):
        monkeypatch.chdir(folder)
        settings = dataclasses.replace(SETTINGS, weights=f"{path}.keras", epochs=1)
        metrics.append(loop.train(settings, tmp_path / "run"))
    assert metrics[0] == metrics[1]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files but no run"):
        loop.train(SETTINGS, tmp_path)
    with pytest.raises(UserError, match="no folder"):
        loop.train(SETTINGS, tmp_path / "thesis.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_complete_run_makes_a_model_file_that_was_deleted_again(finished, tmp_path):
    directory, metrics = finished
    shutil.copytree(directory, tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()
    again = loop.train(SETTINGS, tmp_path / "run")
    assert again == metrics
    models = [
        keras.saving.load_model(folder / "model.keras").get_weights()
        for folder in (directory, tmp_path / "run")
    ]
    for one, other in zip(*models, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(model="resnet51"), "resnet50"),
        (dict(recipe="cifr"), "cifar"),
        (dict(weights="none.keras"), "no such file"),
        (dict(batch_size=2000), "at most the 1437"),
        (dict(dataset="mnits"), "mnist"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    tmp_path, change, message
):
    with pytest.raises(UserError, match=message):
        loop.train(dataclasses.replace(SETTINGS, **change), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_diverging_loss_stops_the_run(tmp_path):
    settings = dataclasses.replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(UserError, match="after step [12]: .*No checkpoint yet"):
        loop.train(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()
    # Nothing was lost: the folder takes the next try.
    settings = dataclasses.replace(SETTINGS, epochs=1)
    loop.train(settings, tmp_path / "run")
    assert run_folder.read_config(tmp_path / "run")["recipe"]["learning_rate"] == 0.1
    with pytest.raises(UserError, match="epochs=1 there, 2 received. Use"):
        loop.train(dataclasses.replace(settings, epochs=2), tmp_path / "run")


def test_a_diverged_run_with_a_checkpoint_says_how_to_go_on(tmp_path):
    settings = dataclasses.replace(SETTINGS, learning_rate=1e30)
    advice = "step-00000001.npz, but .* another --model_dir, or delete"
    for _ in range(2):
        with pytest.raises(UserError, match=f"loss is no .* step 1: .*{advice}"):
            loop.train(settings, tmp_path, checkpoint_steps=1)


def test_weights_that_diverged_are_not_saved(tmp_path):
    """The loss of a step is that of the weights before it."""
    settings = dataclasses.replace(SETTINGS, learning_rate=1e60)
    with pytest.raises(UserError, match="weights are no .* step 1: .*No checkpoint"):
        loop.train(settings, tmp_path, checkpoint_steps=1)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("content", [b"", b"text", "half"])
def test_a_damaged_image_is_named(tmp_path, content):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for index in range(5):
            pixels = np.full((40, 40, 3), 20 * index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{index}.png")
    bad = tmp_path / "dog" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60] if content == "half" else content)
    settings = dataclasses.replace(
        SETTINGS, dataset="folder", data_dir=tmp_path, image_size=32, batch_size=2
    )
    with pytest.raises(UserError, match="dog/3.png cannot be decoded"):
        loop.train(settings, tmp_path / "run")


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


def small_model():
    """Without batch normalization, whose statistics are each replica's own."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay_is_half_the_sum_of_squares_in_the_loss(
    digits, tmp_path, decay_all
):
    """One step without momentum: what is added is rate * decay * weight."""
    recipe = dataclasses.replace(
        recipes.RECIPES["digits"],
        batch_size=1436,
        epochs=1,
        warmup_epochs=0,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        decay_all=decay_all,
    )
    strategy = two_replicas()
    start = [weights + 0.1 for weights in small_model().get_weights()]
    ends = []
    for decay in (0.0, 0.5):
        with strategy.scope():
            model = small_model()
            model.set_weights(start)
        with_decay = dataclasses.replace(recipe, weight_decay=decay)
        folder = tmp_path / str(decay)
        loop.fit(keras, model, digits, SMALL, with_decay, strategy, 0, folder)
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
        loop.fit(
            keras, model, digits, SMALL, recipe, strategy, 0, tmp_path / str(index)
        )
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
    take = loop.Averages.take
    expected = model.get_weights()

    def noted(self):
        trail.append(self._model.get_weights())
        take(self)

    monkeypatch.setattr(loop.Averages, "take", noted)
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
        loop.fit(keras, copy, digits, SMALL, plain, strategy, 0, tmp_path / "plain", 1)
    assert len(steps) == 6
    for count, weights in enumerate(steps, 1):
        decay = min(1 - 1 / 6, (1 + count) / (10 + count))
        expected = [
            decay * average + (1 - decay) * weight
            for average, weight in zip(expected, weights, strict=True)
        ]
    loop.fit(keras, model, digits, SMALL, recipe, strategy, 0, tmp_path / "average", 1)
    for found, last in zip(trail[-1], steps[-1], strict=True):
        np.testing.assert_allclose(found, last, atol=1e-5)
    for found, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_over_all_replicas_together(digits, tmp_path):
    """A step without momentum is as long as the rate times the highest norm."""
    recipe = dataclasses.replace(
        recipes.RECIPES["digits"],
        batch_size=1436,
        epochs=1,
        warmup_epochs=0,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        clip_norm=1e-3,
    )
    strategy = two_replicas()
    with strategy.scope():
        model = small_model()
    start = model.get_weights()
    loop.fit(keras, model, digits, SMALL, recipe, strategy, 0, tmp_path)
    moved = [old - new for old, new in zip(start, model.get_weights(), strict=True)]
    length = np.sqrt(sum(np.sum(part.astype(np.float64) ** 2) for part in moved))
    assert length == pytest.approx(0.1 * 1e-3, rel=1e-2)


@pytest.mark.parametrize("recipe", ["strikes_back_a1", "torchvision_v2"])
def test_the_modern_recipes_train_and_resume(recipe, tmp_path, monkeypatch):
    """Smaller images, LAMB, BCE, mixing, repeats, stochastic depth and averages."""
    settings = dataclasses.replace(
        SETTINGS, recipe=recipe, batch_size=478, epochs=1, learning_rate=0.01
    )
    small = dataclasses.replace(
        recipes.RECIPES[recipe], train_size=32, image_size=48, warmup_epochs=0
    )
    monkeypatch.setitem(recipes.RECIPES, recipe, small)
    unbroken = loop.train(settings, tmp_path / "unbroken")
    save = checkpoints.Checkpoints.save

    def save_and_break(self, step, state):
        save(self, step, state)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", save_and_break)
        with pytest.raises(KeyboardInterrupt):
            loop.train(settings, tmp_path / "broken", checkpoint_steps=1)
    assert loop.train(settings, tmp_path / "broken")["loss"] == unbroken["loss"]
    one, other = (
        keras.saving.load_model(tmp_path / run / "model.keras")
        for run in ("unbroken", "broken")
    )
    assert one.input_shape == (None, 48, 48, 3)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_damaged_images_are_left_out_where_the_flag_says_so(tmp_path, capsys):
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(5):
            pixels = np.full((40, 40, 3), 20 * index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{index}.png")
    for bad in ("dog/1.png", "dog/3.png"):  # one held out, one trained on
        (tmp_path / "data" / bad).write_bytes(b"no image")
    settings = dataclasses.replace(
        SETTINGS,
        dataset="folder",
        data_dir=tmp_path / "data",
        image_size=32,
        batch_size=7,
        epochs=1,
        damaged_images="skip",
    )
    metrics = loop.train(settings, tmp_path / "run", cache=True)
    assert metrics["examples_evaluated"] == 1
    warnings = capsys.readouterr().err
    for bad in ("dog/1.png", "dog/3.png"):
        assert f"{bad} cannot be decoded: left out" in warnings
    config = run_folder.read_config(tmp_path / "run")
    assert run_folder.dataset_of(config).train.examples == 7


def test_waiting_for_input_is_told_once(capsys):
    pace = loop._Pace(tf.distribute.get_strategy())
    pace.add(1, 100.0, 100.0)  # compiles and fills buffers
    pace.warn_once()
    pace.add(1, 0.2, 1.0)
    pace.warn_once()
    assert capsys.readouterr().err == ""
    for _ in range(2):
        pace.add(1, 0.8, 1.0)
        pace.warn_once()
    assert capsys.readouterr().err.count("50% of the time went into waiting") == 1


def test_steps_without_a_look_take_about_a_second():
    pace = loop._Pace(tf.distribute.get_strategy())
    made = []
    for _ in range(6):
        made.append(pace.steps(at_most=1000))
        pace.add(made[-1], 0.0, made[-1] * 0.03)
    assert made == [1, 4, 16, 33, 33, 33]
    assert pace.steps(at_most=7) == 7


def test_slow_input_is_noticed(digits):
    """The seconds that a step says it waited are those that the input took."""
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    recipe = dataclasses.replace(recipes.RECIPES["digits"], batch_size=4)
    with strategy.scope():
        model = small_model()
        optimizer = loop.optimizers.create(keras, model, recipe, [0.1])
        totals = tf.Variable(tf.zeros(loop.SUMS, tf.float64))
    run = loop.step_function(model, optimizer, recipe, strategy, totals)
    batch = (np.zeros((4, 32, 32, 3), np.float32), np.eye(10, dtype=np.float32)[:4])

    def late(*batch):
        tf.numpy_function(lambda: __import__("time").sleep(0.2), [], [])
        return batch

    fast = tf.data.Dataset.from_tensors(batch).repeat()
    waited = {}
    for name, data in (("fast", fast), ("slow", fast.map(late))):
        batches = iter(strategy.experimental_distribute_dataset(data))
        run(batches, tf.constant(1))
        waited[name] = float(run(batches, tf.constant(5)))
    assert waited["slow"] > 0.9 and waited["fast"] < 0.5 * waited["slow"]
