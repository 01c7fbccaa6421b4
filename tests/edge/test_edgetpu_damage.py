"""Damaged and hostile files: no crash, one line, and nothing broken maps."""

import collections

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import keras_resnet
from keras_resnet.edge.convert import converter, tflite_file
from keras_resnet.edge.targets import edgetpu
from keras_resnet.preprocessing import Preprocessing
from tests.helpers.edgetpu_graphs import VALID, operator_of
from tests.helpers.litert import run_by_litert
from tests.helpers.mutants import mutant


@pytest.fixture(scope="module")
def exported():
    """An int8 export of ResNet-8 with random weights."""
    preprocessing = Preprocessing((32, 32))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    model = keras_resnet.ResNet8(weights=None, classes=10)
    content = converter.from_keras(model, preprocessing, "int8", images)
    assert edgetpu.check(content).complete
    return content


def judged(content):
    """Returns the report, or None for a file that is refused in one line."""
    try:
        return edgetpu.check(content)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return None


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

    def larger_batch(tensor, model):
        if len(tensor.shape) < 4:  # they have no batch that a rule names
            return open_size(tensor, model)
        tensor.shape = [rng.choice([2, 2**20]), *tensor.shape[1:]]

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
        larger_batch,
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


def test_what_is_broken_in_a_real_model_does_not_map(exported):
    mutated = mutations(exported, np.random.default_rng(0))
    refused = 0
    for _ in range(160):
        damaged, broken = next(mutated)
        report = judged(damaged)
        if report is None:
            refused += 1
            continue
        assert broken
        for index in broken:
            assert not report.verdicts[index].maps
    assert refused < 40  # most are judged


def test_litert_runs_what_maps_of_a_model_with_random_damage(exported, tmp_path):
    rng = np.random.default_rng(1)
    # Damage to the 80 kB of weights would be harmless: only the rest is hit.
    buffers = [b.data for b in tflite_file.parse(exported).buffers]
    weights = max((data for data in buffers if data is not None), key=len).tobytes()
    start = exported.index(weights)
    places = [n for n in range(len(exported)) if not start <= n < start + len(weights)]
    mapping, refused, stay = [], 0, 0
    for number in range(300):
        damaged = bytearray(exported)
        if number % 10 == 0:
            del damaged[rng.integers(8, len(exported)) :]
        for place in rng.choice(places, rng.integers(1, 4)):
            if place < len(damaged):
                damaged[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        report = judged(bytes(damaged))
        if report is None:
            refused += 1
        elif report.complete:
            mapping.append(bytes(damaged))
        else:
            stay += 1
    assert refused > 20 and stay > 5 and len(mapping) > 50
    results = run_by_litert(mapping, tmp_path)
    assert [result for result in results if not result.startswith("ran")] == []


def test_hostile_operators_are_judged_or_refused():
    rng, kinds = np.random.default_rng(0), collections.Counter()
    for name, (inputs, outputs, options) in VALID.items():
        operator = operator_of(name, len(inputs), len(outputs), options)
        for _ in range(40):
            report = judged(mutant([*inputs, *outputs], operator, len(inputs), rng))
            if report is None:
                kinds["refused"] += 1
                continue
            assert report.lines() and report.as_dict()
            kinds[report.verdicts[0].kind] += 1
    assert {"refused", "type", "shape", "version", "limit", None} <= kinds.keys()
