"""The architecture in a model file, read as JSON before anything is made of it."""

import json
import zipfile

import h5py
import keras

from keras_resnet.runner.errors import UserError

_LAMBDA = ("Lambda", "__lambda__")
_MODELS = ("Functional", "Model", "Sequential")


def of_zip(path):
    """Returns (architecture, version of Keras) of a `.keras` file of Keras 2 or 3.

    Raises:
        UserError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
            architecture = json.loads(archive.read("config.json"))
        # Optimizers and losses are of no use any more; they may be custom code.
        architecture.pop("compile_config", None)
        return architecture, str(metadata["keras_version"])
    except Exception as error:  # zipfile, zlib and json raise many kinds
        raise UserError(f"{path} is no readable .keras file: {error}") from error


def of_hdf5(path):
    """Returns the same of an `.h5` file; "2" where it does not say its version.

    Raises:
        UserError: it is damaged, or it has weights only.
    """
    try:
        with h5py.File(path) as file:
            text = _text(file.attrs.get("model_config"))
            version = _text(file.attrs.get("keras_version")) or "2"
        architecture = text and json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable .h5 file: {error}") from error
    if not architecture:
        raise UserError(
            f"{path} has weights only, and the architecture is needed: build the model "
            f"in your own code, call model.load_weights({path.name!r}), then "
            'model.save("my.keras")'
        )
    return architecture, version


def _text(attribute):
    return attribute.decode() if isinstance(attribute, bytes) else attribute


def objects_in(value, layer=""):
    """Yields (name of the layer it belongs to, dictionary) of every object inside."""
    if isinstance(value, dict):
        if isinstance(value.get("class_name"), str):
            inner = value.get("config")
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                layer = inner["name"]
            yield layer, value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from objects_in(each, layer)


def refuse_lambda(architecture, path):
    """Raises `UserError` where a layer holds Python code."""
    for layer, found in objects_in(architecture):
        if found["class_name"] in _LAMBDA:
            raise UserError(
                f"the layer {layer!r} (Lambda) of {path} is Python code inside of the "
                "model file. If you trust the file, pass --allow_lambda to run it, or "
                "use layers of keras.layers instead"
            )


def check_custom(architecture, objects, path):
    """Raises `UserError` where a model of Keras 3 needs an object that is not known.

    Args:
        architecture: what `of_zip` or `of_hdf5` returned.
        objects: dict of custom objects by name.
        path: of the file.
    """
    known = {**objects, **keras.saving.get_custom_objects()}
    for layer, found in objects_in(architecture):
        kind, names = found["class_name"], {found["class_name"]}
        if kind in ("function", *_LAMBDA) or kind.startswith("__"):
            continue
        if "module" in found:
            names.add(found.get("registered_name"))
            is_custom = (found["module"] or "").split(".")[0] not in (
                "keras",
                "builtins",
            )
        else:  # in an .h5 file only layers have no module
            is_custom = kind not in _MODELS and not hasattr(keras.layers, kind)
        if is_custom and hasattr(keras.ops, _snake_case(kind)):
            raise UserError(
                f"Keras cannot read the operation {layer!r} ({kind}) back from an .h5 "
                f'file. Save the model as model.save("my.keras"). Received: {path}'
            )
        if is_custom and not names & known.keys():
            raise _unknown(f"{layer!r} ({kind})", kind, path)
        activation = (found.get("config") or {}).get("activation")
        name = activation and _name_of(activation)
        if name and name not in known and not hasattr(keras.activations, name):
            raise _unknown(f"{layer!r}, its activation {name!r},", name, path)


def _snake_case(name):
    return "".join(
        "_" * (i > 0) + c.lower() if c.isupper() else c for i, c in enumerate(name)
    )


def _name_of(function):
    """Returns the name of a function in a config, or None for an object."""
    if isinstance(function, dict):
        function = function["class_name"] == "function" and function["config"]
    return function or None


def _unknown(layer, name, path):
    return UserError(
        f"the layer {layer} of {path} is custom code that Keras does not have. Pass "
        f"--custom_objects=FILE.py, your Python file that defines {name.split('>')[-1]}"
    )
