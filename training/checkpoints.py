"""The state of a training run in one file, written whole or not at all."""

import json
import pathlib
import re
import sys
import zipfile

import numpy as np

import files

KEEP = 2


def save(directory, epoch, variables, history):
    """Writes a checkpoint and removes all but the last `KEEP`.

    Args:
        directory: folder of the checkpoints; created.
        epoch: number of finished epochs.
        variables: all variables of the model and the optimizer, in a fixed
            order.
        history: what JSON can hold, to return with them.
    """
    arrays = {f"{i:05}": v.numpy() for i, v in enumerate(variables)}
    arrays["history"] = np.array(json.dumps(history))
    with files.replacing(_path(directory, epoch)) as temporary:
        np.savez(temporary, **arrays)
    for _, path in _finished(directory)[:-KEEP]:
        path.unlink()


def restore(directory, variables):
    """Assigns the newest readable checkpoint to variables.

    Args:
        directory: folder of the checkpoints; may be missing.
        variables: as given to `save`.

    Returns:
        (number of finished epochs, history), (0, None) without a checkpoint.
    """
    for epoch, path in reversed(_finished(directory)):
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = [archive[f"{i:05}"] for i in range(len(variables))]
                history = json.loads(archive["history"].item())
            for variable, array in zip(variables, arrays, strict=True):
                if array.shape != variable.shape:
                    raise ValueError(f"shape {array.shape}, not {variable.shape}")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            print(f"warning: checkpoint {path} is unusable: {error}", file=sys.stderr)
            continue
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return epoch, history
    return 0, None


def any_in(directory):
    """Returns whether a folder holds a checkpoint."""
    return bool(_finished(directory))


def _path(directory, epoch):
    return pathlib.Path(directory) / f"epoch-{epoch:05}.npz"


def _finished(directory):
    """Returns [(epoch, path)], oldest first."""
    found = []
    for path in pathlib.Path(directory).glob("epoch-*.npz"):
        match = re.fullmatch(r"epoch-(\d+)\.npz", path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)
