"""The rules of the Edge TPU, operator by operator: what maps, and what keeps it off."""

import numpy as np
import pytest

from keras_resnet.edge.convert import tflite_file
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.targets import edgetpu
from keras_resnet.edge.targets.edgetpu_rules import RULES
from tests.helpers.edgetpu_graphs import (
    INT8,
    VALID,
    chain,
    graph_of,
    image,
    operator_of,
)
from tests.helpers.graphs import Operator, build
from tests.helpers.litert import run_by_litert

# Some sizes of these map and others do not, and no source tells which.
LEFT_OPEN = {"RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE"}


def verdict_on(name, **changes):
    (verdict,) = edgetpu.check(graph_of(name, **changes)).verdicts
    return verdict


def kinds(content):
    return [verdict.kind for verdict in edgetpu.check(content).verdicts]


def test_every_operator_of_the_table_has_a_graph_that_maps():
    assert set(VALID) | LEFT_OPEN == set(RULES)


@pytest.mark.parametrize("name", VALID)
def test_a_valid_operator_maps(name):
    report = edgetpu.check(graph_of(name))
    assert report.complete and report.likely == 0, report.problems
    assert report.problems == []


def test_litert_runs_the_graphs_that_map(tmp_path):
    results = run_by_litert([graph_of(name) for name in VALID], tmp_path)
    assert [result for result in results if not result.startswith("ran")] == []


@pytest.mark.parametrize("name", sorted(LEFT_OPEN))
def test_what_no_source_decides_stays(name):
    tensors = VALID["RESIZE_BILINEAR"][0] + VALID["RESIZE_BILINEAR"][1]
    content = build(tensors, [Operator(name, (0, 1), (2,))])
    assert kinds(content) == ["uncertain"]


def test_versions_are_those_of_tensorflow_lite_2_5():
    """The last compiler is of July 2021, two months after TensorFlow 2.5."""
    for name, rule in RULES.items():
        runtimes = operators.version_table()[name]
        known = [
            each for each in runtimes if operators.version_parts(each) <= (2, 5, 0)
        ]
        assert rule.version == len(known), name


def through(**changes):
    """Changes what goes in and what comes out."""
    return {"input0": changes, "output0": changes}


def as_dtype(dtype):
    return {"dtype": dtype, "quantized": (1 / 256, 0)}


