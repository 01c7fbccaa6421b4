"""Fine-tunes the model of a run quantization-aware (QAT), for int8."""

import dataclasses
import os
from collections.abc import Callable, Sequence

from keras_resnet import console, files, rewrite
from keras_resnet.runner.errors import UserError
from keras_resnet.training import accuracy, checks, loop, recipes, reporting, tasks
from keras_resnet.training.data import by_task
from keras_resnet.training.distribute import strategies
from keras_resnet.training.formats import saved_model
from keras_resnet.training.progress import Progress
from keras_resnet.training.quantize import aware as quantization
from keras_resnet.training.quantize.twin import import_tf_keras
from keras_resnet.training.reporting.answers import of_model
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs import model_file
from keras_resnet.training.runs.run import Run
from keras_resnet.training.settings import STRATEGIES, network_name

# Nobody knows at which rate somebody else's model was trained. At 0.001, a MobileNetV2
# fell from 99.4% to 36.9% of scikit-learn's digits within an epoch.
HIGHEST_OF_ADOPTED = 1e-4
# A fine-tuned model that loses more points is warned of.
TOLERATED_POINTS = 1


def quantize_aware(
    run: Run | str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    float_layers: Sequence[str] = (),
    freeze: Sequence[str] | None = None,
    strategy: str = "one_device",
    cpu_replicas: int = 0,
    epochs: int | None = None,
    learning_rate: float | None = None,
    checkpoint_steps: int = 1000,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Fine-tunes a trained model quantization-aware (QAT), for int8.

    Takes the data, the recipe and the model of a finished run, and writes the folder
    `qat` inside of it: `saved_model/`, which `edge.export` converts, and `model.keras`,
    the fine-tuned weights in float. Stopped at any moment and called again, it
    continues. To fine-tune again with other settings, delete that folder.

    Args:
        run: a `Run`, or the path of its folder.
        data_dir: folder of the dataset. `None` is where the training found it.
        float_layers: names of layers to leave in float, or patterns of names
            ("conv1_*", "predictions"): for layers that lose accuracy in 8 bits. An
            Edge TPU computes none of them.
        freeze: what stays as it is: "batch_norm" (the statistics of the float model)
            and "ranges" (of activations, as calibrated). `None` is nothing for a run of
            `train`, and "batch_norm" for an adopted model and one that was fine-tuned:
            a few small batches would spoil the statistics of their first training.
        strategy: "one_device", "mirrored" or "tpu", as for `train`.
        cpu_replicas: as for `train`.
        epochs: passes over the training images. `None` is a tenth of the training's.
        learning_rate: highest learning rate. `None` is a hundredth of the training's,
            and at most 0.0001 for an adopted model.
        checkpoint_steps: training steps between two checkpoints.
        progress: as for `train`.

    Returns:
        The `Run` in the folder `qat`. Its metrics are those of the quantization-aware
        model.

    Raises:
        UserError: a setting is wrong, a layer cannot be quantized, the data cannot be
            read, or the folder `qat` holds another fine-tuning.
        Terminated: the process received SIGTERM; a checkpoint was written.
    """
    checks.choice("strategy", strategy, STRATEGIES)
    if strategy == "multi_worker":
        raise UserError(
            "fine-tuning is for one machine: --strategy=mirrored uses all its devices"
        )
    for part in checks.names("freeze", freeze or ()):
        checks.choice("freeze", part, quantization.FREEZABLE)
    float_layers = checks.names("float_layers", float_layers)
    cpu_replicas = checks.whole_number("cpu_replicas", cpu_replicas, 0)
    checks.whole_number("checkpoint_steps", checkpoint_steps, 1)
    if saved_model.is_folder(checks.path("model_dir", run)):
        raise saved_model.has_no_layers(run)
    run = Run.open(run)
    config = run_folder.read_config(run.directory)
    before = recipes.Recipe(**config["recipe"])
    is_adopted = "model_sha256" in config["settings"]
    if freeze is None:
        as_before = is_adopted or before.frozen_statistics or before.published
        freeze = ["batch_norm"] if as_before else []
    if learning_rate is None:
        learning_rate = _rate(before, is_adopted)
    recipe = _recipe(before, epochs, learning_rate)
    replicated = strategies.create(strategy, cpu_replicas)
    trained = run.load_model()
    network, preprocessing, notes = trained, run.preprocessing, []
    is_classifier = run_folder.task_of(config["settings"]) == by_task.CLASSIFY
    if is_classifier:
        # A run of version 0.1 may hold a model as somebody else made it.
        rewritten = rewrite.for_device(trained, preprocessing)
        network, preprocessing = rewritten.model, rewritten.preprocessing
        notes = rewritten.notes
    model, preprocessing, folded = rewrite.fold_normalization(network, preprocessing)
    for note in notes + folded:
        print(note)
    # What decides the result, beside the recipe.
    settings = {
        "model_sha256": files.sha256(run.directory / "model.keras"),
        "strategy": strategy,
        "cpu_replicas": cpu_replicas,
        "float_layers": float_layers,
        "freeze": sorted(freeze),
    }
    data = run_folder.dataset_of(config, data_dir)
    checks.batch_size(recipe, data, replicated)
    directory = run.directory / "qat"
    result = directory / "saved_model"
    metrics = run_folder.open_run(
        directory, result, settings, recipe, preprocessing, data
    )
    if not metrics:
        calibration = tasks.of(recipe).calibration_images(
            data, preprocessing, quantization.CALIBRATION_EXAMPLES
        )
        with replicated.scope():
            aware = quantization.quantize(
                model, preprocessing, calibration, float_layers
            )
        job = loop.Job(
            api=import_tf_keras(),
            model=aware,
            dataset=data,
            preprocessing=preprocessing,
            recipe=recipe,
            strategy=replicated,
            seed=config["settings"]["seed"],
            directory=directory,
            checkpoint_steps=checkpoint_steps,
            progress=progress,
        )
        with quantization.frozen(aware, freeze):
            metrics = loop.fit(job)
        with console.hidden_output(1, 2):
            quantization.save(aware, result)
        if quantization.copy_weights(aware, model):
            path = directory / "model.keras"
            model_file.save(model, path, preprocessing, run.labels, trained.licence)
        title = reporting.title(
            network_name(config["settings"]["model"], config["settings"].get("width")),
            config["settings"]["dataset"],
            config["settings"]["data_dir"],
        )
        title = f"{title}, quantization-aware"
        if is_classifier:
            answers = of_model(aware, data, preprocessing)
            if answers.has_unknown:  # the loop took it for a class like the others
                metrics = metrics | answers.accuracy()
            metrics = reporting.write(directory, title, data, answers, metrics)
        else:
            metrics = reporting.scenes.write(
                directory, title, aware, data, preprocessing, metrics
            )
        files.write_json(directory / "metrics.json", metrics)
    _warn_of_loss(run.metrics, metrics, recipe, directory)
    return Run(directory, metrics, run.labels, preprocessing)


def _warn_of_loss(before, metrics, recipe, directory):
    """Warns if the fine-tuned model is clearly worse than the float one."""
    name = tasks.of(recipe).measures[0]
    if before.get(name) is None or metrics.get(name) is None:
        return  # nothing was annotated
    lost = 100 * (before[name] - metrics[name])
    if accuracy.is_drop(name, lost, metrics["examples_evaluated"], TOLERATED_POINTS):
        console.warn(
            f"fine-tuning lost {lost:.2f} points of {name}: {before[name]:.2%} "
            f"before, {metrics[name]:.2%} now. Delete {directory} and try a lower "
            f"--learning_rate than {recipe.learning_rate:g}, or export with "
            "--quantize=int8, which needs no fine-tuning"
        )


def _rate(trained, is_adopted):
    """Returns the default of the highest learning rate."""
    rate = trained.learning_rate / 100
    if trained.optimizer != "sgd":
        rate = 0.001 * trained.batch_size / 256
    return min(rate, HIGHEST_OF_ADOPTED) if is_adopted else rate


def _recipe(trained, epochs, learning_rate):
    """Returns the training's recipe, shorter and gentler, and with SGD."""
    if epochs is None:
        epochs = max(1, trained.epochs // 10)
    return dataclasses.replace(
        trained,
        epochs=checks.whole_number("epochs", epochs, 1),
        optimizer="sgd",
        learning_rate=checks.positive_number("learning_rate", learning_rate),
        clip_norm=0.0,
        warmup_epochs=0,
        decay_epochs=(),
        weight_decay=0.0,
        loss=trained.loss if trained.loss in tasks.TASKS else "cross_entropy",
        policy=None,
        random_erasing=0.0,
        mixup=0.0,
        cutmix=0.0,
        repeats=1,
        average_epochs=0.0,
        train_size=None,
        layer_decay=1.0,
        frozen_statistics=False,  # `quantization.frozen` does it
        transfer=False,
        published=False,
        strength=0.0,
        temperature=1.0,
        known_from=None,
    )
