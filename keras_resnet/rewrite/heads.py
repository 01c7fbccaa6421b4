"""The end of a classifier: logits, sigmoids and one score, as two kinds of scores."""

import math

import keras
import numpy as np

from keras_resnet.rewrite.simplify import with_config
from keras_resnet.runner.errors import UserError

SCORES = ("softmax", "independent")
# Whose results are logits where what they read is.
_LINEAR = (
    "Add",
    "Average",
    "AveragePooling2D",
    "Concatenate",
    "Cropping2D",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "MaxPooling2D",
    "Permute",
    "Rescaling",
    "Reshape",
    "Subtract",
)
# Whose results are what they read where there is one number for each class.
_RESHAPING = ("Flatten", "Reshape")


def finish(graph, scores):
    """Gives a graph the end that a file for the device needs.

    One score becomes two classes. Several logits get a softmax, or with
    scores="independent" a sigmoid each.

    Args:
        graph: a `Graph` of one output; it is changed.
        scores: one of `SCORES`, or None: as the model has it, softmax for logits.

    Returns:
        (one of `SCORES`, function from the outputs of the model that was, float64
        (number, classes), to those of the new one, list of notes for the user).

    Raises:
        UserError: the model returns no scores of classes, or others than asked for.
    """
    shape = graph.outputs[0].shape
    if None in shape[1:] or len(shape) < 2 or max(shape[1:]) != math.prod(shape[1:]):
        raise UserError(
            "the model must return one score for each class. Received: outputs of "
            f"shape {shape}. End the model with GlobalAveragePooling2D, then a Dense "
            "layer of as many units as there are classes"
        )
    classes = max(shape[1:])
    if len(shape) > 2:
        graph.append(keras.layers.Flatten(name="flatten"), (None, classes))
    ending = _ending(graph, graph.outputs[0])
    end = graph.producer(graph.outputs[0])
    end = repr(end.operation.name) if end else "the input"
    if ending not in ("linear", "softmax", "sigmoid"):
        raise UserError(
            "the model must end with a softmax, a sigmoid or logits. Received: "
            f"{end} ({ending}) at its end. End it with a Dense layer"
        )
    if ending == "softmax" and classes == 1:
        raise UserError(
            f"the score of one class behind a softmax, {end}, is always 1. Use a "
            "sigmoid, or two classes"
        )
    if classes == 1 and scores != "independent":
        return "softmax", *_as_two_classes(graph, ending)
    found = {"softmax": "softmax", "sigmoid": "independent"}.get(ending)
    if scores and found and scores != found:
        raise UserError(
            f"the scores of the model are made by the {ending} at its end, {end}. "
            f"Received: scores={scores!r}. Use {found!r}, or give the model's logits"
        )
    if found:
        return found, lambda outputs: outputs, []
    if scores == "independent":
        _append_activation(graph, "sigmoid")
        note = "The model returns logits: a sigmoid was added for each."
        return "independent", _sigmoid, [note]
    _append_activation(graph, "softmax")
    note = (
        f"The model returns {classes} logits: a softmax was added, since an image has "
        "one class. If it can have several, ask for independent scores."
    )
    return "softmax", _softmax, [note]


def leave_out(graph):
    """Makes what the classifier reads the output of a graph, (batch, channels).

    Args:
        graph: a `Graph` that `finish` returned; it is changed.

    Raises:
        UserError: the scores are not those of one Dense layer, or of a convolution
            that does the same on one pixel.
    """
    call = graph.producer(graph.outputs[0])
    while call.kind in ("Activation", "Softmax", *_RESHAPING):
        call = graph.producer(call.inputs[0])
    features = call.inputs[0]
    on_one_pixel = call.kind == "Conv2D" and features.shape[1:3] == (1, 1)
    if call.kind != "Dense" and not on_one_pixel:
        raise UserError(
            "the features of a model are what its last Dense layer reads. Received: "
            f"scores of {call.operation.name!r} ({type(call.operation).__name__}). End "
            "the model with GlobalAveragePooling2D, then a Dense layer"
        )
    graph.outputs = [features]
    graph.prune()
    if len(features.shape) > 2:
        shape = (None, math.prod(features.shape[1:]))
        graph.append(keras.layers.Flatten(name="flatten"), shape)


