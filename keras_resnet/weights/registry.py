"""The published weight files: one row of `weights.tsv`, one `WeightFile`.

The first row of a model is its default.

The accuracies of timm's weights come from its `results-imagenet.csv`, those of
keras.applications from keras.io/api/applications: percent of the 50,000 validation
images of ImageNet, one centre crop. keras.io does not say how the images were resized;
the registry has the resizing of the original Caffe models (shorter side 256).

Weights with the stride on another convolution load without an error and predict worse.
That is why each row says where its weights have it.

The weights for CIFAR-10 were trained here and are in the package. A card (JSON) beside
each file says how it was trained, and on how many images its accuracy was measured.

The ImageNet features in the package are Microsoft's (MIT licence). The classifier of
their network was never published, so no accuracy is known. Their card says where they
come from and what was changed. Two models share the file: the smaller one leaves out
its last blocks.
"""

import csv
import dataclasses
import functools
import pathlib

from keras_resnet.errors import unknown
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing, classes
from keras_resnet.runner.errors import UserError

PACKAGE = pathlib.Path(__file__).parent
SHIPPED = "pretrained/"  # the folder of the package, and how such a source begins
HUB = "hf://"
HUB_FILE = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A published accuracy, and the preprocessing that it was measured with."""

    preprocessing: Preprocessing
    top1: float | None = None  # percent; `None` if none is published
    top5: float | None = None  # percent; `None` if none is published


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A published weight file."""

    model: str  # name of its model
    tag: str  # its name among the files for that model
    dataset: str  # "imagenet" or "cifar10": the dataset that it was trained on
    source: str  # its address, hf://owner/repo[@revision], or its path in the package
    digest: str | None  # hexadecimal MD5 or SHA-256; `None` if the hub announces one
    licence: str  # SPDX identifier in lower case, or "not stated"
    # The convolution of a bottleneck that has the stride, "1x1" or "3x3".
    stride_on: str
    classifier: bool  # whether the file has one; otherwise it holds features alone
    # Names of the blocks of the file that the model does not have.
    left_out: tuple[str, ...]
    # The published ones; the first is at the zoo's default input size.
    evaluations: tuple[Evaluation, ...]

    stride_known = True  # see `sources.LocalFile`

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
    def shipped(self):
        """Whether it lies in the package."""
        return self.source.startswith(SHIPPED)

    @property
    def preprocessing(self):
        """The preprocessing for the zoo's default input size."""
        return self.evaluations[0].preprocessing

    @property
    def labels(self):
        """The names of the classes, in the order of the scores.

        `None` where the file has no classifier.
        """
        if not self.classifier:
            return None
        return [name for _, name in classes(self.dataset)]

    @property
    def non_commercial(self):
        """Whether the licence excludes commercial use."""
        return "-nc" in self.licence


@functools.cache
def weight_files():
    """Returns the registry: {model name: {tag: WeightFile}}."""
    registry = {}
    with open(PACKAGE / "weights.tsv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            entry = _weight_file(**row)
            registry.setdefault(entry.model, {})[entry.tag] = entry
    return registry


def _weight_file(
    normalization, interpolation, evaluations, digest, classifier, left_out, **fields
):
    def evaluation(size, crop_fraction, *accuracies):
        preprocessing = Preprocessing(
            (int(size), int(size)),
            crop_fraction=float(crop_fraction),
            interpolation=interpolation,
            **NORMALIZATIONS[normalization],
        )
        return Evaluation(preprocessing, *map(float, accuracies))

    return WeightFile(
        digest=None if digest == "-" else digest,
        classifier={"yes": True, "no": False}[classifier],
        left_out=() if left_out == "-" else tuple(left_out.split()),
        evaluations=tuple(evaluation(*e.split(":")) for e in evaluations.split()),
        **fields,
    )


def list_weights(model: str | None = None) -> list[str]:
    """Returns the names of the registered weight files.

    Args:
        model: name of a model, such as "resnet50"; `None` for all.

    Returns:
        List of names such as "resnet50.a1_in1k". An entry point takes them
        whole or without the model: `ResNet50(weights="a1_in1k")`.

    Raises:
        UserError: no registered weight file is for this model.
    """
    registry = weight_files()
    if model is not None and model not in registry:
        raise UserError(
            f"There are weights for {', '.join(registry)}. Received: model={model!r}"
        )
    models = registry if model is None else [model]
    return [entry.name for name in models for entry in registry[name].values()]


def default(model):
    """Returns the `WeightFile` that a model has by default, `None` without any."""
    return next(iter(weight_files().get(model, {}).values()), None)


def shipped(model):
    """Returns the `WeightFile` for a model in the package, `None` without any."""
    entries = weight_files().get(model, {}).values()
    return next((entry for entry in entries if entry.shipped), None)


def find(model, name):
    """Returns the `WeightFile` of a name; raises `UserError` if the model has none.

    The name is "imagenet" or "cifar10" (the default weights for it), a tag such as
    "a1_in1k", or model and tag together: "resnet50.a1_in1k".
    """
    entries = weight_files().get(model, {})
    tag = name.removeprefix(f"{model}.")
    of_datasets = {entry.dataset: entry for entry in reversed(entries.values())}
    entry = entries.get(tag) or of_datasets.get(tag)
    if entry:
        return entry
    if name in list_weights():
        raise UserError(
            f"These weights are for another model than {model}. Received: {name!r}"
        )
    if not entries:
        raise UserError(f"No weights are published for {model}. Received: {name!r}")
    raise unknown(f"weights for {model}", tag, {*of_datasets, *entries})
