"""Fine-tunes a trained model quantization-aware (QAT), for int8.

Example:
  python training/qat.py --model_dir=runs/resnet20-digits --strategy=mirrored

Takes the data, the recipe and the model of a run of train.py and writes
MODEL_DIR/qat: saved_model/, which edge/export.py --model_dir=MODEL_DIR makes the
.tflite from, and model.keras, the fine-tuned weights in float.
To do it again, with other flags or after more training, delete MODEL_DIR/qat.
"""

import dataclasses
import pathlib

from absl import flags

from keras_resnet import console, errors
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the result of the fine-tuning, beside its recipe."""

    model_sha256: str
    strategy: str
    cpu_replicas: int
    float_layers: list
    freeze: list


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("model_dir", None, "The run of train.py.", required=True)
    flags.DEFINE_string(
        "data_dir",
        None,
        "Where the dataset lies; default: where the training found it.",
    )
    flags.DEFINE_list(
        "float_layers",
        [],
        "Layers to leave in float, by name or pattern (conv1_*,predictions): for what "
        "quantizes badly and what must not. An Edge TPU computes none of them.",
    )
    flags.DEFINE_list(
        "freeze",
        [],
        "What stays as it is: batch_norm (the float model's statistics), ranges (of "
        "activations, as calibrated).",
    )
    app.define_training_flags(
        "a tenth of the training's", "a hundredth of the training's"
    )


def main():
    """Fine-tunes as the flags say."""
    if FLAGS.strategy == "multi_worker":
        raise UserError(
            "fine-tuning is for one machine: --strategy=mirrored uses all its devices"
        )
    console.import_tensorflow()

    from keras_resnet import files
    from keras_resnet.deploy import fold_normalization
    from keras_resnet.training import loop
    from keras_resnet.training.data import batching
    from keras_resnet.training.distribute import strategies
    from keras_resnet.training.quantize import aware as quantization
    from keras_resnet.training.runs import folder as run_folder

    for part in FLAGS.freeze:
        if part not in quantization.FREEZABLE:
            raise errors.unknown("freeze", part, quantization.FREEZABLE)
    run = pathlib.Path(FLAGS.model_dir)
    directory = run / "qat"
    config = run_folder.read_config(run)
    strategy = strategies.create(FLAGS.strategy, FLAGS.cpu_replicas)
    try:
        model, preprocessing = fold_normalization(*run_folder.load_model(run, config))
    except ValueError as error:
        raise UserError(str(error)) from error
    dataset = run_folder.dataset_of(config, FLAGS.data_dir)
    recipe = _recipe(config)
    loop.check_batch_size(recipe, dataset, strategy)
    settings = Settings(
        model_sha256=files.sha256(run / "model.keras"),
        strategy=FLAGS.strategy,
        cpu_replicas=FLAGS.cpu_replicas,
        float_layers=FLAGS.float_layers,
        freeze=sorted(FLAGS.freeze),
    )
    result = directory / "saved_model"
    metrics = run_folder.claim(
        directory, result, settings, recipe, preprocessing, dataset.labels
    )
    if not metrics:
        calibration = batching.calibration_images(
            dataset, preprocessing, quantization.CALIBRATION_EXAMPLES
        )
        with strategy.scope():
            aware = quantization.quantize(
                model, preprocessing, calibration, FLAGS.float_layers
            )
        with quantization.frozen(aware, FLAGS.freeze):
            metrics = loop.fit(
                quantization.tf_keras(),
                aware,
                dataset,
                preprocessing,
                recipe,
                strategy,
                config["settings"]["seed"],
                directory,
                FLAGS.checkpoint_steps,
            )
        with console.hidden_output(1, 2):
            quantization.save(aware, result)
        if quantization.take_weights(model, aware):
            with files.replacing(directory / "model.keras") as temporary:
                model.save(temporary)
        files.write_json(directory / "metrics.json", metrics)
    print(
        f"quantization-aware held-out top-1 {metrics['top1']:.2%} on "
        f"{metrics['examples_evaluated']} images; files in {directory}"
    )


def _recipe(config):
    """Returns the training's recipe, shorter and gentler, and with SGD."""
    from keras_resnet.training import recipes

    trained = recipes.Recipe(**config["recipe"])
    rate = trained.learning_rate / 100
    if trained.optimizer != "sgd":
        rate = 0.001 * trained.batch_size / 256
    return dataclasses.replace(
        trained,
        epochs=FLAGS.epochs or max(1, trained.epochs // 10),
        optimizer="sgd",
        learning_rate=FLAGS.learning_rate or rate,
        clip_norm=0.0,
        warmup_epochs=0,
        decay_epochs=(),
        weight_decay=0.0,
        loss="cross_entropy",
        policy=None,
        random_erasing=0.0,
        mixup=0.0,
        cutmix=0.0,
        repeats=1,
        average_epochs=0.0,
        train_size=None,
    )
