"""Graphs of one operator with things changed at random, as a hostile file has them."""

import dataclasses
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.helpers.graphs import build

NUMBERS = (*range(-9, 11), 2**20, 2**30, 2**31 - 1, -(2**31))
SIZES = (*range(11), 16, 33, -1, 2**16, 2**31 - 1)
SCALES = [10.0**n for n in (-38, -30, *range(-20, 12, 2), 38)]
SCALES += [1 / 256, 1 / 128, 1.0, 0.0, -1.0, math.nan, math.inf]
ZERO_POINTS = (-(2**40), -129, -128, -1, 0, 1, 127, 128, 255, 256, 2**40)
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float32", "bool")
# What an option of a type may become; those of one byte hold no large number.
OPTIONS = {bool: (True, False), int: NUMBERS, float: SCALES}
ONE_BYTE = ("padding", "fusedActivationFunction", "weightsFormat", "quantizedBiasType")


def mutant(tensors, operator, inputs, rng):
    """Builds a graph with one to three things changed.

    Args:
        tensors: list of `graphs.Tensor`.
        operator: `graphs.Operator`.
        inputs: how many of the tensors, the first, are inputs of it.
        rng: NumPy generator.

    Returns:
        bytes of a .tflite.
    """
    tensors = [*tensors, _one(tensors, rng)]  # one that only a mutant uses
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.6:
            place = int(rng.integers(len(tensors)))
            changes = _one(_OF_TENSORS, rng)(tensors[place], rng)
            tensors[place] = dataclasses.replace(tensors[place], **changes)
        else:
            changes = _one(_OF_OPERATORS, rng)(operator, len(tensors), rng)
            operator = dataclasses.replace(operator, **changes)
    fed = [n for n in range(inputs) if tensors[n].data is None]
    returned = [n for n in operator.outputs if n >= 0]
    return build(tensors, [operator], fed, returned)


def _one(values, rng):
    return values[rng.integers(len(values))]


def _edited(items, value, rng):
    """Returns a tuple with an item replaced by `value`, one more or one less."""
    place = int(rng.integers(len(items) + 1))
    new, old = _one((((value,), 1), ((value,), 0), ((), 1)), rng)
    return (*items[:place], *new, *items[place + old :])


def _shape(tensor, rng):
    shape = _edited(tensor.shape, _one(SIZES, rng), rng)
    if tensor.data is None:
        return {"shape": shape}
    # Constants keep a size that the file can hold.
    shape = tuple(min(abs(size), 16) for size in shape)
    return {"shape": shape, "data": np.resize(tensor.data, shape)}


def _dtype(tensor, rng):
    data = None if tensor.data is None else np.asarray(tensor.data)
    return {"dtype": _one(DTYPES, rng), "data": data}


def _data(tensor, rng):
    if tensor.data is None or rng.random() < 0.1:
        return {"data": None}
    data = np.broadcast_to(tensor.data, tensor.shape).astype(np.int64)
    if data.size:
        data.flat[rng.integers(data.size)] = _one(NUMBERS, rng)
    return {"data": data}


def _quantized(tensor, rng):
    scale, zero_point = tensor.quantized or (1.0, 0)
    if rng.random() < 0.5:
        scale = _one(SCALES, rng)
    else:
        zero_point = _one(ZERO_POINTS, rng)
    return {"quantized": (scale, zero_point)}


def _ends(operator, count, rng):
    end = _one(("inputs", "outputs"), rng)
    new = int(rng.integers(-1 if end == "inputs" else 0, count))
    return {end: _edited(getattr(operator, end), new, rng)}


def _options(operator, count, rng):
    if not operator.options:
        return {}
    table, fields = operator.options
    defaults = vars(getattr(schema, f"{table}T")())
    defaults.pop("quantSpec", None)
    if not defaults or rng.random() < 0.1:
        return {"options": (table, {})}
    name = _one(sorted(defaults), rng)
    values = OPTIONS.get(type(defaults[name]))
    if values is None:
        value = rng.integers(-1, 9, rng.integers(1, 3)).tolist()
    else:
        value = _one([v for v in values if name not in ONE_BYTE or -9 <= v < 9], rng)
    return {"options": (table, fields | {name: value})}


def _version(operator, count, rng):
    return {"version": int(rng.integers(0, 8))}


_OF_TENSORS = (_shape, _shape, _dtype, _data, _data, _quantized)
_OF_OPERATORS = (_ends, _options, _options, _options, _version)
