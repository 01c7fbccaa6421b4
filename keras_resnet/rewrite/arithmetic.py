"""Arithmetic with constants: layers and operations that scale and shift numbers."""

import keras
import numpy as np


def array(value):
    """Returns a constant of a graph as float64."""
    if isinstance(value, int | float | list | tuple | np.ndarray):
        return np.float64(value)
    return np.float64(keras.ops.convert_to_numpy(value))


def scale_and_offset(call):
    """Returns (scale, offset), float64, where a call returns x * scale + offset.

    None where it does something else. Both are numbers, or arrays that broadcast
    against what the call reads.
    """
    if len(call.inputs) != 1:
        return None
    rule = _RULES.get(call.kind)
    return rule and rule(call)


def constant(call):
    """Returns the constant among the two arguments of an operation, or None."""
    values = [x for x in call.args if not isinstance(x, keras.KerasTensor)]
    return array(values[0]) if len(call.args) == 2 and len(values) == 1 else None


def _add(call):
    value = constant(call)
    return None if value is None else (1.0, value)


def _subtract(call):
    value = constant(call)
    if value is None:
        return None
    return (1.0, -value) if call.args[0] is call.inputs[0] else (-1.0, value)


def _multiply(call):
    value = constant(call)
    return None if value is None else (value, 0.0)


def _divide(call):
    value = constant(call)
    if value is None or call.args[0] is not call.inputs[0] or not np.all(value):
        return None
    return 1 / value, 0.0


def _rescaling(call):
    return array(call.operation.scale), array(call.operation.offset)


def _normalization(call):
    layer = call.operation
    mean, std = array(layer.mean), np.sqrt(array(layer.variance))
    std = np.maximum(std, keras.config.epsilon())
    return (std, mean) if layer.invert else (1 / std, -mean / std)


def _batch_normalization(call):
    layer = call.operation
    if layer.axis not in (-1, len(call.inputs[0].shape) - 1):
        return None
    scale = 1 / np.sqrt(array(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * array(layer.gamma)
    offset = -scale * array(layer.moving_mean)
    return scale, offset + array(layer.beta) if layer.center else offset


_RULES = {
    "Add": _add,
    "Subtract": _subtract,
    "Multiply": _multiply,
    "Divide": _divide,
    "TrueDivide": _divide,
    "Negative": lambda call: (-1.0, 0.0),
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "BatchNormalization": _batch_normalization,
    # Of keras.applications' ConvNeXt.
    "LayerScale": lambda call: (array(call.operation.gamma), 0.0),
}
