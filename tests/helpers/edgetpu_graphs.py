"""Graphs for the Edge TPU: one of each operator that maps, and chains of them."""

import dataclasses

import numpy as np

from tests.helpers.graphs import Operator, Tensor, build

# One 8-bit quantization for all, so that every operator accepts it.
SAME = (1 / 256, 0)
INT8 = {"dtype": "int8", "quantized": (1 / 256, -128)}


def image(*shape, **changes):
    return Tensor(shape, **{"quantized": SAME} | changes)


def numbers(*values, **changes):
    fields = {"shape": np.shape(values), "dtype": "int32", "data": values}
    return Tensor(**fields | {"quantized": None} | changes)


def weights(*shape, **changes):
    return Tensor(shape, **{"data": 3, "quantized": (1 / 128, 0)} | changes)


def bias(units, **changes):
    values = {"dtype": "int32", "data": 1, "quantized": (1 / 256 / 128, 0)}
    return Tensor((units,), **values | changes)


STRIDE = {"strideH": 1, "strideW": 1}
DILATION = {"dilationHFactor": 1, "dilationWFactor": 1}
CONV = ("Conv2DOptions", STRIDE | DILATION)
DEPTHWISE = ("DepthwiseConv2DOptions", STRIDE | DILATION | {"depthMultiplier": 1})
POOL = ("Pool2DOptions", STRIDE | {"filterHeight": 2, "filterWidth": 2})
REDUCER = ("ReducerOptions", {"keepDims": False})

# Operator: (inputs, outputs, options), all of which map.
VALID = {
    "ADD": (
        [image(1, 4, 5, 8), image(1, 1, 1, 8)],
        [image(1, 4, 5, 8)],
        ("AddOptions", {}),
    ),
    "AVERAGE_POOL_2D": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], POOL),
    "CONCATENATION": (
        [image(1, 4, 5, 8), image(1, 4, 5, 2)],
        [image(1, 4, 5, 10)],
        ("ConcatenationOptions", {"axis": -1}),
    ),
    "CONV_2D": (
        [image(1, 4, 5, 8), weights(6, 3, 3, 8), bias(6)],
        [image(1, 4, 5, 6)],
        CONV,
    ),
    "DEPTHWISE_CONV_2D": (
        [image(1, 4, 5, 8), weights(1, 3, 3, 8), bias(8)],
        [image(1, 4, 5, 8)],
        DEPTHWISE,
    ),
    "EXPAND_DIMS": ([image(1, 8), numbers(1)], [image(1, 1, 8)], ()),
    "FULLY_CONNECTED": (
        [image(1, 8), weights(6, 8), bias(6)],
        [image(1, 6)],
        ("FullyConnectedOptions", {}),
    ),
    "L2_NORMALIZATION": (
        [image(1, 8)],
        [image(1, 8, quantized=(1 / 128, 128))],
        ("L2NormOptions", {}),
    ),
    "LOGISTIC": ([image(1, 8)], [image(1, 8)], ()),
    "MAXIMUM": ([image(1, 4, 5, 8), image(1, 1, 1, 8)], [image(1, 4, 5, 8)], ()),
    "MAX_POOL_2D": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], POOL),
    "MEAN": ([image(1, 4, 5, 8), numbers(1, 2)], [image(1, 8)], REDUCER),
    "MINIMUM": ([image(1, 4, 5, 8), image(1, 1, 1, 8)], [image(1, 4, 5, 8)], ()),
    "MUL": (
        [image(1, 4, 5, 8), image(1, 1, 1, 8)],
        [image(1, 4, 5, 8)],
        ("MulOptions", {}),
    ),
    "PACK": (
        [image(1, 4, 8), image(1, 4, 8)],
        [image(1, 4, 2, 8)],
        ("PackOptions", {"axis": 2, "valuesCount": 2}),
    ),
    "PAD": (
        [image(1, 4, 5, 8), numbers([0, 0], [1, 1], [0, 2], [0, 0])],
        [image(1, 6, 7, 8)],
        ("PadOptions", {}),
    ),
    "PRELU": (
        [image(1, 4, 5, 8), weights(1, 1, 8)],
        [image(1, 4, 5, 8)],
        (),
    ),
    "QUANTIZE": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8, **INT8)], ()),
    "REDUCE_MAX": ([image(1, 4, 5, 8), numbers(1, 2)], [image(1, 8)], REDUCER),
    "REDUCE_MIN": ([image(1, 4, 5, 8), numbers(1, 2)], [image(1, 8)], REDUCER),
    "RELU": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], ()),
    "RELU6": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], ()),
    "RELU_N1_TO_1": ([image(1, 4, 5, 8)], [image(1, 4, 5, 8)], ()),
    "RESHAPE": (
        [image(1, 4, 5, 8), numbers(1, 160)],
        [image(1, 160)],
        ("ReshapeOptions", {"newShape": [1, 160]}),
    ),
    "RESIZE_BILINEAR": (
        [image(1, 24, 24, 24), numbers(48, 48)],
        [image(1, 48, 48, 24)],
        ("ResizeBilinearOptions", {"halfPixelCenters": True}),
    ),
    "SLICE": (
        [image(1, 4, 5, 8), numbers(0, 1, 2, 0), numbers(1, 2, -1, 8)],
        [image(1, 2, 3, 8)],
        (),
    ),
    "SOFTMAX": ([image(1, 10)], [image(1, 10)], ("SoftmaxOptions", {"beta": 1.0})),
    "SPACE_TO_DEPTH": (
        [image(1, 4, 6, 8)],
        [image(1, 2, 3, 32)],
        ("SpaceToDepthOptions", {"blockSize": 2}),
    ),
    "SPLIT": (
        [numbers(3, shape=(), data=3), image(1, 4, 5, 8)],
        [image(1, 4, 5, 4), image(1, 4, 5, 4)],
        ("SplitOptions", {"numSplits": 2}),
    ),
    "SQUEEZE": (
        [image(1, 1, 8)],
        [image(1, 8)],
        ("SqueezeOptions", {"squeezeDims": [1]}),
    ),
    "STRIDED_SLICE": (
        [image(1, 4, 5, 8), *[numbers(*n) for n in ([0] * 4, [1, 3, 5, 8], [1] * 4)]],
        [image(1, 3, 5, 8)],
        ("StridedSliceOptions", {"endMask": 4}),
    ),
    "SUB": (
        [image(1, 4, 5, 8), image(1, 1, 1, 8)],
        [image(1, 4, 5, 8)],
        ("SubOptions", {}),
    ),
    "SUM": ([image(1, 4, 5, 8), numbers(1, 2)], [image(1, 8)], REDUCER),
    "TANH": ([image(1, 8)], [image(1, 8, quantized=(1 / 128, 128))], ()),
    "TRANSPOSE_CONV": (
        [numbers(1, 8, 10, 6), weights(6, 3, 3, 8), image(1, 4, 5, 8), bias(6)],
        [image(1, 8, 10, 6)],
        ("TransposeConvOptions", {"strideH": 2, "strideW": 2}),
    ),
}
# These take int8 alone in TFLite.
for name in ("RSQRT", "SQUARED_DIFFERENCE"):
    tensors = [image(1, 8, **INT8)] * (1 + (name != "RSQRT"))
    VALID[name] = (tensors, [image(1, 8, **INT8)], ())
