"""How layers are quantized that tensorflow-model-optimization (tfmot) does not know.

Written for tfmot 0.8.1, whose private API is used in this module alone.
"""

import importlib

from keras_resnet.training.quantize.counterparts import FUSED

# Their outputs are quantized, and that is all: they have no matrix of weights.
_OUTPUT_ONLY = (
    "Maximum",
    "Minimum",
    "Multiply",
    "PReLU",
    "Subtract",
    "UnitNormalization",
)
# TensorFlow Lite has no 8-bit operators for them: they compute in float between two
# layers of 8 bits.
_FLOAT = ("ELU", "GroupNormalization", "LayerNormalization")
_FLOAT_ACTIVATIONS = ("elu", "mish", "selu", "softplus", "softsign")
_CONFIGS = (
    "tensorflow_model_optimization.python.core.quantization.keras.default_8bit."
    "default_8bit_quantize_configs"
)


def config(layer):
    """Returns the `QuantizeConfig` of a layer of tf_keras; None is tfmot's default."""
    configs = importlib.import_module(_CONFIGS)
    kind = type(layer).__name__
    readers = {type(node.layer).__name__ for node in layer.outbound_nodes}
    if kind == "AveragePooling2D":
        # In TensorFlow Lite it keeps the scale of what it reads. To a range of its own
        # the converter answers with float operators around it, or fails.
        return configs.NoOpQuantizeConfig()
    if (
        kind in (*_OUTPUT_ONLY, *_FLOAT)
        or (kind == "Activation" and _activation(layer) not in (*FUSED, "swish"))
        or _scales_channels(layer, readers)
    ):
        return configs.Default8BitOutputQuantizeConfig()
    return None


def is_float(layer):
    """Returns whether a layer of tf_keras has no 8-bit form."""
    return type(layer).__name__ in _FLOAT or _activation(layer) in _FLOAT_ACTIVATIONS


def _activation(layer):
    return getattr(getattr(layer, "activation", None), "__name__", None)


def _scales_channels(layer, readers):
    """Returns whether a layer multiplies each channel by a number, and no more.

    In 8 bits that number is exact. tfmot would give all channels one scale.
    """
    return (
        type(layer).__name__ == "DepthwiseConv2D"
        and layer.kernel_size == (1, 1)
        and layer.depth_multiplier == 1
        and "BatchNormalization" not in readers  # which tfmot folds into it
    )
