"""What the Edge TPU asks of each operator of a .tflite, as a table.

`RULES` holds what Coral publishes (coral.ai/docs/edgetpu/models-intro, "Supported
operations") and what Google's compiler did with Coral's own models. Where neither
answers, the operator counts as staying on the CPU. The rules trust that TensorFlow Lite
runs the graph: they compare shapes only where a layer has a window or weights.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

# What a tensor is for an operator: {type: lowest and highest zero point, as TensorFlow
# Lite's 8-bit quantization defines them}. All but images must be constants.
ROLES = {
    "image": {"INT8": (-128, 127), "UINT8": (0, 255)},
    "weights": {"INT8": (0, 0), "UINT8": (0, 255)},
    "bias": {"INT32": (0, 0)},
    "integers": {"INT32": None, "INT64": None},
}
# The dimension of a convolution's weights that may have a scale for each channel.
CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0}
# Outputs (height, width, depth) of the resizes that Google's compiler mapped in
# Coral's movenet_single_pose_lightning_ptq.
MAPPED_RESIZES = ((12, 12, 64), (24, 24, 32), (48, 48, 24))
# Coral: "Certain reshapes might not be mapped for large tensor sizes". The limit is not
# published; the reshape in front of a classifier has fewer elements than this one.
RESHAPE_ELEMENTS = 1 << 14
SOFTMAX_ELEMENTS = 16_000
SAME = 0  # in the schema: the padding with which a stride of 1 keeps the size
RELUS = (0, 1, 2, 3)  # in the schema: no activation, RELU, RELU_N1_TO_1, RELU6


@dataclasses.dataclass(frozen=True)
class Condition:
    """A limit of the Edge TPU."""

    holds: Callable  # function of an `Operator`: whether it keeps to the limit
    reason: str  # a sentence on an operator that does not
    # Of the verdict on it: "limit", or "shape" where the file contradicts itself;
    # "uncertain" where the limit is not published; "likely" for one that probably maps,
    # although no compiled model shows it.
    kind: str = "limit"


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an operator must be."""

    # Newest version of the operator that Google's compiler reads. Its last release,
    # 16.0, is of July 2021 and reads what TensorFlow Lite 2.5 has.
    version: int
    inputs: str  # names of `ROLES`; "?" marks an optional input, "*" any number of them
    conditions: tuple = ()  # of `Condition`
    outputs: str = "image"  # names of `ROLES`, like `inputs`


def judge(operator):
    """Judges one `graph.Operator`, whatever surrounds it.

    Returns (kind, reason) as in `edgetpu.Verdict`; (None, None) for one that maps.
    """
    rule = RULES.get(operator.name)
    if rule is None:
        return "operator", "the Edge TPU has no such operator"
    if not 1 <= operator.version <= rule.version:
        return "version", (
            f"it has version {operator.version}, and Google's compiler reads versions "
            f"1 to {rule.version}"
        )
    try:
        tensors = _with_roles(operator.inputs, rule.inputs)
        tensors += _with_roles(operator.outputs, rule.outputs)
        for tensor, role in tensors:
            if problem := _tensor_problem(operator, tensor, role):
                return problem
        types = {tensor.dtype for tensor, role in tensors} & {"INT8", "UINT8"}
        if len(types) > 1 and operator.name != "QUANTIZE":
            return "type", "it mixes INT8 and UINT8"
        for condition in rule.conditions:
            if not condition.holds(operator):
                return condition.kind, condition.reason
    except (ValueError, TypeError, LookupError, ArithmeticError):
        return "shape", "its inputs, outputs and options contradict each other"
    return None, None


def _with_roles(tensors, roles):
    """Returns a list of (tensor, role), without the optional tensors left out."""
    names = roles.split()
    if names[-1].endswith("*"):
        names += names[-1:] * (len(tensors) - len(names))
    pairs = list(itertools.zip_longest(tensors, names))
    if any(not name or (tensor is None and "?" not in name) for tensor, name in pairs):
        raise ValueError(f"expected {roles}")
    return [(tensor, name.rstrip("?*")) for tensor, name in pairs if tensor is not None]


