"""Small .tflite graphs, made operator by operator from data."""

import collections
import dataclasses

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_resnet.edge.inspect import graph as tflite_graph

QUANTIZED = {"uint8": (1 / 128, 128), "int8": (1 / 128, 0), "int32": (1 / 1024, 0)}


@dataclasses.dataclass
class Tensor:
    """What a tensor is made of; `data` makes it a constant.

    `quantized` is (scale or scales, zero point); None takes one that fits the dtype.
    """

    shape: tuple
    dtype: str = "uint8"
    data: object = None
    quantized: tuple | None = None
    signature: tuple | None = None


@dataclasses.dataclass
class Operator:
    """Names of the schema (CONV_2D, Conv2DOptions fields), indices of the tensors."""

    name: str
    inputs: tuple
    outputs: tuple
    options: tuple = ()  # (table of the schema, {field: value})
    version: int = 1
    custom: str = ""


def build(tensors, operators, inputs=(0,), outputs=(-1,)):
    """Returns the bytes of a .tflite; negative indices count from the end."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    graph.tensors, graph.operators = [], []
    for number, tensor in enumerate(tensors):
        new = schema.TensorT()
        new.name, new.shape = f"tensor{number}", list(tensor.shape)
        new.type = getattr(schema.TensorType, tensor.dtype.upper())
        new.shapeSignature = tensor.signature and list(tensor.signature)
        quantized = tensor.quantized or QUANTIZED.get(tensor.dtype)
        if quantized:
            scales = np.atleast_1d(quantized[0]).astype(np.float32)
            new.quantization = schema.QuantizationParametersT()
            new.quantization.scale = scales
            new.quantization.zeroPoint = np.full(len(scales), quantized[1], np.int64)
        if tensor.data is not None:
            data = np.broadcast_to(np.asarray(tensor.data, tensor.dtype), tensor.shape)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(data.tobytes(), np.uint8)
            new.buffer = len(model.buffers) - 1
        graph.tensors.append(new)
    for operator in operators:
        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, operator.name)
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        code.version, code.customCode = operator.version, operator.custom or None
        model.operatorCodes.append(code)
        new = schema.OperatorT()
        new.opcodeIndex = len(model.operatorCodes) - 1
        new.inputs, new.outputs = list(operator.inputs), list(operator.outputs)
        if operator.options:
            table, fields = operator.options
            new.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            new.builtinOptions = getattr(schema, table + "T")()
            for field, value in fields.items():
                assert hasattr(new.builtinOptions, field), field
                setattr(new.builtinOptions, field, value)
        graph.operators.append(new)
    count = len(tensors)
    graph.inputs = [index % count for index in inputs]
    graph.outputs = [index % count for index in outputs]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def mean_colour():
    """Returns a classifier: image (1, 8, 8, 3) -> mean of red, green and blue."""
    return build(
        [
            Tensor((1, 8, 8, 3)),
            Tensor((2,), "int32", [1, 2], quantized=None),
            Tensor((1, 3), quantized=(1 / 256, 0)),
        ],
        [Operator("MEAN", (0, 1), (2,), ("ReducerOptions", {"keepDims": False}))],
    )


def counts(content):
    """Returns {operator: how many} of a .tflite."""
    return dict(
        collections.Counter(o.name for o in tflite_graph.read(content).operators)
    )


def float_tensors(content):
    """Returns the names of the floating-point tensors of a .tflite."""
    tensors = tflite_graph.read(content).tensors
    return [tensor.name for tensor in tensors if "FLOAT" in tensor.dtype]
