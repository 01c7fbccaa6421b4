"""A Keras model or a quantization-aware SavedModel -> the bytes of a .tflite.

Every file has the same interface, however it is quantized inside: it takes one image of
raw uint8 RGB pixels and returns one uint8 score of scale 1/256 for each class. A file
of features returns these instead: uint8 of a scale of their own for "int8", else float.
"""

import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.lite.python.convert_phase import ConverterError

from keras_resnet.console import hidden_output
from keras_resnet.edge.convert import tflite_file
from keras_resnet.runner.errors import UserError

_INT16X8 = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
# Quantizations that need images of the training split, for the ranges of activations.
# What has no integer form stays in floating point; for int16x8, that must be asked for.
CALIBRATED = {
    "int8": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8],
    "int16x8": [tf.lite.OpsSet[_INT16X8], tf.lite.OpsSet.TFLITE_BUILTINS],
}


def from_keras(model, preprocessing, quantization, calibration=None, scores=True):
    """Converts a Keras model.

    Args:
        model: functional `keras.Model` from normalized images to scores, or to
            features (batch, channels).
        preprocessing: what it expects; must be `uniform` (see
            `keras_resnet.rewrite.fold_normalization`).
        quantization: "int8" (post-training, weights and activations), "int16x8"
            (int8 weights, int16 activations), "dynamic" (int8 weights),
            "float16" (weights) or "none".
        calibration: for `CALIBRATED`, uint8 array (images, height, width, 3) of raw
            pixels of the training split.
        scores: whether the model gives scores, and no features.

    Returns:
        bytes of the file.

    Raises:
        UserError: TensorFlow Lite has no operator for a part of the model, or its
            converter fails on it.
    """
    content = convert_keras(model, preprocessing, quantization, calibration)
    return _with_interface(content, preprocessing, scores)


def convert_keras(model, preprocessing, quantization, calibration=None):
    """Converts a Keras model of any outputs; the arguments are those of `from_keras`.

    Only "int8" has a uint8 image and quantized outputs yet; else all are float32.
    Outputs in a dict have their names in the file's signature.
    """
    model = _with_one_operator(model)
    with tempfile.TemporaryDirectory() as folder, hidden_output(1, 2):
        archive = keras.export.ExportArchive()
        archive.track(model)
        shape = (1, *preprocessing.input_size, 3)  # static: delegates ask for it
        archive.add_endpoint(
            "serve",
            lambda image: model(image, training=False),
            input_signature=[tf.TensorSpec(shape, tf.float32, name="image")],
        )
        archive.write_out(folder, verbose=False)
        _refuse_loops(folder)
        converter = _converter(folder)
        if quantization in CALIBRATED:
            converter.target_spec.supported_ops = CALIBRATED[quantization]
            converter.representative_dataset = lambda: (
                [preprocessing.normalize(image)[None]]
                for image in _with_full_range(calibration)
            )
        if quantization == "int8":
            _ask_for_uint8_interface(converter)
        elif quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif quantization == "none":
            converter.optimizations = []
        return _convert(converter)


class _L2Normalization(keras.layers.UnitNormalization):
    """`UnitNormalization` of which the converter makes one L2_NORMALIZATION.

    It makes five operators of Keras's own, whose squares lose accuracy in 8 bits.
    """

    def call(self, inputs):
        return tf.math.l2_normalize(inputs, self.axis)


def _with_one_operator(model):
    """Returns a model with the same weights that has `_L2Normalization`."""
    kind = keras.layers.UnitNormalization
    if not any(type(layer) is kind for layer in getattr(model, "layers", ())):
        return model

    def of(layer):
        if type(layer) is kind:
            return _L2Normalization.from_config(layer.get_config())
        return layer

    return keras.models.clone_model(model, clone_function=of)


def from_saved_model(path, preprocessing):
    """Converts a folder of `training.quantize.aware.save` to int8; see `from_keras`.

    Raises:
        UserError: as `convert_saved_model`.
    """
    return _with_interface(convert_saved_model(path), preprocessing)


