"""The state of a training run in one file, written whole or not at all."""

import contextlib
import json
import pathlib
import re
import sys
import zipfile

import numpy as np
import tensorflow as tf

from keras_resnet import files
from keras_resnet.training.distribute import strategies

KEEP = 2


class Checkpoints:
    """Saves and restores variables, and a little state beside them."""

    def __init__(self, directory, variables, strategy):
        """Writes nothing yet.

        Args:
            directory: folder of the checkpoints; created when one is written.
            variables: of the model, the optimizer and whatever else must come
                back, in a fixed order.
            strategy: the strategy in whose scope they were made.
        """
        self._directory = pathlib.Path(directory)
        self._variables = [_of_tensorflow(variable) for variable in variables]
        self._strategy = strategy

    def save(self, step, state):
        """Writes a checkpoint and removes all but the last `KEEP`.

        With several workers all must call it; the chief writes.

        Args:
            step: number of steps done.
            state: what JSON can hold, to return with the variables.

        Raises:
            FloatingPointError: a variable is not finite; nothing was written.
            OSError: the file cannot be written, as on a full disk; the
                checkpoints before are untouched.
        """
        arrays = {f"{i:05}": self._read(v) for i, v in enumerate(self._variables)}
        if not _finite(arrays.values()):
            raise FloatingPointError
        arrays["state"] = np.array(json.dumps(state))
        if not strategies.is_chief(self._strategy):
            return
        with files.replacing(self._directory / f"step-{step:08}.npz") as temporary:
            np.savez(temporary, **arrays)
        for _, path in finished(self._directory)[:-KEEP]:
            path.unlink()

    def restore(self):
        """Assigns the newest readable checkpoint to the variables.

        Returns:
            (number of steps done, state), (0, None) without a checkpoint.
        """
        for step, path in reversed(finished(self._directory)):
            try:
                arrays, state = self._load(path)
            except ValueError as error:
                print(
                    f"warning: checkpoint {path} is unusable: {error}", file=sys.stderr
                )
                continue
            for variable, array in zip(self._variables, arrays, strict=True):
                _assign(variable, array)
            return step, state
        return 0, None

    def newest(self):
        """Returns the path of the newest readable checkpoint, or None."""
        for _, path in reversed(finished(self._directory)):
            with contextlib.suppress(ValueError):
                self._load(path)
                return path
        return None

    def _load(self, path):
        """Returns (arrays, state) of a checkpoint.

        Raises:
            ValueError: it is damaged, or not of these variables.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = [archive[f"{i:05}"] for i in range(len(self._variables))]
                state = json.loads(archive["state"].item())
        except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(error) from error
        for variable, array in zip(self._variables, arrays, strict=True):
            if variable.shape not in (array.shape, array.shape[1:]):
                raise ValueError(f"shape {array.shape}, not {variable.shape}")
        if not _finite(arrays):
            raise ValueError("not all of its numbers are finite")
        return arrays, state

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
    found = []
    for path in pathlib.Path(directory).glob("step-*.npz"):
        match = re.fullmatch(r"step-(\d+)\.npz", path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)


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
