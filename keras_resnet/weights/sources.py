"""What a `weights` argument means: which file, for which architecture."""

import dataclasses
import functools
import json
import os
import pathlib
import warnings
import zipfile

from keras_resnet import model_metadata
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import download, formats, registry
from keras_resnet.weights.tensors import CLASSIFIER, DIRECTIONS


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A local weight file."""

    path: str  # path of a file that `formats.load` reads
    stride_on: str  # where its bottlenecks have the stride, "1x1" or "3x3"
    # Whether the file says so. If not, `stride_on` is what the writers of its format
    # use.
    stride_known: bool
    preprocessing: Preprocessing | None = None  # `None` if the file has none
    labels: list[str] | None = None  # names of the classes; `None` if the file has none
    licence: str | None = None  # of the weights; `None` if the file has none
    # Whether its classifier reads features of length 1, see `tensors.DIRECTIONS`.
    directions: bool = False


def resolve(model, weights):
    """Returns the `registry.WeightFile` or `LocalFile` that a `weights` argument names.

    That is a registered name, "hf://owner/repo[@revision]" or a local path. The model
    is the name of the zoo's variant, or `None` for a custom network.

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
            "`weights` of a custom network must be a local file: published weights are "
            f"for the models of the zoo. Received: {weights!r}"
        )
    return _on_hub(model, weights) if on_hub else registry.find(model, weights)


def load(model, source, skip_classifier=False):
    """Puts the weights that `resolve` found into a model, as `formats.load` does.

    The model also gets what the source says of them: see `model_metadata.attach`.

    Raises:
        UserError: the file cannot be downloaded or read, or does not fit.
    """
    left_out = ()
    if isinstance(source, LocalFile):
        path = source.path
        if source.directions and _has_classifier_of(model, source.labels):
            warnings.warn(
                f"The classifier for {len(source.labels)} classes was trained behind a "
                f"layer {DIRECTIONS!r}, which this network lacks: its scores will be "
                f"wrong. Open the whole network by keras_resnet.load({path!r}), or "
                "pass include_top=False.",
                stacklevel=2,
            )
    else:
        path, left_out = download.fetch(source), source.left_out
        if source.non_commercial:
            _warn_non_commercial(source.name, source.licence)
    formats.load(model, path, skip_classifier, left_out)
    if source.preprocessing is not None:
        _describe(model, source)


def _describe(model, source):
    """Attaches what a source says of its weights, as far as it is true of the model."""
    size = model_metadata.image_size(model)
    if size is None:  # `input_tensor` is made of something else than an image
        return
    known = source.preprocessing.input_size
    sides = tuple(side or usual for side, usual in zip(size, known, strict=True))
    preprocessing = dataclasses.replace(source.preprocessing, input_size=sides)
    # A classifier for another number of classes is a new one.
    labels = source.labels if _has_classifier_of(model, source.labels) else None
    model_metadata.attach(model, preprocessing, labels, source.licence)


def _has_classifier_of(model, labels):
    top = model.layers[-1]
    return top.name == CLASSIFIER and labels is not None and top.units == len(labels)


@functools.cache  # once for each file, not for each model
def _warn_non_commercial(name, licence):
    warnings.warn(
        f"The weights {name} are licensed for non-commercial use only ({licence}).",
        stacklevel=2,
    )


def _local_file(path):
    formats.check_path(path)
    if path.endswith(".keras"):
        described = model_metadata.read(pathlib.Path(path)) or {}
        strides = _strides_in_keras_file(path)
        known = "conv3_block1_3_conv" in strides  # basic blocks have no choice
        is_3x3 = known and strides.get("conv3_block1_1_conv") == [1, 1]
        return LocalFile(
            path,
            "3x3" if is_3x3 else "1x1",
            stride_known=known,
            directions=DIRECTIONS in strides,
            **described,
        )
    # torchvision and timm train v1.5; keras.applications and the zoo have v1.
    stride_on = "3x3" if path.endswith(".safetensors") else "1x1"
    return LocalFile(path, stride_on, stride_known=False)


def _strides_in_keras_file(path):
    """Returns {layer name: its strides, or None}."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        return {
            layer["config"]["name"]: layer["config"].get("strides")
            for layer in config["layers"]
        }
    except Exception:
        return {}  # damaged: the reader of the weights will say how


def _on_hub(model, source):
    """Describes a repository in timm's layout, or a run that was pushed to the hub."""
    for entry in registry.weight_files().get(model, {}).values():
        if entry.source == source:
            return entry
    repository, revision = download.hub_repository(source)
    try:
        path = download.hub_file(repository, "config.json", revision)
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        if "class_name" in config:  # of a model of Keras
            return _local_file(download.hub_run(source))
        architecture = config["architecture"]
        trained = config["pretrained_cfg"]
        preprocessing = Preprocessing(
            trained["input_size"][1:],
            mean_rgb_255=[255 * value for value in trained["mean"]],
            std_rgb_255=[255 * value for value in trained["std"]],
            crop_fraction=trained["crop_pct"],
            interpolation=trained["interpolation"],
        )
    except UserError:
        raise
    except Exception as error:  # huggingface_hub, JSON and missing keys
        reason = formats.one_line(error)
        address = download.hub_address(repository, "config.json", revision)
        raise UserError(
            f"`weights`: cannot read {address}, which describes weights in timm's "
            f"layout or a run that was pushed: {reason}. Received: {source!r}"
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
        classifier=True,
        left_out=(),
        evaluations=(registry.Evaluation(preprocessing),),
    )
