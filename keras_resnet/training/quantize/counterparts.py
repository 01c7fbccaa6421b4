"""What stands for one layer of Keras 3 in tf_keras.

For most layers that is the layer of the same class. Where tensorflow-model-optimization
(tfmot) or TensorFlow Lite has no 8-bit form of it, several layers that have one compute
the same.
"""

import dataclasses
import functools
import inspect
import typing

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import errors
from keras_resnet.runner.errors import UserError

# (layer, argument of Keras 3): its name in tf_keras.
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
# What tfmot quantizes inside of a layer. Other activations become layers.
FUSED = ("linear", "relu", "softmax", "sigmoid", "tanh")
# They merge any number of tensors, and their operators in TensorFlow Lite two.
_OF_TWO = ("Add", "Multiply", "Maximum", "Minimum")


def import_tf_keras():
    """Returns the module `tf_keras`, or raises `MissingExtra`."""
    return errors.require("tf_keras", "train", "quantization-aware training")


def hard_silu(x):
    """Returns x * relu6(x + 3) / 6: HARD_SWISH in TensorFlow Lite."""
    return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


@dataclasses.dataclass(frozen=True)
class Counterpart:
    """Layers of tf_keras that compute what a layer of Keras 3 computes.

    Attributes:
        layers: the layers, in the order of their calls. The last has the name of the
            one that they stand for.
        call: function of the inputs of that one -> its outputs.
        to_weights: function of its weights, a list of arrays -> those of `layers`.
        from_weights: function of (its weights, the trained ones of `layers`) -> its
            trained weights, or None where it cannot have such.
    """

    layers: list
    call: typing.Callable
    to_weights: typing.Callable = lambda weights: weights
    from_weights: typing.Callable = lambda weights, trained: trained

    @property
    def variables(self):
        """What `to_weights` gives values to; constants of `layers` are not among it."""
        layers = [layer for layer in self.layers if layer.trainable]
        return [variable for layer in layers for variable in layer.weights]


def counterpart(layer, is_folded):
    """Returns the `Counterpart` of a layer, whose weights are still to be set.

    Args:
        layer: a `keras.Operation` of a functional model.
        is_folded: of a batch normalization, whether it can become a part of the
            convolution before it.

    Raises:
        UserError: tf_keras has no such layer; the message names it.
    """
    kind = type(layer).__name__
    if not isinstance(layer, keras.Layer):
        _same(layer)  # says what is wrong
    if kind == "BatchNormalization" and not is_folded:
        return _lone_batch_normalization(layer)
    if kind == "Rescaling":
        return _chain(_affine(layer, layer.scale, layer.offset))
    if kind == "SeparableConv2D":
        return _chain(_separable(layer))
    if kind == "Average" or (kind in _OF_TWO and len(layer.input) > 2):
        return _merging(layer, kind)
    if kind == "Activation":
        return _chain(_activation(layer))
    if _activation_name(layer) in FUSED:
        same = _same(layer)
        return Counterpart([same], same)
    linear = _same(layer, activation="linear", name=f"{layer.name}_linear")
    return _chain([linear, *_activation(layer)])


def _chain(layers, **functions):
    def call(inputs, **kwargs):  # of a mask, which no layer of images has
        return functools.reduce(lambda x, layer: layer(x), layers, inputs)

    return Counterpart(layers, call, **functions)


def _same(layer, **changes):
    """Returns the layer of tf_keras of the same class and configuration."""
    tf_keras = import_tf_keras()
    kind = type(layer).__name__
    same = getattr(tf_keras.layers, kind, None)
    if not isinstance(layer, keras.Layer) or same is None or kind == "Lambda":
        raise UserError(
            f"cannot quantize layer {layer.name!r} ({kind}): tf_keras has no such "
            "layer. Use layers of keras.layers that it shares (Add for +, ReLU for "
            "keras.ops.relu, ...) and no nested model, or export with --quantize=int8"
        )
    config = {}
    ours = inspect.signature(type(layer).__init__).parameters
    theirs = {"name", *inspect.signature(same.__init__).parameters}
    for key, value in (layer.get_config() | changes).items():
        # Weights are copied; regularizers and constraints are the training's.
        if key.endswith(("_initializer", "_regularizer", "_constraint")):
            continue
        if isinstance(value, dict) and key in theirs:
            problem = f"its {key} is an object. Use one that has a name"
        elif key.endswith("activation") and not _same_activation(value):
            problem = f"tf_keras has no {key} {value!r} like it. Use another"
        elif (name := _RENAMED.get((kind, key), key)) in theirs:
            config[name] = value
            continue
        # None stands for what is set elsewhere, as the order of the axes is.
        elif key not in ours or ours[key].default in (None, value):
            continue
        else:
            problem = f"tf_keras has no {key}={value!r} for it. Leave that out"
        raise UserError(
            f"cannot quantize layer {layer.name!r} ({kind}): {problem}, or export with "
            "--quantize=int8"
        )
    return same(**config)


def _same_activation(name):
    """Returns whether tf_keras has a function of this name, and the same."""
    tf_keras = import_tf_keras()
    values = tf.linspace([-8.0], [8.0], 65, axis=-1)  # (1, 65)
    try:
        theirs = tf_keras.activations.get(name)(values)
    except ValueError:
        return False
    return np.allclose(keras.activations.get(name)(values), theirs, atol=1e-6)


