"""Which operators of a .tflite run on a Coral Edge TPU: an estimate, and the compiler.

The rules are those that Coral publishes (coral.ai/docs/edgetpu/models-intro): fixed
sizes, 8-bit tensors, constant parameters, and limits for each operator. Where the
documentation leaves it open the answer here is no, and says so.
"""

import collections
import dataclasses
import math
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile

import numpy as np

from keras_resnet import files  # noqa: E402
from keras_resnet.edge.inspect import graph as tflite_graph  # noqa: E402
from keras_resnet.runner.errors import UserError

COMPILED = "edgetpu-custom-op"
ON_CHIP_BYTES = 8 << 20
# The compiler pads parameters: in 14 of Coral's own compiled models they take 1.04 to
# 1.33 times their size in the .tflite.
PARAMETER_OVERHEAD = 1.33
COMPILE_SECONDS = 600
HOW_TO_GET = (
    "it runs on x86-64 Debian and Ubuntu: add 'deb https://packages.cloud.google.com/"
    "apt coral-edgetpu-stable main' to apt's sources, apt-get install edgetpu-compiler "
    "(https://coral.ai/docs/edgetpu/compiler)"
)


# --- What a check says ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What becomes of one operator.

    Attributes:
        index: in the order of execution.
        operator: its name in TFLite's schema.
        kind: None where it maps to the Edge TPU; else "operator" (not known to it),
            "version", "type", "shape", "limit", "uncertain" (the rules leave it open)
            or "partition" (it could, but something before it stays on the CPU).
        reason: why it stays on the CPU; None where it maps.
    """

    index: int
    operator: str
    kind: str | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What becomes of a file.

    Attributes:
        verdicts: tuple of `Verdict`, one for each operator.
        compiled: whether the file comes from the Edge TPU compiler.
        parameter_bytes: constants of the operators that map.
        activation_bytes: most that one of them reads and writes.
        on_chip_bytes: estimate of what the parameters take on the chip, which also
            has to hold activations: the larger the images, the less is left.
    """

    verdicts: tuple
    compiled: bool
    parameter_bytes: int
    activation_bytes: int
    on_chip_bytes: int

    @property
    def mapped(self):
        """Number of operators that run on the Edge TPU."""
        return sum(verdict.kind is None for verdict in self.verdicts)

    @property
    def complete(self):
        """Whether all of them do."""
        return self.mapped == len(self.verdicts) > 0

    @property
    def fits(self):
        """Whether parameters are kept on the chip; else they come over USB or PCIe."""
        return self.on_chip_bytes <= ON_CHIP_BYTES

    @property
    def problems(self):
        """What keeps operators on the CPU: a line for each operator and kind."""
        groups = collections.defaultdict(list)
        for verdict in self.verdicts:
            if verdict.kind is not None:
                name = "others" if verdict.kind == "partition" else verdict.operator
                groups[verdict.kind == "partition", name, verdict.kind].append(verdict)
        ordered = sorted(groups.items(), key=lambda item: item[0][0])
        return [
            f"{len(group)} x {name}: {group[0].reason}"
            for (_, name, _), group in ordered
        ]

    def as_dict(self):
        """Returns it for JSON."""
        return {
            "operators": len(self.verdicts),
            "mapped": self.mapped,
            "compiled": self.compiled,
            "parameter_bytes": self.parameter_bytes,
            "activation_bytes": self.activation_bytes,
            "on_chip_bytes": self.on_chip_bytes,
            "fits": self.fits,
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts],
        }

    def lines(self):
        """Returns it as text for people, a list of (name, value)."""
        if self.compiled:
            others = len(self.verdicts) - self.mapped
            return [("edge tpu", f"compiled for it, {others or 'no'} operators beside")]
        needed, chip = self.on_chip_bytes / 2**20, ON_CHIP_BYTES >> 20
        fits = "fits" if self.fits else "the rest is sent again for each image"
        lines = [
            ("edge tpu", f"{self.mapped} of {len(self.verdicts)} operators map"),
            ("on chip", f"about {needed:.2f} of {chip} MiB: {fits}"),
        ]
        return lines + [("stays on cpu", problem) for problem in self.problems]


