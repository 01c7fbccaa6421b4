"""What a model knows of its input and its output, and how a `.keras` file keeps it.

`attach` gives a model its preprocessing, its labels and its licence. Keras's own
`model.save` then writes them into the file, and `load` gives them back. Whoever opens
the file with `keras.models.load_model`, without this package, gets the plain model.

They travel as an asset of the file (`assets/keras_resnet.json`), through the hook that
Keras documents for such things, `save_assets`. Its counterpart `load_assets` would need
a class of our own, and then nobody could open the file without this package.
"""

import dataclasses
import functools
import json
import os
import pathlib
import zipfile
from collections.abc import Sequence

import keras

from keras_resnet import keras_graph
from keras_resnet.errors import first_line
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.preprocessing import REDUCED_DECODING
from keras_resnet.weights import download, registry

FILE = "keras_resnet.json"
# Version 2 added the fields `resize` and `antialias` of the preprocessing, version 3
# `reduced_decoding`. A file is of the lowest version that can say what it must, so that
# older versions of this package read it.
VERSIONS = (1, 2, 3)
MAX_BYTES = 1 << 22  # a hundred thousand labels need half of it


def attach(
    model: keras.Model,
    preprocessing: Preprocessing,
    labels: Sequence[str] | None = None,
    licence: str | None = None,
) -> keras.Model:
    """Tells a model how its input is made and what its scores mean.

    Args:
        model: a `keras.Model` from images (batch, height, width, 3). It gets the
            attributes `preprocessing`, `labels` and `licence`, and `model.save` writes
            them into a `.keras` file.
        preprocessing: the `keras_resnet.Preprocessing` that it was trained with.
        labels: names of the classes in the order of the scores, each one line of
            text; `None` where the model has no classifier or nobody knows them.
        licence: of the weights, such as "apache-2.0"; `None` where nobody knows it.

    Returns:
        The model.

    Raises:
        UserError: an argument has a wrong type, or does not fit the model. The model
            is as it was.
    """
    if not isinstance(preprocessing, Preprocessing):
        raise UserError(
            "`preprocessing` must be a keras_resnet.Preprocessing. "
            f"Received: {preprocessing!r:.80}"
        )
    if licence is not None and not isinstance(licence, str):
        raise UserError(f"`licence` must be a text or None. Received: {licence!r:.80}")
    labels = checked_labels(labels)
    check_fit(model, preprocessing, labels)
    # Not by assignment: Keras would wrap the list, to look for layers in it.
    vars(model).update(
        preprocessing=preprocessing,
        labels=labels,
        licence=licence,
        save_assets=functools.partial(_save_assets, model),
    )
    return model


