"""What maps to the Edge TPU: against Coral's own compiler, and rule by rule."""

import collections
import dataclasses
import json
import os
import stat
import struct
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table

from keras_resnet.edge.convert import metadata, tflite_file
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.targets import edgetpu
from tests.helpers.commands import one_error, run_command
from tests.helpers.graphs import Operator, Tensor, build
from tests.helpers.mutants import mutant

SCRIPT = "edge/edgetpu.py"
# One 8-bit quantization for all, so that every operator accepts it.
SAME = (1 / 256, 0)
INT8 = {"dtype": "int8", "quantized": (1 / 256, -128)}


def image(*shape, **changes):
    return Tensor(shape, **{"quantized": SAME} | changes)


def numbers(*values, **changes):
    fields = {"shape": np.shape(values), "dtype": "int32", "data": values}
    return Tensor(**fields | {"quantized": None} | changes)


def weights(*shape, **changes):
    return Tensor(shape, **{"data": 3, "quantized": (1 / 128, 0)} | changes)


def bias(units, **changes):
    values = {"dtype": "int32", "data": 1, "quantized": (1 / 256 / 128, 0)}
    return Tensor((units,), **values | changes)


STRIDE = {"strideH": 1, "strideW": 1}
DILATION = {"dilationHFactor": 1, "dilationWFactor": 1}
CONV = ("Conv2DOptions", STRIDE | DILATION)
DEPTHWISE = ("DepthwiseConv2DOptions", STRIDE | DILATION | {"depthMultiplier": 1})
POOL = ("Pool2DOptions", STRIDE | {"filterHeight": 2, "filterWidth": 2})
REDUCER = ("ReducerOptions", {"keepDims": False})

# Operator: (inputs, outputs, options), all of which map.
VALID = {
    "ADD": (
        [image(1, 4, 5, 8), image(1, 1, 1, 8)],
        [image(1, 4, 5, 8)],
        ("AddOptions", {}),
    ),
    "AVERAGE_POOL_2D": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], POOL),
    "CONCATENATION": (
        [image(1, 4, 5, 8), image(1, 4, 5, 2)],
        [image(1, 4, 5, 10)],
        ("ConcatenationOptions", {"axis": -1}),
    ),
    "CONV_2D": (
        [image(1, 4, 5, 8), weights(6, 3, 3, 8), bias(6)],
        [image(1, 4, 5, 6)],
        CONV,
    ),
    "DEPTHWISE_CONV_2D": (
        [image(1, 4, 5, 8), weights(1, 3, 3, 8), bias(8)],
        [image(1, 4, 5, 8)],
        DEPTHWISE,
    ),
    "EXPAND_DIMS": ([image(1, 8), numbers(1)], [image(1, 1, 8)], ()),
    "FULLY_CONNECTED": (
        [image(1, 8), weights(6, 8), bias(6)],
        [image(1, 6)],
        ("FullyConnectedOptions", {}),
    ),
    "L2_NORMALIZATION": (
        [image(1, 8)],
        [image(1, 8, quantized=(1 / 128, 128))],
        ("L2NormOptions", {}),
    ),
    "LOGISTIC": ([image(1, 8)], [image(1, 8)], ()),
    "MAXIMUM": ([image(1, 4, 5, 8), image(1, 1, 1, 8)], [image(1, 4, 5, 8)], ()),
    "MAX_POOL_2D": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], POOL),
    "MEAN": ([image(1, 4, 5, 8), numbers(1, 2)], [image(1, 8)], REDUCER),
    "MINIMUM": ([image(1, 4, 5, 8), image(1, 1, 1, 8)], [image(1, 4, 5, 8)], ()),
    "MUL": (
        [image(1, 4, 5, 8), image(1, 1, 1, 8)],
        [image(1, 4, 5, 8)],
        ("MulOptions", {}),
    ),
    "PACK": (
        [image(1, 4, 8), image(1, 4, 8)],
        [image(1, 4, 2, 8)],
        ("PackOptions", {"axis": 2, "valuesCount": 2}),
    ),
    "PAD": (
        [image(1, 4, 5, 8), numbers([0, 0], [1, 1], [0, 2], [0, 0])],
        [image(1, 6, 7, 8)],
        ("PadOptions", {}),
    ),
    "PRELU": (
        [image(1, 4, 5, 8), weights(1, 1, 8)],
        [image(1, 4, 5, 8)],
        (),
    ),
    "QUANTIZE": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8, **INT8)], ()),
    "REDUCE_MAX": ([image(1, 4, 5, 8), numbers(1, 2)], [image(1, 8)], REDUCER),
    "REDUCE_MIN": ([image(1, 4, 5, 8), numbers(1, 2)], [image(1, 8)], REDUCER),
    "RELU": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], ()),
    "RELU6": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], ()),
    "RELU_N1_TO_1": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], ()),
    "RESHAPE": (
        [image(1, 4, 5, 8), numbers(1, 160)],
        [image(1, 160)],
        ("ReshapeOptions", {"newShape": [1, 160]}),
    ),
    "SLICE": (
        [image(1, 4, 5, 8), numbers(0, 1, 2, 0), numbers(1, 2, -1, 8)],
        [image(1, 2, 3, 8)],
        (),
    ),
    "SOFTMAX": ([image(1, 10)], [image(1, 10)], ("SoftmaxOptions", {"beta": 1.0})),
    "SPACE_TO_DEPTH": (
        [image(1, 4, 6, 8)],
        [image(1, 2, 3, 32)],
        ("SpaceToDepthOptions", {"blockSize": 2}),
    ),
    "SPLIT": (
        [numbers(3, shape=(), data=3), image(1, 4, 5, 8)],
        [image(1, 4, 5, 4), image(1, 4, 5, 4)],
        ("SplitOptions", {"numSplits": 2}),
    ),
    "SQUEEZE": (
        [image(1, 1, 8)],
        [image(1, 8)],
        ("SqueezeOptions", {"squeezeDims": [1]}),
    ),
    "STRIDED_SLICE": (
        [image(1, 4, 5, 8), *[numbers(*n) for n in ([0] * 4, [1, 3, 5, 8], [1] * 4)]],
        [image(1, 3, 5, 8)],
        ("StridedSliceOptions", {"endMask": 4}),
    ),
    "SUB": (
        [image(1, 4, 5, 8), image(1, 1, 1, 8)],
        [image(1, 4, 5, 8)],
        ("SubOptions", {}),
    ),
    "SUM": ([image(1, 4, 5, 8), numbers(1, 2)], [image(1, 8)], REDUCER),
    "TANH": ([image(1, 8)], [image(1, 8, quantized=(1 / 128, 128))], ()),
    "TRANSPOSE_CONV": (
        [numbers(1, 8, 10, 6), weights(6, 3, 3, 8), image(1, 4, 5, 8), bias(6)],
        [image(1, 8, 10, 6)],
        ("TransposeConvOptions", {"strideH": 2, "strideW": 2}),
    ),
}
# These take int8 alone in TFLite.
for name in ("RSQRT", "SQUARED_DIFFERENCE"):
    tensors = [image(1, 8, **INT8)] * (1 + (name != "RSQRT"))
    VALID[name] = (tensors, [image(1, 8, **INT8)], ())
