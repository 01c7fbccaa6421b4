"""The error that quantization makes in each layer of an exported file.

The interpreter keeps all its tensors, and the Keras model returns the outputs of all
its layers. The outputs of the same layer are compared as signal-to-noise ratio (SNR) in
dB. 6 dB are one bit; an int8 layer alone has about 30 to 40 dB.
"""

import collections

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_resnet import keras_graph
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.inspect import layer_names

MAX_DB = 120.0  # also if there is no noise at all


def measure(model, preprocessing, content, images):
    """Compares the layers of a file with those of the model that it was made from.

    Args:
        model: functional or sequential `keras.Model`.
        preprocessing: the `Preprocessing` that the model expects.
        content: bytes of the .tflite, which takes uint8 images.
        images: list of uint8 arrays (height, width, 3).

    Returns:
        list of dicts, the lowest SNR alone first:
            index: index of the operator in the file, which is the order of execution.
            layer: name of the Keras layer.
            operator: name of the operator in TFLite's schema.
            own_snr_db: SNR of this layer alone in dB, against the float layer on the
                same quantized inputs; None if it cannot be computed alone.
            snr_db: SNR of this layer and all layers before it, in dB.
        Operators that only move data are left out, and those whose name in the file is
        not the name of a layer.
    """
    model = keras.Model(model.inputs, model.outputs)  # a sequential one has no graph
    graph = tflite_graph.read(content)
    file = _File(content, graph)
    floats = _Floats(model)
    first = preprocessing.normalize(images[0])[None]
    found = _same_tensors(graph, model, file.run(images[0]), floats.run(first))
    alone = _alone(graph, model, found)
    sums = collections.defaultdict(lambda: np.zeros(4))
    for image in images:
        values = file.run(image)
        expected = floats.run(preprocessing.normalize(image)[None])
        for index, (_, tensor) in found.items():
            actual = values[index]
            sums[index][:2] += _signal_and_noise(expected[id(tensor)], actual)
            if index in alone:
                part, sources = alone[index]
                inputs = [
                    values[source].reshape(expected[id(symbol)].shape)
                    for source, symbol in sources.items()
                ]
                own = part(inputs, training=False)
                sums[index][2:] += _signal_and_noise(own.numpy(), actual)
    errors = [
        {
            "index": operator.index,
            "layer": tensor._keras_history.operation.name,
            "operator": operator.name,
            "own_snr_db": _decibels(*sums[index][2:]) if index in alone else None,
            "snr_db": _decibels(*sums[index][:2]),
        }
        for index, (operator, tensor) in found.items()
    ]

    def snr(error):
        own = error["own_snr_db"]
        return error["snr_db"] if own is None else own

    return sorted(errors, key=snr)