def check(content):
    """Judges a .tflite.

    Args:
        content: bytes of the file.

    Returns:
        `Report`.

    Raises:
        ValueError: in one line, why it is no .tflite that could be judged.
    """
    graph = tflite_graph.read(content)
    verdicts = _in_one_partition(graph, [_judge(op) for op in graph.operators])
    if graph.subgraphs > 1:
        reason = f"the file has {graph.subgraphs} graphs, one is supported"
        verdicts = [
            dataclasses.replace(verdict, kind="limit", reason=reason)
            for verdict in verdicts
        ]
    mapped = [
        op
        for op, verdict in zip(graph.operators, verdicts, strict=True)
        if verdict.kind is None
    ]
    parameters = {
        tensor.index: tensor.size
        for op in mapped
        for tensor in op.inputs
        if tensor is not None and tensor.constant
    }
    activations = [
        sum(
            tensor.size
            for tensor in {*op.inputs, *op.outputs}
            if tensor is not None and not tensor.constant
        )
        for op in mapped
    ]
    parameter_bytes = sum(parameters.values())
    return Report(
        verdicts=tuple(verdicts),
        compiled=any(op.custom == COMPILED for op in graph.operators),
        parameter_bytes=parameter_bytes,
        activation_bytes=max(activations, default=0),
        on_chip_bytes=round(PARAMETER_OVERHEAD * parameter_bytes),
    )


# --- The rules ------------------------------------------------------------------------


class _Stays(Exception):
    """An operator stays on the CPU: (kind, reason) as in `Verdict`."""