def _activation_name(layer):
    """Returns the name of a layer's activation; "linear" where it has none."""
    name = layer.get_config().get("activation", "linear")
    return name if isinstance(name, str) else "linear"  # `_same` refuses an object


def _activation(layer):
    """Returns layers that compute the activation of a layer."""
    layers, name = import_tf_keras().layers, layer.name
    activation = _activation_name(layer)
    if activation == "relu6":
        return [layers.ReLU(6.0, name=name)]
    if activation == "leaky_relu":
        return [layers.LeakyReLU(0.2, name=name)]
    if activation == "hard_sigmoid":  # relu6(x + 3) / 6
        shifted = _affine(layer, 1.0, 3.0, f"{name}_shifted")
        clipped = layers.ReLU(6.0, name=f"{name}_clipped")
        return [*shifted, clipped, *_affine(layer, 1 / 6, 0.0)]
    if activation == "hard_silu":
        return [layers.Activation(hard_silu, name=name)]
    if type(layer).__name__ == "Activation":
        return [_same(layer)]
    return [_same(keras.layers.Activation(activation, name=name))]


def _affine(layer, scale, offset, name=None, trainable=False):
    """Returns layers that compute x * scale + offset for each channel.

    An image is scaled by a 1x1 depthwise convolution. Its 8-bit weights have a scale
    for each channel, so that they are exact.

    Args:
        layer: the `keras.Layer` that they stand for.
        scale: number, or one for each channel.
        offset: likewise.
        name: of the last of them; by default that of `layer`.
        trainable: whether scale and offset are weights, and not constants.
    """
    layers, name = import_tf_keras().layers, name or layer.name
    shape = layer.output.shape[1:]
    is_image = len(shape) == 3
    constant = import_tf_keras().initializers.Constant
    scale, offset = (
        np.broadcast_to(np.float32(x), shape[-1:]).tolist() for x in (scale, offset)
    )
    convolution = layers.DepthwiseConv2D(
        1,
        depthwise_initializer=constant(scale),
        bias_initializer=constant(offset),
        name=name if is_image else f"{name}_scaled",
        trainable=trainable,
    )
    if is_image:
        return [convolution]
    as_image = layers.Reshape((-1, 1, shape[-1]), name=f"{name}_as_image")
    return [as_image, convolution, layers.Reshape(shape, name=name)]


def _lone_batch_normalization(layer):
    """Returns a scaling of the channels, with the statistics that they have now."""
    if layer.axis not in (-1, len(layer.input.shape) - 1):
        raise UserError(
            f"cannot quantize layer {layer.name!r} (BatchNormalization): it normalizes "
            f"axis {layer.axis}, which is not the last. Export with --quantize=int8"
        )
    keys = ["gamma"] * layer.scale + ["beta"] * layer.center + ["mean", "variance"]

    def to_weights(weights):
        found = dict(zip(keys, map(np.float64, weights), strict=True))
        scale = found.get("gamma", 1.0) / np.sqrt(found["variance"] + layer.epsilon)
        offset = found.get("beta", 0.0) - found["mean"] * scale
        return [scale[None, None, :, None], offset]

    def from_weights(weights, trained):
        """Keeps the statistics where gamma and beta can express what was trained."""
        found = dict(zip(keys, map(np.float64, weights), strict=True))
        scale, offset = trained[0].ravel(), trained[1]
        if layer.scale:
            found["gamma"] = scale * np.sqrt(found["variance"] + layer.epsilon)
        else:
            if np.any(scale <= 0) or np.any(scale**-2.0 < layer.epsilon):
                return None
            found["variance"] = scale**-2.0 - layer.epsilon
        if layer.center:
            found["beta"] = offset + found["mean"] * scale
        else:
            if np.any(scale == 0):
                return None
            found["mean"] = -offset / scale
        return [found[key] for key in keys]

    return _chain(
        _affine(layer, 1.0, 0.0, trainable=True),
        to_weights=to_weights,
        from_weights=from_weights,
    )


def _separable(layer):
    """Returns the two convolutions that a separable one consists of."""
    config, layers = layer.get_config(), import_tf_keras().layers
    depthwise = layers.DepthwiseConv2D(
        use_bias=False,
        name=f"{layer.name}_depthwise",
        **{
            key: config[key]
            for key in (
                "kernel_size",
                "strides",
                "padding",
                "depth_multiplier",
                "data_format",
                "dilation_rate",
            )
        },
    )
    activation = _activation_name(layer)
    is_fused = activation in FUSED
    pointwise = layers.Conv2D(
        config["filters"],
        1,
        data_format=config["data_format"],
        use_bias=config["use_bias"],
        activation=activation if is_fused else None,
        name=layer.name if is_fused else f"{layer.name}_linear",
    )
    return [depthwise, pointwise, *([] if is_fused else _activation(layer))]


def _merging(layer, kind):
    """Returns a merging of many tensors as one of two after the other."""
    layers, steps = import_tf_keras().layers, len(layer.input) - 1
    merge = getattr(layers, "Add" if kind == "Average" else kind)
    names = [f"{layer.name}_{number}" for number in range(1, steps + 1)]
    scaling = []
    if kind == "Average":
        scaling = _affine(layer, 1 / len(layer.input), 0.0)
    else:
        names[-1] = layer.name
    merging = [merge(name=name) for name in names]

    def call(tensors):
        result = tensors[0]
        for merge, tensor in zip(merging, tensors[1:], strict=True):
            result = merge([result, tensor])
        for each in scaling:
            result = each(result)
        return result

    return Counterpart([*merging, *scaling], call)
