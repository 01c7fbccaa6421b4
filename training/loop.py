"""Compile, fit, evaluate, checkpoint, resume, report: one loop for all training.

`fit` takes the Keras to use as an argument: Keras 3 for a float model, tf_keras
for a quantization-aware one. Data, schedule, metrics and files are the same.
"""

import csv
import dataclasses
import importlib.metadata
import io
import json
import math
import pathlib
import shutil
import time
import zipfile

import keras
import numpy as np
import tensorflow as tf

import checkpoints
import files
import input_pipeline
import keras_resnet
import recipes
import strategies
from command_line import UserError, unknown
from fused_norm import with_fused_norm
from keras_resnet.preprocessing import Preprocessing

HISTORY = (
    "epoch",
    "loss",
    "top1",
    "val_loss",
    "val_top1",
    "val_top5",
    "learning_rate",
    "examples_per_second",
)
METRICS = (
    "top1",
    "top5",
    "loss",
    "examples_per_second",
    "epochs",
    "examples_evaluated",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the flags of `train.py` say; `None` means that the recipe decides."""

    model: str
    dataset: str
    data_dir: str | None
    recipe: str | None
    strategy: str
    cpu_replicas: int
    batch_size: int | None
    epochs: int | None
    learning_rate: float | None
    image_size: int | None
    precision: str
    weights: str | None
    seed: int


def train(settings, directory):
    """Trains a model of the zoo and writes the files of the run.

    Args:
        settings: a `Settings`.
        directory: the run's folder, new or of a run with equal settings: that
            one is continued.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        UserError: a setting is wrong, or the folder holds another run.
    """
    directory = pathlib.Path(directory)
    if settings.model not in keras_resnet.list_models():
        raise unknown("model", settings.model, keras_resnet.list_models())
    name = settings.recipe or recipes.default_name(settings.dataset)
    if name not in recipes.RECIPES:
        raise unknown("recipe", name, recipes.RECIPES)
    recipe = _overridden(recipes.RECIPES[name], settings)
    settings = dataclasses.replace(
        settings, recipe=name, data_dir=_absolute(settings.data_dir)
    )
    strategy = strategies.create(settings.strategy, settings.cpu_replicas)
    dataset = input_pipeline.load(settings.dataset, settings.data_dir)
    check_batch_size(recipe.batch_size, dataset, strategy)

    def build(precision):
        keras.config.set_dtype_policy(precision)
        shape = (recipe.image_size, recipe.image_size, 3)
        return build_model(
            settings.model,
            weights=settings.weights,
            input_shape=shape,
            classes=len(dataset.labels),
        )

    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        plain = build(settings.precision)
        model = with_fused_norm(plain)
    # Published weights want the normalization that they were trained with.
    preprocessing = dataclasses.replace(
        getattr(plain, "preprocessing", None) or Preprocessing((0, 0)),
        input_size=(recipe.image_size, recipe.image_size),
        crop_fraction=recipe.crop_fraction,
    )
    result = directory / "model.keras"
    finished = claim(directory, result, settings, recipe, preprocessing, dataset.labels)
    if finished:
        return finished
    metrics = fit(
        keras, model, dataset, preprocessing, recipe, strategy, settings.seed, directory
    )
    # The file holds a plain float32 model without optimizer, whatever was trained.
    saved = build("float32")
    saved.set_weights(model.get_weights())
    with files.replacing(result) as temporary:
        saved.save(temporary)
    files.write_json(directory / "metrics.json", metrics)
    return metrics


def build_model(name, **arguments):
    """Builds a model of the zoo by its name in `list_models()`.

    Raises:
        UserError: an argument is wrong, or the weights cannot be loaded.
    """
    builder = getattr(keras_resnet, name.replace("resnet", "ResNet"))
    try:
        return builder(**arguments)
    except ValueError as error:
        raise UserError(str(error)) from error


def _overridden(recipe, settings):
    """Returns the recipe with what the flags change."""
    batch_size = settings.batch_size or recipe.batch_size
    rate = settings.learning_rate
    if rate is None:
        rate = recipe.learning_rate * batch_size / recipe.batch_size
    return dataclasses.replace(
        recipe,
        batch_size=batch_size,
        learning_rate=rate,
        epochs=settings.epochs or recipe.epochs,
        image_size=settings.image_size or recipe.image_size,
    )


def _absolute(path):
    return str(pathlib.Path(path).expanduser().resolve()) if path else None


def check_batch_size(batch_size, dataset, strategy):
    """Raises `UserError` where batches cannot be cut or shared evenly."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        nearest = max(1, round(batch_size / replicas)) * replicas
        raise UserError(
            f"--batch_size must be a multiple of the {replicas} replicas: try "
            f"{nearest}. Received: {batch_size}"
        )
    if batch_size > dataset.train.examples:
        raise UserError(
            f"--batch_size must be at most the {dataset.train.examples} training "
            f"images. Received: {batch_size}"
        )


# --- The folder of a run ------------------------------------------------------


def claim(directory, result, settings, recipe, preprocessing, labels):
    """Writes `config.json`, or checks that the one there is the same.

    Args:
        directory: folder of the run, a `pathlib.Path`.
        result: path of what the run makes at its end.
        settings: dataclass of what the user chose.
        recipe: the `Recipe` that follows from it.
        preprocessing: the model's `Preprocessing`.
        labels: names of the classes.

    Returns:
        The metrics of the run if it is complete, else None: begin or continue it.

    Raises:
        UserError: the folder holds a run of other settings, or other files.
    """
    config = {
        "settings": dataclasses.asdict(settings),
        "recipe": dataclasses.asdict(recipe),
        "preprocessing": dataclasses.asdict(preprocessing),
        "labels": labels,
        "versions": versions(),
    }
    config = _as_on_disk(config)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--model_dir is no folder. Received: {str(directory)!r}")
    if not (directory / "config.json").exists():
        # A run that was killed while it wrote its first file leaves the like.
        unfinished = ".writing-*"
        if directory.is_dir() and any(
            not path.match(unfinished) for path in directory.iterdir()
        ):
            raise UserError(
                f"{directory} holds files but no run (no config.json). Choose another "
                "--model_dir"
            )
        files.write_json(directory / "config.json", config)
        return None

    there = read_config(directory)
    differences = {}
    for section in ("settings", "recipe", "preprocessing"):
        for key, value in config[section].items():
            if there[section].get(key) != value:
                received = f"{_shown(there[section].get(key))} there, {_shown(value)}"
                differences.setdefault(key, f"{key}={received} received")
    if there["labels"] != config["labels"]:
        differences["labels"] = "the dataset's labels differ"
    metrics = read_metrics(directory)
    if differences and not metrics and not checkpoints.any_in(_checkpoints(directory)):
        # It failed before it had anything to lose, as with too high a rate.
        shutil.rmtree(directory / "tensorboard", ignore_errors=True)
        files.write_json(directory / "config.json", config)
        return None
    if differences:
        raise UserError(
            f"{directory} holds another run: {'; '.join(differences.values())}. Use "
            "its flags to continue it, another --model_dir, or delete that folder"
        )
    if metrics and result.exists():
        print(f"{directory} is complete; nothing to do")
        return metrics
    return None


def _checkpoints(directory):
    return directory / "checkpoints"


def _shown(value):
    return "(default)" if value is None else value


def _as_on_disk(value):
    return json.loads(json.dumps(value))  # tuples become lists


def read_config(directory):
    """Returns the `config.json` of a run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = pathlib.Path(directory) / "config.json"
    config = _read_json(path)
    if config is None:
        raise UserError(f"{path} is missing: {str(directory)!r} holds no run")
    try:
        recipe = recipes.Recipe(**config["recipe"])
        preprocessing = Preprocessing(**config["preprocessing"])
        whole = (
            _as_on_disk(dataclasses.asdict(recipe)) == config["recipe"]
            and _as_on_disk(dataclasses.asdict(preprocessing))
            == config["preprocessing"]
            and isinstance(config["settings"], dict)
            and all(isinstance(label, str) for label in config["labels"])
        )
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not whole:
        raise UserError(f"{path} is damaged: not what this version writes")
    return config


def read_metrics(directory):
    """Returns the `metrics.json` of a run, or None where it has not ended.

    Raises:
        UserError: it is damaged.
    """
    path = pathlib.Path(directory) / "metrics.json"
    metrics = _read_json(path)
    if metrics is not None and not (
        isinstance(metrics, dict)
        and all(isinstance(metrics.get(key), int | float) for key in METRICS)
    ):
        raise UserError(f"{path} is damaged: it must hold {', '.join(METRICS)}")
    return metrics


def _read_json(path):
    try:
        return files.read_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def dataset_of(config, data_dir=None):
    """Opens the dataset of a run.

    Args:
        config: the run's `read_config`.
        data_dir: where it lies; default: where the training found it.

    Returns:
        An `input_pipeline.Dataset`.

    Raises:
        UserError: it cannot be opened, or its classes are not the run's.
    """
    settings = config["settings"]
    dataset = input_pipeline.load(settings["dataset"], data_dir or settings["data_dir"])
    if list(dataset.labels) != config["labels"]:
        raise UserError(
            f"dataset {dataset.name} has other classes than the model was trained on: "
            f"{_few(dataset.labels)}, not {_few(config['labels'])}"
        )
    return dataset


def _few(labels):
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")


def load_model(directory, config):
    """Loads the model that a run of train.py has made.

    Args:
        directory: folder of the run.
        config: its `read_config`.

    Returns:
        (`keras.Model`, its `Preprocessing`).

    Raises:
        UserError: there is no model.keras, or it is damaged.
    """
    model = load_keras_file(pathlib.Path(directory) / "model.keras")
    return model, Preprocessing(**config["preprocessing"])


def load_keras_file(path):
    """Loads a .keras file without running code from it.

    Raises:
        UserError: it is missing, damaged or no .keras file.
    """
    if not path.is_file():
        raise UserError(f"no such model file (train it first?): {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no readable .keras file: truncated, or no archive")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py and Keras raise many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no readable .keras file: {reason[0]}") from error


def versions():
    """Returns the versions of what a result depends on."""
    names = (
        "tensorflow",
        "keras",
        "tf_keras",
        "tensorflow-model-optimization",
        "numpy",
    )
    found = {name: importlib.metadata.version(name) for name in names}
    return {"keras-resnet-zoo": keras_resnet.__version__, **found}


# --- The loop -------------------------------------------------------------------


def fit(api, model, dataset, preprocessing, recipe, strategy, seed, directory):
    """Trains a model and writes history, curves, TensorBoard and checkpoints.

    Args:
        api: `keras` or `tf_keras`, whichever `model` belongs to.
        model: a model with softmax output, built in the scope of `strategy`.
        dataset: an `input_pipeline.Dataset`.
        preprocessing: what `model` expects.
        recipe: a `recipes.Recipe`.
        strategy: a `tf.distribute.Strategy`.
        seed: of the order of the examples and their augmentation.
        directory: the run's folder; continues from its newest checkpoint.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        UserError: the loss is not finite any more.
    """
    steps = input_pipeline.steps_per_epoch(dataset, recipe.batch_size)
    rates = [
        recipes.learning_rate(
            step,
            recipe.learning_rate,
            int(recipe.warmup_epochs * steps),
            recipe.epochs * steps,
        )
        for step in range(recipe.epochs * steps)
    ]
    with strategy.scope():
        optimizer = api.optimizers.SGD(
            _schedule(api, rates),
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.weight_decay or None,
        )
        optimizer.exclude_from_weight_decay(
            var_list=[v for v in model.trainable_variables if len(v.shape) < 2]
        )
        model.compile(
            optimizer,
            api.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
            metrics=[api.metrics.CategoricalAccuracy(name="top1")],
        )
        optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    first_epoch, history = checkpoints.restore(_checkpoints(directory), variables)
    history = history or []
    if 0 < first_epoch < recipe.epochs:
        print(f"continuing after epoch {first_epoch} of {recipe.epochs}")

    held_out = input_pipeline.evaluation_batches(
        dataset.held_out, preprocessing, recipe.batch_size
    )
    evaluate = evaluator(model, strategy)
    started = None

    def begin(epoch, logs):
        nonlocal started
        started = time.perf_counter()

    def end(epoch, logs):
        seconds = time.perf_counter() - started
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"the loss is {logs['loss']} in epoch {epoch + 1}: try a lower "
                f"--learning_rate. Received: {recipe.learning_rate:g}"
            )
        _synchronize(model)
        result = evaluate(held_out, dataset.held_out.examples)
        logs.update({f"val_{key}": result[key] for key in ("loss", "top1", "top5")})
        logs["learning_rate"] = rates[(epoch + 1) * steps - 1]
        logs["examples_per_second"] = steps * recipe.batch_size / seconds
        history.append({key: logs.get(key, epoch + 1) for key in HISTORY})
        _write_history(directory, history)
        checkpoints.save(_checkpoints(directory), epoch + 1, variables, history)

    if first_epoch < recipe.epochs:
        batches = input_pipeline.train_batches(
            dataset,
            preprocessing,
            recipe.augmentation,
            recipe.batch_size,
            seed,
            recipe.epochs,
            first_epoch,
        )
        with input_pipeline.damaged_images_named(dataset):
            model.fit(
                batches,
                steps_per_epoch=steps,
                epochs=recipe.epochs,
                initial_epoch=first_epoch,
                shuffle=False,  # the batches are in their order
                callbacks=[
                    api.callbacks.LambdaCallback(
                        on_epoch_begin=begin, on_epoch_end=end
                    ),
                    api.callbacks.TensorBoard(
                        directory / "tensorboard", write_graph=False
                    ),
                ],
            )
    _write_history(directory, history)
    _draw_curves(directory / "curves.png", history)
    last = history[-1]
    values = (
        last["val_top1"],
        last["val_top5"],
        last["val_loss"],
        float(np.median([row["examples_per_second"] for row in history])),
        recipe.epochs,
        dataset.held_out.examples,
    )
    return dict(zip(METRICS, values, strict=True))


def _synchronize(model):
    """Gives all replicas the same batch statistics and quantization ranges.

    While it trains, each replica keeps its own; a file holds one value. What is
    evaluated must be what is saved, and a resumed run must not differ.
    """
    for variable in model.non_trainable_variables:
        variable.assign(variable.numpy())


def _schedule(api, rates):
    """Returns a schedule that reads a table: no work on the host in a step."""

    class Table(api.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            # Keras asks once more after the last step.
            step = tf.minimum(tf.cast(step, tf.int32), len(rates) - 1)
            return tf.gather(tf.constant(rates, tf.float32), step)

        def get_config(self):
            return {"rates": rates}

    return Table()


def evaluator(model, strategy):
    """Returns a function that evaluates the model.

    Keras' own `evaluate` averages over batches and replicas of unequal size;
    here every example counts once.

    Args:
        model: a Keras 3 or tf_keras model with softmax output.
        strategy: the strategy in whose scope it was built.

    Returns:
        function of (batches of `input_pipeline.evaluation_batches`, examples) ->
        {"loss", "top1", "top5"}: mean cross entropy and shares of 1. It raises
        `RuntimeError` when the batches do not hold exactly `examples` examples.
    """

    @tf.function
    def sums(images, labels):
        scores = tf.cast(model(images, training=False), tf.float32)
        counts = labels >= 0  # the last batch is filled up
        top1 = tf.equal(tf.argmax(scores, axis=-1), labels)
        top5 = tf.math.in_top_k(labels, scores, min(5, scores.shape[-1]))
        right = tf.gather(scores, tf.maximum(labels, 0), batch_dims=1)
        loss = -tf.math.log(tf.maximum(right, 1e-7))
        return tf.stack(
            [
                tf.reduce_sum(tf.where(counts, tf.cast(value, tf.float32), 0.0))
                for value in (counts, loss, top1, top5)
            ]
        )

    def evaluate(batches, examples):
        totals = np.zeros(4)
        for batch in strategy.experimental_distribute_dataset(batches):
            per_replica = strategy.run(sums, args=batch)
            totals += strategy.reduce("SUM", per_replica, axis=None).numpy()
        if totals[0] != examples:
            raise RuntimeError(f"evaluated {totals[0]:.0f} of {examples} examples")
        return dict(zip(("loss", "top1", "top5"), totals[1:] / examples, strict=True))

    return evaluate


# --- The report -----------------------------------------------------------------


def _write_history(directory, history):
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    files.write_text(directory / "history.csv", text.getvalue())


def _draw_curves(path, history):
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    error, loss = figure.subplots(1, 2)
    for axes, title, of in (
        (error, "top-1 error, %", lambda row, split: 100 * (1 - row[split + "top1"])),
        (loss, "cross entropy", lambda row, split: row[split + "loss"]),
    ):
        for split, label in (("", "training"), ("val_", "held out")):
            values = [of(row, split) for row in history]
            axes.plot(
                epochs, values, label=label, marker="." if len(epochs) < 30 else ""
            )
        axes.set(title=title, xlabel="epoch", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
