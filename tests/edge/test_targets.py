"""The table of targets, held to the real runtimes and to real exports."""

import base64
import dataclasses
import json

import pytest
from ai_edge_litert import schema_py_generated as schema

import keras_resnet
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.targets import checks as targets
from keras_resnet.edge.targets import ethos_u
from keras_resnet.runner.errors import UserError
from tests.conftest import QUANTIZATIONS
from tests.helpers import environments, graphs
from tests.helpers.graphs import Operator, Tensor

# The first TensorFlow Lite for each kind of export.
OLDEST = {
    "qat": "1.14.0",
    "int8": "1.14.0",
    "int16x8": "2.3.0",
    "dynamic": "2.4.0",
    "float16": "1.15.0",
    "none": "1.14.0",
}
INT8 = Tensor((1, 4, 4, 4), "int8")

# Prints which models the runtime refuses for an operator that it does not have.
LOAD = """
import base64, importlib, json, sys

runtime, models = sys.argv[1:]
interpreter = importlib.import_module(runtime + ".interpreter").Interpreter
refused = []
with open(models) as file:
    for name, content in json.load(file).items():
        try:
            interpreter(model_content=base64.b64decode(content))
        except ValueError as error:
            if "Didn't find op" in str(error) or "out of range" in str(error):
                refused.append(name)
print(json.dumps(refused))
"""


@pytest.fixture(scope="module")
def every_operator():
    """{(operator, version): a model that has it}, one version more than the table."""
    return {
        (name, version): graphs.build(
            [INT8, Tensor((4,), "int8", 1), INT8],
            [Operator(name, (0, 1), (2,), version=version)],
        )
        for name, versions in operators.version_table().items()
        for version in range(1, len(versions) + 2)
    }


def refused_by(environment, runtime, models, folder):
    contents = {
        f"{name} {version}": base64.b64encode(content).decode()
        for (name, version), content in models.items()
    }
    (folder / "models.json").write_text(json.dumps(contents))
    output = environments.run(environment, LOAD, runtime, folder / "models.json")
    return {
        (name, int(version)) for name, version in map(str.split, json.loads(output))
    }


def test_operators_are_refused_as_tflite_runtime_refuses_them(every_operator, tmp_path):
    refused = refused_by("tflite-runtime", "tflite_runtime", every_operator, tmp_path)
    problems = {
        key
        for key, content in every_operator.items()
        if targets.check(content, "tflite_runtime").problems
    }
    assert problems == refused
    assert 100 < len(refused) < len(every_operator) - 300


def test_operators_of_the_table_are_read_by_litert(every_operator, tmp_path):
    refused = refused_by("here", "ai_edge_litert", every_operator, tmp_path)
    assert refused.isdisjoint(
        key
        for key, content in every_operator.items()
        if not targets.check(content, "litert").problems
    )
    assert ("CONV_2D", 9) in refused


@pytest.mark.slow
def test_the_oldest_runtime_of_each_operator_is_right(every_operator, tmp_path):
    refused = refused_by("oldest-runtime", "tflite_runtime", every_operator, tmp_path)
    newer = set()
    for key, content in every_operator.items():
        oldest = targets.check(content).oldest_runtime
        if oldest is None or operators.version_parts(oldest) > (2, 7, 0):
            newer.add(key)
    # TensorFlow's table is late by one release for this one.
    assert newer - refused == {("RANDOM_STANDARD_NORMAL", 1)}
    assert refused <= newer


def test_the_table_knows_every_operator_by_the_name_of_the_schema():
    names = vars(schema.BuiltinOperator)
    assert set(operators.version_table()) < set(names)
    assert ethos_u.OPERATORS < set(names)


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
@pytest.mark.parametrize("target", targets.TARGETS)
def test_int8_exports_fit_every_target_and_others_those_with_floats(
    files, quantize, target
):
    found = targets.check(files[quantize].read_bytes(), target)
    integer = quantize in ("qat", "int8")
    assert (found.float_tensors == ()) == integer
    if integer or target in ("litert", "tflite_runtime"):
        assert found.problems == ()
    else:
        assert "floating point" in found.problems[0]
        assert not found.fits_on_chip
    # With a scale for each channel the dense layer of "dynamic" would need 2.17.
    assert found.oldest_runtime == OLDEST[quantize]


def test_figures_are_those_of_the_model(files):
    found = targets.check(files["int8"].read_bytes(), "edgetpu")
    model = keras_resnet.ResNet8(weights=None, classes=10)
    assert found.file_bytes == files["int8"].stat().st_size
    # By hand: 3x3 convolutions of 16, 32 and 64 channels at 32, 16 and 8 pixels.
    assert found.multiply_adds == sum(
        (
            32 * 32 * 9 * (3 * 16 + 2 * 16 * 16),
            16 * 16 * (9 * (16 * 32 + 32 * 32) + 16 * 32),
            8 * 8 * (9 * (32 * 64 + 64 * 64) + 32 * 64),
            64 * 10,
        )
    )
    assert [(row.name, row.count) for row in found.operators][:2] == [
        ("CONV_2D", 9),
        ("ADD", 3),
    ]
    assert sum(row.count for row in found.operators) == found.edgetpu_operators
    assert found.fits_on_chip and found.edgetpu_estimate and not found.edgetpu_likely
    assert 0.95 * model.count_params() < found.on_chip_bytes_low
    assert found.on_chip_bytes_low < found.on_chip_bytes_high
    assert json.loads(json.dumps(dataclasses.asdict(found)))["target"] == "edgetpu"


