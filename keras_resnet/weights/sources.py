"""What a `weights` argument means: which file, for which architecture."""

import dataclasses
import functools
import json
import os
import warnings
import zipfile

import keras
import numpy as np

from keras_resnet.preprocessing import Preprocessing, classes
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import download, formats, registry


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A weight file of the user's.

    Attributes:
        path: of a file that `formats.load` reads.
        stride_on: the placement of the stride that it is for, "1x1" or "3x3".
        stride_known: whether the file says so itself; where it does not, this is
            what the writers of the format use.
        preprocessing: `None`: the file does not say.
        dataset: likewise.
        licence: likewise.
    """

    path: str
    stride_on: str
    stride_known: bool
    preprocessing: None = None
    dataset: None = None
    licence: None = None


def resolve(model, weights):
    """Finds the file that a `weights` argument names.

    Args:
        model: name of the zoo's variant, or `None` for a network of one's own.
        weights: a registered name, "hf://owner/repo[@revision]" or a local
            path.

    Returns:
        A `registry.WeightFile` or a `LocalFile`.

    Raises:
        UserError: there is no such name or file, or it is for another model.
    """
    if not isinstance(weights, str | os.PathLike):
        raise UserError(
            "`weights` must be None, a name or a path. "
            f"Received: {type(weights).__name__}"
        )
    weights = os.fspath(weights)
    on_hub = weights.startswith(registry.HUB)
    if "://" in weights and not on_hub:
        raise UserError(
            "`weights` takes a name, hf://owner/repo or a local file, not an "
            f"address: download the file first. Received: {weights!r}"
        )
    # Not `exists`: a folder may well be called "imagenet".
    is_path = "/" in weights or os.sep in weights or os.path.isfile(weights)
    if not on_hub and (is_path or weights.endswith(formats.SUFFIXES + formats.PICKLES)):
        return _local_file(weights)
    if model is None:
        raise UserError(
            "A network of one's own takes local weight files only. "
            f"Received: {weights!r}"
        )
    return _hub_entry(model, weights) if on_hub else registry.find(model, weights)


def load(model, source, skip_classifier=False):
    """Puts the weights that `resolve` found into a model, all or none of them.

    Args:
        model: a `keras.Model` of the zoo, changed in place. It remembers the
            weights' preprocessing as `model.preprocessing`, as `model.dataset`
            whose classes they tell apart, and their `model.licence`.
        source: what `resolve` returned.
        skip_classifier: whether a classifier for another number of classes
            keeps its initialization, with a warning, instead of being refused.

    Returns:
        The names of the tensors of the file that were not used.

    Raises:
        UserError: the file cannot be had or read, or does not fit.
    """
    if isinstance(source, LocalFile):
        path = source.path
    else:
        path = download.fetch(source)
        if source.non_commercial:
            _say_non_commercial(source.name, source.licence)
    unused = formats.load(model, path, skip_classifier)
    model.preprocessing = source.preprocessing
    model.dataset = source.dataset
    model.licence = source.licence
    return unused


@functools.cache  # once for each file, not for each model
def _say_non_commercial(name, licence):
    warnings.warn(
        f"The weights {name} are licensed for non-commercial use only ({licence}).",
        stacklevel=2,
    )


def _local_file(path):
    formats.check_path(path)
    if path.endswith(".keras"):
        stride_on = _stride_in_keras_file(path)
        if stride_on is not None:
            return LocalFile(path, stride_on, stride_known=True)
    # torchvision and timm train v1.5; keras.applications and the zoo have v1.
    stride_on = "3x3" if path.endswith(".safetensors") else "1x1"
    return LocalFile(path, stride_on, stride_known=False)


def _stride_in_keras_file(path):
    """Returns where the first halving bottleneck has its stride, or `None`."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        strides = {
            layer["config"]["name"]: layer["config"].get("strides")
            for layer in config["layers"]
        }
    except Exception:
        return None  # damaged: the reader of the weights will say how
    if "conv3_block1_3_conv" not in strides:
        return None  # basic blocks have no choice
    return "3x3" if strides.get("conv3_block1_1_conv") == [1, 1] else "1x1"