def _tensor_problem(operator, tensor, role):
    """Returns (kind, reason) of a tensor that the Edge TPU cannot take, or None."""
    if tensor.dynamic or not tensor.elements:
        return "shape", f"{tensor} has no fixed size"
    if role != "image" and tensor.data is None:
        return "limit", f"{tensor} must be a constant"
    if tensor.data is not None and len(tensor.data) != tensor.size:
        return "shape", f"{tensor} holds {len(tensor.data)} of its {tensor.size} bytes"
    if tensor.dtype not in ROLES[role]:
        return "type", f"{tensor} is not {' or '.join(ROLES[role])}"
    if role == "integers":
        return None
    lowest, highest = ROLES[role][tensor.dtype]
    scales, zero_points = tensor.scales, tensor.zero_points
    if not (
        len(scales) == len(zero_points) > 0
        and (np.isfinite(scales) & (scales > 0)).all()
        and ((zero_points >= lowest) & (zero_points <= highest)).all()
    ):
        return "type", f"{tensor} is not quantized as 8-bit {role} must be"
    axes = {"weights": CHANNEL_AXES.get(operator.name), "bias": 0}
    if len(scales) > 1 and not (
        operator.name in CHANNEL_AXES
        and tensor.dtype != "UINT8"
        and tensor.axis == axes.get(role)
        and tensor.shape[tensor.axis] == len(scales)
    ):
        return "type", (
            f"{tensor} has {len(scales)} scales; only INT8 weights of convolutions may "
            "have one for each channel"
        )
    if role == "image" and any(size != 1 for size in tensor.shape[:-3]):
        return "shape", f"{tensor} has sizes above 1 before its last 3 dimensions"
    return None


# --- The conditions -------------------------------------------------------------------


def _activation(operator):
    return operator.options.get("fusedActivationFunction", 0)


