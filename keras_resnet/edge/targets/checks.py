"""What a target asks of a .tflite, and whether a file keeps to it.

    check(content, "tflite_runtime").problems

is empty for a file that the target runs. Everything is read from the file alone;
`vela.compile_model` and edge/edgetpu.py --compile ask the real compilers.
"""

import collections
import dataclasses
import functools
import math
import pathlib

from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.targets import edgetpu
from keras_resnet.edge.targets import ethos_u as vela
from keras_resnet.errors import unknown
from keras_resnet.runner.errors import UserError, printable

TFLITE_RUNTIME = "2.14.0"  # the last release of tflite-runtime
OLDEST_TESTED = "2.7.0"  # the oldest tflite-runtime that the tests run
# TFLite 2.5 to 2.9 returns the same output for every input, without an error.
PER_CHANNEL_DENSE = "2.10.0"
# The version of an operator does not tell that its activations are int16.
INT16_ACTIVATIONS = "2.3.0"

# Operators that Vela 5.2 can put on an Ethos-U55 or U65 (vela --supported-ops-report).
_ETHOS_U = frozenset(
    """
    ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D
    DEPTHWISE_CONV_2D ELU EXP EXPAND_DIMS FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU
    LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK PAD PADV2
    PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SLICE SOFTMAX SPLIT
    SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
    """.split()
)


@dataclasses.dataclass(frozen=True)
class Target:
    """What a target asks.

    Attributes:
        integer: no floating-point tensor, whatever the export is.
        newest_runtime: TensorFlow Lite that its operators must not be newer than,
            or None.
        operators: names of those that it has, or None for all of TensorFlow Lite's.
    """

    integer: bool = False
    newest_runtime: str | None = None
    operators: frozenset | None = None


TARGETS = {
    "litert": Target(),
    "tflite_runtime": Target(newest_runtime=TFLITE_RUNTIME),
    "edgetpu": Target(integer=True),  # edgetpu.check has its operators and more
    **dict.fromkeys(vela.ACCELERATORS, Target(integer=True, operators=_ETHOS_U)),
}


@dataclasses.dataclass(frozen=True)
class Operators:
    """The operators of one name and version.

    Attributes:
        name: in TFLite's schema; of a custom one its own name.
        version: of the operator.
        count: how many the file has.
        oldest_runtime: the first TensorFlow Lite that computes them right, or None
            where that is not known (custom, or newer than the table).
        multiply_adds: of all of them in one inference.
        constant_bytes: weights, biases and other constants of all of them.
    """

    name: str
    version: int
    count: int
    oldest_runtime: str | None
    multiply_adds: int
    constant_bytes: int


@dataclasses.dataclass(frozen=True)
class Check:
    """What `check` finds; `dataclasses.asdict` makes it JSON.

    Attributes:
        target: one of `TARGETS`.
        problems: why the target cannot run the file, one line each; empty if it can.
        operators: tuple of `Operators`, the most frequent first.
        oldest_runtime: the first TensorFlow Lite that reads every operator, or None
            where that is not known.
        float_tensors: names of the floating-point tensors.
        dynamic_tensors: names of the tensors without a fixed size.
        multiply_adds: of one inference: convolutions and matrix products.
        file_bytes: size of the file.
        edgetpu_operators: how many operators would run on an Edge TPU.
        edgetpu_likely: how many of those are only likely to.
        edgetpu_estimate: whether these figures are an estimate. They are, unless the
            file comes from Google's compiler.
        on_chip_bytes_low: what their parameters need of its 8 MiB at least.
        on_chip_bytes_high: what their parameters need at most.
        fits_on_chip: whether 8 MiB are enough for that; otherwise they are streamed.
    """

    target: str
    problems: tuple
    operators: tuple
    oldest_runtime: str | None
    float_tensors: tuple
    dynamic_tensors: tuple
    multiply_adds: int
    file_bytes: int
    edgetpu_operators: int
    edgetpu_likely: int
    edgetpu_estimate: bool
    on_chip_bytes_low: int
    on_chip_bytes_high: int
    fits_on_chip: bool


