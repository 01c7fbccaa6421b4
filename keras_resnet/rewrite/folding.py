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

from keras_resnet.rewrite import graph as graphs
from keras_resnet.rewrite.front import insert_affine
from keras_resnet.rewrite.simplify import with_config


def fold_normalization(model, preprocessing):
    """Rewrites a model for a normalization that 8-bit quantization expresses.

    The scales and the colour order are folded exactly. What is left of the means goes
    into a bias, exact but for the border: there the convolution pads with the common
    mean instead of each channel's own. Where the image does not go to one ungrouped
    Conv2D alone (behind at most zero padding), a 1x1 convolution in front computes the
    rest: an operator more on the device, and exact at the border too.

    Args:
        model: functional `keras.Model` from float images (batch, height, width,
            3), preprocessed as `preprocessing` says. Not changed.
        preprocessing: a `Preprocessing`.

    Returns:
        (model, preprocessing, list of notes for the user): a pair equal to the given
        one as a function of raw pixels, whose `preprocessing.uniform` is true. The
        same pair where it already is.
    """
    if preprocessing.uniform:
        return model, preprocessing, []
    graph, _ = graphs.flatten(model)
    uniform, scale, offset = uniform_form(preprocessing)
    first = _first_convolution(graph)
    notes = []
    if first:
        kernel, *bias = map(np.float64, first.get_weights())
        if preprocessing.channel_order == "bgr":
            kernel = kernel[:, :, ::-1]  # (height, width, channels, filters)
        shift = np.einsum("hwco,c->o", kernel, offset)
        weights = [kernel * scale[:, None], (bias[0] if bias else 0) + shift]
        new = with_config(first, first.outputs, weights, use_bias=True)
        graph.replace(first, new)
    else:
        insert_affine(graph, "normalization", *affine_map(preprocessing))
        notes = [
            "The normalization cannot go into the first layer of the model: a 1x1 "
            "convolution in front of it computes it."
        ]
    folded = graphs.build(graph)[0]
    if len(folded.outputs) > 1:
        # The graph knows the outputs by their order; a detector names them.
        outputs = keras.tree.pack_sequence_as(model.output, folded.outputs)
        folded = keras.Model(folded.input, outputs, name=folded.name)
    return folded, uniform, notes


def uniform_form(preprocessing):
    """Splits a normalization into a uniform one and the rest of each channel.

    Returns:
        (`Preprocessing` that is `uniform`, scale, offset): what the model takes of a
        channel is scale * z + offset, where z is what the uniform one makes. Both are
        float64 (3,), RGB.
    """
    mean = np.float64(preprocessing.mean_rgb_255)
    std = np.float64(preprocessing.std_rgb_255)
    common_mean, common_std = float(round(mean.mean())), float(std.mean())
    uniform = dataclasses.replace(
        preprocessing,
        mean_rgb_255=(common_mean,) * 3,
        std_rgb_255=(common_std,) * 3,
        channel_order="rgb",
    )
    # n_c = (pixel - mean_c) / std_c and z = (pixel - common_mean) / common_std
    # give n_c = z * common_std / std_c + (common_mean - mean_c) / std_c.
    return uniform, common_std / std, (common_mean - mean) / std


def affine_map(preprocessing):
    """Returns the rest of `uniform_form` as one map of a pixel.

    Returns:
        (matrix (channels of the model, RGB), offset (channels of the model,)), float64.
    """
    _, scale, offset = uniform_form(preprocessing)
    matrix = np.diag(scale)
    if preprocessing.channel_order == "bgr":
        return matrix[::-1], offset[::-1]
    return matrix, offset


def _first_convolution(graph):
    """Returns the call of the convolution that alone reads the image, or None."""
    tensor = graph.input
    while True:
        found = graph.readers(tensor)
        if len(found) != 1 or found[0] is None:
            return None
        (call,) = found
        if call.kind != "ZeroPadding2D":
            break
        (tensor,) = call.outputs
    is_plain = (
        type(call.operation) is keras.layers.Conv2D and call.operation.groups == 1
    )
    return call if is_plain and not graph.is_shared(call) else None
