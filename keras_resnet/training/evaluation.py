"""Measures the accuracy of a trained model on a whole held-out split."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

from keras_resnet import files
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.image_model import ImageModel, task_of
from keras_resnet.runner.images import geometry_of
from keras_resnet.runner.model_file import read_model
from keras_resnet.runner.showing import MODELS
from keras_resnet.training import accuracy, checks, ensembles, tasks
from keras_resnet.training.data import by_task, damaged, datasets
from keras_resnet.training.ensembles import Member
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs import model_file
from keras_resnet.training.runs.run import Run
from keras_resnet.training.scenes import answers
from keras_resnet.training.views import multi_scale, ten_crop

# Name of the views: what makes a scoring function of images from (model,
# preprocessing); None for the centre crop alone.
VIEWS = {"single": None, "ten_crop": ten_crop, "multi_scale": multi_scale}
# What `evaluate` takes for a model.
Model: TypeAlias = Run | keras.Model | str | os.PathLike


def evaluate(
    model: Model | Sequence[Model],
    dataset: str | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    views: str = "single",
    normalization: str | None = None,
    crop_fraction: float | None = None,
    output: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Measures top-1 and top-5 of a model on a whole held-out split.

    Of a run that learned boxes or masks, it measures average precision or mean IoU.

    Args:
        model: a `Run` or the path of its folder; the path of a .keras file; the path
            of a .tflite file, which is run as on the device; or a `keras.Model` that
            ends with a softmax. The scores of a list of these are averaged, each
            network with its own preprocessing (He et al., arXiv 1512.03385, table 5).
        dataset: name of a dataset, as for `train`. `None` is that of the model's run.
        data_dir: folder of the dataset. `None` is where the training found it.
        views: which parts of each image are classified: "single" (the centre crop),
            "ten_crop", or "multi_scale" (the whole image at five sizes). The scores of
            several views are averaged (He et al., arXiv 1512.03385, section 4.1).
        normalization: how a Keras model wants its pixels normalized: "zoo", "torch",
            "tf", "caffe", "unit" or "raw". `None` is what the model or its run says.
        crop_fraction: side of the centre crop relative to the shorter side of the
            resized image, in (0, 1]. `None` is what the model or its run says.
        output: path of a JSON file to write the result to; `None` writes none.

    Returns:
        Dictionary of "top1" and "top5" (shares of 1), "examples_evaluated", "dataset"
        and "views"; of one Keras model and a single view also "loss", the mean cross
        entropy in nats; of several models also "models", their names. Where pictures
        may have several labels, it has "mean_average_precision" and "label_accuracy"
        in the place of top-1 and top-5. If the model answers "unknown", "top1", "top5"
        and "loss" are of the classes alone, and "top1_with_unknown", "known",
        "top1_of_known" and "strangers_answered" say what "unknown" does.
        Of boxes it has "ap50", "ap" and "ap75", and of masks "miou", with "by_class";
        see `keras_resnet.training.Run`.

    Raises:
        UserError: an argument is wrong, a file is missing or damaged, the model does
            not fit the dataset, or several models tell other classes apart.
    """
    checks.choice("views", views, VIEWS)
    if normalization is not None:
        checks.choice("normalization", normalization, NORMALIZATIONS)
    if crop_fraction is not None:
        checks.positive_number("crop_fraction", crop_fraction, most=1)
    given = list(model) if isinstance(model, list | tuple) else [model]
    if not given:
        raise UserError(f"--model must name a model. Received: {model!r}")
    members = [_member(each, views, normalization, crop_fraction) for each in given]
    ensembles.check_same_classes(members)
    task = members[0].task
    if task != by_task.CLASSIFY and (views != "single" or len(members) > 1):
        raise UserError(
            f"{members[0].name} is a model for --task={task}: evaluate it alone, and "
            "without --views"
        )
    data = _dataset_of(members, dataset, data_dir)
    if members[0].labels:
        data = datasets.of_classes(data, members[0].labels) or data
    accuracy.check_classes(members[0].classes, data)
    with damaged.damaged_images_named(data):
        if task != by_task.CLASSIFY:
            found = _evaluate_scenes(members[0], data)
        elif len(members) > 1 or data.has_unknown:
            found = ensembles.evaluate(members, data, VIEWS[views])
        else:
            found = _evaluate(members[0], data, VIEWS[views])
    metrics = {"views": views, "dataset": data.name, **found}
    if len(members) > 1:
        metrics["models"] = [member.name for member in members]
    if output is not None:
        files.write_json(output, metrics)
    return metrics


