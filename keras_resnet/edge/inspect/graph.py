"""The graph of any .tflite as plain data.

The file is read through the classes that LiteRT generates from TFLite's schema, after
LiteRT's own verifier has accepted it. It may come from anywhere, so a damaged file is
refused in one line. Nothing is computed and no constant is copied.
"""

import dataclasses
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

SCHEMA_VERSION = 3
MAX_RANK = 8
MAX_ELEMENTS = 1 << 48
NOT_VALID = "not a valid Flatbuffer"  # how LiteRT says that its verifier refused

# {type: bytes of an element}, of the types that have a size.
SIZES = {
    name: np.dtype(name.lower()).itemsize
    for name in (
        "BOOL INT8 UINT8 INT16 UINT16 INT32 UINT32 INT64 UINT64 FLOAT16 FLOAT32 "
        "FLOAT64 COMPLEX64 COMPLEX128"
    ).split()
} | {"BFLOAT16": 2}

# Operators that compute nothing.
MOVES = ("PAD", "PADV2", "QUANTIZE", "DEQUANTIZE", "RESHAPE", "TRANSPOSE")


def _names(enumeration):
    return {n: name for name, n in vars(enumeration).items() if name[0] != "_"}


_OPERATORS = _names(schema.BuiltinOperator)
_TYPES = _names(schema.TensorType)
_OPTIONS = _names(schema.BuiltinOptions)


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph."""

    index: int  # place in the graph's list of tensors
    name: str  # in the file
    dtype: str  # type in TFLite's schema: INT8, UINT8, FLOAT32, ...
    shape: tuple  # of sizes; -1 for a size that is not fixed
    # A float32 array with one scale, or one for each channel; empty if it is not
    # quantized.
    scales: np.ndarray
    zero_points: np.ndarray  # an int64 array of the same length
    axis: int  # the dimension of the channels that have their own scales
    # The bytes of a constant as a uint8 array, a view of the file; None for what is
    # computed or fed.
    data: np.ndarray | None
    variable: bool  # whether the tensor keeps its value from one run to the next

    @property
    def dynamic(self):
        """Whether one of the sizes is not fixed."""
        return any(size < 0 for size in self.shape)

    @property
    def elements(self):
        """Number of elements; 0 if a size is not fixed."""
        return 0 if self.dynamic else math.prod(self.shape)

    @property
    def size(self):
        """Number of bytes; an element without a fixed size counts as 1 byte."""
        return self.elements * SIZES.get(self.dtype, 1)

    @property
    def constant(self):
        """Whether the value is in the file."""
        return self.data is not None or self.shape and 0 in self.shape

    def values(self):
        """Returns a constant of integers; raises `ValueError` for any other tensor."""
        if self.data is None or self.dtype not in ("INT8", "UINT8", "INT32", "INT64"):
            raise ValueError(f"{self} is no constant of integers")
        if self.dynamic or len(self.data) != self.size:
            raise ValueError(f"{self} holds {len(self.data)} bytes")
        kind = np.dtype(self.dtype.lower()).newbyteorder("<")
        return np.frombuffer(self.data.tobytes(), kind).reshape(self.shape)

    def __str__(self):
        """Returns how an error names the tensor."""
        return f"tensor {self.index} ({self.dtype} {list(self.shape)})"


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """An operator of the graph."""

    index: int  # place in the graph's list, which is the order of execution
    name: str  # name in TFLite's schema (CONV_2D, ...); "CUSTOM" for a custom operator
    custom: str  # name of a custom operator, else ""
    version: int
    inputs: tuple  # of `Tensor`; None for an optional input that is left out
    outputs: tuple  # of `Tensor`
    options: dict  # {name in the schema: value}: `strideW`, ...


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The main graph of a file."""

    tensors: list  # of `Tensor`
    operators: list  # of `Operator`, in the order of execution
    inputs: list  # of `Tensor`
    outputs: list  # of `Tensor`
    subgraphs: int  # number of graphs in the file; more than one means control flow


def read(content):
    """Returns the main `Graph` of the bytes of a .tflite.

    Raises:
        ValueError: the file is no .tflite, is damaged, or holds a graph that no
            runtime could execute. The text is one line.
    """
    if content[4:8] != b"TFL3":
        raise ValueError(
            f"not a TFLite model: bytes 4 to 8 are {content[4:8]!r}, expected b'TFL3'"
        )
    try:
        _verify(content)
        reader = _Reader(content)
        graph = reader.graph()
        _check_order(graph)
    except Exception as error:  # struct.error, from the generated classes
        known = isinstance(error, ValueError)
        reason = " ".join(str(error).split()) if known else type(error).__name__
        raise ValueError(f"truncated or damaged model ({reason:.300})") from error
    version = reader.model.Version()
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"version {version} of TFLite's schema, runtimes read {SCHEMA_VERSION}"
        )
    return graph


def _verify(content):
    """Raises `ValueError` where LiteRT's verifier refuses the flatbuffer.

    The verifier follows every offset of the file, also those that are not read here.
    What else the interpreter misses, such as an operator, is for the targets to judge.
    """
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    except ValueError as error:
        if NOT_VALID in str(error):
            raise ValueError("no valid flatbuffer") from error


