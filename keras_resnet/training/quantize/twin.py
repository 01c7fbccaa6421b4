"""Any functional model of Keras 3 -> the same network in tf_keras: its twin.

tensorflow-model-optimization (tfmot) knows tf_keras models only, so the network is
built again in tf_keras, layer by layer, with the same weights. Importing tfmot sets
TF_USE_LEGACY_KERAS=1 for the process: both are imported inside functions only.
"""

import collections

import numpy as np
import tensorflow as tf

from keras_resnet import keras_graph
from keras_resnet.runner.errors import UserError
from keras_resnet.training.quantize.counterparts import counterpart, import_tf_keras

# Of each layer's largest output: rounding stays two orders below.
TOLERANCE = 1e-4
# What tfmot folds a batch normalization into.
_FOLDING = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense")


def twin(model):
    """Builds the same network, with the same names and weights, in tf_keras.

    Returns:
        (`tf_keras.Model`, {layer of `model`: its `Counterpart`}).

    Raises:
        UserError: the model is not functional, or holds an operation, a nested
            model or a layer that tf_keras does not carry or computes otherwise; the
            message names it.
    """
    tf_keras = import_tf_keras()
    if not keras_graph.is_functional(model):
        raise UserError(
            "quantization-aware training needs a functional Keras model. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')}"
        )
    folded = _folded(model)
    found = {}

    def call(operation):
        if operation not in found:
            found[operation] = counterpart(operation, operation in folded)
        return found[operation].call

    inputs = [
        tf_keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    outputs = keras_graph.run_through_graph(model, inputs, call)
    copy = tf_keras.Model(inputs, outputs, name=model.name)
    for original, same in found.items():
        values = same.to_weights(original.get_weights())
        for variable, value in zip(same.variables, values, strict=True):
            variable.assign(value)
    _check_equal(model, found)
    return copy, found


def _folded(model):
    """Returns the batch normalizations that tfmot folds into the layer before them."""
    nodes = keras_graph.nodes(model)
    producers = {id(x): node for node in nodes for x in node.outputs}
    calls = collections.Counter(node.operation for node in nodes)
    reads = collections.Counter(id(x) for node in nodes for x in node.input_tensors)
    reads.update(id(tensor) for tensor in model.outputs)

    def is_folded(node):
        (tensor,) = node.input_tensors
        before = producers[id(tensor)].operation
        return (
            type(before).__name__ in _FOLDING
            and before.get_config()["activation"] == "linear"
            and reads[id(tensor)] == calls[before] == calls[node.operation] == 1
        )

    return {
        node.operation
        for node in nodes
        if type(node.operation).__name__ == "BatchNormalization" and is_folded(node)
    }


def _check_equal(model, found):
    """Raises `UserError` where the counterpart of a layer computes something else."""
    rng = np.random.default_rng(0)

    def both(layer):
        def call(*args, **kwargs):
            expected = layer(*args, **kwargs)
            actual = np.asarray(found[layer].call(*args, **kwargs))
            largest = np.abs(expected).max()
            difference = np.abs(actual - expected).max()
            if not difference <= TOLERANCE * largest:
                raise UserError(
                    f"cannot quantize layer {layer.name!r} ({type(layer).__name__}): "
                    "tf_keras computes it otherwise, by "
                    f"{difference / largest:.2g} of its largest output. Use another "
                    "layer, or export with --quantize=int8"
                )
            return expected

        return call

    # Layer by layer on equal inputs: no later layer can hide a difference.
    images = [
        tf.cast(rng.normal(0, 2, [size or 32 for size in (1, *x.shape[1:])]), x.dtype)
        for x in model.inputs
    ]
    keras_graph.run_through_graph(model, images, both)