def convert_saved_model(path):
    """Converts a folder of `training.quantize.aware.save`; see `convert_keras`.

    Raises:
        UserError: the SavedModel is damaged, or TensorFlow Lite has no operator for a
            part of the model.
    """
    with hidden_output(1, 2):
        try:
            converter = _converter(path)
        except (OSError, ValueError, AttributeError, tf.errors.OpError) as error:
            raise damaged_saved_model(path) from error
        _ask_for_uint8_interface(converter)
        return _convert(converter)


def damaged_saved_model(path):
    """Returns the `UserError` about what quantization-aware training saved."""
    return UserError(
        f"{path} is damaged: delete its folder and run training/qat.py again"
    )


def _converter(saved_model):
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    # FULLY_CONNECTED with a scale per channel is a trap: in int8 files TFLite 2.5
    # to 2.9 silently returns the same scores for every image; with dynamic ranges
    # it is version 12, which tflite-runtime 2.7 to 2.14 refuses.
    per_tensor = "_experimental_disable_per_channel_quantization_for_dense_layers"
    if not hasattr(converter, per_tensor):
        raise RuntimeError(f"this TensorFlow's converter has no {per_tensor}")
    setattr(converter, per_tensor, True)
    return converter


def _refuse_loops(saved_model):
    """Raises `UserError` if a SavedModel has a loop: the quantizer crashes on it."""
    content = (pathlib.Path(saved_model) / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def
    for function in (graph, *graph.library.function):
        nodes = function.node if function is graph else function.node_def
        for node in nodes:
            if node.op in ("While", "StatelessWhile"):
                raise UserError(
                    "a file for the device cannot hold a loop. Received: "
                    f"{node.name!r}. Leave recurrent layers out, or build them with "
                    "unroll=True"
                )


def _convert(converter):
    try:
        return converter.convert()
    except ConverterError as error:
        names = {each.operator.name.removeprefix("tf.") for each in error.errors}
        problem = f"has no operator for {', '.join(sorted(names))}"
        if not names:
            problem = f"cannot hold this: {str(error).strip().splitlines()[0][:200]}"
        raise UserError(
            f"TensorFlow Lite {problem}. Build the model of other layers"
        ) from error
    except (RuntimeError, ValueError) as error:  # from the quantizer
        reason = " ".join(str(error).split())
        raise UserError(
            f"TensorFlow Lite's converter fails on this model: {reason:.300}. Build it "
            "of other layers, or try --quantize=none"
        ) from error


def _ask_for_uint8_interface(converter):
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8


def _with_full_range(calibration):
    """Puts a black and a white pixel in a corner of the first image.

    Calibration must see the whole range 0..255. Then the scale of the input is that of
    the pixels, and the quantized input is the raw pixel.
    """
    calibration = np.array(calibration)
    calibration[0, 0, 0] = 0
    calibration[0, 0, 1] = 255
    return calibration


def with_pixels(content, preprocessing):
    """Makes the input of a file raw uint8 pixels, if it is float; outputs stay."""
    return _with_interface(content, preprocessing, scores=False)


def _with_interface(content, preprocessing, scores=True):
    """Gives a file the promised interface, and checks its scales and zero points."""
    pixels = 1 / preprocessing.std_rgb_255[0], int(preprocessing.mean_rgb_255[0])
    content = tflite_file.with_uint8_interface(content, *pixels, scores)
    image, output = tflite_file.interface(content)
    promised = [(image, pixels)] + [(output, (1 / 256, 0))] * scores
    for tensor, (scale, zero_point) in promised:
        found = tensor.quantization
        if (
            not np.isclose(found.scale[0], scale, rtol=1e-6)
            or found.zeroPoint[0] != zero_point
        ):
            raise RuntimeError(
                f"tensor {tensor.name} must have scale {scale} and zero point "
                f"{zero_point}, has {found.scale}, {found.zeroPoint}"
            )
    return content
