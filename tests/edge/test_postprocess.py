"""The operator in the file finds the boxes that the runner finds."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_resnet.edge.convert import postprocess, tflite_file
from keras_resnet.runner import detections
from keras_resnet.runner.metrics import MAX_DETECTIONS
from tests.helpers import environments, suppression

# Runs a file on the inputs of an .npz; prints and saves the outputs of each.
RUN = """
import sys
import numpy as np
from {runtime}.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1], num_threads=int(sys.argv[4]))
interpreter.allocate_tensors()
inputs = np.load(sys.argv[2])
details = interpreter.get_input_details()
found = []
for values in zip(*(inputs[name] for name in sorted(inputs))):
    for detail, value in zip(details, values):
        interpreter.set_tensor(detail["index"], value[None])
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    found.append([interpreter.get_tensor(one["index"]).copy() for one in outputs])
names = [one["name"] for one in outputs]
np.savez(sys.argv[3], *map(np.stack, zip(*found)), names=names)
"""
RUNTIMES = {"here": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
PICTURES, ANCHORS, CLASSES = 6, 600, 5


def raw_file(quantized):
    """A .tflite whose inputs, offsets and scores, are its outputs."""
    model = schema.ModelT()
    model.version, model.operatorCodes, model.signatureDefs = 3, [], []
    model.buffers, model.metadata = [schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    model.subgraphs = [graph]
    for name, last in ((b"offsets", 4), (b"scores", CLASSES)):
        tflite_file.add_tensor(model, name, [1, ANCHORS, last])
    graph.inputs = graph.outputs = [0, 1]
    if quantized:
        for tensor, scale, zero_point in zip(graph.tensors, *quantized, strict=True):
            tensor.type = schema.TensorType.UINT8
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale]
            tensor.quantization.zeroPoint = [zero_point]
    return tflite_file.pack(model)


@pytest.mark.parametrize("environment", RUNTIMES)
@pytest.mark.parametrize("kind, threads", [("float", 1), ("sparse", 2), ("uint8", 4)])
def test_the_operator_finds_the_boxes_of_the_runner(
    environment, kind, threads, tmp_path
):
    """With several threads, too, where `use_regular_nms` would lose a class."""
    random = np.random.RandomState(5)
    _, _, anchors = suppression.random_outputs(random, ANCHORS, CLASSES)
    share = 1.0 if kind == "float" else 0.02
    outputs = [
        suppression.random_outputs(random, ANCHORS, CLASSES, share)[:2]
        for _ in range(PICTURES)
    ]
    offsets, scores = map(np.stack, zip(*outputs, strict=True))
    quantized = kind == "uint8" and ((np.float32(0.08), np.float32(1 / 256)), (130, 0))
    stored = [offsets, scores]
    if quantized:
        stored = [
            np.rint(part / scale + zero).clip(0, 255).astype(np.uint8)
            for part, scale, zero in zip(stored, *quantized, strict=True)
        ]
        offsets, scores = (
            (part.astype(np.float32) - zero) * scale
            for part, scale, zero in zip(stored, *quantized, strict=True)
        )
    content = postprocess.with_postprocess(raw_file(quantized), anchors)
    (tmp_path / "model.tflite").write_bytes(content)
    np.savez(tmp_path / "in.npz", a=stored[0], b=stored[1])
    script = RUN.format(runtime=RUNTIMES[environment])
    names = ("model.tflite", "in.npz", "out.npz")
    paths = [tmp_path / name for name in names]
    environments.run(environment, script, *paths, threads)
    found = np.load(tmp_path / "out.npz")
    assert found["names"].tolist() == [
        "TFLite_Detection_PostProcess" + end for end in ("", ":1", ":2", ":3")
    ]
    for picture in range(PICTURES):
        expected = detections.find_objects(offsets[picture], scores[picture], anchors)
        boxes, classes, values, count = (
            found[f"arr_{number}"][picture][0] for number in range(4)
        )
        count = int(count)
        assert count == len(expected.scores) > (10 if share < 1 else 50)
        assert len(values) == MAX_DETECTIONS
        assert values[:count].tolist() == expected.scores.tolist()
        boxes, classes = boxes[:count], classes[:count]
        assert classes.tolist() == expected.classes.tolist()
        np.testing.assert_allclose(boxes, expected.boxes, rtol=1e-6, atol=1e-6)
