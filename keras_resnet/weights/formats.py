"""Reads weight files of several formats onto the layers of the zoo.

| file | written by | layers are found by |
|---|---|---|
| `.keras`, `.weights.h5` | Keras 3 | the layer name stored beside the arrays |
| `.h5` | keras.applications, Keras 2 | layer name: current, legacy and ours |
| `.safetensors` | timm, torchvision | the names of torchvision's state dict |

Every format becomes one dictionary of tensors, and one strict function puts it
into a model. Nothing in a file is executed: pickles are refused.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import shlex
import warnings
import zipfile
from collections.abc import Callable

import numpy as np

from keras_resnet.runner.errors import UserError

SUFFIXES = (".keras", ".weights.h5", ".h5", ".safetensors")
PICKLES = (".pth", ".pt", ".bin", ".pkl", ".ckpt", ".tar")

CLASSIFIER = "predictions"
NORMALIZATION = ("gamma", "beta", "moving_mean", "moving_variance")

# keras.applications normalizes with this epsilon, the zoo with 1e-5 (as torch
# and Caffe): the difference is moved into the variance.
KERAS_APPLICATIONS_EPSILON = 1.001e-5
EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One array of a weight file.

    Attributes:
        name: its name in the file, for messages.
        shape: its shape, in Keras' layout.
        read: returns it, in Keras' layout; called when it is needed, so that
            no more than one array is in memory.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def load(model, path, skip_classifier=False):
    """Puts a local weight file into a model, all of it or nothing.

    Args:
        model: a `keras.Model` of the zoo, changed in place.
        path: a file of one of the formats above.
        skip_classifier: whether a classifier for another number of classes
            keeps its initialization instead of being refused.

    Returns:
        The names of the tensors of the file that were not used: a classifier
        that the model does not have or that was skipped, and torch's counters.

    Raises:
        UserError: the file is missing, damaged, of another type or of another
            architecture, or holds NaN or infinity. The model is as it was.
    """
    path = os.fspath(path)
    check_path(path)
    with contextlib.ExitStack() as stack:
        try:
            tensors, unused = _open(path, stack)
        except Exception as error:  # h5py, zipfile and json raise many kinds
            raise UserError(
                f"`weights` is damaged or no weight file: {one_line(error)}. "
                f"Received: {path!r}"
            ) from error
        variables = {
            (layer.name, variable.name): variable
            for layer in model.layers
            for variable in layer.weights
        }
        _fold_biases(tensors, variables)
        unused += _set_classifier_apart(tensors, variables, skip_classifier, path)
        _check_fit(tensors, variables, model.name, path)
        # Everything is read twice, for the check and for the model: a second
        # copy of a large file in memory would cost more than that.
        for tensor in tensors.values():
            _check_values(tensor, path)
        for key, variable in variables.items():
            variable.assign(tensors[key].read())
    return unused


def check_path(path):
    """Raises UserError unless a path is a file of a readable format."""
    if path.endswith(PICKLES):
        target = f"{os.path.splitext(path)[0]}.safetensors"
        raise UserError(
            "`weights` is a pickle, which may run any code when it is read. Convert "
            'it where you trust it: python -c "import sys, torch; '
            "from safetensors.torch import save_file; "
            "d = torch.load(sys.argv[1], 'cpu', weights_only=True); "
            "d = d.get('state_dict', d); "
            'save_file({k: v.contiguous() for k, v in d.items()}, sys.argv[2])" '
            f"{shlex.quote(path)} {shlex.quote(target)} Received: {path!r}"
        )
    if not path.endswith(SUFFIXES):
        raise UserError(
            f"`weights` must be a file that ends in {', '.join(SUFFIXES)}. "
            f"Received: {path!r}"
        )
    if not os.path.isfile(path):
        raise UserError(f"`weights`: no such file. Received: {path!r}")


def one_line(error):
    """Returns the text of an exception in one line, without a full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")


def _open(path, stack):
    """Returns ({(layer, variable): Tensor}, names of tensors that nobody needs).

    A tensor with an unknown name has the key (name, ""), which fits no model.
    """
    if path.endswith(".safetensors"):
        return _torch_tensors(stack.enter_context(open(path, "rb")))

    import h5py

    if path.endswith(".keras"):
        archive = stack.enter_context(zipfile.ZipFile(path))
        path = stack.enter_context(archive.open("model.weights.h5"))
        return _keras_tensors(stack.enter_context(h5py.File(path, "r"))), []
    file = stack.enter_context(h5py.File(path, "r"))
    if path.endswith(".weights.h5") and "layer_names" not in file.attrs:
        return _keras_tensors(file), []
    return _keras2_tensors(file), []


