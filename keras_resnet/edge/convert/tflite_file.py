"""A .tflite as objects of the generated schema: parse, pack, change its interface."""

import copy

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


class _AlignedBuffer(schema.BufferT):
    """A buffer that packs its data at a multiple of 16 bytes, as the schema asks.

    The generated Python code does not. A constant at an odd address has to be copied
    or read with slower instructions.
    """

    def Pack(self, builder):  # noqa: N802, D102
        data = None
        if self.data is not None:
            values = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(values), 16)
            builder.head -= len(values)
            builder.Bytes[builder.head : builder.head + len(values)] = values
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def parse(content):
    """Returns the `ModelT` of a .tflite that is known to be sound."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def pack(model):
    """Returns the bytes of a `ModelT`, with aligned buffers."""
    model.buffers = [_AlignedBuffer(data=buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def interface(content):
    """Returns the `TensorT` of the one input and of the one output."""
    graph = parse(content).subgraphs[0]
    return graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]


def with_uint8_interface(content, scale, zero_point, scores=True):
    """Turns a float input and a float output of a .tflite into uint8 ones.

    A DEQUANTIZE goes before a float input: real = scale * (pixel - zero_point). A
    QUANTIZE of scale 1/256 and zero point 0 goes behind a float output, if that is
    scores. What is uint8 already stays as it is.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    builtin = schema.BuiltinOperator
    replaced = {}

    def is_float(index):
        return graph.tensors[index].type == schema.TensorType.FLOAT32

    def uint8_twin(index, scale, zero_point):
        tensor = copy.copy(graph.tensors[index])
        tensor.type = schema.TensorType.UINT8
        tensor.name = tensor.name + b"_uint8"
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [scale]
        tensor.quantization.zeroPoint = [zero_point]
        graph.tensors.append(tensor)
        replaced[index] = len(graph.tensors) - 1
        return replaced[index]

    def operator(code, source, target):
        model.operatorCodes.append(schema.OperatorCodeT())
        model.operatorCodes[-1].builtinCode = code
        model.operatorCodes[-1].deprecatedBuiltinCode = code
        model.operatorCodes[-1].version = 1
        new = schema.OperatorT()
        new.opcodeIndex = len(model.operatorCodes) - 1
        new.inputs, new.outputs = [source], [target]
        return new

    image, output = graph.inputs[0], graph.outputs[0]
    if is_float(image):
        graph.inputs = [uint8_twin(image, scale, zero_point)]
        graph.operators.insert(0, operator(builtin.DEQUANTIZE, graph.inputs[0], image))
    if scores and is_float(output):
        graph.outputs = [uint8_twin(output, 1 / 256, 0)]
        graph.operators.append(operator(builtin.QUANTIZE, output, graph.outputs[0]))
    for signature in model.signatureDefs or []:
        for tensor in [*signature.inputs, *signature.outputs]:
            tensor.tensorIndex = replaced.get(tensor.tensorIndex, tensor.tensorIndex)

    return pack(model)
