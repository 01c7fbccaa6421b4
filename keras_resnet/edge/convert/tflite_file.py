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
    """Returns the `TensorT` of the one input and of the first output."""
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

    image, output = graph.inputs[0], graph.outputs[0]
    if is_float(image):
        graph.inputs = [uint8_twin(image, scale, zero_point)]
        added = operator(model, builtin.DEQUANTIZE, graph.inputs, [image])
        graph.operators.insert(0, added)
    if scores and is_float(output):
        graph.outputs = [uint8_twin(output, 1 / 256, 0)]
        added = operator(model, builtin.QUANTIZE, [output], graph.outputs)
        graph.operators.append(added)
    for signature in model.signatureDefs or []:
        for tensor in [*signature.inputs, *signature.outputs]:
            tensor.tensorIndex = replaced.get(tensor.tensorIndex, tensor.tensorIndex)

    return pack(model)


def with_outputs_in_order(content, names):
    """Puts the outputs of a .tflite into the order of some names of its signature.

    The converter sorts them as it likes, and only the signature knows their names.
    """
    model = parse(content)
    (signature,) = model.signatureDefs
    places = {tensor.name.decode(): tensor.tensorIndex for tensor in signature.outputs}
    model.subgraphs[0].outputs = [places[name] for name in names]
    return pack(model)


def operator(model, code, inputs, outputs, custom=None):
    """Returns a new operator of a `ModelT`, which still has to be put into its graph.

    Args:
        model: `ModelT`, which gets its operator code.
        code: of `BuiltinOperator`.
        inputs: indices of tensors.
        outputs: likewise.
        custom: name of a custom operator, bytes.
    """
    new_code = schema.OperatorCodeT()
    new_code.builtinCode = new_code.deprecatedBuiltinCode = code
    new_code.version, new_code.customCode = 1, custom
    model.operatorCodes.append(new_code)
    new = schema.OperatorT()
    new.opcodeIndex = len(model.operatorCodes) - 1
    new.inputs, new.outputs = list(inputs), list(outputs)
    return new


def add_tensor(model, name, shape, buffer=0):
    """Adds a float32 tensor to a `ModelT`; returns its index."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, list(shape), buffer
    tensor.type = schema.TensorType.FLOAT32
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def dequantized(model, index):
    """Adds a DEQUANTIZE of a uint8 tensor; returns the index of the float one."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[index]
    if tensor.type == schema.TensorType.FLOAT32:
        return index
    result = add_tensor(model, tensor.name + b"_float", tensor.shape)
    code = schema.BuiltinOperator.DEQUANTIZE
    graph.operators.append(operator(model, code, [index], [result]))
    return result