def test_peers_are_counted_as_published(shared_data):
    """MobileNet v1 0.25 128: 14 million; MLPerf Tiny's ResNet-8: 12.5 million."""
    for name, expected in (
        ("mobilenet_v1_0.25_128_quant", 14e6),
        ("mlperf_tiny_resnet8_int8", 12.5e6),
    ):
        content = (shared_data / "peers" / f"{name}.tflite").read_bytes()
        found = targets.check(content).multiply_adds
        assert found == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(
    ("operator", "tensors", "expected"),
    [
        ("CONV_2D", [(1, 8, 8, 6), (4, 3, 5, 2), (4,), (1, 7, 9, 4)], 7 * 9 * 4 * 30),
        ("DEPTHWISE_CONV_2D", [(1, 8, 8, 6), (1, 3, 5, 6), (6,), (1, 8, 8, 6)], 5760),
        ("FULLY_CONNECTED", [(1, 20), (10, 20), (10,), (1, 10)], 200),
        (
            "TRANSPOSE_CONV",
            [(4,), (5, 3, 2, 6), (1, 4, 4, 6), (1, 8, 8, 5)],
            4 * 4 * 6 * 30,
        ),
        ("BATCH_MATMUL", [(2, 3, 4), (2, 4, 5), (2, 3, 5)], 120),
        ("ADD", [(1, 8), (1, 8), (1, 8)], 0),
        ("CONV_2D", [(-1, 8, 8, 6), (4, 3, 5, 2), (4,), (-1, 7, 9, 4)], 7 * 9 * 120),
    ],
)
def test_multiply_adds_are_counted(operator, tensors, expected):
    constants = {1, 2} if len(tensors) == 4 else set()
    if operator == "TRANSPOSE_CONV":
        constants = {0, 1}
    content = graphs.build(
        [
            Tensor(
                tuple(abs(size) for size in shape),
                "int8",
                0 if number in constants else None,
                signature=shape,
            )
            for number, shape in enumerate(tensors)
        ],
        [Operator(operator, range(len(tensors) - 1), (len(tensors) - 1,))],
        inputs=[n for n in range(len(tensors) - 1) if n not in constants],
    )
    assert targets.check(content).multiply_adds == expected


def test_dynamic_sizes_float_tensors_and_foreign_operators_are_named():
    dynamic = Tensor((1, 4), "int8", signature=(-1, 4))
    content = graphs.build([dynamic, dynamic], [Operator("RELU", (0,), (1,))])
    for target in targets.TARGETS:
        problems = targets.check(content, target).problems
        assert "2 tensors without a fixed size: 'tensor0', 'tensor1'" == problems[0]

    floating = Tensor((1, 4), "float32")
    content = graphs.build([floating] * 5, [Operator("RELU", (0,), (4,))])
    assert targets.check(content, "litert").problems == ()
    assert targets.check(content, "ethos-u55-128").problems == (
        "floating point in all operators, and the target computes in integers only",
    )

    content = graphs.build([INT8, INT8], [Operator("SIN", (0,), (1,))])
    (problem,) = targets.check(content, "ethos-u65-256").problems
    assert problem == "1 x SIN version 1: not among the target's operators"
    assert targets.check(content, "tflite_runtime").problems == ()

    custom = Operator("CUSTOM", (0,), (1,), custom="MyOwn")
    found = targets.check(graphs.build([INT8, INT8], [custom]))
    assert "MyOwn version 1" in found.problems[0] and found.oldest_runtime is None


def test_dense_layers_with_a_scale_for_each_channel_need_2_10():
    """TFLite 2.5 to 2.9 would return constants for them, without an error."""

    def dense(scales):
        weights = Tensor((10, 20), "int8", 1, quantized=(scales, 0))
        output = Tensor((1, 10), "int8")
        return graphs.build(
            [Tensor((1, 20), "int8"), weights, output],
            [Operator("FULLY_CONNECTED", (0, 1), (2,), version=4)],
        )

    assert targets.check(dense(0.5)).oldest_runtime == "1.14.0"
    assert targets.check(dense([0.5] * 10)).oldest_runtime == "2.10.0"


def test_bad_requests_are_one_line():
    with pytest.raises(UserError, match="edgetpu"):
        targets.check(graphs.mean_colour(), "edge_tpu")
    for content in (b"", b"TFL3" * 9, graphs.mean_colour()[:200]):
        with pytest.raises(UserError) as caught:
            targets.check(content)
        assert "\n" not in str(caught.value)
