"""ResNet v1 for Keras 3, from the paper to the chip on your desk.

What needs Keras is imported when it is first used, so that `keras_resnet.runner` and
the commands start on a device that has no backend of Keras.
"""

import importlib

__version__ = "0.2.0"

# Module: the public names that it defines.
_MODULES = {
    "models": "ResNet ResNet8 ResNet14 ResNet18 ResNet20 ResNet32 ResNet34 ResNet44 "
    "ResNet50 ResNet56 ResNet101 ResNet110 ResNet152 ResNet1202 "
    "ResNet16_224 ResNet20_224 plain20 plain32 plain44 "
    "create_model feature_maps list_models",
    "inference": "decode_predictions preprocess_input",
    "model_metadata": "load",
    "preprocessing": "Preprocessing",
    "sharing.push": "push",
    "weights.registry": "list_weights",
}
_PUBLIC = {name: module for module in _MODULES for name in _MODULES[module].split()}

__all__ = list(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__():
    return sorted({*globals(), *_PUBLIC})
