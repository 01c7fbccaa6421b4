"""Moves a model's normalization into its weights, for the device.

An 8-bit input has one scale and one zero point. If mean and std are the same for all
channels and the mean is a whole number, the quantized input is the raw pixel itself,
and (pixel - mean) / std costs nothing on the device. Any other normalization (a mean
and a deviation for each channel, another colour order) is folded into the model's
first convolution here.
"""

import dataclasses

import keras
import numpy as np

from keras_resnet import keras_graph
from keras_resnet.runner.errors import UserError


def fold_normalization(model, preprocessing):
    """Rewrites a model for a normalization that 8-bit quantization expresses.

    The deviations and the colour order are folded exactly. The means go into a bias,
    which is exact except at the border of the image: there the convolution pads with
    the common mean instead of the mean of each channel.

    Args:
        model: functional `keras.Model` that takes float images (batch, height, width,
            3), preprocessed as `preprocessing` says. Not changed.
        preprocessing: a `Preprocessing`.

    Returns:
        (model, preprocessing) with `preprocessing.uniform`, which give the same
        scores for the same raw pixels. If it was uniform before, the given pair.

    Raises:
        UserError: the image goes to anything else than one Conv2D of groups=1, behind
            at most zero padding, that is called once.
    """
    if preprocessing.uniform:
        return model, preprocessing
    model, conv = _with_bias(model)

    mean = np.float64(preprocessing.mean_rgb_255)
    std = np.float64(preprocessing.std_rgb_255)
    common_mean, common_std = float(round(mean.mean())), float(std.mean())

    kernel = np.float64(conv.kernel)  # (height, width, channels, filters)
    if preprocessing.channel_order == "bgr":
        kernel = kernel[:, :, ::-1]
    # n_c = (pixel - mean_c) / std_c and z = (pixel - common_mean) / common_std
    # give n_c = z * common_std / std_c + (common_mean - mean_c) / std_c.
    bias = np.einsum("hwco,c->o", kernel, (common_mean - mean) / std)
    conv.kernel.assign(kernel * (common_std / std)[:, None])
    conv.bias.assign(np.float64(conv.bias) + bias)
    return model, dataclasses.replace(
        preprocessing,
        mean_rgb_255=(common_mean,) * 3,
        std_rgb_255=(common_std,) * 3,
        channel_order="rgb",
    )


def _with_bias(model):
    """Returns a copy of a model, and its first convolution, which has a bias."""
    first = _first_convolution(model)

    def clone(layer):
        config = layer.get_config()
        if layer is first:
            config["use_bias"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    for old, new in zip(model.layers, copy.layers, strict=True):
        weights = old.get_weights()
        if old is first and not old.use_bias:
            weights.append(np.zeros(old.filters))
        new.set_weights(weights)
    return copy, copy.get_layer(first.name)


def _first_convolution(model):
    """Returns the convolution that alone reads the image, and nothing else."""
    nodes = keras_graph.nodes(model)
    outputs = {id(tensor) for tensor in model.outputs}

    def readers(tensor):
        found = [node for node in nodes if any(x is tensor for x in node.input_tensors)]
        return found + [None] * (id(tensor) in outputs)

    found = readers(model.inputs[0])
    while len(found) == 1 and isinstance(
        found[0].operation, keras.layers.ZeroPadding2D
    ):
        found = readers(found[0].outputs[0])
    operations = [node.operation for node in found if node]
    first = operations[0] if len(found) == len(operations) == 1 else None
    if (
        type(first) is not keras.layers.Conv2D
        or first.groups != 1
        or sum(node.operation is first for node in nodes) != 1
    ):
        names = [f"{each.name} ({type(each).__name__})" for each in operations]
        raise UserError(
            "Cannot fold the normalization: the image must go to one Conv2D of "
            "groups=1, behind at most ZeroPadding2D, that is called once. "
            f"Received: model={model.name!r}, whose image goes to {', '.join(names)}"
        )
    return first
