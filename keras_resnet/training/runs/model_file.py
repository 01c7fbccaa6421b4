"""The .keras file of a run: written with labels and preprocessing inside, and read."""

import pathlib

import keras

from keras_resnet import files, keras_graph, model_metadata, rewrite
from keras_resnet.errors import first_line
from keras_resnet.runner.errors import UserError


def save(model, path, preprocessing, labels, licence=None):
    """Writes a model with what `model_metadata.attach` gives it inside."""
    model_metadata.attach(model, preprocessing, list(labels), licence)
    with files.replacing(path) as temporary:
        model.save(temporary)


def load(path, custom_objects=None, allow_lambda=False):
    """Loads a .keras file, or an .h5 file of Keras 3.

    Args:
        path: of the file.
        custom_objects: dict of the custom layers and functions that it may have.
        allow_lambda: whether to run the code of its `Lambda` layers. No other code in
            a file is run.

    Returns:
        `keras.Model` that computes in float32, whatever it was trained in: TensorFlow
        Lite has no half precision, nor has quantization-aware training. If the file
        says it, the model has `preprocessing`, `labels` and `licence`.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no such model file (train it first?): {str(path)!r}")
    keras_graph.allow_deep_models()
    try:
        metadata = model_metadata.read(path) if path.suffix == ".keras" else None
        model = keras.saving.load_model(
            path, custom_objects, compile=False, safe_mode=not allow_lambda
        )
        model = rewrite.in_float32(model)
        return model_metadata.attach(model, **metadata) if metadata else model
    except Exception as error:  # zipfile, h5py and Keras raise many kinds
        reason = first_line(error)
        raise UserError(f"{path} is no readable .keras file: {reason}") from error
