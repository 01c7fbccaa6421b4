"""A Keras 3 model -> quantization-aware training: tfmot's scheme on its twin.

The scheme is the default one of tensorflow-model-optimization (tfmot) for 8 bits:
per-channel symmetric weights, per-tensor activations. Written for tfmot 0.8.1, whose
private API is used in `_check_activations` alone.
"""

import contextlib
import fnmatch
import re
from unittest import mock

import numpy as np
import tensorflow as tf

from keras_resnet import errors
from keras_resnet.runner.errors import UserError
from keras_resnet.training.quantize.twin import import_tf_keras, twin

# The observers of tfmot average over some thousand steps, starting at (-6, 6).
# The ranges of that many calibration images are a start that fits.
CALIBRATION_EXAMPLES = 512
# What `frozen` can keep as it is.
FREEZABLE = ("batch_norm", "ranges")
# Activations that tfmot takes as a layer only.
_AS_LAYERS = {"relu6": "ReLU(6.0)", "leaky_relu": "LeakyReLU(0.2)"}


def import_tfmot():
    """Returns the module `tensorflow_model_optimization`, or raises `MissingExtra`."""
    import_tf_keras()  # what tfmot raises without it does not name it
    return errors.require(
        "tensorflow_model_optimization", "train", "quantization-aware training"
    )


