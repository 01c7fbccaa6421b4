"""Operations turned into layers, where Keras has a layer for them.

Quantization-aware training, weight files and reports know layers only.
"""

import dataclasses
import math

import keras
import numpy as np

from keras_resnet.rewrite.arithmetic import constant, scale_and_offset
from keras_resnet.rewrite.graph import Call

layers = keras.layers

# Operations that return what they are given, in a model of float32.
_IDENTITIES = ("Cast", "Copy", "StopGradient")
_MERGING = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
_ACTIVATIONS = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Silu": "silu",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "Selu": "selu",
    "Softplus": "softplus",
    "Softsign": "softsign",
}


def simplify(graph):
    """Turns operations into layers, and constant arithmetic into weights.

    A multiplication and an addition by constants of each channel go into the
    convolution or the dense layer before them where nothing else reads that; on
    images they become a 1x1 depthwise convolution otherwise.

    Args:
        graph: a `Graph`; it is changed.
    """
    same = {}
    calls = []
    for call in graph.calls:
        args, kwargs = call.filled(same)
        call = dataclasses.replace(call, args=args, kwargs=kwargs)
        if call.kind in _IDENTITIES:
            same[id(call.outputs[0])] = args[0]
        else:
            calls += _as_layers(call)
    graph.calls = calls
    graph.outputs = [same.get(id(tensor), tensor) for tensor in graph.outputs]
    for call in list(graph.calls):
        affine = _by_channel(call)
        if affine:
            _put_into_weights(graph, call, *affine)


def _as_layers(call):
    """Returns calls of layers that compute the same, or the call itself."""
    if isinstance(call.operation, keras.Layer):
        return _of_layer(call)
    rule = _RULES.get(call.kind)
    layer = rule and rule(call.operation, call)
    if not layer:
        return [call]
    name = call.operation.name
    layer = type(layer).from_config(layer.get_config() | {"name": name})
    tensors = call.inputs
    args = (tensors[0] if len(tensors) == 1 else tensors,)
    return [dataclasses.replace(call, operation=layer, args=args, kwargs={})]


def _of_layer(call):
    """Returns calls for a layer that keras.applications has, and keras.layers not."""
    if call.kind != "CustomScaleLayer":  # of InceptionResNetV2: a + scale * b
        return [call]
    (first, second) = call.inputs
    scaled = keras.KerasTensor(second.shape, second.dtype)
    name, scale = call.operation.name, call.operation.scale
    scaling = layers.Rescaling(scale, name=f"{name}_scale")
    return [
        Call(scaling, (second,), (scaled,), owner=call.owner),
        Call(layers.Add(name=name), ([first, scaled],), call.outputs, owner=call.owner),
    ]


def _merging(operation, call):
    """Returns a layer that merges tensors: all of them, and of one rank."""
    ranks = {len(tensor.shape) for tensor in call.inputs}
    if len(call.inputs) == 2 and len(ranks) == 1:
        return getattr(layers, call.kind)()
    if call.kind == "Maximum" and constant(call) == 0:
        return layers.ReLU()
    return None


def _reduction(kind):
    def rule(operation, call):
        axes, rank = operation.axis, len(call.inputs[0].shape)
        axes = axes if isinstance(axes, list | tuple) else (axes,)
        if rank != 4 or sorted(x if x is None else x % 4 for x in axes) != [1, 2]:
            return None
        return getattr(layers, kind)(keepdims=operation.keepdims)

    return rule


def _reshaping(operation, call):
    """Returns a Reshape where each image keeps its numbers."""
    (before,), (after,) = call.inputs, call.outputs
    sizes = [tensor.shape[1:] for tensor in (before, after)]
    if any(None in size for size in sizes) or len(set(map(math.prod, sizes))) > 1:
        return None
    return layers.Reshape(sizes[1])


def _concatenation(operation, call):
    (tensor, *_) = call.inputs
    return layers.Concatenate(operation.axis) if operation.axis % 4 else None


def _transposition(operation, call):
    axes = operation.axes
    return layers.Permute(axes[1:]) if axes and axes[0] == 0 else None


def _padding(operation, call):
    widths = operation.pad_width
    zero = not call.args[1:] and not call.kwargs.get("constant_values")
    if operation.mode != "constant" or not zero or len(widths) != 4:
        return None
    if any(map(any, (widths[0], widths[3]))):
        return None
    return layers.ZeroPadding2D(tuple(map(tuple, widths[1:3])))