class _Reader:
    """Reads a flatbuffer that the verifier has accepted.

    Its tables may still overlap, so that a small file claims to hold billions of
    things: together they must not be larger than the file.
    """

    def __init__(self, content):
        self.model = schema.Model.GetRootAs(content)
        self.left = len(content)

    def _count(self, number, size):
        self.left -= number * size
        if self.left < 0:
            raise ValueError("its parts are larger than the file")
        return number

    def _items(self, length, get):
        return [get(number) for number in range(self._count(length, 4))]

    def _text(self, name):
        text = (name or b"").decode()
        self._count(len(text), 1)
        # Names reach the console: no control characters.
        return text if text.isprintable() else ascii(text)[1:-1]

    def graph(self):
        """Returns the `Graph`."""
        model = self.model
        if not model.SubgraphsLength():
            raise ValueError("it has no graph")
        self.codes = self._items(model.OperatorCodesLength(), self._code)
        graph = model.Subgraphs(0)
        tensors = self._items(
            graph.TensorsLength(), lambda n: self._tensor(n, graph.Tensors(n))
        )

        def at(indices, optional=False):
            found = []
            for index in [] if isinstance(indices, int) else indices.tolist():
                if not -optional <= index < len(tensors):
                    raise ValueError(f"no tensor {index}")
                found.append(tensors[index] if index >= 0 else None)
            self._count(len(found), 4)
            return found

        def operator(number):
            found = graph.Operators(number)
            if found.OpcodeIndex() >= len(self.codes):
                raise ValueError(f"no operator code {found.OpcodeIndex()}")
            name, custom, version = self.codes[found.OpcodeIndex()]
            return Operator(
                number,
                name,
                custom,
                version,
                tuple(at(found.InputsAsNumpy(), optional=True)),
                tuple(at(found.OutputsAsNumpy())),
                self._options(found),
            )

        return Graph(
            tensors,
            self._items(graph.OperatorsLength(), operator),
            at(graph.InputsAsNumpy()),
            at(graph.OutputsAsNumpy()),
            model.SubgraphsLength(),
        )

    def _code(self, number):
        code = self.model.OperatorCodes(number)
        # Codes above 127 are in the newer of the two fields.
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = _OPERATORS.get(builtin, f"UNKNOWN_{builtin}")
        custom = self._text(code.CustomCode()) if name == "CUSTOM" else ""
        return name, custom, code.Version()

    def _tensor(self, number, tensor):
        shape = tuple(_array(tensor.ShapeAsNumpy()).tolist())
        signature = tuple(_array(tensor.ShapeSignatureAsNumpy()).tolist())
        self._count(len(shape) + len(signature), 4)
        if len(shape) > MAX_RANK:
            raise ValueError(f"a tensor of {len(shape)} dimensions")
        if min(shape, default=0) < 0 or math.prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"a tensor of the shape {list(shape)}")
        # `shape` holds 1 for a size that only `shape_signature` says is not fixed.
        if -1 in signature:
            shape = signature
        quantization = tensor.Quantization()
        scales = zero_points = np.zeros(0)
        axis = 0
        if quantization is not None:
            axis = quantization.QuantizedDimension()
            scales = _array(quantization.ScaleAsNumpy())
            zero_points = _array(quantization.ZeroPointAsNumpy())
        if tensor.Buffer() >= self.model.BuffersLength():
            raise ValueError(f"no buffer {tensor.Buffer()}")
        buffer = self.model.Buffers(tensor.Buffer())
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise ValueError("constants behind the flatbuffer cannot be read here")
        return Tensor(
            number,
            self._text(tensor.Name()),
            _TYPES.get(tensor.Type(), f"UNKNOWN_{tensor.Type()}"),
            shape,
            scales,
            zero_points,
            axis,
            buffer.DataAsNumpy() if buffer.DataLength() else None,
            tensor.IsVariable(),
        )

    def _options(self, operator):
        name = _OPTIONS.get(operator.BuiltinOptionsType(), "NONE")
        table = operator.BuiltinOptions()
        if name == "NONE" or table is None:
            return {}
        options = getattr(schema, name)()
        options.Init(table.Bytes, table.Pos)
        return vars(getattr(schema, f"{name}T").InitFromObj(options))


def _array(values):
    """Returns what `...AsNumpy()` gave; it gives 0 for a vector that is not there."""
    return np.zeros(0, np.int32) if isinstance(values, int) else values


def _check_order(graph):
    """Raises `ValueError` where a tensor is read before it is there."""
    known = {tensor.index for tensor in graph.inputs}
    for operator in graph.operators:
        for tensor in operator.inputs:
            if operator.name == "CUSTOM":  # compilers give it tensors to work in
                continue
            if tensor is not None and not (
                tensor.constant or tensor.variable or tensor.index in known
            ):
                raise ValueError(f"{tensor} is read before it is computed")
        for tensor in operator.outputs:
            if tensor.data is not None or tensor.index in known:
                raise ValueError(f"{tensor} is computed twice")
            known.add(tensor.index)
    for tensor in graph.outputs:
        if not tensor.constant and tensor.index not in known:
            raise ValueError(f"{tensor} is returned and never computed")
