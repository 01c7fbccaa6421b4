"""A Keras 3 model -> quantization-aware training: tfmot's scheme on its twin.

The scheme is the default one of tensorflow-model-optimization (tfmot) for 8 bits:
per-channel symmetric weights, per-tensor activations. `configs` adds the layers that it
does not know.
"""

import collections
import contextlib
import fnmatch
import re
import sys
from unittest import mock

import numpy as np
import tensorflow as tf

from keras_resnet import errors
from keras_resnet.runner.errors import UserError
from keras_resnet.training.quantize import configs
from keras_resnet.training.quantize.counterparts import hard_silu, import_tf_keras
from keras_resnet.training.quantize.twin import twin

# The observers of tfmot average over some thousand steps, starting at (-6, 6).
# The ranges of that many calibration images are a start that fits.
CALIBRATION_EXAMPLES = 512
# What `frozen` can keep as it is.
FREEZABLE = ("batch_norm", "ranges")


def import_tfmot():
    """Returns the module `tensorflow_model_optimization`, or raises `MissingExtra`."""
    import_tf_keras()  # what tfmot raises without it does not name it
    return errors.require(
        "tensorflow_model_optimization", "train", "quantization-aware training"
    )


def quantize(model, preprocessing, calibration, float_layers=()):
    """Makes a functional `keras.Model` quantization-aware.

    Its preprocessing must be `uniform` (`keras_resnet.rewrite.fold_normalization`).
    `calibration` is uint8 (number, height, width, 3), raw pixels of the training split,
    for the first ranges of the activations. `float_layers` are patterns of names of
    layers to leave in float, as in a shell; a batch normalization goes with its
    convolution. Layers without an 8-bit form stay in float too, and stderr says so.

    Returns:
        A `tf_keras.Model` of fake-quantized layers, ready for `loop.fit`. Its input
        range is that of the pixels, 0..255, so that the quantized input is the raw
        pixel.

    Raises:
        UserError: tfmot does not know a layer, and the message names it, or a
            pattern fits none.
    """
    tfmot = import_tfmot()
    copy, counterparts = twin(model)
    kept = _matching(copy, counterparts, float_layers)

    def annotated(layer):
        config = configs.config(layer)
        readers = {node.layer.name for node in layer.outbound_nodes}
        if layer.name in kept and (config is None or readers <= kept):
            return layer
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config)

    _print_float([layer for layer in copy.layers if layer.name not in kept])
    tf_keras = import_tf_keras()
    # Layers that tfmot adds are numbered over all models of the process, and
    # checkpoints know variables by their names.
    tf_keras.backend.reset_uids()
    try:
        with tfmot.quantization.keras.quantize_scope({hard_silu.__name__: hard_silu}):
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


def _print_float(layers):
    """Says on stderr which of the layers of a twin stay in float, if any do."""
    kinds = collections.defaultdict(list)
    for layer in filter(configs.is_float, layers):
        kinds[type(layer).__name__].append(layer.name)
    if kinds:
        found = "; ".join(
            f"{kind} {', '.join(names[:3])}"
            + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            for kind, names in kinds.items()
        )
        print(
            "note: TensorFlow Lite has no 8-bit operators for some layers, which stay "
            f"in float: {found}. An Edge TPU and an Ethos-U cannot run them",
            file=sys.stderr,
        )


def _matching(copy, counterparts, patterns):
    """Returns the names of the layers of a twin to leave in float.

    Args:
        copy: the `tf_keras.Model`.
        counterparts: {layer of the model: its `Counterpart`}.
        patterns: of names of layers of the model.
    """
    parts = {
        original.name: {layer.name for layer in same.layers}
        for original, same in counterparts.items()
    }
    found = set()
    for pattern in patterns:
        fitting = fnmatch.filter(parts, pattern)
        if not fitting:
            raise UserError(
                f"no layer has a name like {pattern!r}. {copy.name} has "
                f"{', '.join(parts)}"
            )
        found.update(*(parts[name] for name in fitting))
    for layer in copy.layers:
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

    Returns whether it could: not where a scale was trained that a batch normalization
    without gamma cannot have.
    """
    trained = {variable.name: variable.numpy() for variable in aware.variables}
    weights = {}
    for layer, same in twin(model)[1].items():
        values = [trained[variable.name] for variable in same.variables]
        weights[layer] = same.from_weights(layer.get_weights(), values)
        if weights[layer] is None:
            return False
    for layer, values in weights.items():
        layer.set_weights(values)
    return True


def save(aware, path):
    """Saves a quantization-aware model as a SavedModel for one image.

    Its signature takes float32 (1, height, width, 3), normalized, and returns "scores",
    or of a detector "boxes" and "scores".
    """
    shape = (1, *aware.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])
    def serve(image):
        outputs = aware(image, training=False)
        return outputs if isinstance(outputs, dict) else {"scores": outputs}

    module = tf.Module()
    module.model = aware
    tf.saved_model.save(module, path, signatures=serve)
