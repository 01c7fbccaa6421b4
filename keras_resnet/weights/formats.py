"""Puts weight files of several formats onto the layers of the zoo.

| file | written by | layers are found by | reader |
|---|---|---|---|
| `.keras`, `.weights.h5` | Keras 3 | layer name beside the arrays | `keras_reader` |
| `.h5` | Keras 2, keras.applications | layer name, old ones too | `keras_reader` |
| `.safetensors` | timm, torchvision, PyTorch | torchvision's names | `torch_reader` |

Each reader makes one dictionary of tensors, and one strict function puts it into a
model. Nothing in a file is executed: pickles are refused.
"""

import contextlib
import os
import re
import shlex
import warnings

import numpy as np

from keras_resnet.runner.errors import UserError
from keras_resnet.weights import keras_reader, torch_reader
from keras_resnet.weights.tensors import CLASSIFIER

SUFFIXES = (".keras", ".weights.h5", ".h5", ".safetensors")
PICKLES = (".pth", ".pt", ".th", ".bin", ".pkl", ".ckpt", ".tar")


def load(model, path, skip_classifier=False, left_out=()):
    """Puts a local weight file into a model of the zoo, all of it or nothing.

    With `skip_classifier`, a classifier for another number of classes keeps its
    initialization instead of being refused. `left_out` names blocks of the file that
    the model need not have, such as "conv5_block2".

    Returns:
        The names of the tensors of the file that were not used: a classifier
        that the model does not have or that was skipped, blocks that were left out,
        and torch's counters.

    Raises:
        UserError: the file is missing, damaged, of another type or of another
            architecture, or holds NaN or infinity. The model is as it was.
    """
    path = os.fspath(path)
    check_path(path)
    with contextlib.ExitStack() as stack:
        try:
            if path.endswith(".safetensors"):
                tensors, unused = torch_reader.read(path, stack)
            else:
                tensors, unused = keras_reader.read(path, stack), []
        except Exception as error:  # h5py and zipfile raise many kinds
            raise UserError(
                f"`weights` is damaged or no weight file: {one_line(error)}. "
                f"Received: {path!r}"
            ) from error
        variables = {
            (layer.name, variable.name): variable
            for layer in model.layers
            for variable in layer.weights
        }
        unused += _set_classifier_apart(tensors, variables, skip_classifier, path)
        blocks = tuple(f"{block}_" for block in left_out)
        unused += [
            tensors.pop(key).name for key in list(tensors) if key[0].startswith(blocks)
        ]
        _check_fit(tensors, variables, model.name, path)
        # Everything is read twice, for the check and for the model: a second
        # copy of a large file in memory would cost more than that.
        for tensor in tensors.values():
            _check_values(tensor, path)
        for key, variable in variables.items():
            variable.assign(tensors[key].read())
    return unused


def check_path(path):
    """Raises UserError unless a path is a file of a readable format."""
    if path.endswith(PICKLES):
        target = f"{os.path.splitext(path)[0]}.safetensors"
        raise UserError(
            "`weights` is a pickle, which may run any code when it is read. Convert "
            'it where you trust it: python -c "import sys, torch; '
            "from safetensors.torch import save_file; "
            "d = torch.load(sys.argv[1], 'cpu', weights_only=True); "
            "d = d.get('state_dict', d); "
            'save_file({k: v.contiguous() for k, v in d.items()}, sys.argv[2])" '
            f"{shlex.quote(path)} {shlex.quote(target)} Received: {path!r}"
        )
    if not os.path.exists(path):
        raise UserError(f"`weights`: no such file or folder. Received: {path!r}")
    if not path.endswith(SUFFIXES) or not os.path.isfile(path):
        raise UserError(
            f"`weights` must be a file that ends in {', '.join(SUFFIXES)}. "
            f"Received: {path!r}"
        )


def one_line(error):
    """Returns the text of an exception in one line, without a full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")


def _set_classifier_apart(tensors, variables, skip, path):
    """Drops a classifier that the model does not take; returns its names."""
    kernel = variables.get((CLASSIFIER, "kernel"))
    found = [key for key in tensors if key[0] == CLASSIFIER]
    if kernel is not None:
        classes = kernel.shape[-1]
        in_file = tensors.get((CLASSIFIER, "kernel"))
        if in_file is not None and in_file.shape[-1] == classes:
            return []
        has = f"one for {in_file.shape[-1]}" if in_file else "none"
        if not skip:
            raise UserError(
                f"The model has a classifier for {classes} classes, `weights` has "
                f"{has}. Build the model with include_top=False, or with another "
                f"number of classes for a new classifier. Received: {path!r}"
            )
        warnings.warn(
            f"The classifier for {classes} classes keeps its initialization: "
            f"{path!r} has {has}.",
            stacklevel=2,
        )
        for key in [key for key in variables if key[0] == CLASSIFIER]:
            del variables[key]
    return [tensors.pop(key).name for key in found]


def _check_fit(tensors, variables, model_name, path):
    missing = ["/".join(key) for key in variables if key not in tensors]
    unknown = [tensors[key].name for key in tensors if key not in variables]
    reshaped = [
        f"{tensors[key].name} {tensors[key].shape} for {tuple(variable.shape)}"
        for key, variable in variables.items()
        if key in tensors and tensors[key].shape != tuple(variable.shape)
    ]
    problems = [
        f"{len(names)} {problem} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for problem, names in (
            ("tensors missing", missing),
            ("tensors unknown", unknown),
            ("of another shape", reshaped),
        )
        if names
    ]
    # Networks for CIFAR are published with the shortcuts of the paper's option A.
    hint = ""
    if missing and all(re.search(r"_0_(conv|bn)/", name) for name in missing):
        hint = "The file has shortcuts without weights: build it with shortcut='A'. "
    if problems:
        raise UserError(
            f"`weights` does not fit {model_name}: {'; '.join(problems)}. {hint}"
            f"Received: {path!r}"
        )


def _check_values(tensor, path):
    try:
        finite = np.isfinite(tensor.read()).all()
    except Exception as error:  # h5py and zipfile raise many kinds
        raise UserError(
            f"`weights` is damaged in {tensor.name}: {one_line(error)}. "
            f"Received: {path!r}"
        ) from error
    if not finite:
        raise UserError(
            f"`weights` holds NaN or infinity in {tensor.name}. Received: {path!r}"
        )
