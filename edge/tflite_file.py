"""Reads and completes a .tflite: operators, tensor types, interface, archive."""

import collections
import copy
import io
import json
import zipfile

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_OPERATORS = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()
}
_FLOATS = {
    code: name for name, code in vars(schema.TensorType).items() if "FLOAT" in name
}


def _parse(content):
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def operators(content):
    """Returns {operator: count}, the most frequent first."""
    model = _parse(content)
    counts = collections.Counter()
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        # Codes above 127 are in the newer of the two fields.
        counts[_OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]] += 1
    return dict(counts.most_common())


def float_tensors(content):
    """Returns the names of the floating-point tensors."""
    tensors = _parse(content).subgraphs[0].tensors
    return [tensor.name.decode() for tensor in tensors if tensor.type in _FLOATS]


def interface(content):
    """Returns the input and the output `TensorT`."""
    graph = _parse(content).subgraphs[0]
    return graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]


def with_uint8_interface(content, scale, zero_point):
    """Puts a DEQUANTIZE before and a QUANTIZE behind a float graph.

    Args:
        content: bytes of a .tflite with one float32 input and output.
        scale: of the new uint8 input: real = scale * (pixel - zero_point).
        zero_point: of the new uint8 input.

    Returns:
        bytes of a .tflite with uint8 input and uint8 output of scale 1/256.
    """
    model = _parse(content)
    graph = model.subgraphs[0]

    def uint8_twin(index, scale, zero_point):
        tensor = copy.copy(graph.tensors[index])
        tensor.type = schema.TensorType.UINT8
        tensor.name = tensor.name + b"_uint8"
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [scale]
        tensor.quantization.zeroPoint = [zero_point]
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def operator(code, source, target):
        model.operatorCodes.append(schema.OperatorCodeT())
        model.operatorCodes[-1].builtinCode = code
        model.operatorCodes[-1].deprecatedBuiltinCode = code
        model.operatorCodes[-1].version = 1
        new = schema.OperatorT()
        new.opcodeIndex = len(model.operatorCodes) - 1
        new.inputs, new.outputs = [source], [target]
        return new

    image, scores = graph.inputs[0], graph.outputs[0]
    pixels = uint8_twin(image, scale, zero_point)
    levels = uint8_twin(scores, 1 / 256, 0)
    builtin = schema.BuiltinOperator
    graph.operators.insert(0, operator(builtin.DEQUANTIZE, pixels, image))
    graph.operators.append(operator(builtin.QUANTIZE, scores, levels))
    graph.inputs, graph.outputs = [pixels], [levels]
    replaced = {image: pixels, scores: levels}
    for signature in model.signatureDefs or []:
        for tensor in [*signature.inputs, *signature.outputs]:
            tensor.tensorIndex = replaced[tensor.tensorIndex]

    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_archive(content, labels, preprocessing):
    """Appends labels.txt and preprocessing.json, as TFLite metadata does.

    Args:
        content: bytes of a .tflite.
        labels: names of the classes, or None: no labels.txt then.
        preprocessing: a `Preprocessing`.

    Returns:
        bytes that are a .tflite and a ZIP archive at once.
    """
    steps = {
        "version": 1,
        "input_size": preprocessing.input_size,
        "resize_size": preprocessing.resize_size,
        "crop_fraction": preprocessing.crop_fraction,
        "interpolation": preprocessing.interpolation,
    }
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        # A fixed date: equal models make equal files.
        if labels is not None:
            archive.writestr(zipfile.ZipInfo("labels.txt"), "\n".join(labels) + "\n")
        archive.writestr(zipfile.ZipInfo("preprocessing.json"), json.dumps(steps))
    return file.getvalue()
