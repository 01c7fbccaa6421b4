"""Reads the HDF5 files of Keras 3, of Keras 2 and of keras.applications."""

import dataclasses
import re
import zipfile

import h5py
import numpy as np

from keras_resnet.blocks import BN_EPSILON
from keras_resnet.weights.tensors import CLASSIFIER, Tensor

# Of the batch normalization in keras.applications. The difference to the zoo's epsilon
# is moved into the variance.
KERAS_APPLICATIONS_EPSILON = 1.001e-5

_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")

# The names of layers in the files of 2016.
_LEGACY_LAYERS = {
    "conv1": "conv1_conv",
    "bn_conv1": "conv1_bn",
    "probs": CLASSIFIER,
    "fc1000": CLASSIFIER,
}
_LEGACY_BLOCK = re.compile(r"(res|bn)(\d)([a-z])_branch(1|2[abc])$")
_LEGACY_BRANCHES = {"1": 0, "2a": 1, "2b": 2, "2c": 3}


def read(path, stack):
    """Reads a file as {(layer, variable): Tensor}; `stack` closes it.

    If it is damaged, h5py and zipfile raise exceptions of many kinds.
    """
    file = path
    if path.endswith(".keras"):
        archive = stack.enter_context(zipfile.ZipFile(path))
        file = stack.enter_context(archive.open("model.weights.h5"))
    file = stack.enter_context(h5py.File(file, "r"))
    if path.endswith(".keras") or (
        path.endswith(".weights.h5") and "layer_names" not in file.attrs
    ):
        tensors = _keras3_tensors(file)
    else:
        tensors = _keras2_tensors(file)
    _fold_biases(tensors)
    return tensors


def _keras3_tensors(file):
    tensors = {}
    for group in file["layers"].values():
        arrays = group.get("vars", ())
        if not len(arrays):
            continue  # activations, additions, dropout
        layer = arrays.attrs.get("name", group.name)
        names = _BATCH_NORM if arrays["0"].ndim == 1 else ("kernel", "bias")
        for index in range(len(arrays)):
            variable = names[index] if index < len(names) else str(index)
            name = f"{layer}/{variable}"
            tensors[layer, variable] = _tensor(name, arrays[str(index)])
    return tensors


def _keras2_tensors(file):
    root = file if "layer_names" in file.attrs else file["model_weights"]
    tensors = {}
    for group_name in map(_text, root.attrs["layer_names"]):
        group = root[group_name]
        layer = _current_layer(group_name)
        for name in map(_text, group.attrs["weight_names"]):
            # "conv1_conv/kernel:0" (Keras 2) or "kernel" (Keras 3)
            variable = name.rpartition("/")[2].partition(":")[0]
            tensors[layer, variable] = _tensor(name, group[name])
    return tensors


def _tensor(name, array):
    if array.dtype.kind != "f":
        raise ValueError(f"{name} is {array.dtype}, not a float")
    return Tensor(name, array.shape, lambda: np.asarray(array[()], np.float32))


def _text(name):
    return name.decode() if isinstance(name, bytes) else name


def _current_layer(name):
    """res2a_branch2b -> conv2_block1_2_conv; other names stay."""
    match = _LEGACY_BLOCK.match(name)
    if not match:
        return _LEGACY_LAYERS.get(name, name)
    kind, stage, block, branch = match.groups()
    kind = {"res": "conv", "bn": "bn"}[kind]
    block = ord(block) - ord("a") + 1
    return f"conv{stage}_block{block}_{_LEGACY_BRANCHES[branch]}_{kind}"


def _fold_biases(tensors):
    """Moves the biases of convolutions, which the zoo lacks, into the normalizations.

    BN(Wx + b) is BN(Wx) with the mean smaller by b. Only keras.applications has
    such biases, so its epsilon goes into the variance on the same occasion.
    """
    for key in list(tensors):
        layer, variable = key
        if not (layer.endswith("_conv") and variable == "bias"):
            continue
        bias = tensors[key]
        normalization = f"{layer.removesuffix('_conv')}_bn"
        of_mean, of_variance = (
            (normalization, name) for name in ("moving_mean", "moving_variance")
        )
        mean, variance = tensors.get(of_mean), tensors.get(of_variance)
        if mean is None or variance is None or mean.shape != bias.shape:
            continue  # stays in `tensors`, and is reported as unknown
        del tensors[key]

        def folded_mean(mean=mean, bias=bias):
            return np.float32(np.float64(mean.read()) - np.float64(bias.read()))

        def folded_variance(variance=variance):
            change = KERAS_APPLICATIONS_EPSILON - BN_EPSILON
            return np.float32(np.float64(variance.read()) + change)

        tensors[of_mean] = dataclasses.replace(mean, read=folded_mean)
        tensors[of_variance] = dataclasses.replace(variance, read=folded_variance)
