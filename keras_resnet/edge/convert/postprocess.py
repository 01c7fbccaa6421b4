"""Appends to a detector the operator of TensorFlow Lite that finds its boxes.

The operator is TFLite_Detection_PostProcess, which pycoral and MediaPipe expect. It is
appended to the flatbuffer: the converter makes it only of a TensorFlow graph that
implements it, which reorders its outputs and fails in int8.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from keras_resnet.edge.convert import tflite_file
from keras_resnet.runner import detections
from keras_resnet.runner.metrics import MAX_DETECTIONS

NAME = b"TFLite_Detection_PostProcess"
# The outputs, by what other programs call them, and their shapes.
OUTPUTS = {
    "location": [1, MAX_DETECTIONS, 4],
    "category": [1, MAX_DETECTIONS],
    "score": [1, MAX_DETECTIONS],
    "number of detections": [1],
}


def with_postprocess(content, anchors):
    """Appends the operator to a .tflite of raw boxes and scores.

    It decodes and suppresses as `keras_resnet.runner.detections.find_objects` does.
    Quantized outputs are dequantized before it: fed uint8, it returns zeros.

    Args:
        content: bytes of a .tflite whose outputs are the offsets (1, anchors, 4) and
            the scores (1, anchors, classes).
        anchors: float array (anchors, 4): y, x, height, width.

    Returns:
        bytes of a .tflite with float32 outputs: boxes (1, n, 4) as top, left, bottom
        and right shares of the input, classes (1, n), scores (1, n), and how many of
        the n = `MAX_DETECTIONS` are detections (1,).
    """
    model = tflite_file.parse(content)
    graph = model.subgraphs[0]
    offsets, scores = graph.outputs
    classes = int(graph.tensors[scores].shape[2])
    inputs = [tflite_file.dequantized(model, tensor) for tensor in (offsets, scores)]
    inputs.append(_constant(model, b"anchors", anchors))
    graph.outputs = [
        tflite_file.add_tensor(
            model, NAME + (b":%d" % number if number else b""), shape
        )
        for number, shape in enumerate(OUTPUTS.values())
    ]
    operator = tflite_file.operator(
        model, schema.BuiltinOperator.CUSTOM, inputs, graph.outputs, NAME
    )
    operator.customOptions = list(_options(classes))
    graph.operators.append(operator)
    # A signature would name the raw outputs; pycoral reads the four by their order.
    model.signatureDefs = []
    return tflite_file.pack(model)


def _constant(model, name, values):
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.asarray(values, "<f4").tobytes(), np.uint8)
    model.buffers.append(buffer)
    shape = list(np.shape(values))
    return tflite_file.add_tensor(model, name, shape, len(model.buffers) - 1)


def _options(classes):
    """Returns the operator's options as bytes of a flexbuffer."""
    builder = flexbuffers.Builder()
    with builder.Map():
        for name, number in (
            ("max_detections", MAX_DETECTIONS),
            ("max_classes_per_detection", 1),
            ("detections_per_class", MAX_DETECTIONS),
            ("num_classes", classes),
        ):
            builder.Int(name, number)
        # The other suppression loses classes where the runtime has several threads.
        builder.Bool("use_regular_nms", False)
        scales = zip("yxhw", detections.BOX_SCALES, strict=True)
        for name, number in (
            ("nms_score_threshold", detections.MIN_SCORE),
            ("nms_iou_threshold", detections.MAX_IOU),
            *((f"{side}_scale", scale) for side, scale in scales),
        ):
            builder.Float(name, number)
    return builder.Finish()
