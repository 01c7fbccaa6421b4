"""The estimate for whole models, against what Google's compiler made of Coral's."""

import struct

import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table

from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.targets import edgetpu
from tests.helpers.edgetpu_graphs import (
    chain,
    graph_of,
    image,
    pose_network,
    segmentation_network,
    weights,
)
from tests.helpers.graphs import Operator, build
from tests.helpers.litert import run_by_litert

# Models of Coral, and how many of their operators the compiler put on the Edge TPU.
PAIRS = {
    "mobilenet_v1_0.25_128_quant": (31, 31),
    "mobilenet_v1_0.5_160_quant": (31, 31),
    "deeplabv3_mnv2_dm05_pascal_quant": (64, 72),
    "movenet_single_pose_lightning_ptq": (98, 157),
}
# Convolutional models of github.com/google-coral/test_data: bytes of the parameters
# that map, and what the compiler stored for them in *_edgetpu.tflite.
STORED = {
    "bodypix_mobilenet_v1_075_512_512_16_quant_decoder": (1302632, 1477888),
    "deeplab_mobilenet_edgetpu_slim_cityscapes_quant": (2101804, 2654784),
    "deeplabv3_mnv2_dm05_pascal_quant": (576832, 766720),
    "deeplabv3_mnv2_pascal_quant": (2009152, 2337216),
    "mobilenet_v1_0.25_128_quant": (478812, 566912),
    "mobilenet_v1_0.5_160_quant": (1346060, 1473280),
    "mobilenet_v1_0.75_192_quant": (2605756, 2777600),
    "mobilenet_v1_1.0_224_quant_embedding_extractor": (3228864, 3363072),
    "movenet_single_pose_lightning_ptq": (2374553, 2865024),
    "posenet_mobilenet_v1_075_353_481_16_quant_decoder": (1279740, 1444608),
}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request, shared_data):
    """(name, bytes before, bytes after Google's compiler)."""
    folder = shared_data / "peers"
    paths = [folder / f"{request.param}{end}.tflite" for end in ("", "_edgetpu")]
    return request.param, *(path.read_bytes() for path in paths)


def stored_parameter_bytes(content):
    """Reads what the compiler stored (libedgetpu's executable.fbs)."""

    def root(data):
        return Table(data, struct.unpack_from("<I", data)[0])

    def vector(table, slot):
        offset = table.Offset(4 + 2 * slot)
        start = table.Vector(offset)
        return table.Bytes[start : start + table.VectorLen(offset)] if offset else b""

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    (options,) = (
        bytes(operator.customOptions)
        for operator in model.subgraphs[0].operators
        if operator.customOptions is not None
    )
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


def test_the_estimate_is_what_the_compiler_did_operator_by_operator(pair):
    name, before, after = pair
    graph, compiled = tflite_graph.read(before), tflite_graph.read(after)
    # The compiler keeps the names of the tensors that the CPU computes.
    on_cpu = {
        operator.outputs[0].name
        for operator in compiled.operators
        if operator.custom != edgetpu.COMPILED
    }
    assert len(on_cpu) == len(compiled.operators) - 1
    report = edgetpu.check(before)
    for operator, verdict in zip(graph.operators, report.verdicts, strict=True):
        truth = operator.outputs[0].name not in on_cpu
        assert (verdict.kind is None) == truth, (operator, verdict)
    assert (report.mapped, len(report.verdicts)) == PAIRS[name]
    assert not report.compiled and report.likely == 0


def test_a_compiled_file_is_no_estimate(pair):
    name, _, after = pair
    report = edgetpu.check(after)
    mapped, total = PAIRS[name]
    assert report.compiled and report.mapped == 1
    assert report.as_dict()["estimate"] is False
    text = f"compiled, with {total - mapped} operators on the CPU"
    assert report.lines() == [("edge tpu", text)]


def test_the_parameters_take_what_the_estimate_says(pair):
    name, before, after = pair
    report, stored = edgetpu.check(before), stored_parameter_bytes(after)
    assert (report.parameter_bytes, stored) == STORED[name]
    assert report.on_chip_bytes_low <= stored <= report.on_chip_bytes_high
    assert report.fits


@pytest.mark.parametrize("network", [pose_network(), segmentation_network()])
def test_networks_like_corals_get_the_verdicts_of_the_compiler(network, tmp_path):
    content = network.build()
    report = edgetpu.check(content)
    assert [verdict.kind for verdict in report.verdicts] == network.kinds
    (result,) = run_by_litert([content], tmp_path)
    assert result.startswith("ran")


def test_the_range_of_the_memory_is_that_of_corals_models():
    factors = [stored / parameters for parameters, stored in STORED.values()]
    low, high = edgetpu.PARAMETER_OVERHEAD
    assert low <= min(factors) < low + 0.01
    assert high - 0.01 < max(factors) <= high


def resized(height, width, depth):
    return edgetpu.check(
        graph_of(
            "RESIZE_BILINEAR",
            input0={"shape": (1, height // 2, width // 2, depth)},
            input1={"data": [height, width]},
            output0={"shape": (1, height, width, depth)},
        )
    )


@pytest.mark.parametrize(
    "size, kind",
    [
        ((12, 12, 64), None),
        ((24, 24, 32), None),
        ((48, 48, 24), None),
        ((6, 12, 48), None),
        ((24, 48, 8), None),
        ((48, 48, 25), "likely"),
        ((50, 48, 24), "likely"),
        ((48, 50, 24), "likely"),
        ((14, 12, 64), "likely"),
        ((12, 12, 65), "likely"),
        ((512, 512, 32), "likely"),
    ],
)
def test_larger_resizes_than_the_compiler_mapped_are_likely(size, kind):
    report = resized(*size)
    assert report.verdicts[0].kind == kind
    assert report.complete and report.problems == []


def test_every_total_says_estimate_and_likely():
    lines = dict(resized(96, 96, 24).lines())
    assert lines["edge tpu"] == "estimate: 1 of 1 operators map, 1 of them likely"
    assert lines["likely"].startswith("1 x RESIZE_BILINEAR: it is larger")
    result = resized(96, 96, 24).as_dict()
    assert (result["estimate"], result["mapped"], result["likely"]) == (True, 1, 1)
    lines = dict(resized(48, 48, 24).lines())
    assert lines["edge tpu"] == "estimate: 1 of 1 operators map"


@pytest.mark.parametrize(
    "mebibytes, words",
    [
        (6, "6.24 to 7.98 of 8 MiB: fits"),
        (7, "7.28 to 9.31 of 8 MiB: may fit"),
        (8, "8.32 to 10.64 of 8 MiB: does not fit, parameters are streamed"),
    ],
)
def test_parameters_fit_where_the_upper_end_does(mebibytes, words):
    units = mebibytes << 10
    content = build(
        [image(1, 1024), weights(units, 1024), image(1, units)],
        [Operator("FULLY_CONNECTED", (0, 1), (2,), ("FullyConnectedOptions", {}))],
    )
    report = edgetpu.check(content)
    assert report.parameter_bytes == mebibytes << 20
    assert dict(report.lines())["on chip"] == f"estimate: {words}"
    assert report.fits == report.as_dict()["fits"] == words.endswith(": fits")


def test_where_nothing_maps_there_is_no_memory():
    report = edgetpu.check(chain("FLOOR"))
    assert [name for name, _ in report.lines()] == ["edge tpu", "stays on cpu"]
    assert not report.fits
