"""ResNet v1 for Keras 3, from the paper to the chip on your desk.

What needs Keras is imported when it is first used, so that `keras_resnet.runner` and
the commands start on a device that has no backend of Keras.
"""

import importlib

__version__ = "0.2.0"

# Public name: the module that defines it.
_PUBLIC = {
    "Preprocessing": "preprocessing",
    "ResNet": "models",
    "ResNet8": "models",
    "ResNet14": "models",
    "ResNet18": "models",
    "ResNet20": "models",
    "ResNet32": "models",
    "ResNet34": "models",
    "ResNet44": "models",
    "ResNet50": "models",
    "ResNet56": "models",
    "ResNet101": "models",
    "ResNet110": "models",
    "ResNet152": "models",
    "create_model": "models",
    "decode_predictions": "inference",
    "feature_maps": "models",
    "list_models": "models",
    "list_weights": "weights.registry",
    "load": "model_metadata",
    "plain20": "models",
    "plain32": "models",
    "plain44": "models",
    "preprocess_input": "inference",
}

__all__ = list(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__():
    return sorted({*globals(), *_PUBLIC})