class _File:
    """The file in an interpreter that keeps the values of all tensors."""

    def __init__(self, content, graph):
        self._interpreter = Interpreter(
            model_content=content,
            # XNNPACK does not show the tensors between its operators.
            experimental_op_resolver_type=(
                OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
            experimental_preserve_all_tensors=True,
        )
        self._interpreter.allocate_tensors()
        self._input = graph.inputs[0]
        self._computed = [out for node in graph.operators for out in node.outputs]

    def run(self, image):
        """Returns {index of a tensor: float32 array} of the input and all outputs."""
        self._interpreter.set_tensor(self._input.index, image[None])
        self._interpreter.invoke()
        return {
            tensor.index: _real(tensor, self._interpreter.get_tensor(tensor.index))
            for tensor in [self._input, *self._computed]
        }


def _real(tensor, values):
    values = values.astype(np.float32)
    if not tensor.scales.size:
        return values
    return np.float32(tensor.scales[0]) * (values - tensor.zero_points[0])


class _Floats:
    """The Keras model with the outputs of all its layers."""

    def __init__(self, model):
        outputs = {
            id(x): x for node in keras_graph.nodes(model) for x in node.output_tensors
        }
        self._tensors = list(outputs.values())
        self._model = keras.Model(model.inputs, self._tensors)

    def run(self, image):
        """Returns {id of the symbolic tensor: float32 array}."""
        outputs = self._model([image], training=False)
        return {
            id(tensor): np.asarray(output, np.float32)
            for tensor, output in zip(self._tensors, outputs, strict=True)
        }


def _same_tensors(graph, model, values, expected):
    """Returns {index of a tensor: (its `Operator`, the same tensor in Keras)}.

    A fused operator has the name of one of its layers. Mostly that is the last one, as
    in "resnet8_1/conv1_relu_1/Relu;resnet8_1/conv1_bn_1/...", but a convolution with a
    normalization behind it may be called "a/project_1/conv". Of the layers that the
    name may mean, the one with the nearest values is taken.
    """
    layers = {operation.name: operation for operation in model.operations}
    readers = collections.defaultdict(list)  # {id of a tensor: nodes that read it}
    for node in keras_graph.nodes(model):
        for tensor in node.input_tensors:
            readers[id(tensor)].append(node)
    scores = graph.outputs[0]
    for operator in reversed(graph.operators):
        if operator.name in tflite_graph.MOVES and scores in operator.outputs:
            scores = operator.inputs[0]
    found = {}
    for operator in graph.operators:
        if operator.name in tflite_graph.MOVES or not operator.outputs:
            continue
        tensor = operator.outputs[0]
        candidates = [
            candidate
            for name in layer_names.of_tensor(tensor.name, layers)
            for node in layers[name]._inbound_nodes
            for output in node.output_tensors
            for candidate in _followed(output, readers)
        ]
        if tensor is scores:
            candidates = list(model.outputs)
        actual = values[tensor.index]
        candidates = {
            id(candidate): candidate
            for candidate in candidates
            if id(candidate) in expected
            and _fits(expected[id(candidate)].shape, actual.shape)
        }
        if not candidates:
            continue
        best = max(
            candidates,
            key=lambda key: _decibels(*_signal_and_noise(expected[key], actual)),
        )
        # If one layer became several operators, the last of them has its output.
        found = {
            index: pair for index, pair in found.items() if id(pair[1]) != best
        } | {tensor.index: (operator, candidates[best])}
    return found


def _fits(shape, other):
    """Returns whether two shapes are the same but for sizes of 1.

    A tensor may be named as a layer and be a step inside of it, in another shape.
    """
    return [size for size in shape if size != 1] == [
        size for size in other if size != 1
    ]


def _followed(tensor, readers):
    """Yields a tensor and the outputs of layers that may be fused behind it."""
    yield tensor
    while len(readers[id(tensor)]) == 1:
        node = readers[id(tensor)][0]
        kind = type(node.operation).__name__
        if kind not in ("BatchNormalization", "ReLU", "Activation", "Dropout"):
            return
        (tensor,) = node.output_tensors
        yield tensor


def _alone(graph, model, found):
    """Returns {index of a tensor: (`keras.Model` of its layer alone, sources)}.

    `sources` is {index of a tensor that feeds it: the same tensor in Keras}.
    """
    symbols = {index: tensor for index, (_, tensor) in found.items()}
    symbols[graph.inputs[0].index] = model.inputs[0]
    producers = {
        tensor.index: operator
        for operator in graph.operators
        for tensor in operator.outputs
    }

    def sources_of(operator):
        sources, seen, pending = {}, set(), [operator]
        while pending:
            for tensor in pending.pop().inputs:
                if tensor is None or tensor.constant or tensor.index in seen:
                    continue
                seen.add(tensor.index)
                if tensor.index in symbols:
                    sources[tensor.index] = symbols[tensor.index]
                elif tensor.index in producers:  # a variable has none
                    pending.append(producers[tensor.index])
        return sources

    parts = {}
    for index, (operator, tensor) in found.items():
        sources = sources_of(operator)
        try:
            part = keras.Model(list(sources.values()), tensor)
        except ValueError:  # it reads a tensor that the converter fused away
            continue
        parts[index] = part, sources
    return parts


def _signal_and_noise(expected, actual):
    expected = np.ravel(expected)
    noise = np.ravel(actual) - expected
    return np.array([np.dot(expected, expected), np.dot(noise, noise)])


def _decibels(signal, noise):
    if not noise:
        return MAX_DB
    if not signal:
        return -MAX_DB
    return float(np.clip(10 * np.log10(signal / noise), -MAX_DB, MAX_DB))