VERSIONS = {
    "RESIZE_BILINEAR": 3,
    "RSQRT": 2,
    "SQUARED_DIFFERENCE": 2,
    "TRANSPOSE_CONV": 3,
}


def operator_of(name, inputs, outputs, options, version=None):
    """Returns the `Operator` of a graph that has its inputs, then its outputs."""
    places = tuple(range(inputs + outputs))
    version = VERSIONS.get(name, 1) if version is None else version
    return Operator(name, places[:inputs], places[inputs:], options, version)


def graph_of(name, version=None, **changes):
    """Builds the graph of one valid operator with something changed.

    Args:
        name: of the operator.
        version: of the operator.
        **changes: input0, output0, ...: fields of the tensor, or None to leave it out;
            anything else: an option.
    """
    inputs, outputs, options = VALID[name]
    tensors = {f"input{n}": tensor for n, tensor in enumerate(inputs)}
    tensors |= {f"output{n}": tensor for n, tensor in enumerate(outputs)}
    for key in tensors.keys() & changes.keys():
        fields = changes.pop(key)
        tensors[key] = fields and dataclasses.replace(tensors[key], **fields)
    if changes:
        options = (options[0], options[1] | changes)
    inputs, outputs = (
        [tensor for key, tensor in tensors.items() if tensor and key.startswith(end)]
        for end in ("input", "output")
    )
    operator = operator_of(name, len(inputs), len(outputs), options, version)
    fed = [n for n, tensor in enumerate(inputs) if tensor.data is None]
    return build([*inputs, *outputs], [operator], fed, operator.outputs)


def chain(*names):
    """Builds operators behind each other, each of one input and one output."""
    tensors = [image(1, 8) for _ in range(len(names) + 1)]
    operators = [Operator(name, (n,), (n + 1,)) for n, name in enumerate(names)]
    return build(tensors, operators)


class Network:
    """A graph that grows operator by operator, with the verdict expected on each."""

    def __init__(self, tensor):
        self.tensors, self.operators, self.kinds = [tensor], [], []

    def add(self, kind, name, inputs, output, options=(), version=1):
        """Adds an operator.

        Args:
            kind: `Verdict.kind` that is expected of it.
            name: in the schema.
            inputs: what `add` returned, 0 for the input, or constants as `Tensor`.
            output: `Tensor` that it computes.
            options: (table of the schema, {field: value}).
            version: of the operator.

        Returns:
            Index of the output.
        """
        places = []
        for tensor in inputs:
            if not isinstance(tensor, int):
                self.tensors.append(tensor)
                tensor = len(self.tensors) - 1
            places.append(tensor)
        self.tensors.append(output)
        place = len(self.tensors) - 1
        self.operators.append(Operator(name, tuple(places), (place,), options, version))
        self.kinds.append(kind)
        return place

    def convolve(self, kind, source, output, stride=1):
        """Adds a 3x3 convolution, SAME padding."""
        depth, filters = self.tensors[source].shape[-1], output.shape[-1]
        scale = self.tensors[source].quantized[0] / 128
        inputs = [
            source,
            weights(filters, 3, 3, depth, dtype=output.dtype),
            bias(filters, quantized=(scale, 0)),
        ]
        options = dict.fromkeys(("strideH", "strideW"), stride) | DILATION
        return self.add(kind, "CONV_2D", inputs, output, ("Conv2DOptions", options), 3)

    def build(self):
        """Returns the bytes of the .tflite; what nothing reads is an output."""
        read = {place for operator in self.operators for place in operator.inputs}
        computed = [operator.outputs[0] for operator in self.operators]
        ends = [place for place in computed if place not in read]
        return build(self.tensors, self.operators, (0,), ends)


