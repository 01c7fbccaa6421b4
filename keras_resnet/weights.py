"""Loads weight files into the models of the zoo."""

import os


def load(model, path):
    """Loads a local weight file into a model of the same architecture.

    Args:
        model: a `keras.Model`, changed in place.
        path: a `.keras` or `.weights.h5` file, as Keras saves them. Only
            arrays are read from it: no code in the file is run.

    Raises:
        ValueError: the file is missing, damaged, of another type or of another
            architecture. The model must then be thrown away: some of its
            layers may hold the new weights.
    """
    path = os.fspath(path)
    if not path.endswith((".keras", ".weights.h5")):
        raise ValueError(
            "`weights` must be None or a local .keras or .weights.h5 file. "
            f"Received: {path!r}"
        )
    if not os.path.isfile(path):
        raise ValueError(f"`weights`: no such file. Received: {path!r}")
    try:
        model.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile raise many kinds
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`weights` is damaged or does not fit {model.name}: {reason} "
            f"Received: {path!r}"
        ) from error
