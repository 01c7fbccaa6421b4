"""From a trained model to the device.

`export` converts a model to a .tflite, checks it and reports on it. It needs the extras
`train` and `edge`. `Classifier`, `Detector` and `Segmenter` run such files. They need
numpy, Pillow and a TFLite runtime, so they also work on a device that has neither Keras
nor TensorFlow.
"""

import importlib
import importlib.util

from keras_resnet import console
from keras_resnet.errors import MissingExtra

# Public name: the module that defines it.
_PUBLIC = {
    "Classifier": "keras_resnet.runner",
    "Detector": "keras_resnet.runner",
    "Segmenter": "keras_resnet.runner",
    "export": "keras_resnet.edge.exporter",
    "write_page": "keras_resnet.edge.page.writer",
}

# Those that need packages of extras: the packages, and the extras.
_NEEDED = {
    "export": (("tensorflow", "ai_edge_litert", "jinja2"), "train,edge"),
    "write_page": (("ai_edge_litert", "jinja2"), "edge"),
}

__all__ = list(_PUBLIC)
QUANTIZATIONS = ("qat", "int8", "int16x8", "dynamic", "float16", "none")


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _NEEDED:
        _require_extras(name, *_NEEDED[name])
    module = importlib.import_module(_PUBLIC[name])
    value = globals()[name] = getattr(module, name)
    return value


def __dir__():
    return sorted({*globals(), *_PUBLIC})


def _require_extras(name, packages, extras):
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(
                f"keras_resnet.edge.{name} needs the package {package}: "
                f'pip install "keras-resnet-zoo[{extras}]"'
            )
    if "tensorflow" in packages:
        console.require_tensorflow(f"keras_resnet.edge.{name}")
