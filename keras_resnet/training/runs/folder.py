"""The folder of a run: who owns it, and what an ended run left in it."""

import dataclasses
import importlib.metadata
import json
import pathlib
import shutil
import zipfile

import keras

from keras_resnet.training.runs import checkpoints
from keras_resnet import files
from keras_resnet.training.data import sources
import keras_resnet
from keras_resnet.training import recipes
from keras_resnet.runner.errors import UserError
from keras_resnet.preprocessing import Preprocessing

HALF = ("float16", "bfloat16")
METRICS = (
    "top1",
    "top5",
    "loss",
    "examples_per_second",
    "epochs",
    "examples_evaluated",
)


def claim(directory, result, settings, recipe, preprocessing, labels, write=True):
    """Writes `config.json`, or checks that the one there is the same.

    Args:
        directory: folder of the run, a `pathlib.Path`.
        result: path of what the run makes at its end.
        settings: dataclass of what the user chose.
        recipe: the `Recipe` that follows from it.
        preprocessing: the model's `Preprocessing`.
        labels: names of the classes.
        write: whether to write; of several workers one does.

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
        if directory.is_dir() and any(
            not path.match(files.UNFINISHED) for path in directory.iterdir()
        ):
            raise UserError(
                f"{directory} holds files but no run (no config.json). Choose another "
                "--model_dir"
            )
        if write:
            files.write_json(directory / "config.json", config)
        return None

    there = read_config(directory)
    # A run of an earlier version lacks what was added since: there it was not used.
    given = config["settings"].items()
    usual = {
        "settings": {key: value for key, value in given if not value},
        "recipe": _as_on_disk(dataclasses.asdict(recipes.Recipe(**there["recipe"]))),
        "preprocessing": {},
    }
    differences = {}
    for section in usual:
        before = usual[section] | there[section]
        for key, value in config[section].items():
            if before.get(key) != value:
                received = f"{_shown(before.get(key))} there, {_shown(value)}"
                differences[key] = f"{key}={received} received"
        if differences:  # what follows from them differs too
            break
    if there["labels"] != config["labels"]:
        differences["labels"] = "the dataset's labels differ"
    metrics = read_metrics(directory)
    if (
        differences
        and not metrics
        and not checkpoints.finished(checkpoints_of(directory))
    ):
        # It failed before it had anything to lose, as with too high a rate.
        if write:
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


def checkpoints_of(directory):
    """Returns the folder of the checkpoints of a run."""
    return directory / "checkpoints"


def _shown(value):
    return "(default)" if value is None else value


def _holds(instance, fields):
    """Returns whether a dataclass took its fields as they are.

    A run of an earlier version lacks what was added since: that has its default.
    """
    whole = _as_on_disk(dataclasses.asdict(instance))
    return all(whole[name] == value for name, value in fields.items())


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
            _holds(recipe, config["recipe"])
            and _holds(preprocessing, config["preprocessing"])
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
        A `datasets.Dataset`.

    Raises:
        UserError: it cannot be opened, or its classes are not the run's.
    """
    settings = config["settings"]
    dataset = sources.load(
        settings["dataset"],
        data_dir or settings["data_dir"],
        settings.get("hold_out"),
        settings.get("damaged_images"),
    )
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

    Returns:
        `keras.Model` that computes in float32, whatever it was trained in: TensorFlow
        Lite has no half precision, nor has quantization-aware training.

    Raises:
        UserError: it is missing, damaged or no .keras file.
    """
    if not path.is_file():
        raise UserError(f"no such model file (train it first?): {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no readable .keras file: truncated, or no archive")
    try:
        return _in_float32(keras.saving.load_model(path, compile=False, safe_mode=True))
    except Exception as error:  # zipfile, h5py and Keras raise many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no readable .keras file: {reason[0]}") from error


def _in_float32(model):
    policies = {layer.dtype_policy.compute_dtype for layer in model._flatten_layers()}
    if policies.isdisjoint(HALF):
        return model

    def changed(config):
        if isinstance(config, list | tuple):
            return [changed(each) for each in config]
        if not isinstance(config, dict):
            return config
        if config.get("class_name") == "DTypePolicy":
            return config | {"config": {"name": "float32"}}
        config = {key: changed(value) for key, value in config.items()}
        return config | ({"dtype": "float32"} if config.get("dtype") in HALF else {})

    copy = type(model).from_config(changed(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def check_classifier(model):
    """Raises `UserError` where a model is no classifier of one image."""
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    shape = shapes[0]
    if len(shapes) != 1 or len(shape) != 4 or None in shape[1:] or shape[3] != 3:
        raise UserError(
            "the model must take one image (height, width, 3). Received: inputs of "
            f"shape {', '.join(map(str, shapes))}"
        )
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise UserError(
            "the model must return one score for each class. Received: outputs of "
            f"shape {', '.join(str(output.shape) for output in model.outputs)}"
        )
    last = model.layers[-1]
    if not (
        type(last).__name__ == "Softmax"
        or getattr(getattr(last, "activation", None), "__name__", None) == "softmax"
    ):
        raise UserError(
            "the model must end with a softmax: scores are written as shares of 1. "
            f"Received: layer {last.name!r} at its end"
        )


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