def _slides(operator):
    """Returns whether stride, window and padding give the size of the output."""
    image, result = operator.inputs[0].shape, operator.outputs[0].shape
    options = operator.options
    if operator.name in CHANNEL_AXES:
        weights = operator.inputs[1].shape
        channels = weights[CHANNEL_AXES[operator.name]]
        window = [
            (weights[1] - 1) * options["dilationHFactor"] + 1,
            (weights[2] - 1) * options["dilationWFactor"] + 1,
        ]
    else:
        channels = image[3]
        window = [options["filterHeight"], options["filterWidth"]]
    if options["padding"] == SAME:
        window = [1, 1]
    strides = options["strideH"], options["strideW"]
    sizes = [
        -(-(size - length + 1) // stride)
        for size, length, stride in zip(image[1:3], window, strides, strict=True)
    ]
    return result[1:] == (*sizes, channels)


def _axes(numbers, tensor):
    """Returns axes of a tensor as a set of positions from 0."""
    rank = len(tensor.shape)
    return {range(rank)[axis] for axis in np.ravel(numbers).tolist()}


def _reduced(operator):
    return _axes(operator.inputs[1].values(), operator.inputs[0])


def _joins_only_zeros(operator):
    constants = [tensor for tensor in operator.inputs if tensor.data is not None]
    if not constants:
        return True
    zero = constants[0].zero_points[0] % 256
    return len(operator.inputs) == 2 and (constants[0].data == zero).all()


def _doubles(operator):
    (height, width), result = (
        tensor.shape[-3:-1] for tensor in (operator.inputs[0], operator.outputs[0])
    )
    options = operator.options
    centred = options["halfPixelCenters"] and not options["alignCorners"]
    return centred and result == (2 * height, 2 * width)


def _was_mapped(operator):
    result = operator.outputs[0].shape[-3:]
    return any(np.less_equal(result, mapped).all() for mapped in MAPPED_RESIZES)


def _keeps_batch(axes):
    return Condition(lambda op: 0 not in axes(op), "it changes the batch dimension")


_RELU = Condition(
    lambda op: _activation(op) in RELUS, "its fused activation function is no ReLU"
)
_PLAIN = Condition(lambda op: not _activation(op), "it has a fused activation function")
_WINDOW = Condition(
    _slides, "the size of its output does not follow from its window", "shape"
)
_DILATION = Condition(
    lambda op: op.options["dilationHFactor"] == op.options["dilationWFactor"],
    "its dilation differs in height and width",
)
_ONE_GROUP = Condition(
    lambda op: op.inputs[0].shape[3] == op.inputs[1].shape[3],
    "it is a grouped convolution",
)
_WEIGHTS_FORMAT = Condition(
    lambda op: op.options["weightsFormat"] == 0, "its weights have a shuffled format"
)
_MATRIX = Condition(
    lambda op: op.inputs[1].shape == (op.outputs[0].shape[-1], op.inputs[0].elements),
    "its weights do not fit its input and output",
    "shape",
)
_VECTOR = Condition(
    lambda op: op.outputs[0].elements == op.outputs[0].shape[-1],
    "its output has more than 1 dimension",
)
_SHORT = Condition(
    lambda op: op.outputs[0].elements <= SOFTMAX_ELEMENTS,
    f"it has more than {SOFTMAX_ELEMENTS} elements",
)
_BATCH = _keeps_batch(_reduced)
_DEPTH = Condition(
    lambda op: (
        len(op.inputs[0].shape) - 1 not in _reduced(op)
        or op.inputs[0].shape[-1] % 4 == 0
    ),
    "it averages over a depth that is not a multiple of 4",
)
_PACKED = _keeps_batch(lambda op: _axes(op.options["axis"], op.outputs[0]))
_PADDED = _keeps_batch(lambda op: np.flatnonzero(op.inputs[1].values().any(axis=1)))
_SPLIT = _keeps_batch(lambda op: _axes(op.inputs[0].values(), op.inputs[1]))
_ZEROS = Condition(
    _joins_only_zeros, "it joins a constant that is not zero, or one to several tensors"
)
_SLOPE = Condition(
    lambda op: op.inputs[1].elements == op.inputs[1].shape[-1],
    "it needs one slope for each channel; in Keras, pass shared_axes=[1, 2]",
)
_STRIDES = Condition(
    lambda op: (op.inputs[3].values() == 1).all(), "it has strides other than 1"
)
_MASKS = Condition(
    lambda op: not op.options["ellipsisMask"] and not op.options["newAxisMask"],
    "it has an ellipsis or a new axis",
)
_SMALL = Condition(
    lambda op: op.inputs[0].elements <= RESHAPE_ELEMENTS,
    f"above {RESHAPE_ELEMENTS} elements, only the compiler knows whether it maps",
    "uncertain",
)
_DOUBLE = Condition(
    _doubles,
    "only a factor of 2 with half-pixel centres is known to map; in Keras, "
    "UpSampling2D(2, interpolation='bilinear')",
    "uncertain",
)
_MAPPED = Condition(
    _was_mapped, "it is larger than the resizes known to map, up to 48x48x24", "likely"
)
_SIZES = Condition(
    lambda op: False, "some sizes map, and only the compiler knows which", "uncertain"
)

RULES = {
    "ADD": Rule(3, "image image", (_RELU,)),
    "AVERAGE_POOL_2D": Rule(3, "image", (_PLAIN, _WINDOW)),
    "CONCATENATION": Rule(3, "image*", (_PLAIN, _ZEROS)),
    "CONV_2D": Rule(5, "image weights bias", (_RELU, _DILATION, _ONE_GROUP, _WINDOW)),
    "DEPTHWISE_CONV_2D": Rule(6, "image weights bias", (_RELU, _DILATION, _WINDOW)),
    "EXPAND_DIMS": Rule(1, "image integers", (_SMALL,)),
    "FULLY_CONNECTED": Rule(
        9, "image weights bias?", (_RELU, _WEIGHTS_FORMAT, _VECTOR, _MATRIX)
    ),
    "L2_NORMALIZATION": Rule(2, "image", (_PLAIN,)),
    "LOGISTIC": Rule(3, "image"),
    "MAXIMUM": Rule(4, "image image"),
    "MAX_POOL_2D": Rule(3, "image", (_PLAIN, _WINDOW)),
    "MEAN": Rule(3, "image integers", (_BATCH, _DEPTH)),
    "MINIMUM": Rule(4, "image image"),
    "MUL": Rule(4, "image image", (_RELU,)),
    "PACK": Rule(3, "image*", (_PACKED,)),
    "PAD": Rule(3, "image integers", (_PADDED,)),
    "PRELU": Rule(1, "image weights", (_SLOPE,)),
    "QUANTIZE": Rule(2, "image"),
    "REDUCE_MAX": Rule(3, "image integers", (_BATCH,)),
    "REDUCE_MIN": Rule(3, "image integers", (_BATCH,)),
    "RELU": Rule(3, "image"),
    "RELU6": Rule(3, "image"),
    "RELU_N1_TO_1": Rule(1, "image"),
    "RESHAPE": Rule(1, "image integers?", (_SMALL,)),
    "RESIZE_BILINEAR": Rule(4, "image integers", (_DOUBLE, _MAPPED)),
    "RESIZE_NEAREST_NEIGHBOR": Rule(4, "image integers", (_SIZES,)),
    "RSQRT": Rule(2, "image"),
    "SLICE": Rule(5, "image integers integers"),
    "SOFTMAX": Rule(3, "image", (_VECTOR, _SHORT)),
    "SPACE_TO_DEPTH": Rule(2, "image"),
    "SPLIT": Rule(4, "integers image", (_SPLIT,), outputs="image*"),
    "SQUARED_DIFFERENCE": Rule(2, "image image"),
    "SQUEEZE": Rule(2, "image", (_SMALL,)),
    "STRIDED_SLICE": Rule(5, "image integers integers integers", (_STRIDES, _MASKS)),
    "SUB": Rule(5, "image image", (_RELU,)),
    "SUM": Rule(2, "image integers", (_BATCH,)),
    "TANH": Rule(3, "image"),
    "TRANSPOSE": Rule(5, "image integers", (_SIZES,)),
    "TRANSPOSE_CONV": Rule(3, "integers weights image bias?"),
}
