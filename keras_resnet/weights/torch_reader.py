"""Reads `.safetensors` files of timm, of torchvision and of networks for CIFAR."""

import re

import numpy as np
import safetensors

from keras_resnet.weights.tensors import CLASSIFIER, Tensor

FLOATS = ("F64", "F32", "F16", "BF16")

# `fc` is the classifier of timm and torchvision, `linear` that of
# github.com/akamaster/pytorch_resnet_cifar10.
_LAYERS = {
    "conv1": "conv1_conv",
    "bn1": "conv1_bn",
    "fc": CLASSIFIER,
    "linear": CLASSIFIER,
}
# What `DataParallel` puts in front of every name.
_PARALLEL = "module."
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(conv|bn|downsample\.)(\d+)$")
_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def read(path, stack):
    """Reads a file with the names of torchvision's state dict; `stack` closes it.

    Returns ({(layer, variable): Tensor}, names of the tensors that nobody needs). A
    tensor with an unknown name has the key (name, ""), which fits no model. If the file
    is damaged, safetensors raises exceptions of many kinds.
    """
    file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    tensors, unused = {}, []
    for name in file.keys():
        prefix, _, variable = name.removeprefix(_PARALLEL).rpartition(".")
        if variable == "num_batches_tracked":
            unused.append(name)
            continue
        layer = _layer(prefix)
        if layer is None:
            key = (name, "")
        elif layer.endswith("_bn"):
            key = (layer, _BATCH_NORM.get(variable, variable))
        else:
            key = (layer, {"weight": "kernel"}.get(variable, variable))
        tensors[key] = _tensor(file, name)
    return tensors, unused


def _tensor(file, name):
    header = file.get_slice(name)
    dtype, shape = header.get_dtype(), header.get_shape()
    if dtype not in FLOATS:
        raise ValueError(f"{name} is {dtype}, not one of {', '.join(FLOATS)}")
    # (out, in, height, width) -> (height, width, in, out); (out, in) -> (in, out)
    axes = (2, 3, 1, 0) if len(shape) == 4 else tuple(range(len(shape)))[::-1]

    def read_tensor():
        return np.asarray(file.get_tensor(name).transpose(axes), np.float32)

    return Tensor(name, tuple(shape[axis] for axis in axes), read_tensor)


def _layer(prefix):
    """layer2.0.conv1 -> conv3_block1_1_conv; layer2.0.downsample.1 -> ..._0_bn."""
    match = _BLOCK.match(prefix)
    if not match:
        return _LAYERS.get(prefix)
    stage, block, kind, index = match.groups()
    if kind == "downsample.":
        kind, index = ("conv", "bn")[index != "0"], 0
    return f"conv{int(stage) + 1}_block{int(block) + 1}_{index}_{kind}"
