"""The state of a training run in one file, written whole or not at all."""

import json
import pathlib
import re
import zipfile

import numpy as np
import tensorflow as tf

from keras_resnet import console, files
from keras_resnet.runner.errors import UserError
from keras_resnet.training.distribute import strategies

KEEP = 2
STATE = "state"  # what is no variable, as JSON
# What numpy and json raise about a damaged file.
_DAMAGE = (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile)


def named(**groups):
    """Returns {"group/path": variable}, the names under which variables are saved.

    Whoever makes the variables (of Keras 3, tf_keras or TensorFlow) names them: numbers
    that Keras or TensorFlow append to a name depend on what else the process has made.
    """
    variables = {}
    for group, members in groups.items():
        for variable in members:
            path = getattr(variable, "path", None) or variable.name.removesuffix(":0")
            name = f"{group}/{path}"
            if name in variables:
                raise ValueError(f"two variables are named {name!r}")
            variables[name] = _of_tensorflow(variable)
    return variables


class Checkpoints:
    """Saves and restores variables, and a little state beside them."""

    def __init__(self, directory, variables, strategy):
        """Takes {name: variable} of all that must come back, see `named`."""
        self._directory = pathlib.Path(directory)
        self._variables = variables
        self._strategy = strategy

    def save(self, step, state):
        """Writes a checkpoint and removes all but the last `KEEP`.

        With several workers all must call it; the chief writes. `state` is what JSON
        can hold. If the file cannot be written, the checkpoints before are untouched.

        Raises:
            FloatingPointError: a variable is not finite; nothing was written.
            OSError: the file cannot be written, as on a full disk.
        """
        arrays = {name: self._read(v) for name, v in self._variables.items()}
        if not _finite(arrays.values()):
            raise FloatingPointError
        arrays[STATE] = np.array(json.dumps(state))
        if not strategies.is_chief(self._strategy):
            return
        with files.replacing(self._directory / f"step-{step:08}.npz") as temporary:
            np.savez(temporary, **arrays)
        for _, path in finished(self._directory)[:-KEEP]:
            path.unlink()

    def restore(self):
        """Assigns the newest readable checkpoint to the variables.

        Returns (number of steps done, state), (0, None) without a checkpoint.

        Raises:
            UserError: the newest readable one holds other variables.
        """
        for step, path, arrays, state in self._readable():
            if reason := self._mismatch(arrays):
                raise UserError(
                    f"checkpoint {path} cannot be continued: {reason}. Use another "
                    f"--model_dir, or delete {self._directory.parent} and train again"
                )
            for name, variable in self._variables.items():
                _assign(variable, arrays[name])
            return step, state
        return 0, None

    def newest(self):
        """Returns the path of the newest readable checkpoint, or None."""
        return next((path for _, path, *_ in self._readable()), None)

    def _readable(self):
        """Yields (step, path, {name: array}, state) of checkpoints, newest first."""
        for step, path in reversed(finished(self._directory)):
            try:
                with np.load(path, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                state = json.loads(arrays.pop(STATE).item())
                if not _finite(arrays.values()):
                    raise ValueError("not all of its numbers are finite")
            except _DAMAGE as error:
                console.warn(f"checkpoint {path} is unusable: {error}")
                continue
            yield step, path, arrays, state

    def _mismatch(self, arrays):
        """Returns why the arrays of a checkpoint do not fit the variables, or None."""
        if all(re.fullmatch(r"\d{5}", name) for name in arrays):
            return (
                "version 0.1 of keras-resnet-zoo wrote it. That version can end the "
                "run, and this one reads ended runs"
            )
        for name in sorted(self._variables.keys() ^ arrays.keys()):
            return f"it {'has' if name in arrays else 'lacks'} the variable {name}"
        for name, variable in self._variables.items():
            if variable.shape not in (arrays[name].shape, arrays[name].shape[1:]):
                return f"its {name} has shape {arrays[name].shape}"
        return None

    def _read(self, variable):
        """Returns the value, or stacked ones where the replicas have each their own.

        Batch statistics are the replica's own between two epochs. Of several
        workers only the mean is known to all.
        """
        parts = getattr(variable, "values", (variable,))
        if len(parts) == 1 or strategies.is_multi_worker(self._strategy):
            return variable.numpy()
        arrays = [part.numpy() for part in parts]
        same = all(np.array_equal(arrays[0], a, equal_nan=True) for a in arrays[1:])
        return arrays[0] if same else np.stack(arrays)


def finished(directory):
    """Returns [(step, path)] of the checkpoints in a folder, oldest first."""
    paths = pathlib.Path(directory).glob("step-[0-9]*.npz")
    return sorted((int(path.stem.removeprefix("step-")), path) for path in paths)


def _finite(arrays):
    return all(np.isfinite(array).all() for array in arrays)


def _of_tensorflow(variable):
    is_keras = not isinstance(variable, tf.Variable) and hasattr(variable, "value")
    return variable.value if is_keras else variable


def _assign(variable, array):
    parts = getattr(variable, "values", (variable,))
    if array.shape == variable.shape:
        variable.assign(array)
    elif len(parts) == len(array):
        for part, value in zip(parts, array, strict=True):
            part.assign(value)
    else:  # written with another number of replicas
        variable.assign(array.mean(0).astype(array.dtype))