def _require(condition, kind, reason):
    if not condition:
        raise _Stays(kind, reason)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What an operator must be.

    Attributes:
        version: the newest that TFLite 2.5 has. The last compiler, 16.0, is of July
            2021; it refuses CONV_2D 6 and TRANSPOSE_CONV 4.
        inputs: roles, a word each: "image" (8-bit), "weights" and "slope" (8-bit
            constants), "bias" (32-bit constant), "numbers" (constant of integers that
            says how to compute) and "longs" (likewise, of 64 bits too); "?" behind
            it: may be missing; "...": any number.
        limits: function of the operator; raises `_Stays`.
        moves: whether it only moves or chooses values, so that all its images have
            one quantization.
        outputs: roles, likewise.
    """

    version: int
    inputs: str
    limits: object
    moves: bool = False
    outputs: str = "image"


def _judge(operator):
    """Returns the `Verdict` on one operator, whatever is before it."""
    verdict = Verdict(operator.index, operator.custom or operator.name)
    if operator.custom == COMPILED:
        return verdict
    try:
        rule = _RULES.get(operator.name)
        _require(rule, "operator", "the Edge TPU has no such operator")
        _require(
            1 <= operator.version <= rule.version,
            "version",
            f"version {operator.version}, the compiler reads up to {rule.version}",
        )
        _check_tensors(operator, rule)
        table = _OPTIONS.get(operator.name, operator.options_table)
        _fit(operator.options_table in (table, "NONE"))
        rule.limits(operator)
    except _Stays as stays:
        kind, reason = stays.args
        return dataclasses.replace(verdict, kind=kind, reason=reason)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
        # Options that are missing or senseless, shapes of another length.
        reason = "its options or shapes do not fit each other"
        return dataclasses.replace(verdict, kind="shape", reason=reason)
    return verdict


def _in_one_partition(graph, verdicts):
    """Keeps on the CPU what lies behind something that stays there.

    The compiler puts one part of the graph on the Edge TPU, the first that TFLite
    would give to a delegate: the operators that map and read nothing which the CPU
    computes. Only what the CPU does first of all, such as the QUANTIZE of a float
    image, may lie before it.
    """
    ready = {tensor.index for tensor in graph.inputs}
    ready |= {
        tensor.index for tensor in graph.tensors if tensor.constant or tensor.variable
    }
    maps = [verdict.kind is None for verdict in verdicts]
    part = set()
    for on_tpu in (True,) if maps[:1] == [True] else (False, True):
        for op in graph.operators:  # in an order in which they can run
            if maps[op.index] == on_tpu and all(
                tensor is None or tensor.index in ready for tensor in op.inputs
            ):
                ready |= {tensor.index for tensor in op.outputs}
                part |= {op.index} if on_tpu else set()
    reason = "an operator before it stays on the CPU"
    return [
        dataclasses.replace(verdict, kind="partition", reason=reason)
        if verdict.kind is None and verdict.index not in part
        else verdict
        for verdict in verdicts
    ]


def _with_roles(tensors, roles, what):
    """Returns a list of (tensor, role); `what` they are is for the error."""
    names = roles.split()
    if names[-1] == "...":
        names = names[:-1] + names[-2:-1] * (len(tensors) - len(names) + 1)
    needed = sum(not name.endswith("?") for name in names)
    _require(
        needed <= len(tensors) <= len(names),
        "shape",
        f"has {len(tensors)} {what}, expected: {roles}",
    )
    return list(zip(tensors, names, strict=False))


def _check_tensors(operator, rule):
    """Checks types, sizes and quantization of everything that an operator touches."""
    pairs = _with_roles(operator.inputs, rule.inputs, "inputs")
    pairs += _with_roles(operator.outputs, rule.outputs, "outputs")
    kinds, quantizations, scales = set(), set(), []
    for tensor, role in pairs:
        if tensor is None and role.endswith("?"):
            continue
        _require(tensor is not None, "shape", "an input is missing")
        _require(not tensor.dynamic, "shape", f"{tensor} has a size that is not fixed")
        _require(tensor.elements > 0, "shape", f"{tensor} is empty")
        _require(
            tensor.size <= _MOST_BYTES,
            "limit",
            f"{tensor} takes {tensor.size} bytes, {_MOST_BYTES} at most",
        )
        _require(not tensor.variable, "operator", f"{tensor} keeps a state")
        _require(
            not tensor.sparse,
            "uncertain",
            f"{tensor} is stored sparse: whether the compiler reads it is not known",
        )
        role = role.rstrip("?")
        constant = tensor.data is not None
        if constant:
            _require(
                len(tensor.data) == tensor.size,
                "shape",
                f"{tensor} needs {tensor.size} bytes, holds {len(tensor.data)}",
            )
        if role != "image":
            _require(constant, "limit", f"{tensor} must be a constant")
        if role in _INTEGERS:
            allowed = _INTEGERS[role]
            _require(
                tensor.dtype in allowed,
                "type",
                f"{tensor} is not {' or '.join(allowed)}",
            )
            continue
        _check_quantization(tensor, operator)
        _require(
            role != "weights" or tensor.dtype == "UINT8" or not any(tensor.zero_points),
            "type",
            f"{tensor} has the zero point {tensor.zero_points[0]}: INT8 weights need 0",
        )
        kinds.add(tensor.dtype)
        scales.append(float(tensor.scales.max()))
        if role == "image":
            quantizations.add((*tensor.scales.tolist(), *tensor.zero_points.tolist()))
            _require(
                all(size == 1 for size in tensor.shape[:-3]),
                "shape",
                f"{tensor}: sizes above 1 in more than the 3 innermost dimensions",
            )
    _require(
        len(kinds) == 1 or operator.name == "QUANTIZE",
        "type",
        f"mixes {' and '.join(sorted(kinds))}",
    )
    # TFLite rescales what is joined in UINT8 alone.
    moves = rule.moves or (operator.name == "CONCATENATION" and kinds == {"INT8"})
    _require(
        len(quantizations) == 1 or not moves,
        "type",
        "its inputs and outputs have different scales or zero points",
    )
    if operator.name in _STEPS:
        *read, written = scales
        ratio = _STEPS[operator.name](read) / written
        _require(
            ratio < 256,
            "limit",
            f"a step of what it computes is {ratio:.3g} steps of its result",
        )


def _check_quantization(tensor, operator):
    limits = {"UINT8": (0, 255), "INT8": (-128, 127)}.get(tensor.dtype)
    _require(limits, "type", f"{tensor} is not 8-bit")
    count = len(tensor.scales)
    _require(count, "type", f"{tensor} is not quantized")
    per_channel = count > 1
    _require(
        len(tensor.zero_points) == count
        and (tensor.scales >= _SCALES[0]).all()
        and (tensor.scales <= _SCALES[1]).all()
        and (tensor.zero_points >= limits[0]).all()
        and (tensor.zero_points <= limits[1]).all(),
        "type",
        f"{tensor} has a quantization that no 8-bit number can have: scale "
        f"{tensor.scales[0]:.3g}, zero point {tensor.zero_points[:1].tolist()}",
    )
    if per_channel:
        channels = _CHANNELS.get(operator.name)
        _require(
            channels is not None
            and tensor is operator.inputs[1]
            and tensor.dtype == "INT8"
            and tensor.axis == channels % len(tensor.shape)
            and count == tensor.shape[channels]
            and not tensor.zero_points.any(),
            "type",
            f"{tensor} has {count} scales: only weights of convolutions may",
        )


# What a network can need; TFLite's kernels fail at what is far beyond.
_MOST_BYTES = 1 << 28  # of a tensor
_LONGEST = 1 << 10  # stride or window
_SCALES = 1e-20, 1e10

# Scale of what is computed, from those of the inputs. Where a step of it is all that
# 8 bits hold of the result, or more, TFLite's kernels fail.
_STEPS = {
    "ADD": max,
    "CONV_2D": math.prod,
    "DEPTHWISE_CONV_2D": math.prod,
    "FULLY_CONNECTED": math.prod,
    "MUL": math.prod,
    "SQUARED_DIFFERENCE": lambda scales: max(scales) ** 2,
    "SUB": max,
    "TRANSPOSE_CONV": math.prod,
}

_INTEGERS = {"bias": ("INT32",), "numbers": ("INT32",), "longs": ("INT32", "INT64")}
# Where options are read; damage can turn one table into another.
_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}
# Scale of what has bounds, and its zero point as UINT8.
_RESULTS = {
    "L2_NORMALIZATION": (1 / 128, 128),
    "LOGISTIC": (1 / 256, 0),
    "SOFTMAX": (1 / 256, 0),
    "TANH": (1 / 128, 128),
}
# Where the output channels of the weights are.
_CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0}
# Of `quantizedBiasType`: not said, INT32.
_BIASES = 0, 2
_RELUS = (0, 1, 2, 3)  # no fused activation, RELU, RELU_N1_TO_1, RELU6


def _fit(condition):
    _require(condition, "shape", "its options or shapes do not fit each other")


def _shapes(operator):
    return [t.shape for t in operator.inputs if t], operator.outputs[0].shape


def _fused(operator, allowed=_RELUS):
    activation = operator.options.get("fusedActivationFunction", 0)
    _require(activation in allowed, "limit", "has a fused activation")


def _window(operator, size, kernel, result, dilation=(1, 1)):
    """Checks the size that a sliding window gives; all are (height, width)."""
    options = operator.options
    for axis, stride in enumerate((options["strideH"], options["strideW"])):
        _require(stride > 0 and kernel[axis] > 0, "shape", "a stride or size of 0")
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        _require(
            max(stride, reach) <= _LONGEST,
            "limit",
            f"has the stride {stride} and a window of {reach}, {_LONGEST} at most",
        )
        room = size[axis] if options["padding"] == 0 else size[axis] - reach + 1
        _fit(options["padding"] in (0, 1) and result[axis] == -(-room // stride))


def _dilation(operator):
    height, width = (operator.options[f"dilation{side}Factor"] for side in "HW")
    _require(
        height == width > 0, "limit", f"has the dilation {height} in y, {width} in x"
    )
    return height, width


def _bias(operator, image, position, channels):
    """Checks a bias that may be missing: one number a channel, in steps of both scales.

    Args:
        operator: `Operator`; its weights are input 1.
        image: position of the image among the inputs.
        position: of the bias.
        channels: of the output.
    """
    kind = operator.options.get("quantizedBiasType", 0)
    _require(kind in _BIASES, "type", f"names the type {kind} for its bias")
    if len(operator.inputs) <= position or operator.inputs[position] is None:
        return
    bias = operator.inputs[position]
    _fit(bias.shape == (channels,))
    scales = operator.inputs[image].scales[0] * operator.inputs[1].scales
    _require(
        len(bias.scales) == len(bias.zero_points) == len(scales)
        and np.allclose(bias.scales, scales, rtol=1e-3, atol=0)
        and not bias.zero_points.any(),
        "type",
        "its bias is not quantized with the scales of input and weights",
    )


def _convolution(operator):
    (image, weights, *_), result = _shapes(operator)
    _fused(operator)
    filters, *kernel, depth = weights
    groups = image[3] != depth
    _require(not groups, "limit", f"is grouped: weights for {depth} of {image[3]}")
    _fit(len(image) == len(weights) == len(result) == 4 and result[3] == filters)
    _bias(operator, 0, 2, filters)
    _window(operator, image[1:3], kernel, result[1:3], _dilation(operator))


def _depthwise(operator):
    (image, weights, *_), result = _shapes(operator)
    _fused(operator)
    one, *kernel, filters = weights
    _fit(len(image) == len(weights) == len(result) == 4)
    _fit(one == 1 and result[3] == filters)
    _fit(filters == image[3] * operator.options["depthMultiplier"])
    _bias(operator, 0, 2, filters)
    _window(operator, image[1:3], kernel, result[1:3], _dilation(operator))


def _transposed_convolution(operator):
    _, weights, image, *_ = (t.shape for t in operator.inputs if t)
    result = operator.outputs[0].shape
    _fused(operator, allowed=(0,))  # the field is newer than the compiler
    filters, *kernel, depth = weights
    _fit(operator.inputs[0].values().tolist() == list(result))
    _fit(len(image) == len(weights) == 4)
    _fit(image[3] == depth and result[3] == filters)
    _bias(operator, 2, 3, filters)
    _window(operator, result[1:3], kernel, image[1:3])


def _fully_connected(operator):
    (image, weights, *_), result = _shapes(operator)
    _fused(operator)
    _require(
        operator.options["weightsFormat"] == 0, "limit", "weights in a shuffled format"
    )
    units, depth = weights
    _fit(math.prod(image) % depth == 0 and result[-1] == units)
    _require(math.prod(result) == units, "limit", "an output of more than 1 dimension")
    _fit(math.prod(image) == depth)
    _bias(operator, 0, 2, units)


def _pool(operator):
    (image,), result = _shapes(operator)
    _fused(operator, allowed=(0,))
    kernel = operator.options["filterHeight"], operator.options["filterWidth"]
    _fit(len(image) == len(result) == 4 and image[3] == result[3])
    _window(operator, image[1:3], kernel, result[1:3])


def _elementwise(operator):
    (one, other), result = _shapes(operator)
    _fused(operator)
    _fit(np.broadcast_shapes(one, other) == result)


def _unary(operator):
    (image,), result = _shapes(operator)
    _fit(image == result)


def _root(operator):
    _unary(operator)
    image = operator.inputs[0]
    _require(
        image.zero_points[0] == -128,
        "type",
        f"its input may be negative: zero point {image.zero_points[0]}, not -128",
    )


def _slope(operator):
    (image, slope), result = _shapes(operator)
    _require(
        all(size == 1 for size in slope[:-1]),
        "limit",
        "needs one slope a channel (in Keras: shared_axes=[1, 2])",
    )
    _fit(image == result and slope[-1] in (1, image[-1]))


def _bounded(operator):
    """Checks an operator whose results have bounds, and so a fixed quantization."""
    _unary(operator)
    _fused(operator, allowed=(0,))
    scale, lowest = _RESULTS[operator.name]
    result = operator.outputs[0]
    zero_point = lowest - 128 * (result.dtype == "INT8")
    _require(
        np.isclose(result.scales[0], scale, rtol=1e-3, atol=0)
        and result.zero_points[0] == zero_point,
        "type",
        f"its result needs scale 1/{1 / scale:.0f} and zero point {zero_point}",
    )


def _softmax(operator):
    _bounded(operator)
    beta = operator.options["beta"]
    _require(beta == 1, "uncertain", f"has the factor beta {beta}, only 1 is known")
    shape = operator.outputs[0].shape
    _require(math.prod(shape[:-1]) == 1, "limit", "is not over 1 dimension")
    _require(shape[-1] <= 16_000, "limit", f"over {shape[-1]} elements, 16000 at most")


def _axis(number, rank):
    """Returns an axis as one of 0..rank-1."""
    _fit(-rank <= number < rank)
    return number % rank


def _axes(operator, numbers, rank):
    """Returns axes as a set of 0..rank-1; refuses that of the batch."""
    axes = {_axis(axis, rank) for axis in np.ravel(numbers).tolist()}
    _fit(axes)
    _require(0 not in axes, "limit", "goes along the batch dimension")
    return axes


def _reduction(operator):
    (image, _), result = _shapes(operator)
    axes = _axes(operator, operator.inputs[1].values(), len(image))
    kept = operator.options["keepDims"]
    expected = [
        1 if axis in axes else size
        for axis, size in enumerate(image)
        if kept or axis not in axes
    ]
    _fit(tuple(expected) == result)
    if operator.name == "MEAN" and len(image) - 1 in axes:
        _require(
            image[-1] % 4 == 0,
            "limit",
            f"along a depth of {image[-1]}, no multiple of 4",
        )


def _pad(operator):
    (image, _), result = _shapes(operator)
    padding = operator.inputs[1].values()
    _fit(padding.shape == (len(image), 2) and (padding >= 0).all())
    _fit((padding.max(axis=1) <= result).all())  # larger ones could overflow
    _require(not padding[0].any() or len(image) < 2, "limit", "pads the batch")
    _fit(tuple((np.array(image) + padding.sum(axis=1)).tolist()) == result)


def _concatenation(operator):
    images, result = _shapes(operator)
    _fused(operator, allowed=(0,))
    axis = _axis(operator.options["axis"], len(result))
    for image in images:
        _fit(image[:axis] + image[axis + 1 :] == result[:axis] + result[axis + 1 :])
    _fit(sum(image[axis] for image in images) == result[axis])
    constants = [tensor for tensor in operator.inputs if tensor.data is not None]
    if constants:
        _require(
            len(images) == 2
            and len(constants) == 1
            and (constants[0].data == constants[0].zero_points[0] % 256).all(),
            "limit",
            "joins a constant other than zeros to one tensor",
        )


def _pack(operator):
    images, result = _shapes(operator)
    axis = _axis(operator.options["axis"], len(result))
    _require(axis, "limit", "goes along the batch dimension")
    _fit(len(set(images)) == 1 and len(images) == operator.options["valuesCount"])
    _fit((*images[0][:axis], len(images), *images[0][axis:]) == result)


def _split(operator):
    image = operator.inputs[1].shape
    (axis,) = _axes(operator, operator.inputs[0].values(), len(image))
    results = [tensor.shape for tensor in operator.outputs]
    _fit(operator.options["numSplits"] == len(results) and len(set(results)) == 1)
    size = image[axis] // len(results)
    _fit((*image[:axis], size, *image[axis + 1 :]) == results[0])
    _fit(size * len(results) == image[axis])


def _reshape(operator, shape):
    """Checks an operator that gives the same values another shape, a list."""
    image, result = operator.inputs[0], operator.outputs[0]
    _fit(image.elements == result.elements)
    _require(
        tuple(shape) == result.shape,
        "shape",
        f"makes the shape {shape}, its result has {list(result.shape)}",
    )
    _require(
        image.elements <= _LARGE_RESHAPE,
        "uncertain",
        f"of {image.elements} elements: large ones may stay on the CPU",
    )


def _to_shape(operator):
    result = operator.outputs[0].shape
    if len(operator.inputs) == 2:
        shape = operator.inputs[1].values()
    else:
        shape = np.array(operator.options["newShape"])
    _fit(shape.shape == (len(result),) and np.sum(shape == -1) <= 1)
    _reshape(operator, np.where(shape == -1, result, shape).tolist())


def _expand_dims(operator):
    shape = list(operator.inputs[0].shape)
    shape.insert(_axis(operator.inputs[1].values().item(), len(shape) + 1), 1)
    _reshape(operator, shape)


def _squeeze(operator):
    shape = operator.inputs[0].shape
    listed = operator.options.get("squeezeDims")
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    axes = ones if listed is None or len(listed) == 0 else listed.tolist()
    _fit(all(shape[axis] == 1 for axis in axes))
    gone = {axis % len(shape) for axis in axes}
    _reshape(operator, [n for axis, n in enumerate(shape) if axis not in gone])


def _vectors(operator):
    """Returns what says how to compute: vectors of one type."""
    vectors = [tensor.values() for tensor in operator.inputs[1:]]
    _fit(all(vector.ndim == 1 for vector in vectors))
    _fit(len({vector.dtype for vector in vectors}) == 1)
    return vectors


def _slice(operator):
    (image, *_), result = _shapes(operator)
    begin, size = _vectors(operator)
    _fit(len(begin) == len(size) == len(image))
    _fit((begin >= 0).all())
    room = np.array(image) - begin
    size = np.where(size == -1, room, size)
    _fit((size <= room).all() and tuple(size.tolist()) == result)


def _strided_slice(operator):
    (image, *_), result = _shapes(operator)
    begin, end, strides = _vectors(operator)
    options = operator.options
    _require((strides == 1).all(), "limit", "has strides other than 1")
    _require(
        not options["ellipsisMask"] and not options["newAxisMask"],
        "limit",
        "has an ellipsis or a new axis",
    )
    _require(
        not options["offset"],
        "uncertain",
        "has an end that counts from its begin, which is newer than the compiler",
    )
    _fit(len(begin) == len(end) == len(strides) <= len(image))
    key = []
    for axis in range(len(begin)):
        if options["shrinkAxisMask"] >> axis & 1:
            key.append(int(begin[axis]))
            continue
        first = None if options["beginMask"] >> axis & 1 else int(begin[axis])
        last = None if options["endMask"] >> axis & 1 else int(end[axis])
        key.append(slice(first, last))
    # A stand-in of one byte tells the shape.
    _fit(np.broadcast_to(np.int8(0), image)[tuple(key)].shape == result)


def _space_to_depth(operator):
    (image,), result = _shapes(operator)
    block = operator.options["blockSize"]
    _, height, width, depth = image
    _fit(block > 0 and height % block == width % block == 0)
    _fit(result == (image[0], height // block, width // block, depth * block**2))


def _open(operator):
    _require(False, "uncertain", "depends on the sizes: only the compiler knows")


_LARGE_RESHAPE = 1 << 14  # the limit is not published; the head of a classifier is less
_RULES = {
    "ADD": _Rule(3, "image image", _elementwise),
    "AVERAGE_POOL_2D": _Rule(3, "image", _pool, moves=True),
    "CONCATENATION": _Rule(3, "image ...", _concatenation),
    "CONV_2D": _Rule(5, "image weights bias", _convolution),
    "DEPTHWISE_CONV_2D": _Rule(6, "image weights bias", _depthwise),
    "EXPAND_DIMS": _Rule(1, "image longs", _expand_dims, moves=True),
    "FULLY_CONNECTED": _Rule(9, "image weights bias?", _fully_connected),
    "L2_NORMALIZATION": _Rule(2, "image", _bounded),
    "LOGISTIC": _Rule(3, "image", _bounded),
    "MAXIMUM": _Rule(4, "image image", _elementwise, moves=True),
    "MAX_POOL_2D": _Rule(3, "image", _pool, moves=True),
    "MEAN": _Rule(3, "image numbers", _reduction),
    "MINIMUM": _Rule(4, "image image", _elementwise, moves=True),
    "MUL": _Rule(4, "image image", _elementwise),
    "PACK": _Rule(3, "image ...", _pack, moves=True),
    "PAD": _Rule(3, "image longs", _pad, moves=True),
    "PRELU": _Rule(1, "image slope", _slope),
    "QUANTIZE": _Rule(2, "image", _unary),
    "REDUCE_MAX": _Rule(3, "image numbers", _reduction, moves=True),
    "REDUCE_MIN": _Rule(3, "image numbers", _reduction, moves=True),
    "RELU": _Rule(3, "image", _unary),
    "RELU6": _Rule(3, "image", _unary),
    "RELU_N1_TO_1": _Rule(1, "image", _unary),
    "RESHAPE": _Rule(1, "image numbers?", _to_shape, moves=True),
    "RESIZE_BILINEAR": _Rule(4, "image numbers", _open),
    "RESIZE_NEAREST_NEIGHBOR": _Rule(4, "image numbers", _open),
    "RSQRT": _Rule(2, "image", _root),
    "SLICE": _Rule(5, "image longs longs", _slice, moves=True),
    "SOFTMAX": _Rule(3, "image", _softmax),
    "SPACE_TO_DEPTH": _Rule(2, "image", _space_to_depth, moves=True),
    "SPLIT": _Rule(4, "longs image", _split, moves=True, outputs="image ..."),
    "SQUARED_DIFFERENCE": _Rule(2, "image image", _elementwise),
    "SQUEEZE": _Rule(2, "image", _squeeze, moves=True),
    "STRIDED_SLICE": _Rule(
        5, "image numbers numbers numbers", _strided_slice, moves=True
    ),
    "SUB": _Rule(5, "image image", _elementwise),
    "SUM": _Rule(2, "image numbers", _reduction),
    "TANH": _Rule(3, "image", _bounded),
    "TRANSPOSE": _Rule(5, "image numbers", _open),
    "TRANSPOSE_CONV": _Rule(3, "numbers weights image bias?", _transposed_convolution),
}


# --- The compiler ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What edgetpu_compiler says of a file.

    Attributes:
        version: of the compiler.
        operators: tuple of (operator, count, status), as in its log.
        on_chip_bytes: parameters that are kept on the chip.
        streamed_bytes: parameters that are sent for each image.
        milliseconds: that the compilation took.
    """

    version: str
    operators: tuple
    on_chip_bytes: int | None
    streamed_bytes: int | None
    milliseconds: int | None

    @property
    def mapped(self):
        """Number of operators that run on the Edge TPU."""
        return sum(n for _, n, status in self.operators if status == _MAPPED)

    @property
    def total(self):
        """Number of operators."""
        return sum(count for _, count, _ in self.operators)

    def lines(self):
        """Returns it as text for people, a list of (name, value)."""
        lines = [
            ("compiler", f"{self.version}: {self.mapped} of {self.total} mapped"),
        ]
        if self.on_chip_bytes is not None and self.streamed_bytes is not None:
            on_chip, streamed = self.on_chip_bytes / 2**20, self.streamed_bytes / 2**20
            memory = f"{on_chip:.2f} MiB on chip, {streamed:.2f} MiB streamed"
            lines.append(("parameters", memory))
        return lines + [
            ("stays on cpu", f"{count} x {operator}: {status}")
            for operator, count, status in self.operators
            if status != _MAPPED
        ]


