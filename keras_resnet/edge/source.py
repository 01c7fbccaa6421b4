"""What is exported: the model of a run, of the zoo, of a file or in memory."""

import dataclasses
import os
import pathlib
import warnings

import keras
import numpy as np

import keras_resnet
from keras_resnet import files, heads, rewrite
from keras_resnet.edge.convert import converter
from keras_resnet.errors import unknown
from keras_resnet.model_metadata import read_labels
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.preprocessing import BOXES, MASKS
from keras_resnet.training import checks, formats, multi_label
from keras_resnet.training.data import batching, by_task, datasets
from keras_resnet.training.formats import custom_code, saved_model
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs import model_file
from keras_resnet.training.runs.run import Run, open_trained
from keras_resnet.training.scenes import answers
from keras_resnet.weights import registry

CHECKED_IMAGES = 32  # to see what the scores of a SavedModel are


@dataclasses.dataclass(frozen=True)
class Source:
    """A trained model and what belongs to it.

    Attributes:
        model: the float `keras.Model`, or a `SavedModel`.
        preprocessing: the `Preprocessing` that the model expects.
        labels: names of its classes, or None.
        dataset: the `Dataset` to calibrate and report with, or None.
        licence: licence of the published weights that the model has or was trained
            from, or None.
        path: the file or the folder of the model, or None.
        aware: folder that quantization-aware training wrote, or None.
        notes: what was changed and assumed in the model, sentences for the user.
        scores: "softmax" (shares of 1), "independent" (a sigmoid for each class),
            "features" for a model without a classifier, `BOXES` for a detector or
            `MASKS` for a segmenter.
    """

    model: keras.Model | saved_model.SavedModel
    preprocessing: Preprocessing
    labels: list | None
    dataset: datasets.Dataset | None
    licence: str | None
    path: pathlib.Path | None
    aware: pathlib.Path | None = None
    notes: list = dataclasses.field(default_factory=list)
    scores: str = "softmax"

    def sha256(self, quantize):
        """Returns the hash of what is exported, or None for a model without a file."""
        if quantize != "qat":
            return self.path and files.sha256(self.path)
        path = self.aware / "saved_model"
        if not path.is_dir():
            raise converter.damaged_saved_model(path)
        return files.sha256(path)

    def calibration_images(self, quantize, limit):
        """Returns training images to calibrate a quantization with, or None.

        uint8 (images, height, width, 3); None where it takes no images.
        """
        if quantize not in converter.CALIBRATED:
            return None
        is_scenes = self.scores in (BOXES, MASKS)
        read = answers.images if is_scenes else batching.calibration_images
        return read(self.dataset, self.preprocessing, limit)

    def folded(self):
        """Returns what `rewrite.fold_normalization` makes of the model."""
        is_graph = isinstance(self.model, saved_model.SavedModel)
        folding = saved_model if is_graph else rewrite
        return folding.fold_normalization(self.model, self.preprocessing)

    @property
    def threshold(self):
        """The score from which on an image has a label, or None if it has one class."""
        one_each = self.dataset is not None and not self.dataset.multi_label
        if self.scores != "independent" or one_each:
            return None
        return multi_label.THRESHOLD

    def of_features(self):
        """Returns the `Source` of the model without its classifier.

        Raises:
            UserError: the model is a SavedModel, or has no classifier that can be told
                from the rest.
        """
        if isinstance(self.model, saved_model.SavedModel):
            raise saved_model.has_no_layers(self.path)
        model = rewrite.without_classifier(self.model)
        return dataclasses.replace(
            self, model=model, labels=None, aware=None, scores="features"
        )

    def fine_tuned(self):
        """Returns the float model with the fine-tuned weights, or None without them."""
        path = self.aware / "model.keras"
        if not path.is_file():
            return None
        settings = run_folder.read_config(self.path.parent)["settings"]
        return model_file.load(path, **custom_code.of_run(settings))


