"""The operators of a file: how many, how new, how much work, how large."""

import collections
import dataclasses
import functools
import math
import pathlib

from keras_resnet.edge.inspect import layer_names

# Operators that only change the type.
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
# TFLite 2.5 to 2.9 silently returns the same output for every input where the weights
# of a FULLY_CONNECTED have a scale for each channel.
PER_CHANNEL_DENSE = "2.10.0"
# The version of an operator does not say that its activations are int16.
INT16_ACTIVATIONS = "2.3.0"


@dataclasses.dataclass(frozen=True)
class Operators:
    """All operators of one name and version."""

    name: str  # name in TFLite's schema, or a custom operator's own name
    version: int
    count: int  # how many the file has
    # The first TensorFlow Lite that computes them correctly, or None if that is not
    # known (custom, or newer than `op_versions.tsv`).
    oldest_runtime: str | None
    multiply_adds: int  # multiplications in one inference, of all of them together
    constant_bytes: int  # bytes of their weights, biases and other constants


def summarize(graph):
    """Returns a tuple of `Operators` for a `Graph`, the most frequent first."""
    groups = collections.defaultdict(list)
    for operator in graph.operators:
        name = operator.custom or operator.name
        groups[name, operator.version].append(operator)
    rows = [
        Operators(
            name,
            version,
            len(operators),
            newest([oldest_runtime(operator) for operator in operators]),
            sum(map(multiply_adds, operators)),
            sum(map(_constant_bytes, operators)),
        )
        for (name, version), operators in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.count, row.name, row.version)))


def computing(rows):
    """Returns how many operators of `summarize` do more than change the type."""
    return sum(row.count for row in rows if row.name not in CONVERSIONS)


# --- What computes in floating point --------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FloatOperators:
    """All operators of one name that compute in floating point."""

    name: str  # as in `Operators`
    count: int  # how many the file has
    layers: tuple  # names of the Keras layers that they come from, where known


def in_float(graph, layers=()):
    """Returns a tuple of `FloatOperators`, the most frequent first.

    Operators that only change the type are left out. `layers` are names of the layers
    of the Keras model.
    """
    groups = collections.defaultdict(list)
    for operator in graph.operators:
        tensors = [*operator.inputs, *operator.outputs]
        if operator.name not in CONVERSIONS and any(map(is_float, tensors)):
            groups[operator.custom or operator.name].append(operator)
    rows = [
        FloatOperators(name, len(operators), _layers(operators, layers))
        for name, operators in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.count, row.name)))


def float_text(rows, computing):
    """Returns what computes in floating point, as text.

    Args:
        rows: what `in_float` returns; not empty.
        computing: number of the operators that do more than change the type.
    """
    if sum(row.count for row in rows) == computing:
        return "all operators"
    text = ", ".join(f"{row.name} {row.count}" for row in rows)
    layers = list(dict.fromkeys(layer for row in rows for layer in row.layers))
    if not layers:
        return text
    more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
    return f"{text} of {', '.join(layers[:5])}{more}"


def is_float(tensor):
    """Returns whether a `graph.Tensor` is of floating point; None is not."""
    return tensor is not None and "FLOAT" in tensor.dtype


def _layers(operators, layers):
    found = [
        layer
        for operator in operators
        for tensor in operator.outputs
        for layer in layer_names.of_tensor(tensor.name, layers)[-1:]
    ]
    return tuple(dict.fromkeys(found))


# --- Versions -------------------------------------------------------------------------


@functools.cache
def version_table():
    """Returns {operator: [first TensorFlow Lite with version 1, 2, ... of it]}."""
    path = pathlib.Path(__file__).with_name("op_versions.tsv")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {name: versions for name, *versions in rows}


def oldest_runtime(operator):
    """Returns the first TensorFlow Lite that computes a `graph.Operator` correctly.

    It is a version such as "2.3.0", or None if it is not known.
    """
    versions = version_table().get(operator.name, ())
    if not 1 <= operator.version <= len(versions):
        return None
    oldest = versions[operator.version - 1]
    if oldest == "-":
        return None
    if operator.name == "FULLY_CONNECTED" and len(operator.inputs) > 1:
        weights = operator.inputs[1]
        if weights is not None and len(weights.scales) > 1:
            return newest([oldest, PER_CHANNEL_DENSE])
    inputs = [tensor for tensor in operator.inputs if tensor is not None]
    if any(tensor.dtype == "INT16" for tensor in inputs):
        return newest([oldest, INT16_ACTIVATIONS])
    return oldest


def newest(versions):
    """Returns the newest of several versions, or None if one of them is None."""
    if not versions or None in versions:
        return None
    return max(versions, key=version_parts)


def version_parts(version):
    """Returns a version such as "2.10.0" as a tuple of int, which compares."""
    return tuple(map(int, version.split(".")))


# --- Work and size --------------------------------------------------------------------


def multiply_adds(operator):
    """Returns the multiplications of an operator; a size that is not fixed is 1.

    Only convolutions and matrix products count.
    """
    shapes = [
        [1 if size < 0 else size for size in tensor.shape]
        for tensor in (*operator.inputs, *operator.outputs[:1])
        if tensor is not None
    ]
    if len(shapes) < 3:
        return 0
    data, weights, output = shapes[0], shapes[1], math.prod(shapes[-1])
    if operator.name in ("CONV_2D", "FULLY_CONNECTED"):
        return output * math.prod(weights[1:])
    if operator.name == "DEPTHWISE_CONV_2D":
        return output * math.prod(weights[1:3])
    if operator.name == "TRANSPOSE_CONV":  # its inputs: output shape, weights, data
        return math.prod(shapes[2]) * math.prod(weights[:3])
    if operator.name == "BATCH_MATMUL" and len(data) > 1:
        return output * data[-2 if operator.options.get("adjX") else -1]
    return 0


def _constant_bytes(operator):
    tensors = [tensor for tensor in operator.inputs if tensor is not None]
    return sum(len(tensor.data) for tensor in tensors if tensor.data is not None)