def _ending(graph, tensor):
    """Returns the activation whose results a tensor holds; "linear" for logits."""
    call = graph.producer(tensor)
    if call is None:
        return "pixels"
    if call.kind == "Softmax":
        is_last = call.operation.axis in (-1, len(tensor.shape) - 1)
        return "softmax" if is_last else "a softmax of another axis"
    activation = getattr(call.operation, "activation", None)
    if activation is not None:
        return getattr(activation, "__name__", type(activation).__name__)
    if call.kind == "BatchNormalization":
        return "linear"
    kind = type(call.operation).__name__
    read = {_ending(graph, each) for each in call.inputs}
    if len(read) != 1:
        return kind
    (only,) = read
    if only == "linear" and call.kind in _LINEAR or _only_reshapes(call):
        return only
    return f"{kind} of {only}"


def _only_reshapes(call):
    (before, *others), (after,) = call.inputs, call.outputs
    return (
        call.kind in _RESHAPING
        and not others
        and before.shape[-1] == after.shape[-1] == math.prod(before.shape[1:])
    )


def _append_activation(graph, name):
    """Gives a graph's last layer an activation, or puts a layer behind it."""
    logits = graph.outputs[0]
    last = graph.producer(logits)
    if _is_replaceable_dense(graph, last):
        scores = keras.KerasTensor(logits.shape, "float32")
        new = with_config(last, (scores,), last.get_weights(), activation=name)
        graph.replace(last, new)
        graph.outputs = [scores]
    elif name == "softmax":
        graph.append(keras.layers.Softmax(name=name), logits.shape)
    else:
        graph.append(keras.layers.Activation(name, name=name), logits.shape)


def _is_replaceable_dense(graph, call):
    return (
        call.kind == "Dense"
        and not graph.is_shared(call)
        and graph.readers(call.outputs[0]) == [None]
    )


def _as_two_classes(graph, ending):
    """Exchanges one logit z, or its sigmoid s, for softmax((0, z)) = (1 - s, s)."""
    if ending == "sigmoid":
        _leave_out_activation(graph)
    last = graph.producer(graph.outputs[0])
    if _is_replaceable_dense(graph, last):
        weights = [np.concatenate([x * 0, x], axis=-1) for x in last.get_weights()]
        scores = keras.KerasTensor((None, 2), "float32")
        new = with_config(last, (scores,), weights, units=2, activation="softmax")
        graph.replace(last, new)
        graph.outputs = [scores]
    else:
        layer = keras.layers.Dense(2, "softmax", use_bias=False, name="scores")
        graph.append(layer, (None, 2), weights=[np.float32([[0, 1]])])
    note = (
        f"The model returns one {'logit' if ending == 'linear' else ending}: it became "
        "two classes with a softmax, of which the second has the sigmoid's score."
    )

    def expected(outputs):
        score = _sigmoid(outputs) if ending == "linear" else outputs
        return np.concatenate([1 - score, score], axis=-1)

    return expected, [note]


def _leave_out_activation(graph):
    """Makes the logits of a graph that ends with an activation its output."""
    call = graph.producer(graph.outputs[0])
    reshaping = []
    while getattr(call.operation, "activation", None) is None:
        reshaping.insert(0, call)
        call = graph.producer(call.inputs[0])
    logits = call.inputs[0]
    if call.kind != "Activation":
        logits = keras.KerasTensor(call.outputs[0].shape, "float32")
        linear = with_config(call, (logits,), call.get_weights(), activation="linear")
        graph.calls.append(linear)
    graph.outputs = [logits]
    for each in reshaping:
        graph.append(each.operation, each.outputs[0].shape)
    graph.prune()


def _softmax(logits):
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def _sigmoid(logits):
    return 1 / (1 + np.exp(-logits))
