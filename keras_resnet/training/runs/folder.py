"""The folder of a run: whose it is, and what an ended run left in it."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet import console, files
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import recipes, tasks
from keras_resnet.training.data import by_task, datasets
from keras_resnet.training.runs import checkpoints


def is_run(path):
    """Returns whether a path is the folder of a run, perhaps of an unfinished one."""
    return os.path.isfile(os.path.join(path, "config.json"))


def open_run(directory, result, settings, recipe, preprocessing, dataset, write=True):
    """Writes `config.json`, or checks that the one in the folder is the same.

    `result` is the path of what the run makes at its end, `settings` a dict of what the
    user chose, `recipe` what follows from it. Of several workers one is to `write`.

    Returns:
        The metrics of the run if it is complete, else None.

    Raises:
        UserError: the folder holds a run of other settings or data, or other files.
    """
    config = _as_on_disk(
        {
            "settings": settings,
            "recipe": dataclasses.asdict(recipe),
            "preprocessing": dataclasses.asdict(preprocessing),
            "labels": dataset.labels,
            "data": dataset.fingerprint,
            "versions": versions(),
        }
    )
    if not _is_begun(directory):
        if write:
            files.write_json(directory / "config.json", config)
        return None

    there = read_config(directory)
    metrics = read_metrics(directory)
    difference = _difference(there, config, directory)
    if difference:
        if _has_results(directory):
            raise UserError(f"{directory} holds another run: {difference}")
        # That run failed before it had anything to lose, as with too high a rate.
        if write:
            shutil.rmtree(directory / "tensorboard", ignore_errors=True)
            files.write_json(directory / "config.json", config)
        return None
    if metrics and result.exists():
        print(f"{directory} is complete; nothing to do")
        return metrics
    _warn_of_versions(there["versions"], config["versions"])
    return None


def recipe_of_begun(directory, settings, fingerprint):
    """Returns the `Recipe` of a run that was begun with these settings and data.

    It is None if there is no such run, or none that would be lost.

    Raises:
        UserError: the folder holds a run of other settings or data that would be lost,
            or other files.
    """
    if not _is_begun(directory):
        return None
    there = read_config(directory)
    settings = {"settings": _as_on_disk(settings)}
    difference = _other_values(there, settings, "settings")
    if not difference:
        difference = _other_data(there, data_changes(there, fingerprint), directory)
    if not difference:
        return recipes.Recipe(**there["recipe"])
    if _has_results(directory):
        raise UserError(f"{directory} holds another run: {difference}")
    return None


def _is_begun(directory):
    """Returns whether there is a `config.json`; raises `UserError` at other files."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--model_dir is no folder. Received: {str(directory)!r}")
    if (directory / "config.json").exists():
        return True
    # A run that was killed while it wrote its first file leaves the like.
    if directory.is_dir() and any(
        not path.match(files.UNFINISHED) for path in directory.iterdir()
    ):
        raise UserError(
            f"{directory} holds files but no run (no config.json). Choose another "
            "--model_dir"
        )
    return False


def _has_results(directory):
    """Returns whether a run has ended or has a checkpoint."""
    return read_metrics(directory) or checkpoints.finished(checkpoints_of(directory))


def _difference(there, here, directory):
    """Returns how two configurations differ and what to do about it, or None."""
    if other := _other_values(there, here, "settings"):
        return other  # what follows from these settings differs too
    changes = data_changes(there, here["data"])
    if there["labels"] != here["labels"]:
        changes = changes or "its classes are others"
    return (
        _other_data(there, changes, directory)
        # Of a recipe, the batch size may follow from the data.
        or _other_values(there, here, "recipe")
        or _other_values(there, here, "preprocessing")
    )


def _other_data(there, changes, directory):
    """Returns what to do about changes of the data of a run; None if there are none."""
    if not changes:
        return None
    go_on = ""
    if there["recipe"]["transfer"] and read_metrics(directory):
        go_on = f", with --weights={directory} to go on from what it learned"
    return (
        f"the data has changed since: {changes}. Use another --model_dir to train "
        f"on what is there now{go_on}, or delete that folder"
    )


def _other_values(there, here, section):
    """Returns how a section of two configurations differs, or None."""
    before, now = there[section], here[section]
    found = [
        f"{key}={_shown(before.get(key))} there, {_shown(value)} received"
        for key, value in now.items()
        if before.get(key) != value
    ]
    if not found:
        return None
    return (
        f"{'; '.join(found)}. Use its flags to continue it, another --model_dir, or "
        "delete that folder"
    )


def _shown(value):
    return "(default)" if value is None else value


