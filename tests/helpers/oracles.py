"""Random weights, and weight files as their publishers write them.

Written from the descriptions of the formats, without the code under test.
"""

import h5py
import keras
import numpy as np
from safetensors.numpy import save_file

LEGACY_BRANCHES = {"0": "1", "1": "2a", "2": "2b", "3": "2c"}


def random_value(rng, name, shape):
    """Values that keep the activations of a deep network near 1."""
    if len(shape) > 1:
        return rng.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape)
    if name == "gamma" or "variance" in name:
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, 0.1, shape)


def randomize(model, seed):
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(random_value(rng, variable.name, variable.shape))
    return model


def images(size=224, count=2):
    return np.random.default_rng(2).normal(size=(count, size, size, 3))


def relative_difference(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def legacy_name(layer):
    """conv3_block1_2_conv -> res3a_branch2b, as in the files of 2016."""
    if layer in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}[layer]
    if layer == "probs":
        return "fc1000"
    stage, block, branch, kind = layer.split("_")
    letter = "abcdef"[int(block.removeprefix("block")) - 1]
    prefix = {"conv": "res", "bn": "bn"}[kind]
    return f"{prefix}{stage[-1]}{letter}_branch{LEGACY_BRANCHES[branch]}"


def write_keras2_h5(model, path, rename=lambda name: name, suffix=":0"):
    """A weights-only file of Keras 2.2, the classifier called `probs`."""
    with h5py.File(path, "w") as file:
        names = []
        for layer in model.layers:
            name = layer.name
            if layer.weights:
                name = rename("probs" if name == "predictions" else name)
            names.append(name.encode())
            group = file.create_group(name)
            variables = [f"{name}/{v.name}{suffix}" for v in layer.weights]
            group.attrs["weight_names"] = [v.encode() for v in variables]
            for variable, value in zip(variables, layer.weights, strict=True):
                group[variable] = keras.ops.convert_to_numpy(value)
        file.attrs["layer_names"] = names


def torch_name(layer, variable):
    """conv3_block1_0_bn/gamma -> layer2.0.downsample.1.weight."""
    if layer == "predictions":
        return "fc." + {"kernel": "weight", "bias": "bias"}[variable]
    variable = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }[variable]
    if layer.startswith("conv1_"):
        return {"conv": "conv1.", "bn": "bn1."}[layer.removeprefix("conv1_")] + variable
    stage, block, index, kind = layer.split("_")
    prefix = f"layer{int(stage[4:]) - 1}.{int(block[5:]) - 1}"
    if index == "0":
        return f"{prefix}.downsample.{ {'conv': 0, 'bn': 1}[kind] }.{variable}"
    return f"{prefix}.{kind}{index}.{variable}"


def torch_state(model):
    """The state dict that torchvision would have for a bias-free model."""
    state = {}
    for layer in model.layers:
        for variable in layer.weights:
            value = keras.ops.convert_to_numpy(variable)
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            state[torch_name(layer.name, variable.name)] = np.ascontiguousarray(
                value.T if value.ndim == 2 else value
            )
        if layer.name.endswith("_bn"):
            name = torch_name(layer.name, "gamma").replace(
                "weight", "num_batches_tracked"
            )
            state[name] = np.array(7)
    return state


def write_safetensors(state, path):
    save_file(state, path, metadata={"format": "pt"})