VERSIONS = {"TRANSPOSE_CONV": 3, "RSQRT": 2, "SQUARED_DIFFERENCE": 2}


def operator_of(name, inputs, outputs, options, version=None):
    """Returns the `Operator` of a graph that has its inputs, then its outputs."""
    places = tuple(range(inputs + outputs))
    version = VERSIONS.get(name, 1) if version is None else version
    return Operator(name, places[:inputs], places[inputs:], options, version)


def graph_of(name, version=None, **changes):
    """Builds the graph of one valid operator with something changed.

    Args:
        name: of the operator.
        version: of the operator.
        **changes: input0, output0, ...: fields of the tensor, or None to leave it out;
            anything else: an option.
    """
    inputs, outputs, options = VALID[name]
    tensors = {f"input{n}": tensor for n, tensor in enumerate(inputs)}
    tensors |= {f"output{n}": tensor for n, tensor in enumerate(outputs)}
    for key in tensors.keys() & changes.keys():
        fields = changes.pop(key)
        tensors[key] = fields and dataclasses.replace(tensors[key], **fields)
    if changes:
        options = (options[0], options[1] | changes)
    inputs, outputs = (
        [tensor for key, tensor in tensors.items() if tensor and key.startswith(end)]
        for end in ("input", "output")
    )
    operator = operator_of(name, len(inputs), len(outputs), options, version)
    fed = [n for n, tensor in enumerate(inputs) if tensor.data is None]
    return build([*inputs, *outputs], [operator], fed, operator.outputs)


LOAD = """
import sys
from ai_edge_litert.interpreter import Interpreter

for path in sys.argv[1:]:
    print("loading", flush=True)
    try:
        interpreter = Interpreter(path, num_threads=1)
        interpreter.allocate_tensors()
        interpreter.invoke()
        print("ran", path, flush=True)
    except UnicodeDecodeError:  # a damaged name, which only Python looks at
        print("ran", path, flush=True)
    except (RuntimeError, ValueError) as error:
        print("refused", path, " ".join(str(error).split()), flush=True)
"""


