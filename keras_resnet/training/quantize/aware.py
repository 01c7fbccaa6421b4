"""Any Keras 3 functional CNN -> the same network, quantization-aware.

tensorflow-model-optimization (tfmot) knows tf_keras models only, so the network
is built again in tf_keras, layer by layer, with the same weights: the twin. It
goes through tfmot's default 8-bit scheme (per-channel symmetric weights,
per-tensor activations).

Importing tfmot sets TF_USE_LEGACY_KERAS=1 for the process, so it and tf_keras
are imported inside the functions here and nowhere else.
"""

import contextlib
import fnmatch
import inspect
import re
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.runner.errors import UserError

# The observers of tfmot average over some thousand steps, starting at (-6, 6).
# The ranges of that many calibration images are a start that fits.
CALIBRATION_EXAMPLES = 512
# What `frozen` can keep as it is.
FREEZABLE = ("batch_norm", "ranges")
# Of each layer's largest output: rounding stays two orders below.
TWIN_TOLERANCE = 1e-4
# (layer, argument of Keras 3): its name in tf_keras.
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
# Activations that tfmot takes as a layer only.
_AS_LAYERS = {"relu6": "ReLU(6.0)", "leaky_relu": "LeakyReLU(0.2)"}


def tf_keras():
    """Returns the module `tf_keras`, for `loop.fit`."""
    import tf_keras

    return tf_keras


def twin(model):
    """Builds the same network, with the same weights, in tf_keras.

    Args:
        model: functional `keras.Model` of layers that tf_keras carries under
            the same name.

    Returns:
        A `tf_keras.Model` with equal layer names and equal outputs.

    Raises:
        UserError: the model is not functional, or holds an operation, a nested
            model or a layer that tf_keras does not carry or computes otherwise; the
            message names it.
    """
    import tf_keras

    if not isinstance(model, keras.Model) or not hasattr(model, "_run_through_graph"):
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
    # Keras' own walk over the graph, with our layers and our tensors in it.
    outputs = model._run_through_graph(inputs, operation_fn=same_layer)
    copy = tf_keras.Model(inputs, outputs, name=model.name)
    for original, layer in layers.items():
        layer.set_weights(original.get_weights())
    _check_equal(model, layers)
    return copy


def _check_equal(model, layers):
    """Raises `UserError` where a layer of tf_keras computes something else.

    Args:
        model: the `keras.Model`.
        layers: {layer of it: its twin}.
    """
    rng = np.random.default_rng(0)

    def both(layer):
        def call(*args, **kwargs):
            expected = layer(*args, **kwargs)
            actual = np.asarray(layers[layer](*args, **kwargs))
            largest = np.abs(expected).max()
            difference = np.abs(actual - expected).max()
            if not difference <= TWIN_TOLERANCE * largest:
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
    model._run_through_graph(images, operation_fn=both)


def _same_layer(layer):
    import tf_keras

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
    import tf_keras

    values = tf.linspace([-8.0], [8.0], 65, axis=-1)  # (1, 65)
    try:
        theirs = tf_keras.activations.get(name)(values)
    except ValueError:
        return False
    return np.allclose(keras.activations.get(name)(values), theirs, atol=1e-6)


def quantize(model, preprocessing, calibration, float_layers=()):
    """Makes a model quantization-aware.

    Args:
        model: functional `keras.Model`.
        preprocessing: what it expects; must be `uniform` (see
            `keras_resnet.deploy.fold_normalization`).
        calibration: uint8 (number, height, width, 3), raw pixels of the training
            split, for the first ranges of the activations.
        float_layers: patterns of names of layers to leave in float, as in a shell:
            "conv1_*", "predictions". A batch normalization goes with its convolution.

    Returns:
        A `tf_keras.Model` of fake-quantized layers, ready for `loop.fit`. Its
        input range is that of the pixels, 0..255, so that the quantized input
        is the raw pixel.

    Raises:
        UserError: tfmot does not know a layer, and the message names it, or a pattern
            fits none.
    """
    import tensorflow_model_optimization as tfmot

    copy = twin(model)
    kept = _matching(copy, float_layers)

    def annotated(layer):
        if layer.name in kept:
            return layer
        return tfmot.quantization.keras.quantize_annotate_layer(layer)

    _check_activations(copy, kept)
    try:
        aware = tfmot.quantization.keras.quantize_apply(
            tf_keras().models.clone_model(copy, clone_function=annotated)
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
        readers = {node.layer.name for node in layer._outbound_nodes}
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
            if layer.input._keras_history.layer.name in found:
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
    from tensorflow_model_optimization.python.core.quantization.keras import quantizers

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
    """Keeps parts of a quantization-aware model as they are inside the block.

    Args:
        aware: what `quantize` returned.
        parts: some of `FREEZABLE`. "batch_norm": batch normalization takes the
            float model's statistics, and not those of the batch. "ranges":
            activations keep their calibrated ranges.
    """
    from tensorflow_model_optimization.python.core.quantization.keras import quantizers

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


def take_weights(model, aware):
    """Gives a float model the weights of a quantization-aware one.

    Args:
        model: the `keras.Model` that `aware` was made from; it is changed.
        aware: what `quantize` returned.

    Returns:
        Whether it could: not where tfmot replaced a layer with several others.
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

    Args:
        aware: the model.
        path: folder to write. Its signature takes float32 (1, height, width, 3),
            normalized, and returns scores (1, classes).
    """
    shape = (1, *aware.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])
    def serve(image):
        return {"scores": aware(image, training=False)}

    module = tf.Module()
    module.model = aware
    tf.saved_model.save(module, path, signatures=serve)
