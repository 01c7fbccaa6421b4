"""The .keras file of a run: written with labels and preprocessing inside, and read."""

import pathlib

import keras

from keras_resnet import files, model_metadata
from keras_resnet.runner.errors import UserError

HALF = ("float16", "bfloat16")


def save(model, path, preprocessing, labels, licence=None):
    """Writes a model with what `model_metadata.attach` gives it inside."""
    model_metadata.attach(model, preprocessing, list(labels), licence)
    with files.replacing(path) as temporary:
        model.save(temporary)


def load(path):
    """Loads a .keras file without running code from it.

    Returns:
        `keras.Model` that computes in float32, whatever it was trained in: TensorFlow
        Lite has no half precision, nor has quantization-aware training. If the file
        says it, the model has `preprocessing`, `labels` and `licence`.

    Raises:
        UserError: it is missing, damaged or no .keras file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no such model file (train it first?): {str(path)!r}")
    try:
        metadata = model_metadata.read(path)
        model = in_float32(keras.saving.load_model(path, compile=False))
        return model_metadata.attach(model, **metadata) if metadata else model
    except Exception as error:  # zipfile, h5py and Keras raise many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no readable .keras file: {reason[0]}") from error


def in_float32(model):
    """Returns the model, or a copy of it if any of its layers computes in half."""

    def changed(config):
        if isinstance(config, list | tuple):
            return type(config)(changed(each) for each in config)
        if not isinstance(config, dict):
            return config
        if config.get("class_name") == "DTypePolicy":
            return config | {"config": {"name": "float32"}}
        config = {key: changed(value) for key, value in config.items()}
        return config | ({"dtype": "float32"} if config.get("dtype") in HALF else {})

    config = model.get_config()
    in_float32 = changed(config)
    if in_float32 == config:
        return model
    copy = type(model).from_config(in_float32)
    copy.set_weights(model.get_weights())
    return copy


def check_classifier(model):
    """Raises `UserError` where a model is no classifier of one image."""
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    shape = shapes[0]
    if len(shapes) != 1 or len(shape) != 4 or None in shape[1:] or shape[3] != 3:
        raise UserError(
            "the model must take one image (height, width, 3). Received: inputs of "
            f"shape {', '.join(map(str, shapes))}"
        )
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise UserError(
            "the model must return one score for each class. Received: outputs of "
            f"shape {', '.join(str(output.shape) for output in model.outputs)}"
        )
    last = model.layers[-1]
    if not (
        type(last).__name__ == "Softmax"
        or getattr(getattr(last, "activation", None), "__name__", None) == "softmax"
    ):
        raise UserError(
            "the model must end with a softmax: scores are written as shares of 1. "
            f"Received: layer {last.name!r} at its end"
        )