_MAPPED = "Mapped to Edge TPU"
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def read_log(text):
    """Reads what edgetpu_compiler prints with -s; its log file has a part of it.

    Args:
        text: standard output, or a file *_edgetpu.log.

    Returns:
        `Compilation`.

    Raises:
        ValueError: it has no table of operators.
    """

    def found(pattern):
        match = re.search(pattern, text)
        return match and match.groups()

    def memory(name):
        value = found(rf"{name} model parameters: ([0-9.]+)([KMG]?i?B)\s")
        return value and round(float(value[0]) * _UNITS[value[1]])

    # In the table columns are aligned: OPERATOR  COUNT  STATUS.
    rows = re.findall(r"^([A-Za-z_][\w-]*)\s+([0-9]{1,9})\s{2,}(\S.*?)\s*$", text, re.M)
    if not rows:
        raise ValueError("the compiler's log has no table of operators")
    time = found(r"Model compiled successfully in ([0-9]{1,9}) ms")
    return Compilation(
        version=(found(r"Edge TPU Compiler version (\S+)") or ("unknown",))[0],
        operators=tuple((name, int(count), status) for name, count, status in rows),
        on_chip_bytes=memory("On-chip memory used for caching"),
        streamed_bytes=memory("Off-chip memory used for streaming uncached"),
        milliseconds=time and int(time[0]),
    )