def check(content, target="litert", integer=True):
    """Checks a file against a target.

    Args:
        content: bytes of a .tflite.
        target: one of `TARGETS`.
        integer: whether a floating-point tensor is a problem for targets that have
            floating point too.

    Returns:
        `Check`.

    Raises:
        UserError: there is no such target, or the file is damaged.
    """
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    wanted = TARGETS[target]
    try:
        graph = tflite_graph.read(content)
        on_edgetpu = edgetpu.check(content)
    except ValueError as error:
        raise UserError(str(error)) from error
    rows = _rows(graph)
    used = _used(graph)
    floats = tuple(tensor.name for tensor in used if "FLOAT" in tensor.dtype)
    dynamic = tuple(tensor.name for tensor in used if tensor.dynamic)
    problems = []
    if dynamic:
        problems.append(_tensors("without a fixed size", dynamic))
    if floats and (integer or wanted.integer):
        problems.append(_tensors("of floating point", floats))
    if target == "edgetpu":
        problems += on_edgetpu.problems
    else:
        problems += [problem for row in rows if (problem := _problem(row, wanted))]
    if graph.subgraphs > 1:
        problems.append(f"{graph.subgraphs} graphs in the file: control flow")
    return Check(
        target=target,
        problems=tuple(problems),
        operators=rows,
        oldest_runtime=_newest([row.oldest_runtime for row in rows]),
        float_tensors=floats,
        dynamic_tensors=dynamic,
        multiply_adds=sum(row.multiply_adds for row in rows),
        file_bytes=len(content),
        edgetpu_operators=on_edgetpu.mapped,
        edgetpu_likely=on_edgetpu.likely,
        edgetpu_estimate=not on_edgetpu.compiled,
        on_chip_bytes_low=on_edgetpu.on_chip_bytes_low,
        on_chip_bytes_high=on_edgetpu.on_chip_bytes_high,
        fits_on_chip=on_edgetpu.fits,
    )


def _used(graph):
    """Returns the tensors that the graph reads or writes, in their order."""
    found = {tensor.index: tensor for tensor in (*graph.inputs, *graph.outputs)}
    for operator in graph.operators:
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor is not None:
                found[tensor.index] = tensor
    return [found[index] for index in sorted(found)]


def _tensors(what, names):
    # Fused operators have names of hundreds of letters; the end tells them apart.
    shown = ", ".join(repr(name[-40:]) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} tensors {what}: {shown}{more}"


def _problem(row, target):
    """Returns why a target does not have these operators, or None."""
    what = f"{row.count} x {row.name} version {row.version}"
    if row.oldest_runtime is None:
        return f"{what}: no operator that TensorFlow Lite is known to have"
    if target.operators is not None and row.name not in target.operators:
        return f"{what}: not among the target's operators"
    newest = target.newest_runtime
    if newest and _parts(row.oldest_runtime) > _parts(newest):
        return f"{what}: needs TensorFlow Lite {row.oldest_runtime}, it has {newest}"
    return None


# --- Counting -------------------------------------------------------------------------


def _rows(graph):
    groups = collections.defaultdict(list)
    for operator in graph.operators:
        name = printable(operator.custom) or operator.name
        groups[name, operator.version].append(operator)
    rows = [
        Operators(
            name,
            version,
            len(operators),
            _newest([_oldest_runtime(operator) for operator in operators]),
            sum(map(_multiply_adds, operators)),
            sum(map(_constant_bytes, operators)),
        )
        for (name, version), operators in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.count, row.name, row.version)))


@functools.cache
def _version_table():
    """Returns {operator: versions of TensorFlow Lite, by version of the operator}."""
    path = pathlib.Path(__file__).with_name("op_versions.tsv")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {name: versions for name, *versions in rows}


def _oldest_runtime(operator):
    versions = _version_table().get(operator.name, ())
    if not 1 <= operator.version <= len(versions):
        return None
    oldest = versions[operator.version - 1]
    if oldest == "-":
        return None
    if operator.name == "FULLY_CONNECTED" and len(operator.inputs) > 1:
        weights = operator.inputs[1]
        if weights is not None and len(weights.scales) > 1:
            return _newest([oldest, PER_CHANNEL_DENSE])
    inputs = [tensor for tensor in operator.inputs if tensor is not None]
    if any(tensor.dtype == "INT16" for tensor in inputs):
        return _newest([oldest, INT16_ACTIVATIONS])
    return oldest


def _parts(version):
    return tuple(map(int, version.split(".")))


def _newest(versions):
    """Returns the newest of some versions; None if one is not known."""
    if not versions or None in versions:
        return None
    return max(versions, key=_parts)


def _constant_bytes(operator):
    tensors = [tensor for tensor in operator.inputs if tensor is not None]
    return sum(len(tensor.data) for tensor in tensors if tensor.data is not None)


def _multiply_adds(operator):
    """Returns the multiplications of one inference; open sizes count as 1."""
    shapes = [
        [1 if size < 0 else size for size in tensor.shape]
        for tensor in (*operator.inputs, *operator.outputs[:1])
        if tensor is not None
    ]
    if len(shapes) < 3:
        return 0
    data, weights, output = shapes[0], shapes[1], math.prod(shapes[-1])
    if operator.name in ("CONV_2D", "FULLY_CONNECTED"):
        return output * math.prod(weights[1:])
    if operator.name == "DEPTHWISE_CONV_2D":
        return output * math.prod(weights[1:3])
    if operator.name == "TRANSPOSE_CONV":  # its inputs: output shape, weights, data
        return math.prod(shapes[2]) * math.prod(weights[:3])
    if operator.name == "BATCH_MATMUL" and len(data) > 1:
        return output * data[-2 if operator.options.get("adjX") else -1]
    return 0