def data_changes(config, fingerprint):
    """Returns how the data of a run has changed since its training, or None."""
    before = config.get("data")
    if before is None or before == fingerprint:
        return None
    for key, now in fingerprint.items():
        if key != "sha256" and before.get(key) != now:
            what = "" if key == "name" else f" {key.replace('_', ' ')}"
            return f"{before.get(key)}{what} then, {now} now"
    return "as many images, but other ones"


def _warn_of_versions(before, now):
    changed = [
        f"{name} {before[name]} then, {now[name]} now"
        for name in now
        if before.get(name, now[name]) != now[name]
    ]
    if changed:
        console.warn(
            f"this run was begun with other versions: {'; '.join(changed)}. Its "
            "weights may differ from those of an unbroken run"
        )


def checkpoints_of(directory):
    """Returns the folder of the checkpoints of a run."""
    return directory / "checkpoints"


def _as_on_disk(value):
    return json.loads(json.dumps(value))  # tuples become lists


def read_config(directory):
    """Returns the `config.json` of a run; raises `UserError` if it is damaged."""
    path, config = _read_json(directory, "config.json")
    if config is None:
        raise UserError(f"{path} is missing: {str(directory)!r} holds no run")
    try:
        settings, labels = config["settings"], config["labels"]
        recipe = _checked(recipes.Recipe, config["recipe"])
        preprocessing = _checked(Preprocessing, config["preprocessing"])
        data = config.get("data", {})  # version 0.1 did not write it
        are_dicts = all(
            isinstance(x, dict) for x in (settings, data, config["versions"])
        )
        if not are_dicts or not all(isinstance(label, str) for label in labels):
            raise ValueError("a value has a wrong type")
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return config | {"recipe": recipe, "preprocessing": preprocessing}


def _checked(kind, fields):
    """Returns all fields of a dataclass; those that are not given have defaults."""
    whole = _as_on_disk(dataclasses.asdict(kind(**fields)))
    if whole | fields != whole:
        raise ValueError(f"not a {kind.__name__} as this version writes it")
    return whole


def read_metrics(directory):
    """Returns the `metrics.json` of a run, or None if the run has not ended."""
    path, metrics = _read_json(directory, "metrics.json")
    if metrics is None:
        return None
    is_dict = isinstance(metrics, dict)
    keys = tasks.of_metrics(metrics if is_dict else {}).metrics()
    if not is_dict or not all(
        isinstance(metrics.get(key), int | float) for key in keys
    ):
        raise UserError(f"{path} is damaged: it must hold {', '.join(keys)}")
    return metrics


def _read_json(directory, name):
    path = pathlib.Path(directory) / name
    try:
        return path, files.read_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def task_of(settings):
    """Returns the task of the settings of a run, which have None for classification."""
    return settings.get("task") or by_task.CLASSIFY


def dataset_of(config, data_dir=None):
    """Opens the dataset of a run, in `data_dir` or where the training found it.

    A warning says so if it has changed since the training.

    Raises:
        UserError: it cannot be opened, or its classes are not the run's.
    """
    settings = config["settings"]
    # An adopted run has no more settings than these two.
    name, data_dir = settings["dataset"], data_dir or settings["data_dir"]
    hold_out = settings.get("hold_out")
    damaged_images = settings.get("damaged_images")
    balance, task = settings.get("balance"), task_of(settings)
    dataset = by_task.load(task, name, data_dir, hold_out, damaged_images, balance)
    # A user's model may have its classes in an order of its own.
    fitting = datasets.of_classes(dataset, config["labels"])
    if fitting is None:
        raise UserError(
            f"dataset {dataset.name} has other classes than the model was trained on: "
            f"{_few(dataset.labels)}, not {_few(config['labels'])}"
        )
    dataset = fitting
    if dataset.multi_label != (config["recipe"]["loss"] == "multi_label"):
        now, then = "any number of labels", "one label"
        if not dataset.multi_label:
            now, then = then, now
        raise UserError(
            f"the pictures of dataset {dataset.name} have {now} each, those of the "
            f"training had {then}"
        )
    changes = data_changes(config, dataset.fingerprint)
    if changes:
        console.warn(
            f"the data has changed since the training ({changes}): the model may have "
            "been trained on pictures that are held out now"
        )
    return dataset


def _few(labels):
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")


def versions():
    """Returns the versions of what a result depends on, without what is missing."""
    found = {
        "keras-resnet-zoo": keras_resnet.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
    for name in ("tf_keras", "tensorflow-model-optimization"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass  # fine-tuning alone needs it
    return found
