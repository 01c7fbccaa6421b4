"""Opens a user's model, whatever the format of its file is."""

import pathlib
import zipfile

import h5py

from keras_resnet.runner.errors import UserError
from keras_resnet.training.formats import config, custom_code, keras2, saved_model
from keras_resnet.training.runs import model_file

SUFFIXES = (".keras", ".h5", ".hdf5")
# Suffix of what cannot be opened: what it is, and the way on.
_OTHERS = {
    ".pb": "a part of a SavedModel. Give its folder",
    ".pt": "a PyTorch file. Convert it to Keras first",
    ".pth": "a PyTorch file. Convert it to Keras first",
    ".onnx": "an ONNX file. Convert it to Keras or to a SavedModel first",
    ".tflite": "exported already. Give the Keras model that it was made from",
    ".json": "an architecture without weights. Load both in your own code, then "
    'model.save("my.keras")',
}
_OTHERS[".ckpt"] = _OTHERS[".index"] = (
    "weights without an architecture. Build the model in your own code, call "
    'model.load_weights, then model.save("my.keras")'
)


def is_model(path):
    """Returns whether a `pathlib.Path` is named like a model, and not like a run."""
    return path.suffix in (*SUFFIXES, *_OTHERS) or saved_model.is_folder(path)


def open_model(path, custom_objects=None, allow_lambda=False):
    """Opens a Keras model as its user saved it, without running code from it.

    Args:
        path: a `.keras` file, or an `.h5` or `.hdf5` file with an architecture; of
            Keras 3 or of Keras 2. That of Keras 2 is read through tf_keras and rebuilt
            in Keras 3.
        custom_objects: path of a Python file of the user's own, which is run; the
            layers and functions in it are known by their names.
        allow_lambda: whether to run the Python code of `Lambda` layers, which is inside
            of the model file.

    Returns:
        `keras.Model` in float32. If the file says it, the model has `preprocessing`,
        `labels` and `licence`.

    Raises:
        UserError: the file is missing, damaged or of another format, it needs custom
            code that was not given, or a layer cannot be carried to Keras 3.
    """
    path = pathlib.Path(path).expanduser()
    _check_path(path)
    objects = custom_code.load(custom_objects) if custom_objects else {}
    if zipfile.is_zipfile(path):
        architecture, version = config.of_zip(path)
    else:
        architecture, version = config.of_hdf5(path)
    if not allow_lambda:
        config.refuse_lambda(architecture, path)
    if not version.startswith("3."):
        return keras2.load(path, architecture)
    config.check_custom(architecture, objects, path)
    with custom_code.failures_named(custom_objects):
        return model_file.load(path, objects, allow_lambda)


def _check_path(path):
    if saved_model.is_folder(path):
        raise saved_model.has_no_layers(path)
    if path.is_dir():
        raise UserError(
            f"{path} is a folder without saved_model.pb (a SavedModel) or config.json "
            "(a run). Give the .keras file of the model"
        )
    if not path.exists():
        raise UserError(f"no such model file (train it first?): {str(path)!r}")
    if path.suffix in _OTHERS:
        raise UserError(f"{path} is {_OTHERS[path.suffix]}")
    if not zipfile.is_zipfile(path) and not h5py.is_hdf5(path):
        raise UserError(
            f"{path} is no readable model: a .keras file is a zip archive, and an .h5 "
            "file is in the format HDF5. It is damaged or of another kind: save the "
            'model again with model.save("my.keras")'
        )
