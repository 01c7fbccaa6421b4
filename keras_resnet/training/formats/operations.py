"""TensorFlow's functions in models of Keras 2, as Keras 3 computes them.

Keras 2 keeps `x / 255.` and `tf.nn.relu(x)` as layers that hold the name of the
function. The functions here have the arguments of TensorFlow's.
"""

import keras
import numpy as np

ops = keras.ops


def _getitem(tensor, slice_spec):
    return tensor[_key(slice_spec)]


def _key(spec):
    """Returns what stands in the brackets, as a model file or a live model has it."""
    if isinstance(spec, list | tuple):
        return tuple(map(_key, spec))
    return (
        slice(*map(spec.get, ("start", "stop", "step")))
        if isinstance(spec, dict)
        else spec
    )


def _bias_add(value, bias, data_format="NHWC"):
    return (
        ops.add(value, np.float32(bias))
        if data_format in (None, "NHWC")
        else _refused()
    )


def _silu(features, beta=1.0):
    return (
        ops.silu(features) if beta == 1.0 else features * ops.sigmoid(beta * features)
    )


def _resize(
    images, size, method="bilinear", antialias=False, preserve_aspect_ratio=False
):
    # Keras has no fixed size of an aspect that is preserved.
    if preserve_aspect_ratio:
        return _refused()
    return ops.image.resize(images, size, method, antialias=antialias)


def _pad(tensor, paddings, mode="CONSTANT", constant_values=0):
    return ops.pad(tensor, paddings, mode.lower(), constant_values)


def _refused():
    raise ValueError("its arguments have no counterpart in Keras 3")


def _reduction(function):
    return lambda input_tensor, axis=None, keepdims=False: function(
        input_tensor, axis=axis, keepdims=keepdims
    )


FUNCTIONS = {
    "__operators__.add": lambda x, y: ops.add(x, y),
    "__operators__.getitem": _getitem,
    "cast": lambda x, dtype: ops.cast(x, getattr(dtype, "name", dtype)),
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(
        t, clip_value_min, clip_value_max
    ),
    "concat": lambda values, axis: ops.concatenate(values, axis),
    "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
    "identity": lambda input: input,
    "image.resize": _resize,
    "math.abs": lambda x: ops.abs(x),
    "math.add": lambda x, y: ops.add(x, y),
    "math.divide": lambda x, y: ops.true_divide(x, y),
    "math.exp": lambda x: ops.exp(x),
    "math.maximum": lambda x, y: ops.maximum(x, y),
    "math.minimum": lambda x, y: ops.minimum(x, y),
    "math.multiply": lambda x, y: ops.multiply(x, y),
    "math.negative": lambda x: -x,
    "math.pow": lambda x, y: ops.power(x, y),
    "math.reduce_max": _reduction(ops.max),
    "math.reduce_mean": _reduction(ops.mean),
    "math.reduce_sum": _reduction(ops.sum),
    "math.sigmoid": lambda x: ops.sigmoid(x),
    "math.softplus": lambda features: ops.softplus(features),
    "math.sqrt": lambda x: ops.sqrt(x),
    "math.square": lambda x: ops.square(x),
    "math.subtract": lambda x, y: ops.subtract(x, y),
    "math.tanh": lambda x: ops.tanh(x),
    "math.truediv": lambda x, y: ops.true_divide(x, y),
    "nn.bias_add": _bias_add,
    "nn.elu": lambda features: ops.elu(features),
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.relu": lambda features: ops.relu(features),
    "nn.relu6": lambda features: ops.relu6(features),
    "nn.selu": lambda features: ops.selu(features),
    "nn.silu": _silu,
    "nn.softmax": lambda logits, axis=-1: ops.softmax(logits, axis=axis),
    "pad": _pad,
    "reshape": lambda tensor, shape: ops.reshape(tensor, shape),
    "reverse": lambda tensor, axis: ops.flip(tensor, axis),
    "squeeze": lambda input, axis=None: ops.squeeze(input, axis),
    "transpose": lambda a, perm=None, conjugate=False: ops.transpose(a, perm),
}
FUNCTIONS["compat.v1.transpose"] = FUNCTIONS["transpose"]