RESIZE = "RESIZE_BILINEAR"
BROKEN = [
    # Types.
    ("ADD", {"input1": as_dtype("int8")}, "type", "mixes INT8 and UINT8"),
    ("CONV_2D", {"input2": {"dtype": "int64"}}, "type", "not INT32"),
    ("CONV_2D", {"input1": as_dtype("int8")}, "type", "mixes"),
    ("CONV_2D", {"input1": {"quantized": ([0.1] * 6, 0)}}, "type", "6 scales"),
    ("FULLY_CONNECTED", {"input1": {"quantized": ([0.1] * 6, 0)}}, "type", "6 scales"),
    ("ADD", {"input0": {"quantized": ([0.1] * 8, 0)}}, "type", "8 scales"),
    ("ADD", {"input0": {"quantized": (float("nan"), 0)}}, "type", "not quantized"),
    ("ADD", {"input0": {"quantized": (0.0, 0)}}, "type", "not quantized"),
    ("ADD", {"input0": {"quantized": (0.1, 256)}}, "type", "not quantized"),
    ("ADD", {"input0": {"quantized": (0.1, -1)}}, "type", "not quantized"),
    ("CONV_2D", {"input2": {"quantized": (1 / 256 / 128, 1)}}, "type", "8-bit bias"),
    (
        "CONV_2D",
        through(**INT8) | {"input1": {"dtype": "int8", "quantized": (1 / 128, 5)}},
        "type",
        "8-bit weights",
    ),
    ("MEAN", {"input1": {"dtype": "float32"}}, "type", "FLOAT32"),
    # Shapes.
    ("ADD", {"input0": {"signature": (-1, 4, 5, 8)}}, "shape", "no fixed size"),
    ("ADD", {"output0": {"signature": (1, -1, 5, 8)}}, "shape", "no fixed size"),
    ("RELU", through(shape=(1, 0, 5, 8)), "shape", "no fixed size"),
    ("ADD", through(shape=(2, 4, 5, 8)), "shape", "last 3 dimensions"),
    ("CONV_2D", {"output0": {"shape": (1, 4, 4, 6)}}, "shape", "window"),
    ("CONV_2D", {"output0": {"shape": (1, 4, 5, 7)}}, "shape", "window"),
    ("CONV_2D", {"padding": 1}, "shape", "window"),
    ("CONV_2D", {"strideW": 2}, "shape", "window"),
    ("CONV_2D", {"strideW": 0}, "shape", "contradict"),
    ("DEPTHWISE_CONV_2D", {"input1": {"shape": (1, 3, 3, 7)}}, "shape", "window"),
    ("MAX_POOL_2D", {"padding": 1}, "shape", "window"),
    ("AVERAGE_POOL_2D", {"strideH": 2}, "shape", "window"),
    ("FULLY_CONNECTED", {"input0": {"shape": (1, 9)}}, "shape", "weights"),
    ("FULLY_CONNECTED", {"output0": {"shape": (1, 7)}}, "shape", "weights"),
    ("DEPTHWISE_CONV_2D", {"input2": None}, "shape", "contradict"),
    ("ADD", {"output0": None}, "shape", "contradict"),
    ("PACK", {"axis": 6}, "shape", "contradict"),
    ("MEAN", {"input1": {"shape": (1,), "data": 4}}, "shape", "contradict"),
    ("SOFTMAX", {"output0": {"shape": ()}}, "shape", "contradict"),
    # Limits.
    ("CONV_2D", {"input1": {"data": None}}, "limit", "constant"),
    ("CONV_2D", {"input2": {"data": None}}, "limit", "constant"),
    ("PAD", {"input1": {"data": None}}, "limit", "constant"),
    ("CONV_2D", {"dilationWFactor": 2}, "limit", "dilation"),
    ("DEPTHWISE_CONV_2D", {"dilationHFactor": 2}, "limit", "dilation"),
    ("CONV_2D", {"input1": {"shape": (6, 3, 3, 4)}}, "limit", "grouped"),
    ("CONV_2D", {"fusedActivationFunction": 4}, "limit", "no ReLU"),  # TANH
    ("ADD", {"fusedActivationFunction": 4}, "limit", "no ReLU"),
    ("SUB", {"fusedActivationFunction": 4}, "limit", "no ReLU"),
    ("DEPTHWISE_CONV_2D", {"fusedActivationFunction": 4}, "limit", "no ReLU"),
    ("FULLY_CONNECTED", {"fusedActivationFunction": 4}, "limit", "no ReLU"),
    ("MUL", {"fusedActivationFunction": 5}, "limit", "no ReLU"),
    ("MAX_POOL_2D", {"fusedActivationFunction": 1}, "limit", "activation"),
    ("AVERAGE_POOL_2D", {"fusedActivationFunction": 3}, "limit", "activation"),
    ("CONCATENATION", {"fusedActivationFunction": 1}, "limit", "activation"),
    ("L2_NORMALIZATION", {"fusedActivationFunction": 1}, "limit", "activation"),
    ("CONCATENATION", {"input1": {"data": 5}}, "limit", "not zero"),
    ("FULLY_CONNECTED", {"weightsFormat": 1}, "limit", "format"),
    (
        "FULLY_CONNECTED",
        {"input0": {"shape": (2, 8)}, "output0": {"shape": (2, 6)}},
        "limit",
        "1 dimension",
    ),
    ("SOFTMAX", through(shape=(1, 16_001)), "limit", "16000"),
    ("SOFTMAX", through(shape=(1, 2, 10)), "limit", "1 dimension"),
    (
        "MEAN",
        {"input1": {"shape": (1,), "data": 0}, "output0": {"shape": (4, 5, 8)}},
        "limit",
        "batch",
    ),
    ("SUM", {"input1": {"data": [-4, 1]}}, "limit", "batch"),
    ("REDUCE_MAX", {"input1": {"data": [0, 1]}}, "limit", "batch"),
    ("REDUCE_MIN", {"input1": {"data": [0, 1]}}, "limit", "batch"),
    (
        "MEAN",
        {
            "input0": {"shape": (1, 4, 5, 6)},
            "input1": {"shape": (1,), "data": -1},
            "output0": {"shape": (1, 4, 5)},
        },
        "limit",
        "multiple of 4",
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
    ("PACK", {"axis": 0, "output0": {"shape": (2, 4, 8)}}, "limit", "batch"),
    ("SPLIT", {"input0": {"data": -4}}, "limit", "batch"),
    ("PRELU", {"input1": {"shape": (4, 5, 8)}}, "limit", "shared_axes"),
    ("STRIDED_SLICE", {"input3": {"data": [1, 2, 1, 1]}}, "limit", "strides"),
    ("STRIDED_SLICE", {"newAxisMask": 1}, "limit", "new axis"),
    ("STRIDED_SLICE", {"ellipsisMask": 1}, "limit", "ellipsis"),
    # What no source decides.
    (RESIZE, {"halfPixelCenters": False}, "uncertain", "half-pixel"),
    (RESIZE, {"alignCorners": True}, "uncertain", "half-pixel"),
    (RESIZE, {"input0": {"shape": (1, 12, 12, 24)}}, "uncertain", "factor of 2"),
    (RESIZE, {"input0": {"shape": (1, 48, 24, 24)}}, "uncertain", "factor of 2"),
    (
        "RESHAPE",
        {
            "input0": {"shape": (1, 129, 128)},
            "input1": {"data": [1, -1]},
            "output0": {"shape": (1, 129 * 128)},
        },
        "uncertain",
        "16384",
    ),
    ("EXPAND_DIMS", {"input0": {"shape": (1, 16_385)}}, "uncertain", "16384"),
    ("SQUEEZE", {"input0": {"shape": (1, 1, 16_385)}}, "uncertain", "16384"),
    # Versions.
    ("CONV_2D", {"version": 6}, "version", "1 to 5"),
    ("TRANSPOSE_CONV", {"version": 4}, "version", "1 to 3"),
    ("FULLY_CONNECTED", {"version": 12}, "version", "1 to 9"),
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
        assert verdict_on(name, **{place: as_dtype(dtype)}).kind == "type"


@pytest.mark.parametrize("name", sorted(set(VALID) - {"SPLIT"}))
def test_no_operator_maps_with_an_output_too_many(name):
    inputs, outputs, options = VALID[name]
    operator = operator_of(name, len(inputs), len(outputs) + 1, options)
    fed = [n for n, tensor in enumerate(inputs) if tensor.data is None]
    tensors = [*inputs, *outputs, outputs[0]]
    assert kinds(build(tensors, [operator], fed, operator.outputs)) == ["shape"]


@pytest.mark.parametrize(
    "name, changes",
    [
        ("RESHAPE", {"input1": {"data": [1, -1]}}),
        ("RESHAPE", {"input1": None}),
        ("EXPAND_DIMS", {"input1": {"data": -2}}),
        ("EXPAND_DIMS", {"input1": {"dtype": "int64"}}),
        ("SQUEEZE", {"squeezeDims": None, "output0": {"shape": (8,)}}),
        ("PAD", {"input1": {"dtype": "int64"}}),
        ("CONCATENATION", {"input1": {"data": 0}}),
        ("FULLY_CONNECTED", {"input2": None}),
        ("CONV_2D", {"fusedActivationFunction": 3}),  # RELU6
        ("MAX_POOL_2D", {"padding": 1, "output0": {"shape": (1, 3, 4, 8)}}),
    ],
)
def test_other_forms_of_an_operator_map(name, changes, tmp_path):
    content = graph_of(name, **changes)
    assert edgetpu.check(content).complete
    (result,) = run_by_litert([content], tmp_path)
    assert result.startswith("ran")


def test_scales_for_each_channel_are_for_convolutions_of_int8():
    changes = {f"{place}0": INT8 for place in ("input", "output")}
    scales = np.linspace(0.01, 0.02, 6)
    changes["input1"] = {"dtype": "int8", "quantized": (scales, 0)}
    changes["input2"] = {"quantized": (scales / 256, 0)}
    assert verdict_on("CONV_2D", **changes).kind is None
    changes["input1"]["quantized"] = (scales[:5], 0)
    assert verdict_on("CONV_2D", **changes).kind == "type"


@pytest.mark.parametrize("name", ["ARG_MAX", "LEAKY_RELU", "DEQUANTIZE", "CUSTOM"])
def test_what_the_edge_tpu_does_not_know_stays(name):
    custom = "Mine\n" if name == "CUSTOM" else ""
    content = build(chain_tensors(2), [Operator(name, (0,), (1,), custom=custom)])
    (verdict,) = edgetpu.check(content).verdicts
    assert verdict.kind == "operator"
    assert verdict.operator == (r"Mine\n" if custom else name)


def chain_tensors(count):
    return [image(1, 8) for _ in range(count)]


def test_only_the_first_part_of_the_graph_maps():
    stays, behind = "operator", "partition"
    assert kinds(chain("RELU", "FLOOR", "RELU")) == [None, stays, behind]
    # The CPU may start, as in files that take float images.
    assert kinds(chain("FLOOR", "RELU", "RELU")) == [stays, None, None]
    names = ("FLOOR", "RELU", "CEIL", "RELU")
    assert kinds(chain(*names)) == [stays, None, stays, behind]
    report = edgetpu.check(chain("RELU", "FLOOR", "RELU", "RELU"))
    assert report.problems == [
        "1 x FLOOR: the Edge TPU has no such operator",
        "2 x others: an operator before them stays on the CPU",
    ]


def test_control_flow_keeps_all_on_the_cpu():
    model = tflite_file.parse(graph_of("RELU"))
    model.subgraphs.append(model.subgraphs[0])
    report = edgetpu.check(tflite_file.pack(model))
    assert report.mapped == 0 and "2 graphs" in report.problems[0]
