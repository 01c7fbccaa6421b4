"""ResNet v1 for Keras 3, from the paper to the chip on your desk."""

from keras_resnet.models import (
    ResNet,
    ResNet8,
    ResNet14,
    ResNet18,
    ResNet20,
    ResNet32,
    ResNet34,
    ResNet44,
    ResNet50,
    ResNet56,
    ResNet101,
    ResNet110,
    ResNet152,
    feature_maps,
    list_models,
    plain20,
    plain32,
    plain44,
)
from keras_resnet.registry import list_weights
from keras_resnet.weights import decode_predictions, preprocess_input

__version__ = "0.1.0"

__all__ = [
    "ResNet",
    "ResNet8",
    "ResNet14",
    "ResNet18",
    "ResNet20",
    "ResNet32",
    "ResNet34",
    "ResNet44",
    "ResNet50",
    "ResNet56",
    "ResNet101",
    "ResNet110",
    "ResNet152",
    "decode_predictions",
    "feature_maps",
    "list_models",
    "list_weights",
    "plain20",
    "plain32",
    "plain44",
    "preprocess_input",
]