def _hub_entry(model, source):
    """Describes a repository in timm's layout, from its config.json."""
    for entry in registry.weight_files().get(model, {}).values():
        if entry.source == source:
            return entry
    repository, revision = download.hub_repository(source)
    try:
        path = download.hub_file(repository, "config.json", revision)
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        architecture = config["architecture"]
        trained = config["pretrained_cfg"]
        preprocessing = Preprocessing(
            trained["input_size"][1:],
            mean_rgb_255=[255 * value for value in trained["mean"]],
            std_rgb_255=[255 * value for value in trained["std"]],
            crop_fraction=trained["crop_pct"],
            interpolation=trained["interpolation"],
        )
    except Exception as error:  # huggingface_hub, JSON and missing keys
        reason = formats.one_line(error)
        address = download.hub_address(repository, "config.json", revision)
        raise UserError(
            f"`weights`: cannot read {address}, which describes weights in timm's "
            f"layout: {reason}. Received: {source!r}"
        ) from error
    # Another architecture may have the same tensors, as resnetblur50 has.
    if architecture != model:
        raise UserError(
            f"`weights` are for {architecture}, not for {model}. Received: {source!r}"
        )
    return registry.WeightFile(
        model,
        tag=source.removeprefix(registry.HUB).replace("/", "."),
        dataset="imagenet",
        source=source,
        digest=None,
        licence=trained.get("license") or "not stated",
        stride_on="3x3",
        evaluations=(registry.Evaluation(preprocessing),),
    )


def preprocess_input(x, model_or_weights="resnet50", data_format=None):
    """Normalizes raw pixels as a model's weights want them.

    Args:
        x: RGB pixels, 0..255, any dtype: array or tensor of one image (height,
            width, 3) or a batch (batch, height, width, 3). Not changed.
        model_or_weights: a model that was built with named weights, or their
            name: "resnet50.a1_in1k", "a1_in1k" where all depths agree, or
            a model's name for its default weights. The default are the weights
            of keras.applications, as its function of the same name has it.
        data_format: "channels_last" or "channels_first"; `None` takes
            `keras.config.image_data_format()`.

    Returns:
        float32 array, or tensor where `x` is one, of the same shape.

    Raises:
        UserError: unknown weights, or a model that does not know its own.
    """
    preprocessing = _described(model_or_weights).preprocessing
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise UserError(
            "`data_format` must be 'channels_last' or 'channels_first'. "
            f"Received: {data_format!r}"
        )
    channels_first = data_format == "channels_first"
    if not (keras.ops.is_tensor(x) or keras.utils.is_keras_tensor(x)):
        x = np.moveaxis(x, -3, -1) if channels_first else x
        x = preprocessing.normalize(x)
        return np.moveaxis(x, -1, -3) if channels_first else x
    broadcast = (3, 1, 1) if channels_first else (3,)
    mean, std = (
        keras.ops.reshape(keras.ops.convert_to_tensor(values, "float32"), broadcast)
        for values in (preprocessing.mean_rgb_255, preprocessing.std_rgb_255)
    )
    x = (keras.ops.cast(x, "float32") - mean) / std
    if preprocessing.channel_order == "bgr":
        x = keras.ops.flip(x, axis=-len(broadcast))
    return x


def decode_predictions(preds, top=5, model_or_weights="resnet50"):
    """Names the best classes of predictions.

    Args:
        preds: array (batch, classes) of scores.
        top: how many classes to return for each image.
        model_or_weights: whose classes they are, as for `preprocess_input`. The
            default are those of ImageNet, as keras.applications has it.

    Returns:
        One list for each image, of (WordNet id, name, score) tuples, the best
        first. For CIFAR-10, which has no such ids, the name stands for it.

    Raises:
        UserError: the array has another shape, unknown weights, or a model that
            does not know its own.
    """
    source = _described(model_or_weights)
    names = classes(source.dataset)
    preds = np.asarray(preds)
    if preds.ndim != 2 or preds.shape[1] != len(names):
        raise UserError(
            f"`preds` must be an array (batch, {len(names)}) of scores for "
            f"{source.dataset}; for other classes give `model_or_weights`. "
            f"Received: shape {preds.shape}"
        )
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(*names[index], scores[index]) for index in indices]
        for indices, scores in zip(best, preds, strict=True)
    ]


def _described(model_or_weights):
    """Returns what has the `preprocessing` and the `dataset` of weights."""
    if isinstance(model_or_weights, keras.Model):
        if getattr(model_or_weights, "preprocessing", None) is None:
            raise UserError(
                "This model was not built with named weights: give the name of "
                f"those it has. Received: model {model_or_weights.name!r}"
            )
        return model_or_weights
    files = registry.weight_files()
    model, _, tag = str(model_or_weights).partition(".")
    if model in files:
        return registry.find(model, tag) if tag else registry.default(model)
    found = [tags[model] for tags in files.values() if model in tags]
    if model == "imagenet" or not found:  # "imagenet" depends on the depth
        raise UserError(
            "`model_or_weights` must be a model of the zoo with named weights, or a "
            f"name: {', '.join(files)}, or one of `list_weights()`. "
            f"Received: {model_or_weights!r}"
        )
    # The normalization of a tag is the same for all depths (a test asserts it).
    return found[0]
