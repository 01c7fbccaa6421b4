"""Moves a model's normalization into its weights, for the device.

An 8-bit input has one scale and one zero point, so real = (pixel - mean) / std
costs nothing on a device where mean and std are the same for all channels and
the mean is a whole number: the quantized input is then the raw pixel. What a
model's preprocessing asks beyond that (a mean and a deviation per channel,
another colour order) is folded into its first convolution here.
"""

import dataclasses

import keras
import numpy as np


def fold_normalization(model, preprocessing):
    """Rewrites a model for a normalization that 8-bit quantization expresses.

    The scales and the colour order are folded exactly. What is left of the
    means goes into a bias, exact but for the border: there the convolution
    pads with the common mean instead of each channel's own.

    Args:
        model: functional `keras.Model` from float images (batch, height, width,
            3), preprocessed as `preprocessing` says. Not changed.
        preprocessing: a `Preprocessing`.

    Returns:
        (model, preprocessing), equal to the given pair as a function of raw
        pixels, whose `preprocessing.uniform` is true. The same pair where it
        already is.

    Raises:
        ValueError: the input does not go to one Conv2D (behind at most zero
            padding), or that has neither bias nor batch normalization.
    """
    if preprocessing.uniform:
        return model, preprocessing
    weights = model.get_weights()
    model = keras.models.clone_model(model)
    model.set_weights(weights)

    mean = np.float64(preprocessing.mean_rgb_255)
    std = np.float64(preprocessing.std_rgb_255)
    common_mean, common_std = float(round(mean.mean())), float(std.mean())

    conv, following = _first_convolution(model)
    kernel = np.float64(conv.kernel)  # (height, width, channels, filters)
    if preprocessing.channel_order == "bgr":
        kernel = kernel[:, :, ::-1]
    # n_c = (pixel - mean_c) / std_c and z = (pixel - common_mean) / common_std
    # give n_c = z * common_std / std_c + (common_mean - mean_c) / std_c.
    bias = np.einsum("hwco,c->o", kernel, (common_mean - mean) / std)
    conv.kernel.assign(kernel * (common_std / std)[:, None])
    if conv.use_bias:
        conv.bias.assign(np.float64(conv.bias) + bias)
    elif isinstance(following, keras.layers.BatchNormalization):
        following.moving_mean.assign(np.float64(following.moving_mean) - bias)
    else:
        raise ValueError(
            f"Cannot fold the normalization into layer {conv.name!r}: it has no "
            "bias and no BatchNormalization follows it. "
            f"Received: model={model.name!r}"
        )
    return model, dataclasses.replace(
        preprocessing,
        mean_rgb_255=(common_mean,) * 3,
        std_rgb_255=(common_std,) * 3,
        channel_order="rgb",
    )


def _first_convolution(model):
    """Returns the convolution that alone reads the image, and what reads it."""
    consumers = {}
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                consumers.setdefault(id(tensor), []).append(layer)

    def reader(tensor):
        layers = consumers.get(id(tensor), [])
        return layers[0] if len(layers) == 1 else None

    layer = reader(model.inputs[0])
    while isinstance(layer, keras.layers.ZeroPadding2D):
        layer = reader(layer.output)
    if type(layer) is not keras.layers.Conv2D or layer.groups != 1:
        raise ValueError(
            "Cannot fold the normalization: the image must go to one Conv2D, "
            f"behind at most ZeroPadding2D. Received: model={model.name!r}, whose "
            f"image goes to {type(layer).__name__}"
        )
    return layer, reader(layer.output)