def _clipping(operation, call):
    return layers.ReLU(float(operation.x_max)) if operation.x_min == 0 else None


def _pooling(kind):
    def rule(operation, call):
        if len(call.inputs[0].shape) != 4:
            return None
        return getattr(layers, kind)(
            operation.pool_size, operation.strides, operation.padding
        )

    return rule


# {class of an operation: function of (operation, call) -> layer, or None}.
_RULES = {
    **dict.fromkeys(_MERGING, _merging),
    **{
        kind: lambda operation, call, name=name: layers.Activation(name)
        for kind, name in _ACTIVATIONS.items()
    },
    "Relu": lambda operation, call: layers.ReLU(),
    "Relu6": lambda operation, call: layers.ReLU(6.0),
    "LeakyRelu": lambda operation, call: layers.LeakyReLU(operation.negative_slope),
    "Elu": lambda operation, call: layers.ELU(operation.alpha),
    "Softmax": lambda operation, call: layers.Softmax(operation.axis),
    "Mean": _reduction("GlobalAveragePooling2D"),
    "Max": _reduction("GlobalMaxPooling2D"),
    "Amax": _reduction("GlobalMaxPooling2D"),
    "Reshape": _reshaping,
    "Squeeze": _reshaping,
    "ExpandDims": _reshaping,
    "Ravel": _reshaping,
    "Concatenate": _concatenation,
    "Transpose": _transposition,
    "Pad": _padding,
    "Clip": _clipping,
    "MaxPool": _pooling("MaxPooling2D"),
    "AveragePool": _pooling("AveragePooling2D"),
}


def _by_channel(call):
    """Returns (scale, offset) of a call that scales and shifts each channel, or None.

    Each is an array of one number, or of one for each channel.
    """
    affine = None if call.kind == "BatchNormalization" else scale_and_offset(call)
    if affine is None or call.inputs[0].shape != call.outputs[0].shape:
        return None
    channels = call.outputs[0].shape[-1]
    for each in map(np.asarray, affine):
        if each.size != 1 and (each.size != channels or each.shape[-1] != channels):
            return None
    return tuple(np.reshape(each, -1) for each in affine)


def _put_into_weights(graph, call, scale, offset):
    """Exchanges a call that scales and shifts channels for a layer with weights."""
    source = call.inputs[0]
    before = graph.producer(source)
    if before and _takes_scale(graph, before, source):
        graph.replace(call, _scaled(before, scale, offset, call.outputs))
        graph.prune()
        return
    channels = source.shape[-1]
    if len(source.shape) != 4:
        numbers = [
            each.tolist() if each.size > 1 else each.item() for each in (scale, offset)
        ]
        layer, weights = layers.Rescaling(*numbers, name=call.operation.name), None
    else:
        use_bias = bool(offset.any())
        layer = layers.DepthwiseConv2D(1, use_bias=use_bias, name=call.operation.name)
        kernel = np.broadcast_to(scale, channels)[None, None, :, None]
        weights = [kernel] + [np.broadcast_to(offset, channels)] * use_bias
    new = Call(layer, (source,), call.outputs, owner=call.owner, weights=weights)
    graph.replace(call, new)


def _takes_scale(graph, call, output):
    """Returns whether a scale and an offset can go into the weights of a call."""
    return (
        call.kind in ("Conv2D", "DepthwiseConv2D", "Dense")
        and call.operation.activation is keras.activations.linear
        and getattr(call.operation, "data_format", "channels_last") == "channels_last"
        and not graph.is_shared(call)
        and len(graph.readers(output)) == 1
    )


def _scaled(call, scale, offset, outputs):
    """Returns a call of a layer whose results are scaled and shifted."""
    kernel, *bias = map(np.float64, call.get_weights())
    channels = outputs[0].shape[-1]
    scale, offset = (np.broadcast_to(each, channels) for each in (scale, offset))
    by_kernel = scale
    if call.kind == "DepthwiseConv2D":  # (height, width, channels, multiplier)
        by_kernel = scale.reshape(kernel.shape[2:])
    weights = [kernel * by_kernel, (bias[0] if bias else 0) * scale + offset]
    return with_config(call, outputs, weights, use_bias=True)


def with_config(call, outputs, weights, **changes):
    """Returns a call of a layer of another configuration and other weights."""
    config = call.operation.get_config() | changes
    layer = type(call.operation).from_config(config)
    return dataclasses.replace(call, operation=layer, outputs=outputs, weights=weights)