def compile_model(path):
    """Runs edgetpu_compiler on a .tflite.

    Args:
        path: MODEL.tflite.

    Returns:
        (path of MODEL_edgetpu.tflite beside it, `Compilation`).

    Raises:
        UserError: there is no compiler here, with what to do; or what it complains of.
    """
    path = pathlib.Path(path)
    compiler = shutil.which("edgetpu_compiler")
    if compiler is None:
        machine = platform.machine()
        if machine not in ("x86_64", "AMD64"):
            raise UserError(
                f"edgetpu_compiler does not exist for this machine ({machine}): "
                f"compile on another one and copy the file; {HOW_TO_GET}"
            )
        raise UserError(f"edgetpu_compiler is not installed; {HOW_TO_GET}")
    output = path.with_name(f"{path.stem}_edgetpu.tflite")
    with tempfile.TemporaryDirectory() as folder:
        # A name of ours: the compiler takes one that begins with "-" for a flag.
        source = pathlib.Path(folder) / "model.tflite"
        shutil.copyfile(path, source)
        try:
            done = subprocess.run(
                [compiler, "-s", "-o", folder, str(source)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=COMPILE_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"edgetpu_compiler does not run: {error}") from error
        text = done.stdout.decode("utf-8", "replace")
        compiled = source.with_name("model_edgetpu.tflite")
        if done.returncode or not compiled.is_file():
            wrong = [
                line
                for line in text.splitlines()
                if re.search("error|fail|invalid|not |abort", line, re.I)
            ]
            reason = "; ".join(wrong[:3]) or f"exit code {done.returncode}"
            raise UserError(f"edgetpu_compiler refuses {path}: {reason}")
        try:
            compilation = read_log(text)
        except ValueError as error:
            raise UserError(f"{path} was compiled, but {error}") from error
        with files.replacing(output) as temporary:
            shutil.copyfile(compiled, temporary)
    return output, compilation
