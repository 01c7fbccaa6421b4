"""The published weight files: one row of `weights.tsv`, one `WeightFile`.

The figures are those of timm's `results-imagenet.csv` and, for the weights of
keras.applications, of keras.io/api/applications: percent of the 50,000 ImageNet
validation images, one centre crop. The evaluation of keras.applications does
not state its resizing; ours is that of the original Caffe models (shorter side
256). A wrong placement of the stride loads without an error and costs accuracy:
that is why it is here, beside the file.
"""

import csv
import dataclasses
import difflib
import functools
import pathlib

from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing

# What `weights="imagenet"` means where keras.applications has no weights.
DEFAULT_TAGS = {"resnet18": "a1_in1k", "resnet34": "a1_in1k"}
HUB = "hf://"
HUB_FILE = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A published accuracy on ImageNet, and the preprocessing it holds for.

    Attributes:
        preprocessing: a `Preprocessing`.
        top1: percent, or `None` where none is published.
        top5: likewise.
    """

    preprocessing: Preprocessing
    top1: float | None = None
    top5: float | None = None


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A published weight file.

    Attributes:
        model: name of the model it is for.
        tag: its name among the files for that model.
        source: its address, or hf://owner/repo[@revision].
        md5: hexadecimal digest, or `None`: then the hub's own is checked.
        licence: SPDX identifier in lower case, or "not stated".
        stride_on: "1x1" or "3x3": the placement it was trained with.
        evaluations: the published ones, the zoo's default input size first.
    """

    model: str
    tag: str
    source: str
    md5: str | None
    licence: str
    stride_on: str
    evaluations: tuple[Evaluation, ...]

    certain = True  # that `stride_on` is right: see `weights.LocalFile`

    @property
    def name(self):
        """Its name in the whole zoo."""
        return f"{self.model}.{self.tag}"

    @property
    def file(self):
        """Its file name in the cache and on a mirror."""
        if self.source.startswith(HUB):
            return f"{self.name}.safetensors"
        return self.source.rpartition("/")[2]

    @property
    def preprocessing(self):
        """The preprocessing for the zoo's default input size."""
        return self.evaluations[0].preprocessing

    @property
    def non_commercial(self):
        """Whether the licence excludes commercial use."""
        return "-nc" in self.licence


@functools.cache
def weight_files():
    """Returns the registry: {model name: {tag: WeightFile}}."""
    registry = {}
    path = pathlib.Path(__file__).with_name("weights.tsv")
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            entry = _weight_file(**row)
            registry.setdefault(entry.model, {})[entry.tag] = entry
    return registry


def _weight_file(normalization, interpolation, evaluations, md5, **fields):
    def evaluation(size, crop_fraction, *accuracies):
        preprocessing = Preprocessing(
            (int(size), int(size)),
            crop_fraction=float(crop_fraction),
            interpolation=interpolation,
            **NORMALIZATIONS[normalization],
        )
        return Evaluation(preprocessing, *map(float, accuracies))

    return WeightFile(
        md5=None if md5 == "-" else md5,
        evaluations=tuple(evaluation(*e.split(":")) for e in evaluations.split()),
        **fields,
    )


def list_weights(model=None):
    """Returns the names of the registered weight files.

    Args:
        model: name of a model, such as "resnet50"; `None` for all.

    Returns:
        List of names such as "resnet50.a1_in1k". An entry point takes them
        whole or without the model: `ResNet50(weights="a1_in1k")`.

    Raises:
        ValueError: no registered weight file is for this model.
    """
    registry = weight_files()
    if model is not None and model not in registry:
        raise ValueError(
            f"There are weights for {', '.join(registry)}. Received: model={model!r}"
        )
    models = registry if model is None else [model]
    return [entry.name for name in models for entry in registry[name].values()]


def find(model, name):
    """Returns the `WeightFile` of a name.

    Args:
        model: name of a model.
        name: "imagenet" (the default weights), a tag such as "a1_in1k", or
            both together: "resnet50.a1_in1k".

    Raises:
        ValueError: there is no such file for this model.
    """
    entries = weight_files().get(model, {})
    tag = name.removeprefix(f"{model}.")
    if tag == "imagenet":
        tag = DEFAULT_TAGS.get(model, tag)
    if tag in entries:
        return entries[tag]
    if name in list_weights():
        raise ValueError(
            f"These weights are for another model than {model}. Received: {name!r}"
        )
    if not entries:
        raise ValueError(f"No weights are published for {model}. Received: {name!r}")
    names = ["imagenet", *(tag for tag in entries if tag != "imagenet")]
    near = difflib.get_close_matches(tag, names, n=3, cutoff=0.4)
    raise ValueError(
        f"Unknown weights for {model}. "
        + (f"The nearest names: {', '.join(near)}. " if near else "")
        + f"All of them: {', '.join(names)}. Received: {name!r}"
    )
