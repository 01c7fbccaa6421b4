"""Any functional model of Keras 3 -> the same network in tf_keras: its twin.

tensorflow-model-optimization (tfmot) knows tf_keras models only, so the network is
built again in tf_keras, layer by layer, with the same weights. Importing tfmot sets
TF_USE_LEGACY_KERAS=1 for the process: both are imported inside functions only.
"""

import inspect

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import errors, keras_graph
from keras_resnet.runner.errors import UserError

# Of each layer's largest output: rounding stays two orders below.
TOLERANCE = 1e-4
# (layer, argument of Keras 3): its name in tf_keras.
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}


def import_tf_keras():
    """Returns the module `tf_keras`, or raises `MissingExtra`."""
    return errors.require("tf_keras", "train", "quantization-aware training")


def twin(model):
    """Builds the same network, with the same names and weights, in tf_keras.

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
    layers = {}

    def same_layer(operation):
        if operation not in layers:
            layers[operation] = _same_layer(operation)
        return layers[operation]

    inputs = [
        tf_keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    outputs = keras_graph.run_through_graph(model, inputs, same_layer)
    copy = tf_keras.Model(inputs, outputs, name=model.name)
    for original, layer in layers.items():
        layer.set_weights(original.get_weights())
    _check_equal(model, layers)
    return copy


def _check_equal(model, layers):
    """Raises `UserError` where the tf_keras twin of a layer computes something else."""
    rng = np.random.default_rng(0)

    def both(layer):
        def call(*args, **kwargs):
            expected = layer(*args, **kwargs)
            actual = np.asarray(layers[layer](*args, **kwargs))
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


def _same_layer(layer):
    tf_keras = import_tf_keras()
    kind = type(layer).__name__
    same = getattr(tf_keras.layers, kind, None)
    if not isinstance(layer, keras.Layer) or same is None or kind == "Lambda":
        raise UserError(
            f"cannot quantize layer {layer.name!r} ({kind}): tf_keras has no such "
            "layer. Use layers of keras.layers that it shares (Add for +, ReLU for "
            "keras.ops.relu, ...), and no nested model"
        )
    config = {}
    ours = inspect.signature(type(layer).__init__).parameters
    theirs = {"name", *inspect.signature(same.__init__).parameters}
    for key, value in layer.get_config().items():
        # Weights are copied; regularizers and constraints are the training's.
        if key.endswith(("_initializer", "_regularizer", "_constraint")):
            continue
        if isinstance(value, dict) and key in theirs:
            problem = f"its {key} is an object. Use one that has a name"
        elif key.endswith("activation") and not _same_activation(value):
            problem = f"tf_keras has no {key} {value!r} like it. Use another"
        elif (name := _RENAMED.get((kind, key), key)) in theirs:
            config[name] = value
            continue
        # None stands for what is set elsewhere, as the order of the axes is.
        elif key not in ours or ours[key].default in (None, value):
            continue
        else:
            problem = f"tf_keras has no {key}={value!r} for it. Leave that out"
        raise UserError(
            f"cannot quantize layer {layer.name!r} ({kind}): {problem}, or export with "
            "--quantize=int8"
        )
    return same(**config)


def _same_activation(name):
    """Returns whether tf_keras has a function of this name, and the same."""
    tf_keras = import_tf_keras()
    values = tf.linspace([-8.0], [8.0], 65, axis=-1)  # (1, 65)
    try:
        theirs = tf_keras.activations.get(name)(values)
    except ValueError:
        return False
    return np.allclose(keras.activations.get(name)(values), theirs, atol=1e-6)