def quantize(model, preprocessing, calibration, float_layers=()):
    """Makes a functional `keras.Model` quantization-aware.

    Its preprocessing must be `uniform` (`keras_resnet.deploy.fold_normalization`).
    `calibration` is uint8 (number, height, width, 3), raw pixels of the training split,
    for the first ranges of the activations. `float_layers` are patterns of names of
    layers to leave in float, as in a shell; a batch normalization goes with its
    convolution.

    Returns:
        A `tf_keras.Model` of fake-quantized layers, ready for `loop.fit`. Its input
        range is that of the pixels, 0..255, so that the quantized input is the raw
        pixel.

    Raises:
        UserError: tfmot does not know a layer, and the message names it, or a
            pattern fits none.
    """
    tfmot = import_tfmot()
    copy = twin(model)
    kept = _matching(copy, float_layers)

    def annotated(layer):
        if layer.name in kept:
            return layer
        return tfmot.quantization.keras.quantize_annotate_layer(layer)

    _check_activations(copy, kept)
    tf_keras = import_tf_keras()
    # Layers that tfmot adds are numbered over all models of the process, and
    # checkpoints know variables by their names.
    tf_keras.backend.reset_uids()
    try:
        aware = tfmot.quantization.keras.quantize_apply(
            tf_keras.models.clone_model(copy, clone_function=annotated)
        )
    except (ValueError, RuntimeError) as error:
        unknown = re.match(r"Layer (.*):<class '.*\.(\w+)'> is not", str(error))
        if unknown:
            name, kind = unknown.groups()
            raise UserError(
                f"cannot quantize layer {name!r} ({kind}): it has no 8-bit form there. "
                f"Use another, leave it in float with --float_layers={name}, or export "
                "with --quantize=int8"
            ) from error
        raise UserError(
            f"cannot quantize {model.name}: {error}. Export with --quantize=int8"
        ) from error
    batches = np.array_split(calibration, max(1, len(calibration) // 64))
    _calibrate(aware, [preprocessing.normalize(batch) for batch in batches])
    black, white = preprocessing.normalize(np.array([[0] * 3, [255] * 3]))[:, 0]
    for layer in aware.layers:  # none where the first layer stays float
        if type(layer).__name__ == "QuantizeLayer":
            layer.quantizer_vars["min_var"].assign(black)
            layer.quantizer_vars["max_var"].assign(white)
    return aware


def _check_activations(model, kept):
    """Raises `UserError` where tfmot does not know the activation of a layer.

    It quantizes the output of a float layer too, for the layer that reads it.
    """
    from tensorflow_model_optimization.python.core.quantization.keras import (
        quantize_aware_activation,
    )

    fused = quantize_aware_activation.QuantizeAwareActivation
    known = fused._PRE_QUANT_ACTIVATIONS | fused._POST_QUANT_ACTIVATIONS
    for layer in model.layers:
        kind = type(layer).__name__
        name = getattr(getattr(layer, "activation", None), "__name__", "linear")
        readers = {node.layer.name for node in layer.outbound_nodes}
        if (
            name not in known
            and (kind, name) != ("Activation", "relu6")
            and not {layer.name, *readers} <= kept
        ):
            raise UserError(
                f"cannot quantize layer {layer.name!r} ({kind}): it cannot have "
                f"activation {name!r}. Use a separate {_AS_LAYERS.get(name, 'ReLU')} "
                "layer, or export with --quantize=int8"
            )


def _matching(model, patterns):
    """Returns the names of the layers that fit a pattern."""
    names = [layer.name for layer in model.layers]
    found = set()
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            raise UserError(
                f"no layer has a name like {pattern!r}. {model.name} has "
                f"{', '.join(names)}"
            )
        found.update(fitting)
    for layer in model.layers:
        # It is folded into the convolution before it, which cannot be half in float.
        if type(layer).__name__ == "BatchNormalization":
            if layer.input.node.layer.name in found:
                found.add(layer.name)
    return found


def _calibrate(aware, batches):
    """Sets every range to the mean of the ranges that the batches have."""
    observed = {}

    def observe(quantizer, inputs, training, weights, **kwargs):
        axes = None
        if weights["min_var"].shape.rank:  # per channel: the last axis
            axes = list(range(inputs.shape.rank - 1))
        _, lows, highs = observed.setdefault(id(weights), (weights, [], []))
        lows.append(tf.minimum(tf.reduce_min(inputs, axes), 0.0))
        highs.append(tf.maximum(tf.reduce_max(inputs, axes), 0.0))
        return inputs

    with _quantizers_replaced(observe):
        for batch in batches:
            aware(batch, training=False)
    for weights, lows, highs in observed.values():
        low, high = tf.reduce_mean(lows, 0), tf.reduce_mean(highs, 0)
        if weights["min_var"].shape.rank:  # weights are symmetric: -127..127
            high = tf.maximum(-low, high)
            low = -high
        weights["min_var"].assign(low)
        weights["max_var"].assign(high)


@contextlib.contextmanager
def _quantizers_replaced(function):
    quantizers = import_tfmot().quantization.keras.quantizers
    with contextlib.ExitStack() as stack:
        for kind in (
            quantizers.LastValueQuantizer,
            quantizers.MovingAverageQuantizer,
            quantizers.AllValuesQuantizer,
        ):
            stack.enter_context(mock.patch.object(kind, "__call__", function))
        yield


@contextlib.contextmanager
def frozen(aware, parts):
    """Keeps parts of a quantization-aware model, of `FREEZABLE`, as they are inside.

    "batch_norm": batch normalization takes the float model's statistics, and not those
    of the batch. "ranges": activations keep their calibrated ranges.
    """
    quantizers = import_tfmot().quantization.keras.quantizers
    observed = quantizers.MovingAverageQuantizer.__call__

    def fixed(quantizer, inputs, training, weights, **kwargs):
        return observed(quantizer, inputs, False, weights, **kwargs)

    layers = [getattr(layer, "layer", layer) for layer in aware.layers]
    layers = [x for x in layers if type(x).__name__ == "BatchNormalization"]
    with contextlib.ExitStack() as stack:
        if "batch_norm" in parts:
            for layer in layers:
                stack.callback(setattr, layer, "trainable", layer.trainable)
                layer.trainable = False
        if "ranges" in parts:
            stack.enter_context(
                mock.patch.object(quantizers.MovingAverageQuantizer, "__call__", fixed)
            )
        yield


def copy_weights(aware, model):
    """Copies the weights of a quantization-aware model to the float one it was made of.

    Returns whether it could: not where tfmot replaced a layer with several others.
    """
    trained = {variable.name: variable for variable in aware.variables}
    copy = twin(model)  # for the names: Keras 3 has others
    pairs = [
        (variable, trained.get(same.name))
        for layer in model.layers
        if layer.weights
        for variable, same in zip(
            layer.weights, copy.get_layer(layer.name).weights, strict=True
        )
    ]
    if any(found is None for _, found in pairs):
        return False
    for variable, found in pairs:
        variable.assign(found.numpy())
    return True


def save(aware, path):
    """Saves a quantization-aware model as a SavedModel for one image.

    Its signature takes float32 (1, height, width, 3), normalized, and returns scores
    (1, classes).
    """
    shape = (1, *aware.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])
    def serve(image):
        return {"scores": aware(image, training=False)}

    module = tf.Module()
    module.model = aware
    tf.saved_model.save(module, path, signatures=serve)
