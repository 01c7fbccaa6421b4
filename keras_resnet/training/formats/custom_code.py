"""The user's own layers and functions, from a Python file of theirs."""

import contextlib
import importlib.util
import inspect
import pathlib
import sys
import traceback

import keras

from keras_resnet import files
from keras_resnet.runner.errors import UserError


def load(path):
    """Runs a Python file, and returns what it has for models.

    Args:
        path: of the file.

    Returns:
        Dict by name: the layers in it, the functions that it defines, and everything
        that it registers with `keras.saving.register_keras_serializable`.

    Raises:
        UserError: there is no such file, or its code fails.
    """
    path = pathlib.Path(path).expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UserError(
            f"--custom_objects must be a Python file (.py). Received: {str(path)!r}"
        )
    spec = importlib.util.spec_from_file_location(f"custom_objects_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as dataclasses and typing expect
    with failures_named(path, SystemExit):
        spec.loader.exec_module(module)
    registered = keras.saving.get_custom_objects()
    found = {
        name: value for name, value in vars(module).items() if _is_custom(value, module)
    }
    return {**registered, **found}


def _is_custom(value, module):
    if inspect.isclass(value) and issubclass(value, keras.layers.Layer):
        return value.__module__.split(".")[0] != "keras"
    return inspect.isfunction(value) and value.__module__ == module.__name__


@contextlib.contextmanager
def failures_named(path, *others):
    """Turns an error in the code of a file into a UserError with the line.

    What was raised elsewhere passes unchanged, as it does where `path` is None.
    """
    try:
        yield
    except (Exception, *others) as error:
        line = path and _line(error, str(pathlib.Path(path).expanduser().resolve()))
        if not line:
            raise
        cause = _cause(error)
        reason = " ".join(str(cause).split())
        raise UserError(
            f"the code of --custom_objects fails: {path}, line {line}: "
            f"{type(cause).__name__}: {reason}"
        ) from error


def _cause(error):
    """Returns the error that the user's code raised: Keras wraps it."""
    while error.__cause__ is not None and isinstance(error, UserError):
        error = error.__cause__
    return error


def _line(error, path):
    """Returns the number of the last line of a file that an error passed, or None."""
    error = _cause(error)
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    return lines[-1] if lines else None


def settings(path, allow_lambda):
    """Returns what a run records, so that `of_run` opens its model again."""
    recorded = {"allow_lambda": True} if allow_lambda else {}
    if path:
        path = pathlib.Path(path).expanduser().resolve()
        recorded["custom_objects"] = str(path)
        recorded["custom_objects_sha256"] = files.sha256(path)
    return recorded


def of_run(settings):
    """Returns the arguments of `model_file.load` for the model of a run.

    Args:
        settings: the dictionary of the run's settings.

    Raises:
        UserError: the recorded file is missing, or is not the one that it was.
    """
    path = settings.get("custom_objects")
    objects = {}
    if path:
        remedy = "Put the file back, or run training/adopt.py again"
        if not pathlib.Path(path).is_file():
            raise UserError(
                f"the run's --custom_objects file is missing: {path!r}. {remedy}"
            )
        if files.sha256(path) != settings["custom_objects_sha256"]:
            raise UserError(
                f"the run's --custom_objects file has changed since: {path!r}. {remedy}"
            )
        objects = load(path)
    return {
        "custom_objects": objects,
        "allow_lambda": settings.get("allow_lambda", False),
    }