def pose_network():
    """Returns a `Network` like Coral's movenet_single_pose_lightning_ptq.

    Google's compiler left on the CPU: CAST and QUANTIZE in front, ARG_MAX, GATHER_ND
    and what follows them. It mapped the top-down path with its bilinear resizes, and
    the branch that comes after ARG_MAX but does not depend on it.
    """

    def feature(size, depth):
        return image(1, size, size, depth, **INT8)

    def double(source, size, depth):
        options = ("ResizeBilinearOptions", {"halfPixelCenters": True})
        inputs = [source, numbers(size, size)]
        return net.add(
            None, "RESIZE_BILINEAR", inputs, feature(size, depth), options, 3
        )

    net = Network(image(1, 48, 48, 3))
    cast = net.add("operator", "CAST", [0], Tensor((1, 48, 48, 3), "float32"))
    start = net.add("type", "QUANTIZE", [cast], feature(48, 3))
    large = net.convolve(None, start, feature(24, 32), stride=2)
    middle = net.convolve(None, large, feature(12, 64), stride=2)
    small = net.convolve(None, middle, feature(6, 64), stride=2)
    up = double(small, 12, 64)
    up = net.add(None, "ADD", [up, middle], feature(12, 64), ("AddOptions", {}), 2)
    up = double(net.convolve(None, up, feature(12, 32)), 24, 32)
    up = net.add(None, "ADD", [up, large], feature(24, 32), ("AddOptions", {}), 2)
    up = double(net.convolve(None, up, feature(24, 24)), 48, 24)
    heat = net.convolve(None, up, feature(48, 1))
    heat = net.add(None, "LOGISTIC", [heat], feature(48, 1), version=2)
    centre = image(48, 48, 1, data=5, **INT8)
    heat = net.add(None, "MUL", [heat, centre], feature(48, 1), ("MulOptions", {}), 2)
    flat = image(1, 2304, 1, **INT8)
    shape = numbers(1, 2304, 1)
    options = ("ReshapeOptions", {"newShape": [1, 2304, 1]})
    heat = net.add(None, "RESHAPE", [heat, shape], flat, options)
    index = Tensor((1, 1), "int32", quantized=())
    options = ("ArgMaxOptions", {"outputType": 2})
    best = net.add("operator", "ARG_MAX", [heat, numbers(1)], index, options, 2)
    offsets = net.convolve(None, up, feature(48, 34))
    inputs, found = [offsets, best], image(1, 48, 48, 34, **INT8)
    found = net.add("operator", "GATHER_ND", inputs, found, version=1)
    net.add("partition", "RELU", [found], image(1, 48, 48, 34, **INT8), version=2)
    return net


def segmentation_network():
    """Returns a `Network` like Coral's deeplabv3_mnv2_dm05_pascal_quant.

    Google's compiler left the resize from 1x1 on the CPU, and with it the joined
    branches, the resize to the size of the image, and ARG_MAX. It mapped both
    branches up to there.
    """

    def feature(size, depth):
        return image(1, size, size, depth)

    def resize(kind, source, size, depth):
        options = ("ResizeBilinearOptions", {"alignCorners": True})
        inputs = [source, numbers(size, size)]
        return net.add(kind, "RESIZE_BILINEAR", inputs, feature(size, depth), options)

    net = Network(feature(33, 8))
    branch = net.convolve(None, 0, feature(33, 16))
    window = {"filterHeight": 33, "filterWidth": 33, "padding": 1}
    options = ("Pool2DOptions", STRIDE | window)
    pooled = net.add(None, "AVERAGE_POOL_2D", [0], feature(1, 8), options)
    pooled = net.convolve(None, pooled, feature(1, 16))
    pooled = resize("uncertain", pooled, 33, 16)
    options = ("ConcatenationOptions", {"axis": 3})
    joined = feature(33, 32)
    joined = net.add("partition", "CONCATENATION", [pooled, branch], joined, options)
    scores = net.convolve("partition", joined, feature(33, 4))
    scores = resize("uncertain", scores, 129, 4)
    classes = Tensor((1, 129, 129), "int64", quantized=())
    options = ("ArgMaxOptions", {"outputType": 4})
    net.add("operator", "ARG_MAX", [scores, numbers(3)], classes, options)
    return net