def is_run(model):
    """Returns whether `export` takes this for a run: a `Run` or the path of its folder.

    A text is the folder of a run only if it is not the name of a model of the zoo.
    """
    if isinstance(model, str):
        is_name = model in keras_resnet.list_models()
        return not is_name and run_folder.is_run(model)
    if isinstance(model, os.PathLike):
        return not formats.is_model(pathlib.Path(model))
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
    run, config = open_trained(run)
    model = run.load_model()
    licence = getattr(model, "licence", None) or _licence(config["settings"])
    task = run_folder.task_of(config["settings"])
    if task == by_task.CLASSIFY:
        # A run of version 0.1 may hold a model as somebody else made it.
        rewritten = rewrite.for_device(model, run.preprocessing)
    else:
        gives = BOXES if task == "detect" else MASKS
        rewritten = rewrite.Rewritten(model, run.preprocessing, gives, [])
    if dataset:
        found = by_task.load(task, dataset, data_dir)
        dataset = datasets.of_classes(found, run.labels) or found
    else:
        dataset = run_folder.dataset_of(config, data_dir)
    return Source(
        rewritten.model,
        rewritten.preprocessing,
        run.labels,
        dataset,
        licence,
        run.directory / "model.keras",
        _aware(run.directory) if with_aware else None,
        rewritten.notes,
        rewritten.scores,
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
    labels=None,
    scores=None,
    custom_objects=None,
    allow_lambda=False,
    features=False,
    **said,
):
    """Opens a model that is no run; `exporter.export` documents the arguments.

    Returns:
        `Source`.

    Raises:
        UserError: the model, its weights or its labels cannot be read, or the model
            does not classify images.
    """
    fields = checks.preprocessing_fields(**said)
    network, path, known = _open(model, weights, custom_objects, allow_lambda, features)
    if isinstance(network, keras.Model) and heads.task_of(network) == "detect":
        raise UserError(
            "a detector is exported from the folder of its run, which knows its data. "
            f"Received: {path or network.name}"
        )
    preprocessing = _preprocessing(network, path, known, fields)
    dataset = dataset and by_task.load(by_task.CLASSIFY, dataset, data_dir)
    if isinstance(network, saved_model.SavedModel):
        images = preprocessing.normalize(_images(dataset, preprocessing))
        network, notes = saved_model.with_scores(network, images, scores)
        found = scores or "softmax"
    else:
        rewritten = rewrite.for_device(network, preprocessing, scores)
        network, preprocessing = rewritten.model, rewritten.preprocessing
        notes, found = rewritten.notes, rewritten.scores
    if labels is None:
        classes = network.outputs[0].shape[-1]
        labels = known.get("labels")
        if not labels and dataset and len(dataset.labels) == classes:
            labels = list(dataset.labels)
    else:
        labels = read_labels(labels)
    if dataset and labels and sorted(labels) == sorted(dataset.labels):
        dataset = datasets.reordered(dataset, labels)
    return Source(
        network,
        preprocessing,
        labels,
        dataset,
        known.get("licence"),
        path,
        notes=notes,
        scores=found,
    )


def _preprocessing(network, path, known, fields):
    """Returns the `Preprocessing` that a model knows, with what the user said."""
    preprocessing = known.get("preprocessing")
    if preprocessing is None:
        if "mean_rgb_255" not in fields:
            raise UserError(
                "a model that does not know its preprocessing (--model=PATH) "
                f"needs --normalization ({', '.join(NORMALIZATIONS)}) or --mean and "
                "--std. With a wrong one the device would be less accurate than the "
                "model: training/adopt.py finds it out. Received: "
                f"{path or network.name}"
            )
        is_graph = isinstance(network, saved_model.SavedModel)
        shape = (
            network.inputs[0].shape[1:] if is_graph else rewrite.input_shape(network)
        )
        preprocessing = Preprocessing(tuple(shape)[:2])
    return dataclasses.replace(preprocessing, **fields)


def _images(dataset, preprocessing):
    """Returns uint8 images (number, height, width, 3): of the dataset, or noise."""
    if dataset:
        return batching.calibration_images(dataset, preprocessing, CHECKED_IMAGES)
    shape = (CHECKED_IMAGES, *preprocessing.input_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _open(model, weights, custom_objects, allow_lambda, features):
    """Returns (`keras.Model` or `SavedModel`, its path or None, what it knows).

    The last is a dict that may have `preprocessing`, `labels` and `licence`.
    """
    names = keras_resnet.list_models()
    if isinstance(model, str) and model in names:
        # Features leave the classifier out, which some weights are published without.
        classes = 2 if features and not _have_classifier(model, weights) else None
        with warnings.catch_warnings():
            if classes:
                warnings.filterwarnings("ignore", "The classifier for")
            model = keras_resnet.create_model(model, weights=weights, classes=classes)
        size = model.inputs[0].shape[1:3]
        # Random weights and those of a file: what the zoo itself trains with.
        default = Preprocessing(size, **NORMALIZATIONS["zoo"])
        return model, None, {"preprocessing": default, **_known(model)}
    if weights:
        raise UserError("--weights needs a model of the zoo: a file has its own")
    if isinstance(model, keras.Model):
        return model, None, _known(model)
    if not isinstance(model, str | os.PathLike):
        raise UserError(
            "the model must be a run, a keras.Model, the name of a model of the zoo or "
            f"the path of a model. Received: {type(model).__name__}"
        )
    path = pathlib.Path(model).expanduser()
    if not path.exists() and not formats.is_model(path):
        raise unknown("model (a name, a file or a folder)", str(model), names)
    if saved_model.is_folder(path):
        return saved_model.load(path), path, {}
    model = formats.open_model(path, custom_objects, allow_lambda)
    return model, path, _known(model)


def _have_classifier(model, weights):
    """Returns whether the named weights of a model of the zoo have a classifier."""
    try:
        return registry.find(model, weights or "").classifier
    except ValueError:  # random weights or a file
        return True


def _known(model):
    """Returns what `model_metadata.attach` told a model, as a dict."""
    attributes = ("preprocessing", "labels", "licence")
    return {name: getattr(model, name) for name in attributes if hasattr(model, name)}