def run_by_litert(contents, folder):
    """Tells of each file whether TFLite loads and runs it; it may crash."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number}.tflite")
        paths[-1].write_bytes(content)
    ran, left = {}, list(map(str, paths))
    while left:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, *left], capture_output=True, text=True
        )
        results = [line for line in done.stdout.splitlines() if line != "loading"]
        for line in results:
            ran[line.split()[1]] = line
        crashed = done.stdout.count("loading") - len(results)
        if crashed:
            ran[left[len(results)]] = "crashed"
        assert results or crashed, done.stderr
        left = left[len(results) + crashed :]
    return [ran[str(path)] for path in paths]


def test_the_graphs_of_these_tests_run(tmp_path):
    results = run_by_litert([graph_of(name) for name in VALID], tmp_path)
    refused = {
        name: result
        for name, result in zip(VALID, results, strict=True)
        if not result.startswith("ran")
    }
    assert not refused


@pytest.mark.parametrize("name", VALID)
def test_a_valid_operator_maps(name):
    report = edgetpu.check(graph_of(name))
    assert report.complete, report.problems
    assert report.problems == []


def test_every_rule_has_a_graph_that_it_accepts_or_leaves_open():
    left_open = {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE"}
    assert set(VALID) | left_open == set(edgetpu._RULES)


def through(**changes):
    """Changes what goes in and what comes out."""
    return {"input0": changes, "output0": changes}


def as_dtype(dtype):
    return {"dtype": dtype, "quantized": (1 / 256, 0)}


BROKEN = [
    # Types.
    ("ADD", {"input0": {"dtype": "float32"}}, "type", "FLOAT32"),
    ("ADD", {"output0": {"dtype": "int16"}}, "type", "INT16"),
    ("ADD", {"input1": as_dtype("int8")}, "type", "mixes INT8 and UINT8"),
    ("CONV_2D", {"input2": {"dtype": "int64"}}, "type", "not INT32"),
    ("CONV_2D", {"input1": {"dtype": "float32"}}, "type", "FLOAT32"),
    ("CONV_2D", {"input1": as_dtype("int8")}, "type", "mixes"),
    ("CONV_2D", {"input1": {"quantized": ([0.1] * 6, 0)}}, "type", "6 scales"),
    ("FULLY_CONNECTED", {"input1": {"quantized": ([0.1] * 6, 0)}}, "type", "6 scales"),
    ("ADD", {"input0": {"quantized": ([0.1] * 8, 0)}}, "type", "8 scales"),
    ("ADD", {"input0": {"quantized": (float("nan"), 0)}}, "type", "quantization"),
    ("ADD", {"input0": {"quantized": (0.0, 0)}}, "type", "quantization"),
    ("ADD", {"input0": {"quantized": (0.1, 256)}}, "type", "quantization"),
    ("ADD", {"input0": {"quantized": (0.1, -1)}}, "type", "quantization"),
    ("CONV_2D", {"input2": {"quantized": (1.0, 0)}}, "type", "bias"),
    ("CONV_2D", {"input2": {"quantized": (1 / 256 / 128, 1)}}, "type", "bias"),
    ("CONV_2D", {"input2": {"quantized": ([1 / 256 / 128] * 6, 0)}}, "type", "bias"),
    ("SOFTMAX", {"output0": {"quantized": (1 / 255, 0)}}, "type", "scale 1/256"),
    ("TANH", {"output0": {"quantized": (1 / 128, 127)}}, "type", "zero point 128"),
    ("PAD", {"output0": {"quantized": (1 / 255, 0)}}, "type", "different scales"),
    ("ADD", {"input0": {"quantized": (1e30, 0)}}, "type", "1e+30"),
    ("ADD", {"output0": {"quantized": (1e-30, 0)}}, "type", "1e-30"),
    (
        "CONV_2D",
        through(**INT8) | {"input1": {"dtype": "int8", "quantized": (1 / 128, 5)}},
        "type",
        "zero point 5",
    ),
    (
        "DEPTHWISE_CONV_2D",
        through(**INT8) | {"input1": {"dtype": "int8", "quantized": (1 / 128, -3)}},
        "type",
        "zero point -3",
    ),
    ("CONV_2D", {"quantizedBiasType": 4}, "type", "type 4"),  # INT64
    ("RSQRT", {"input0": {"quantized": (1 / 256, 0)}}, "type", "negative"),
    ("QUANTIZE", {"input0": {"dtype": "float32"}}, "type", "FLOAT32"),
    ("MEAN", {"input1": {"dtype": "float32"}}, "type", "FLOAT32"),
    ("MEAN", {"input1": {"dtype": "int64"}}, "type", "INT64"),
    ("SUM", {"input1": {"dtype": "int64"}}, "type", "INT64"),
    ("REDUCE_MAX", {"input1": {"dtype": "int64"}}, "type", "INT64"),
    ("REDUCE_MIN", {"input1": {"dtype": "int64"}}, "type", "INT64"),
    ("RESHAPE", {"input1": {"dtype": "int64"}}, "type", "INT64"),
    ("STRIDED_SLICE", {"input1": {"dtype": "int64"}}, "type", "INT64"),
    ("TRANSPOSE_CONV", {"input0": {"dtype": "int64"}}, "type", "INT64"),
    ("SLICE", {"input1": {"dtype": "int64"}}, "shape", "fit"),
    # Shapes.
    ("ADD", {"input0": {"signature": (-1, 4, 5, 8)}}, "shape", "not fixed"),
    ("ADD", {"output0": {"signature": (1, -1, 5, 8)}}, "shape", "not fixed"),
    (
        "ADD",
        {f"{t}0": {"shape": (2, 4, 5, 8)} for t in ("input", "output")},
        "shape",
        "3",
    ),
    (
        "RELU",
        {f"{t}0": {"shape": (1, 0, 5, 8)} for t in ("input", "output")},
        "shape",
        "",
    ),
    ("ADD", {"input1": {"shape": (1, 1, 1, 7)}}, "shape", "fit"),
    ("CONV_2D", {"output0": {"shape": (1, 4, 4, 6)}}, "shape", "fit"),
    ("CONV_2D", {"padding": 1}, "shape", "fit"),
    ("CONV_2D", {"strideW": 0}, "shape", "0"),
    ("CONV_2D", {"input2": {"shape": (7,)}}, "shape", "fit"),
    ("MAX_POOL_2D", {"filterWidth": 0}, "shape", "0"),
    ("SOFTMAX", {"output0": {"shape": (1, 9)}}, "shape", "fit"),
    ("RESHAPE", {"output0": {"shape": (1, 161)}}, "shape", "fit"),
    ("RESHAPE", {"input1": {"shape": (3,), "data": [1, 7, 7]}}, "shape", "fit"),
    ("RESHAPE", {"input1": {"data": [2, 80]}}, "shape", "[2, 80]"),
    ("RESHAPE", {"input1": {"data": [-1, -1]}}, "shape", "fit"),
    ("RESHAPE", {"input1": {"shape": (1, 2)}}, "shape", "fit"),
    ("RESHAPE", {"input1": None, "newShape": [3, 3]}, "shape", "[3, 3]"),
    ("RESHAPE", {"input1": None, "newShape": None}, "shape", "fit"),
    ("EXPAND_DIMS", {"input1": {"data": 9}}, "shape", "fit"),
    ("EXPAND_DIMS", {"output0": {"shape": (2, 4)}}, "shape", "[1, 1, 8]"),
    ("SQUEEZE", {"squeezeDims": [2]}, "shape", "fit"),
    ("SQUEEZE", {"squeezeDims": [3]}, "shape", "fit"),
    ("SQUEEZE", {"squeezeDims": None}, "shape", "makes the shape [8]"),
    ("PACK", {"axis": 6}, "shape", "fit"),
    ("CONV_2D", {"input1": {"shape": (6, 3, 3, 1, 8)}}, "shape", "fit"),
    ("SLICE", {"input1": {"shape": (2, 2), "data": 0}}, "shape", "fit"),
    ("DEPTHWISE_CONV_2D", {"input2": None}, "shape", "2 inputs"),
    ("ADD", {"output0": None}, "shape", "0 outputs"),
    ("SPLIT", {"output1": None}, "shape", "fit"),
    ("PAD", {"output0": {"shape": (1, 6, 8, 8)}}, "shape", "fit"),
    # Limits.
    ("CONV_2D", {"input1": {"data": None}}, "limit", "constant"),
    ("CONV_2D", {"input2": {"data": None}}, "limit", "constant"),
    ("PAD", {"input1": {"data": None}}, "limit", "constant"),
    ("CONV_2D", {"dilationWFactor": 2}, "limit", "dilation 1 in y, 2 in x"),
    ("DEPTHWISE_CONV_2D", {"dilationHFactor": 2}, "limit", "dilation 2 in y, 1 in x"),
    ("CONV_2D", {"input1": {"shape": (6, 3, 3, 4)}}, "limit", "grouped"),
    ("CONV_2D", {"fusedActivationFunction": 4}, "limit", "activation"),  # TANH
    ("MAX_POOL_2D", {"fusedActivationFunction": 1}, "limit", "activation"),
    ("L2_NORMALIZATION", {"fusedActivationFunction": 1}, "limit", "activation"),
    ("TRANSPOSE_CONV", {"fusedActivationFunction": 1}, "limit", "activation"),
    ("AVERAGE_POOL_2D", {"filterHeight": 2**30}, "limit", "1073741824"),
    ("CONV_2D", {"dilationHFactor": 2**30, "dilationWFactor": 2**30}, "limit", "1024"),
    ("CONV_2D", {"strideH": 2**20, "strideW": 2**20}, "limit", "stride 1048576"),
    ("RELU", through(shape=(1, 2**30)), "limit", "268435456 at most"),
    ("ADD", {"output0": {"quantized": (1e-5, 0)}}, "limit", "391 steps"),
    ("CONV_2D", {"output0": {"quantized": (1e-7, 0)}}, "limit", "305 steps"),
    (
        "SQUARED_DIFFERENCE",
        {"output0": {"dtype": "int8", "quantized": (1e-8, -128)}},
        "limit",
        "steps of its result",
    ),
    ("AVERAGE_POOL_2D", {"fusedActivationFunction": 3}, "limit", "activation"),
    ("CONCATENATION", {"fusedActivationFunction": 1}, "limit", "activation"),
    ("CONCATENATION", {"input1": {"data": 5}}, "limit", "zeros"),
    ("FULLY_CONNECTED", {"weightsFormat": 1}, "limit", "format"),
    (
        "FULLY_CONNECTED",
        {"input0": {"shape": (2, 8)}, "output0": {"shape": (2, 6)}},
        "limit",
        "1 dimension",
    ),
    (
        "SOFTMAX",
        through(shape=(1, 16_001)),
        "limit",
        "16001",
    ),
    (
        "SOFTMAX",
        through(shape=(1, 2, 10)),
        "limit",
        "1 dimension",
    ),
    (
        "MEAN",
        {"input1": {"shape": (1,), "data": 0}, "output0": {"shape": (4, 5, 8)}},
        "limit",
        "batch",
    ),
    (
        "MEAN",
        {
            "input0": {"shape": (1, 4, 5, 6)},
            "input1": {"shape": (1,), "data": -1},
            "output0": {"shape": (1, 4, 5)},
        },
        "limit",
        "depth of 6",
    ),
    (
        "PAD",
        {
            "input1": {"data": [[0, 1], [0, 0], [0, 0], [0, 0]]},
            "output0": {"shape": (2, 4, 5, 8)},
        },
        "shape",
        "3 innermost",
    ),
    (
        "PAD",
        {
            "input0": {"shape": (1, 8)},
            "input1": {"shape": (2, 2), "data": [[0, 1], [0, 0]]},
            "output0": {"shape": (2, 8)},
        },
        "limit",
        "batch",
    ),
    ("PRELU", {"input1": {"shape": (4, 5, 8)}}, "limit", "shared_axes"),
    (
        "PACK",
        {"axis": 0, "output0": {"shape": (2, 1, 4, 8)}},
        "shape",
        "3 innermost",
    ),
    (
        "STRIDED_SLICE",
        {"input3": {"data": [1, 2, 1, 1]}, "output0": {"shape": (1, 2, 5, 8)}},
        "limit",
        "strides",
    ),
    ("STRIDED_SLICE", {"newAxisMask": 1}, "limit", "new axis"),
    # What the rules leave open.
    ("SOFTMAX", {"beta": float("nan")}, "uncertain", "beta nan"),
    ("SOFTMAX", {"beta": 0.0}, "uncertain", "beta 0.0"),
    ("SOFTMAX", {"beta": -1.0}, "uncertain", "beta -1.0"),
    ("STRIDED_SLICE", {"offset": True}, "uncertain", "counts from its begin"),
    # Versions.
    ("CONV_2D", {"version": 6}, "version", "up to 5"),
    ("TRANSPOSE_CONV", {"version": 4}, "version", "up to 3"),
    ("FULLY_CONNECTED", {"version": 12}, "version", "up to 9"),
    ("ADD", {"version": 0}, "version", "version 0"),
]


@pytest.mark.parametrize(
    "name, changes, kind, words",
    BROKEN,
    ids=[f"{b[0]}-{n}" for n, b in enumerate(BROKEN)],
)
def test_a_broken_rule_is_named(name, changes, kind, words):
    report = edgetpu.check(graph_of(name, **changes))
    (verdict,) = report.verdicts
    assert (verdict.kind, words in verdict.reason) == (kind, True), verdict
    assert report.mapped == 0 and not report.complete
    assert words in report.problems[0]


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("dtype", ["float32", "int16", "int32"])
def test_no_operator_maps_with_another_type(name, dtype):
    inputs, outputs, _ = VALID[name]
    eight_bit = [
        f"{place}{n}"
        for place, group in (("input", inputs), ("output", outputs))
        for n, tensor in enumerate(group)
        if tensor.dtype in ("uint8", "int8")
    ]
    assert eight_bit
    for place in eight_bit:
        (verdict,) = edgetpu.check(graph_of(name, **{place: as_dtype(dtype)})).verdicts
        assert verdict.kind == "type"


@pytest.mark.parametrize("name", VALID)
def test_no_operator_maps_with_an_output_too_many(name):
    inputs, outputs, options = VALID[name]
    operator = operator_of(name, len(inputs), len(outputs) + 1, options)
    fed = [n for n, tensor in enumerate(inputs) if tensor.data is None]
    tensors = [*inputs, *outputs, outputs[0]]
    content = build(tensors, [operator], fed, operator.outputs)
    (verdict,) = edgetpu.check(content).verdicts
    assert verdict.kind == "shape"


LONGS = {
    "EXPAND_DIMS": ["input1"],
    "PAD": ["input1"],
    "SLICE": ["input1", "input2"],
    "SPLIT": ["input0"],
}


def test_numbers_of_64_bits_map_where_tflite_runs_them(tmp_path):
    contents = [
        graph_of(name, **{place: {"dtype": "int64"} for place in places})
        for name, places in LONGS.items()
    ]
    assert all(edgetpu.check(content).complete for content in contents)
    results = run_by_litert(contents, tmp_path)
    assert all(result.startswith("ran") for result in results), results


@pytest.mark.parametrize(
    "name, changes",
    [
        ("RESHAPE", {"input1": {"data": [1, -1]}}),
        ("RESHAPE", {"input1": None}),
        ("EXPAND_DIMS", {"input1": {"data": -2}}),
        ("SQUEEZE", {"squeezeDims": [-2], "output0": {"shape": (1, 8)}}),
        ("SQUEEZE", {"squeezeDims": None, "output0": {"shape": (8,)}}),
    ],
)
def test_other_ways_to_say_a_shape_map(name, changes):
    assert edgetpu.check(graph_of(name, **changes)).complete


def test_sparse_weights_are_left_open():
    model = tflite_file.parse(graph_of("FULLY_CONNECTED"))
    model.subgraphs[0].tensors[1].sparsity = schema.SparsityParametersT()
    (verdict,) = edgetpu.check(tflite_file.pack(model)).verdicts
    assert verdict.kind == "uncertain" and "sparse" in verdict.reason


def test_scales_for_each_channel_are_for_convolutions_of_int8():
    changes = {f"{place}0": INT8 for place in ("input", "output")}
    scales = np.linspace(0.01, 0.02, 6)
    changes["input1"] = {"dtype": "int8", "quantized": (scales, 0)}
    changes["input2"] = {"quantized": (scales / 256, 0)}
    assert edgetpu.check(graph_of("CONV_2D", **changes)).complete
    changes["input1"]["quantized"] = (scales[:5], 0)
    assert not edgetpu.check(graph_of("CONV_2D", **changes)).complete


@pytest.mark.parametrize("name", ["ARG_MAX", "LEAKY_RELU", "DEQUANTIZE", "CUSTOM"])
def test_what_the_edge_tpu_does_not_know_stays(name):
    operator = Operator(name, (0,), (1,), custom="Mine" if name == "CUSTOM" else "")
    content = build([image(1, 8), image(1, 8)], [operator])
    (verdict,) = edgetpu.check(content).verdicts
    assert verdict.kind == "operator"
    assert verdict.operator == ("Mine" if name == "CUSTOM" else name)


def test_options_of_another_operator_are_no_options():
    model = tflite_file.parse(graph_of("CONV_2D"))
    (operator,) = model.subgraphs[0].operators
    operator.builtinOptionsType = schema.BuiltinOptions.DepthwiseConv2DOptions
    (verdict,) = edgetpu.check(tflite_file.pack(model)).verdicts
    assert verdict.kind == "shape" and "options" in verdict.reason


def chain(*names):
    """A graph of operators behind each other, each of one input and one output."""
    tensors = [image(1, 8) for _ in range(len(names) + 1)]
    operators = [Operator(name, (n,), (n + 1,)) for n, name in enumerate(names)]
    return build(tensors, operators)


def kinds(content):
    return [verdict.kind for verdict in edgetpu.check(content).verdicts]


def test_only_the_first_part_of_the_graph_maps():
    stays = "operator"
    behind = "partition"
    assert kinds(chain("RELU", "FLOOR", "RELU")) == [None, stays, behind]
    # What the CPU does first of all, as in files that take float images, is allowed.
    assert kinds(chain("FLOOR", "RELU", "RELU")) == [stays, None, None]
    assert kinds(chain("FLOOR", "RELU", "CEIL", "RELU")) == [
        stays,
        None,
        stays,
        behind,
    ]
    report = edgetpu.check(chain("RELU", "FLOOR", "RELU", "RELU"))
    assert report.problems == [
        "1 x FLOOR: the Edge TPU has no such operator",
        "2 x others: an operator before it stays on the CPU",
    ]


def test_a_branch_beside_what_stays_maps():
    """As in DeepLab: its image pooling stays, the convolution beside it does not."""
    operators = [
        Operator("RELU", (0,), (1,)),
        Operator("FLOOR", (1,), (2,)),
        Operator("RELU", (1,), (3,)),
        Operator("ADD", (2, 3), (4,)),
    ]
    content = build([image(1, 8) for _ in range(5)], operators)
    assert kinds(content) == [None, "operator", None, "partition"]


def test_control_flow_keeps_all_on_the_cpu():
    model = tflite_file.parse(graph_of("RELU"))
    model.subgraphs.append(model.subgraphs[0])
    report = edgetpu.check(tflite_file.pack(model))
    assert report.mapped == 0 and "2 graphs" in report.problems[0]


# --- Coral's own compiler -------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(shared_data):
    names = ("", "_edgetpu")
    folder = shared_data / "peers"
    return [
        (folder / f"mobilenet_v1_0.25_128_quant{name}.tflite").read_bytes()
        for name in names
    ]


def cached_parameter_bytes(content):
    """Reads what the compiler stored (libedgetpu's executable.fbs)."""

    def root(data):
        return Table(data, struct.unpack_from("<I", data)[0])

    def vector(table, slot):
        offset = table.Offset(4 + 2 * slot)
        start = table.Vector(offset)
        return table.Bytes[start : start + table.VectorLen(offset)] if offset else b""

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    options = bytes(model.subgraphs[0].operators[0].customOptions)
    package = root(options[options.index(b"DWN1") - 4 :])
    executables = vector(package, 1)
    table = root(executables)
    offset = table.Offset(4)
    sizes = []
    for number in range(table.VectorLen(offset)):
        place = table.Vector(offset) + 4 * number
        place += struct.unpack_from("<I", executables, place)[0]
        sizes.append(len(vector(root(executables[place + 4 :]), 6)))
    return sum(sizes)


def test_corals_compiled_pair_confirms_what_maps_and_what_it_takes(pair):
    plain, compiled = pair
    report, after = edgetpu.check(plain), edgetpu.check(compiled)
    assert report.complete and len(report.verdicts) == 31 and not report.compiled
    assert after.compiled and len(after.verdicts) == 1  # all 31 became one
    taken = cached_parameter_bytes(compiled)
    assert taken > 500_000
    assert report.parameter_bytes < taken <= report.on_chip_bytes < 1.2 * taken
    assert report.fits


def test_our_exports_map_and_float_ones_do_not(files):
    for quantize, path in files.items():
        report = edgetpu.check(path.read_bytes())
        assert len(report.verdicts) >= 17
        if quantize in ("qat", "int8"):
            assert report.complete, report.problems
            assert report.fits and report.parameter_bytes > 70_000
        else:
            assert report.mapped == 0


# --- Damage ---------------------------------------------------------------------------


def mutations(content, rng):
    """Yields (content, operators that must not map), damaged in ways that are known."""

    def touching(model, index):
        return {
            number
            for number, operator in enumerate(model.subgraphs[0].operators)
            if index in [*operator.inputs, *operator.outputs]
        }

    types = schema.TensorType

    def other_type(tensor, model):
        tensor.type = rng.choice([types.FLOAT32, types.INT16, types.FLOAT16, 99])

    def open_size(tensor, model):
        tensor.shapeSignature = list(tensor.shape)
        tensor.shapeSignature[rng.integers(len(tensor.shape))] = -1

    def negative_size(tensor, model):
        tensor.shape = list(tensor.shape)
        tensor.shape[rng.integers(len(tensor.shape))] = -(2**31)

    def huge(tensor, model):
        tensor.shape = [2**30, *tensor.shape[1:]]

    def not_quantized(tensor, model):
        tensor.quantization = None

    def senseless_scale(tensor, model):
        tensor.quantization.scale = [rng.choice([0.0, -1.0, np.nan, np.inf])]
        tensor.quantization.zeroPoint = [0]

    def senseless_zero_point(tensor, model):
        size = len(tensor.quantization.scale)
        tensor.quantization.zeroPoint = [int(rng.choice([-129, 256, 2**40]))] * size

    def short_constant(tensor, model):
        buffer = model.buffers[tensor.buffer]
        if buffer.data is None:
            return open_size(tensor, model)
        buffer.data = buffer.data[: rng.integers(1, len(buffer.data))]

    changes = [
        other_type,
        open_size,
        negative_size,
        huge,
        not_quantized,
        senseless_scale,
        senseless_zero_point,
        short_constant,
    ]
    while True:
        for change in changes:
            model = tflite_file.parse(content)
            tensors = model.subgraphs[0].tensors
            eight_bit = [
                index
                for index, tensor in enumerate(tensors)
                if tensor.type in (types.UINT8, types.INT8) and len(tensor.shape)
            ]
            index = int(rng.choice(eight_bit))
            change(tensors[index], model)
            yield tflite_file.pack(model), touching(model, index)


def test_mutated_models_neither_crash_nor_map_wrongly(files):
    rng = np.random.default_rng(0)
    content = files["int8"].read_bytes()
    report = edgetpu.check(content)
    assert report.complete
    mutated = mutations(content, rng)
    refused = 0
    for _ in range(200):
        damaged, broken = next(mutated)
        try:
            verdicts = edgetpu.check(damaged).verdicts
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert broken
        for index in broken:
            assert verdicts[index].kind is not None
    assert refused < 50  # most are judged


def test_what_maps_after_random_damage_is_run_by_tflite(files, tmp_path):
    """A whole file that maps must at least be one that TFLite itself accepts."""
    rng = np.random.default_rng(1)
    content = files["int8"].read_bytes()
    content = content[: tflite_graph.run_tflite.FlatbufferWalk(content).end]
    # The tables, not the 80 kB of weights, where damage is harmless.
    weights = max(
        (b.data for b in tflite_file.parse(content).buffers if b.data is not None),
        key=len,
    ).tobytes()
    start = content.index(weights)
    places = [n for n in range(len(content)) if not start <= n < start + len(weights)]
    mapping, refused, stay = [], 0, 0
    for number in range(300):
        damaged = bytearray(content)
        if number % 10 == 0:
            del damaged[rng.integers(8, len(content)) :]
        for place in rng.choice(places, rng.integers(1, 4)):
            if place < len(damaged):
                damaged[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        try:
            report = edgetpu.check(bytes(damaged))
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        if report.complete:
            mapping.append(bytes(damaged))
        stay += not report.complete
    assert refused > 20 and stay > 5 and len(mapping) > 50
    results = run_by_litert(mapping, tmp_path)
    wrong = [result for result in results if not result.startswith("ran")]
    assert not wrong


@pytest.mark.parametrize(
    "seed, count", [(0, 20), pytest.param(1, 400, marks=pytest.mark.slow)]
)
def test_what_maps_of_mutated_operators_is_run_by_tflite(seed, count, tmp_path):
    rng = np.random.default_rng(seed)
    kinds, mapping = collections.Counter(), []
    for name, (inputs, outputs, options) in VALID.items():
        operator = operator_of(name, len(inputs), len(outputs), options)
        for _ in range(count):
            content = mutant([*inputs, *outputs], operator, len(inputs), rng)
            try:
                report = edgetpu.check(content)
            except ValueError as error:
                assert "\n" not in str(error)
                kinds["refused"] += 1
                continue
            kinds[report.verdicts[0].kind] += 1
            if report.complete:
                mapping.append(content)
    assert kinds.keys() == {
        *("refused", "type", "shape", "version", "limit", "uncertain"),
        None,
    }
    assert kinds[None] > 5 * count
    results = run_by_litert(mapping, tmp_path)
    wrong = [result for result in results if not result.startswith("ran")]
    assert not wrong


def test_damaged_metadata_change_no_verdict(files):
    content = files["int8"].read_bytes()
    model = tflite_file.parse(content)
    (entry,) = [m for m in model.metadata if m.name == metadata.BUFFER_NAME]
    model.buffers[entry.buffer].data = np.full(100, 255, np.uint8)
    assert edgetpu.check(tflite_file.pack(model)).complete


# --- The compiler and the command line ------------------------------------------------

PRINTED = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 231 ms.

Input model: model.tflite
Input size: 94.65KiB
Output model: model_edgetpu.tflite
Output size: 296.85KiB
On-chip memory used for caching model parameters: 10.50KiB
On-chip memory remaining for caching model parameters: 7.72MiB
Off-chip memory used for streaming uncached model parameters: 1.25MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 5
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A
Number of operations that will run on Edge TPU: 3
Number of operations that will run on CPU: 2

Operator                       Count      Status

DEPTHWISE_CONV_2D              3          Mapped to Edge TPU
QUANTIZE                       1          Operation is otherwise supported, but not \
mapped due to some unspecified limitation
edgetpu-custom-op              1          More than one subgraph is not supported
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def test_the_compilers_log_is_read():
    found = edgetpu.read_log(PRINTED)
    assert found.version == "16.0.384591198"
    assert (found.mapped, found.total, found.milliseconds) == (3, 5, 231)
    assert found.on_chip_bytes == 10752 and found.streamed_bytes == 1.25 * 2**20
    assert found.operators[1][2].endswith("unspecified limitation")
    assert [row[:2] for row in found.operators] == [
        ("DEPTHWISE_CONV_2D", 3),
        ("QUANTIZE", 1),
        ("edgetpu-custom-op", 1),
    ]
    table = PRINTED[PRINTED.index("Operator  ") :]  # all that the log file has
    assert edgetpu.read_log(table).mapped == 3
    assert edgetpu.read_log(table).on_chip_bytes is None
    with pytest.raises(ValueError, match="no table"):
        edgetpu.read_log("Edge TPU Compiler version 16.0.384591198\n")


@pytest.fixture
def fake_compiler(tmp_path, monkeypatch):
    """Puts a program of that name on PATH; returns the function that writes it."""

    def write(output, status=0):
        text = tmp_path / "printed"
        text.write_text(output)
        program = tmp_path / "bin" / "edgetpu_compiler"
        program.parent.mkdir(exist_ok=True)
        made = 'printf compiled > "$3/model_edgetpu.tflite"' if not status else ""
        program.write_text(
            f'#!/bin/sh\ntest "$1" = -s && test -s "$4" || exit 9\n'
            f"cat {text}\n{made}\nexit {status}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return write


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "-model.tflite"
    path.write_bytes(chain("RELU", "FLOOR", "RELU"))
    return path


def test_the_command_judges_and_compiles(fake_compiler, model):
    fake_compiler(PRINTED)
    done = run_command(SCRIPT, f"--model={model}", "--compile")
    assert done.returncode == 0 and done.stderr == ""
    assert "1 of 3 operators map" in done.stdout
    assert "1 x FLOOR: the Edge TPU has no such operator" in done.stdout
    assert "16.0.384591198: 3 of 5 mapped" in done.stdout
    assert "0.01 MiB on chip, 1.25 MiB streamed" in done.stdout
    output = model.with_name("-model_edgetpu.tflite")
    assert str(output) in done.stdout and output.read_text() == "compiled"


def test_json_has_every_operator(fake_compiler, model):
    fake_compiler(PRINTED)
    done = run_command(SCRIPT, model, "--compile", "--json")
    assert done.returncode == 0 and done.stderr == ""
    result = json.loads(done.stdout)
    assert (result["operators"], result["mapped"]) == (3, 1)
    assert [verdict["kind"] for verdict in result["verdicts"]] == [
        None,
        "operator",
        "partition",
    ]
    assert result["compilation"]["mapped"] == 3


def test_a_refusing_compiler_is_one_line_and_writes_nothing(fake_compiler, model):
    fake_compiler(
        "Edge TPU Compiler version 16\nInvalid model: m\nModel not quantized\n", 1
    )
    error = one_error(run_command(SCRIPT, model, "--compile"))
    assert "Invalid model: m; Model not quantized" in error
    fake_compiler("Edge TPU Compiler version 16\n")
    assert "no table" in one_error(run_command(SCRIPT, model, "--compile"))
    assert not model.with_name("-model_edgetpu.tflite").exists()


def test_without_the_compiler_it_says_how_to_get_it(model, monkeypatch):
    monkeypatch.setattr(edgetpu.shutil, "which", lambda name: None)
    for machine, words in (("x86_64", "not installed"), ("aarch64", "another one")):
        monkeypatch.setattr(edgetpu.platform, "machine", lambda name=machine: name)
        with pytest.raises(edgetpu.UserError, match=words) as error:
            edgetpu.compile_model(model)
        assert "apt-get install edgetpu-compiler" in str(error.value)


def test_bad_files_are_one_line(tmp_path):
    text = tmp_path / "text.tflite"
    text.write_text("no model")
    half = tmp_path / "half.tflite"
    half.write_bytes(graph_of("CONV_2D")[:300])
    assert "expected b'TFL3'" in one_error(run_command(SCRIPT, text))
    assert "damaged" in one_error(run_command(SCRIPT, half))
    assert "No such file" in one_error(run_command(SCRIPT, tmp_path / "none.tflite"))
    assert "MODEL.tflite" in one_error(run_command(SCRIPT))
