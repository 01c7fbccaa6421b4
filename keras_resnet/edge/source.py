"""What is exported: the model of a run, of the zoo, of a file or in memory."""

import dataclasses
import os
import pathlib

import keras

import keras_resnet
from keras_resnet import files
from keras_resnet.errors import unknown
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import datasets
from keras_resnet.training.data import sources as data_sources
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs import model_file
from keras_resnet.training.runs.run import Run
from keras_resnet.weights import registry


@dataclasses.dataclass(frozen=True)
class Source:
    """A trained model and what belongs to it.

    Attributes:
        model: the float `keras.Model`.
        preprocessing: the `Preprocessing` that the model expects.
        labels: names of its classes, or None.
        dataset: the `Dataset` to calibrate and report with, or None.
        licence: licence of the published weights that the model has or was trained
            from, or None.
        path: the `.keras` file of the model, or None.
        aware: folder that quantization-aware training wrote, or None.
    """

    model: keras.Model
    preprocessing: Preprocessing
    labels: list | None
    dataset: datasets.Dataset | None
    licence: str | None
    path: pathlib.Path | None
    aware: pathlib.Path | None = None

    def sha256(self, quantize):
        """Returns the hash of what is exported, or None for a model without a file."""
        path = self.aware / "saved_model" if quantize == "qat" else self.path
        return path and files.sha256(path)

    def aware_settings(self):
        """Returns the settings of the quantization-aware training."""
        return run_folder.read_config(self.aware)["settings"]

    def fine_tuned(self):
        """Returns the float model with the fine-tuned weights, or None without them."""
        path = self.aware / "model.keras"
        return model_file.load(path) if path.is_file() else None


def is_run(model):
    """Returns whether `export` takes this for a run: a `Run` or the path of its folder.

    A text is the folder of a run only if it is not the name of a model of the zoo.
    """
    if isinstance(model, str):
        return model not in keras_resnet.list_models() and os.path.isdir(model)
    if isinstance(model, os.PathLike):
        return pathlib.Path(model).suffix != ".keras"
    return isinstance(model, Run)


def of_run(run, dataset=None, data_dir=None, with_aware=True):
    """Opens the model of a run.

    Args:
        run: a `Run` or the path of its folder; that of its fine-tuning will do too.
        dataset: name of the dataset to calibrate and report with, or None for that of
            the run.
        data_dir: where the dataset lies, or None for where the training found it.
        with_aware: whether to look for the result of quantization-aware training.

    Returns:
        `Source`.

    Raises:
        UserError: the folder holds no finished run, or a file in it is damaged.
    """
    run = Run.open(run)
    config = run_folder.read_config(run.directory)
    if "dataset" not in config["settings"]:  # the folder of the fine-tuning
        run = Run.open(run.directory.parent)
        config = run_folder.read_config(run.directory)
    model = run.load_model()
    if dataset:
        dataset = data_sources.load(dataset, data_dir)
    else:
        dataset = run_folder.dataset_of(config, data_dir)
    return Source(
        model,
        run.preprocessing,
        run.labels,
        dataset,
        getattr(model, "licence", None) or _licence(config["settings"]),
        run.directory / "model.keras",
        _aware(run.directory) if with_aware else None,
    )


def _licence(settings):
    """Returns the licence of the published weights that a run of 0.1 began from."""
    try:
        return registry.find(settings["model"], settings.get("weights") or "").licence
    except ValueError:  # random weights, a file, or an adopted model
        return None


def _aware(directory):
    """Returns the folder that qat.py wrote, or None if it was not run."""
    aware = directory / "qat"
    if not run_folder.read_metrics(aware):  # written last
        return None
    trained = run_folder.read_config(aware)["settings"].get("model_sha256")
    if trained != files.sha256(directory / "model.keras"):
        raise UserError(
            f"{aware} was made from another model.keras: delete it and run "
            "training/qat.py again, or choose --quantize=int8"
        )
    return aware


def of_model(
    model,
    weights=None,
    dataset=None,
    data_dir=None,
    normalization=None,
    crop_fraction=None,
    labels=None,
):
    """Opens a model that is no run; `exporter.export` documents the arguments.

    Returns:
        `Source`.

    Raises:
        UserError: the model, its weights or its labels cannot be read, or the model
            does not classify images.
    """
    if normalization and normalization not in NORMALIZATIONS:
        raise unknown("normalization", normalization, NORMALIZATIONS)
    model, path, known = _open(model, weights)
    model_file.check_classifier(model)
    preprocessing = known.get("preprocessing")
    if normalization or preprocessing is None:
        if not normalization:
            raise UserError(
                "a model that does not know its preprocessing (--model=PATH.keras) "
                f"needs --normalization: {', '.join(NORMALIZATIONS)}. With a wrong one "
                "the device would be less accurate than the model. Received: "
                f"{path or model.name}"
            )
        numbers = NORMALIZATIONS[normalization]
        preprocessing = Preprocessing(model.inputs[0].shape[1:3], **numbers)
    if crop_fraction is not None:
        preprocessing = dataclasses.replace(preprocessing, crop_fraction=crop_fraction)
    dataset = dataset and data_sources.load(dataset, data_dir)
    if labels is None:
        labels = known.get("labels")
        if not labels and dataset and len(dataset.labels) == model.outputs[0].shape[-1]:
            labels = list(dataset.labels)
    else:
        labels = _read_labels(labels)
    return Source(model, preprocessing, labels, dataset, known.get("licence"), path)


def _open(model, weights):
    """Returns (`keras.Model`, its file or None, what it knows of itself).

    The last is a dict that may have `preprocessing`, `labels` and `licence`.
    """
    names = keras_resnet.list_models()
    if isinstance(model, str) and model in names:
        model = keras_resnet.create_model(model, weights=weights)
        size = model.inputs[0].shape[1:3]
        # Random weights and those of a file: what the zoo itself trains with.
        default = Preprocessing(size, **NORMALIZATIONS["zoo"])
        return model, None, {"preprocessing": default, **_known(model)}
    if weights:
        raise UserError("--weights needs a model of the zoo: a .keras file has its own")
    if isinstance(model, keras.Model):
        return model_file.in_float32(model), None, _known(model)
    if not isinstance(model, str | os.PathLike):
        raise UserError(
            "the model must be a run, a keras.Model, the name of a model of the zoo or "
            f"the path of a .keras file. Received: {type(model).__name__}"
        )
    path = pathlib.Path(model)
    if path.suffix != ".keras":
        raise unknown("model (a name or a .keras file)", str(model), names)
    model = model_file.load(path)
    return model, path, _known(model)


def _known(model):
    """Returns what `model_metadata.attach` told a model, as a dict."""
    attributes = ("preprocessing", "labels", "licence")
    return {name: getattr(model, name) for name in attributes if hasattr(model, name)}


def _read_labels(labels):
    """Returns labels as a list: a sequence of them, or the lines of a text file."""
    if not isinstance(labels, str | os.PathLike):
        return list(labels)
    try:
        text = pathlib.Path(labels).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--labels cannot be read: {error}") from error
    return text.rstrip().split("\n")