# --- torchvision and timm ---------------------------------------------------

_TORCH_LAYERS = {"conv1": "conv1_conv", "bn1": "conv1_bn", "fc": CLASSIFIER}
_TORCH_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(conv|bn|downsample\.)(\d+)$")
_TORCH_VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
# The floating-point types of safetensors; numpy has no BF16, half an F32.
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def _torch_tensors(file):
    """Reads a safetensors file, https://github.com/huggingface/safetensors.

    Eight bytes with the size of the header, the header in JSON, the tensors. The
    reader of the `safetensors` package maps the whole file into memory; this one
    holds one tensor at a time.
    """
    file_size = os.fstat(file.fileno()).st_size
    header_size = int.from_bytes(file.read(8), "little")
    start = 8 + header_size
    if start > file_size:
        raise UserError("its header is cut off, or it is no safetensors file")
    header = json.loads(file.read(header_size))
    header.pop("__metadata__", None)
    end = start + max((part["data_offsets"][1] for part in header.values()), default=0)
    if end != file_size:
        raise UserError(f"it has {file_size} bytes instead of {end}")

    tensors, unused = {}, []
    for name, part in header.items():
        prefix, _, variable = name.rpartition(".")
        if variable == "num_batches_tracked":
            unused.append(name)
            continue
        layer = _torch_layer(prefix)
        if layer is None:
            key = (name, "")
        elif layer.endswith("_bn"):
            key = (layer, _TORCH_VARIABLES.get(variable, variable))
        else:
            key = (layer, {"weight": "kernel"}.get(variable, variable))
        tensors[key] = _torch_tensor(file, start, name, **part)
    return tensors, unused


def _torch_tensor(file, start, name, dtype, shape, data_offsets):
    if dtype not in _FLOATS:
        raise UserError(f"{name} is {dtype}, not one of {', '.join(_FLOATS)}")
    begin, end = data_offsets
    count = math.prod(shape)
    if begin < 0 or end - begin != count * np.dtype(_FLOATS[dtype]).itemsize:
        raise UserError(f"{name} has another size than its shape {shape}")
    # (out, in, height, width) -> (height, width, in, out); (out, in) -> (in, out)
    axes = (2, 3, 1, 0) if len(shape) == 4 else tuple(range(len(shape)))[::-1]

    def read():
        file.seek(start + begin)
        values = np.fromfile(file, _FLOATS[dtype], count)
        if dtype == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        return np.asarray(values.reshape(shape).transpose(axes), np.float32)

    return Tensor(name, tuple(shape[axis] for axis in axes), read)


def _torch_layer(prefix):
    """layer2.0.conv1 -> conv3_block1_1_conv; layer2.0.downsample.1 -> ..._0_bn."""
    match = _TORCH_BLOCK.match(prefix)
    if not match:
        return _TORCH_LAYERS.get(prefix)
    stage, block, kind, index = match.groups()
    if kind == "downsample.":
        kind, index = ("conv", "bn")[index != "0"], 0
    return f"conv{int(stage) + 1}_block{int(block) + 1}_{index}_{kind}"


# --- Keras 3 ----------------------------------------------------------------


def _keras_tensors(file):
    tensors = {}
    for group in file["layers"].values():
        arrays = group.get("vars", ())
        if not len(arrays):
            continue  # activations, additions, dropout
        layer = arrays.attrs.get("name", group.name)
        names = NORMALIZATION if arrays["0"].ndim == 1 else ("kernel", "bias")
        for index in range(len(arrays)):
            variable = names[index] if index < len(names) else str(index)
            tensors[layer, variable] = _hdf5_tensor(
                f"{layer}/{variable}", arrays[str(index)]
            )
    return tensors


def _hdf5_tensor(name, array):
    if array.dtype.kind != "f":
        raise UserError(f"{name} is {array.dtype}, not a float")
    return Tensor(name, array.shape, lambda: np.asarray(array[()], np.float32))


# --- keras.applications -----------------------------------------------------

