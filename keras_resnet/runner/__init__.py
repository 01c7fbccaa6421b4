"""Run TensorFlow Lite models on images, on the desktop or on a device.

The modules need Python 3.7, numpy, Pillow and a TFLite runtime, and nothing of the
rest of the package. `edge/build_run_tflite.py` joins them into `edge/run_tflite.py`,
the one file that is copied to a device.
"""

from keras_resnet.runner.classifier import Classifier, Prediction
from keras_resnet.runner.detector import Box, Detection, Detector
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.preprocessing import Preprocessing
from keras_resnet.runner.segmenter import Segmenter

__all__ = [
    "Box",
    "Classifier",
    "Detection",
    "Detector",
    "Prediction",
    "Preprocessing",
    "Segmenter",
    "UserError",
]