def load(path: str | os.PathLike) -> keras.Model:
    """Opens a trained model together with its preprocessing and its labels.

    Args:
        path: the folder of a run, a `Run`, a `.keras` file that this package or the
            `model.save` of such a model wrote, or "hf://user/name" or
            "hf://user/name@revision", a run that `keras_resnet.push` put on the hub.

    Returns:
        A `keras.Model` with the attributes `preprocessing` (a
        `keras_resnet.Preprocessing`), `labels` (a list of str, or `None`) and `licence`
        (a str, or `None`). `model.save` keeps them.

    Raises:
        UserError: there is no such file, it cannot be downloaded, it is damaged, or it
            does not say how its input is made.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"`path` must be a path. Received: {path!r:.80}")
    if isinstance(path, str) and path.startswith(registry.HUB):
        path = download.hub_run(path)
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        file = path / "model.keras"
        if not file.is_file():
            raise UserError(
                "the folder has no model.keras: it is no folder of a run, or the "
                f"training has not ended. Received: {str(path)!r}"
            )
        metadata = read(file) or _of_run(path)
    else:
        file, metadata = path, read(path)
    if metadata is None:
        raise UserError(
            "the file does not say how its input is made: keras_resnet did not write "
            "it. Open it with keras.models.load_model and describe it with "
            "keras_resnet.model_metadata.attach, or make a run of it with "
            f"`keras-resnet adopt`. Received: {str(file)!r}"
        )
    keras_graph.allow_deep_models()
    try:
        model = keras.models.load_model(file)
    except Exception as error:  # zipfile, h5py and Keras raise many kinds
        raise UserError(
            f"Keras {keras.__version__} cannot open the file: {_first_line(error)}. "
            f"Received: {str(file)!r}"
        ) from error
    try:
        return attach(model, **metadata)
    except UserError as error:
        raise _damaged(path, _first_line(error)) from error


def read(path):
    """Reads what the `.keras` file at a `pathlib.Path` says of its model.

    Returns:
        Dictionary of the arguments of `attach`; `None` if the file says nothing.

    Raises:
        UserError: the file is missing, damaged or no `.keras` file.
    """
    if path.suffix != ".keras":
        raise UserError(
            "expected the folder of a run or a file that ends in .keras. "
            f"Received: {str(path)!r}"
        )
    if not path.is_file():
        raise UserError(f"no such file. Received: {str(path)!r}")
    name = f"assets/{FILE}"
    try:
        with zipfile.ZipFile(path) as archive:
            if name not in archive.namelist():
                return None
            if archive.getinfo(name).file_size > MAX_BYTES:
                raise ValueError(f"{name} is longer than {MAX_BYTES} bytes")
            content = archive.read(name)
        version = json.loads(content)["version"]
        if version in VERSIONS:
            return _arguments(json.loads(content), "preprocessing", "labels", "licence")
    except Exception as error:  # zipfile, zlib and json raise many kinds
        raise _damaged(path, _first_line(error)) from error
    raise UserError(
        f"the file was written by a newer keras_resnet: install that one. Version "
        f"{version!r:.20} instead of at most {VERSIONS[-1]}. Received: {str(path)!r}"
    )


def _of_run(directory):
    """Reads the same from the config.json of a run of version 0.1."""
    path = directory / "config.json"
    try:
        return _arguments(json.loads(path.read_bytes()), "preprocessing", "labels")
    except FileNotFoundError:
        return None
    except Exception as error:  # json raises many kinds
        raise _damaged(path, _first_line(error)) from error


def _arguments(found, *names):
    """Picks the arguments of `attach` out of what a file holds."""
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    arguments = {name: found[name] for name in names}
    return arguments | {"preprocessing": Preprocessing(**found["preprocessing"])}


def _damaged(path, reason):
    return UserError(f"the file is damaged: {reason}. Received: {str(path)!r}")


def _save_assets(model, folder):
    """Writes the metadata of a model; Keras calls it for each file that it saves."""
    preprocessing = dataclasses.asdict(model.preprocessing)
    version = 2
    if model.preprocessing.in_version_1:
        del preprocessing["resize"], preprocessing["antialias"]
        version = 1
    if model.preprocessing.reduced_decoding == REDUCED_DECODING:
        del preprocessing["reduced_decoding"]
    else:
        version = 3
    metadata = {
        "version": version,
        "preprocessing": preprocessing,
        "labels": checked_labels(model.labels),
        "licence": model.licence,
    }
    check_fit(model, model.preprocessing, model.labels)
    text = json.dumps(metadata, indent=1, ensure_ascii=False)
    pathlib.Path(folder, FILE).write_text(text, encoding="utf-8")


def checked_labels(labels):
    """Returns labels as a list, or None; raises `UserError` if one is no line."""
    if labels is None:
        return None
    if not isinstance(labels, list | tuple) or not all(
        isinstance(label, str) and label.strip() and len(label.splitlines()) == 1
        for label in labels
    ):
        raise UserError(
            "`labels` must be a list of texts, each one line of text. "
            f"Received: {labels!r:.80}"
        )
    return list(labels)


def read_labels(labels):
    """Returns labels as a list: a sequence of them, or the lines of a text file.

    Lines that all begin with their own index, "0 apple", are those of Teachable
    Machine: the names alone are the labels.
    """
    if not isinstance(labels, str | os.PathLike):
        return checked_labels(list(labels))
    try:
        text = pathlib.Path(labels).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--labels cannot be read: {error}") from error
    lines = text.rstrip().splitlines()
    numbered = [line.split(maxsplit=1) for line in lines]
    if all(
        len(words) == 2 and words[0] == str(index)
        for index, words in enumerate(numbered)
    ):
        lines = [name for _, name in numbered]
    return checked_labels(lines)


def check_fit(model, preprocessing, labels):
    """Raises `UserError` if a model has another image size or number of classes."""
    size = image_size(model)
    if size is None or any(
        side not in (None, expected)
        for side, expected in zip(size, preprocessing.input_size, strict=True)
    ):
        shapes = ", ".join(str(tensor.shape) for tensor in model.inputs)
        raise UserError(
            "the model must take images (height, width, 3) of the size that its "
            f"preprocessing makes, {preprocessing.input_size}. Received: {shapes}"
        )
    scores = {tensor.shape[-1] for tensor in model.outputs}
    if labels is not None and len(labels) not in scores:
        raise UserError(
            f"the model has {', '.join(map(str, scores))} scores for each image. "
            f"Received: {len(labels)} labels"
        )


def image_size(model):
    """Returns (height, width) of the images that a model takes.

    A side that the model leaves open is `None`; `None` alone stands for a model that
    does not take one RGB image.
    """
    shape = tuple(model.inputs[0].shape)
    if len(model.inputs) != 1 or len(shape) != 4 or 3 not in shape[1::2]:
        return None
    return shape[1:3] if shape[3] == 3 else shape[2:]


def _first_line(error):
    return first_line(error).rstrip(".")