_LEGACY_LAYERS = {
    "conv1": "conv1_conv",
    "bn_conv1": "conv1_bn",
    "probs": CLASSIFIER,
    "fc1000": CLASSIFIER,
}
_LEGACY_BLOCK = re.compile(r"(res|bn)(\d)([a-z])_branch(1|2[abc])$")
_LEGACY_BRANCHES = {"1": 0, "2a": 1, "2b": 2, "2c": 3}


def _keras2_tensors(file):
    root = file if "layer_names" in file.attrs else file["model_weights"]
    tensors = {}
    for group_name in map(_text, root.attrs["layer_names"]):
        group = root[group_name]
        layer = _current_layer(group_name)
        for name in map(_text, group.attrs["weight_names"]):
            # "conv1_conv/kernel:0" (Keras 2) or "kernel" (Keras 3)
            variable = name.rpartition("/")[2].partition(":")[0]
            tensors[layer, variable] = _hdf5_tensor(name, group[name])
    return tensors


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


def _fold_biases(tensors, variables):
    """Moves biases that the model's convolutions lack into the normalizations.

    BN(Wx + b) is BN(Wx) with the mean smaller by b. Only keras.applications has
    such biases, so its epsilon goes into the variance on the same occasion.
    """
    for key in list(tensors):
        layer, variable = key
        if not (layer.endswith("_conv") and variable == "bias") or key in variables:
            continue
        bias = tensors[key]
        normalization = f"{layer.removesuffix('_conv')}_bn"
        mean = tensors.get((normalization, "moving_mean"))
        variance = tensors.get((normalization, "moving_variance"))
        if mean is None or variance is None or mean.shape != bias.shape:
            continue  # stays in `tensors`, and is reported as unknown
        del tensors[key]

        def folded_mean(mean=mean, bias=bias):
            return np.float32(np.float64(mean.read()) - np.float64(bias.read()))

        def folded_variance(variance=variance):
            change = KERAS_APPLICATIONS_EPSILON - EPSILON
            return np.float32(np.float64(variance.read()) + change)

        tensors[normalization, "moving_mean"] = dataclasses.replace(
            mean, read=folded_mean
        )
        tensors[normalization, "moving_variance"] = dataclasses.replace(
            variance, read=folded_variance
        )


# --- fitting ----------------------------------------------------------------


def _set_classifier_apart(tensors, variables, skip, path):
    """Drops a classifier that the model does not take; returns its names."""
    kernel = variables.get((CLASSIFIER, "kernel"))
    found = [key for key in tensors if key[0] == CLASSIFIER]
    if kernel is not None:
        classes = kernel.shape[-1]
        in_file = tensors.get((CLASSIFIER, "kernel"))
        if in_file is not None and in_file.shape[-1] == classes:
            return []
        has = f"one for {in_file.shape[-1]}" if in_file else "none"
        if not skip:
            raise UserError(
                f"The model has a classifier for {classes} classes, `weights` has "
                f"{has}. Build the model with include_top=False, or with another "
                f"number of classes for a new classifier. Received: {path!r}"
            )
        warnings.warn(
            f"The classifier for {classes} classes keeps its initialization: "
            f"{path!r} has {has}.",
            stacklevel=2,
        )
        for key in [key for key in variables if key[0] == CLASSIFIER]:
            del variables[key]
    return [tensors.pop(key).name for key in found]


def _check_fit(tensors, variables, model_name, path):
    missing = ["/".join(key) for key in variables if key not in tensors]
    unknown = [tensors[key].name for key in tensors if key not in variables]
    reshaped = [
        f"{tensors[key].name} {tensors[key].shape} for {tuple(variable.shape)}"
        for key, variable in variables.items()
        if key in tensors and tensors[key].shape != tuple(variable.shape)
    ]
    problems = [
        f"{len(names)} {problem} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for problem, names in (
            ("tensors missing", missing),
            ("tensors unknown", unknown),
            ("of another shape", reshaped),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"`weights` does not fit {model_name}: {'; '.join(problems)}. "
            f"Received: {path!r}"
        )


def _check_values(tensor, path):
    try:
        finite = np.isfinite(tensor.read()).all()
    except Exception as error:  # h5py, zipfile and json raise many kinds
        raise UserError(
            f"`weights` is damaged in {tensor.name}: {one_line(error)}. "
            f"Received: {path!r}"
        ) from error
    if not finite:
        raise UserError(
            f"`weights` holds NaN or infinity in {tensor.name}. Received: {path!r}"
        )