def _member(model, views, normalization, crop_fraction):
    """Opens a model; returns it as a `Member`."""
    is_path = isinstance(model, os.PathLike)
    name = os.fspath(model) if is_path else getattr(model, "name", str(model))
    if name.endswith(".tflite") and (views != "single" or normalization):
        raise UserError("--views and --normalization need a .keras model")
    opened, config = _opened(model)
    preprocessing = _preprocessing_of(opened, config, normalization)
    if preprocessing is None:
        raise UserError(
            f"{name} lies in no run and does not say how its pixels are normalized: it "
            "needs --normalization"
        )
    if crop_fraction is not None:
        preprocessing = dataclasses.replace(preprocessing, crop_fraction=crop_fraction)
    labels = getattr(opened, "labels", None) or (config and config["labels"])
    return Member(name, opened, preprocessing, labels, config)


def _dataset_of(members, dataset, data_dir):
    """Opens the dataset of a name, or that of the runs of the members."""
    if dataset is not None:
        return by_task.load(members[0].task, dataset, data_dir)
    runs = [member for member in members if member.config is not None]
    if not runs:
        raise UserError(f"{members[0].name} lies in no run: it needs --dataset")
    first = runs[0]
    for other in runs[1:]:
        if _held_out(other.config) != _held_out(first.config):
            raise UserError(
                f"{first.name} and {other.name} were trained with other held-out "
                "images: name a dataset that none of them was trained on, by --dataset"
            )
    return run_folder.dataset_of(first.config, data_dir)


def _held_out(config):
    """Returns what decides which images a run held out."""
    return [config["settings"].get(n) for n in ("dataset", "data_dir", "hold_out")]


def _evaluate(member, data, views):
    """Returns the accuracy of one model."""
    if views is None and not member.on_device:
        return accuracy.of_split(
            member.model, data.held_out, member.preprocessing, data.multi_label
        )
    score, images = ensembles.by_image(member, data, views)
    return accuracy.of_scores(score, images, data.multi_label)


def _evaluate_scenes(member, data):
    """Returns how good a detector or a segmenter is."""
    if member.on_device:
        answer = answers.of_file(member.model)
        return answers.measured(data, member.preprocessing, answer)
    loss = "detection" if member.task == "detect" else "segmentation"
    return tasks.of_split(member.model, data, member.preprocessing, loss)


def _opened(model):
    """Returns a `keras.Model` or the runner's, and the `config.json` of its run."""
    if isinstance(model, keras.Model):
        return model, None
    if isinstance(model, Run):
        return model.load_model(), _config_of(model.directory)
    path = checks.path("model", model)
    if path.is_dir():
        return _opened(Run.open(path))
    if path.suffix == ".keras":
        opened = model_file.load(path)
    elif path.suffix == ".tflite":
        file = read_model(str(path))
        opened = MODELS[task_of(file)](file)
    else:
        raise UserError(
            "--model must be a .keras or .tflite file, or the folder of a run. "
            f"Received: {str(model)!r}"
        )
    return opened, _config_of(path.parent)


def _config_of(directory):
    """Returns the `config.json` of a run, or None if the folder holds no run."""
    if not run_folder.is_run(directory):
        return None
    config = run_folder.read_config(directory)
    if "dataset" not in config["settings"]:  # a fine-tuning, in the folder of its run
        trained = run_folder.read_config(directory.parent)
        config = config | {"settings": trained["settings"]}
    return config


def _preprocessing_of(model, config, normalization):
    """Returns the `Preprocessing` of a model, or None if nothing tells it."""
    if isinstance(model, ImageModel):
        return geometry_of(model)
    told = getattr(model, "preprocessing", None)
    if told is None and config is not None:
        told = Preprocessing(**config["preprocessing"])
    if normalization is None:
        return told
    numbers = {"channel_order": "rgb", **NORMALIZATIONS[normalization]}
    told = told or Preprocessing(model.input_shape[1:3])
    return dataclasses.replace(told, **numbers)
