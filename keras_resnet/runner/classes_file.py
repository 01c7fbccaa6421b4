"""The file of learned classes: --learn writes it, --classes names it."""

import collections
import json
import os

from keras_resnet.runner.errors import UserError, open_file, read_at_most, user_errors
from keras_resnet.runner.head import Head
from keras_resnet.runner.learning import UNKNOWN

CLASSES_VERSION = 1
MAX_CLASSES_BYTES = 16 << 20
# Far beyond what a classifier of unit features needs; scores stay finite.
LARGEST_NUMBER = 1e6
DECIMALS = 7  # scores are shown with four

# What a file holds: the labels of the classes, without `unknown`, and their `Head`.
Learned = collections.namedtuple("Learned", "labels head")


def model_sha256(path):
    """Returns the SHA-256 of a model file, in hexadecimal."""
    import hashlib  # most starts need no 2 ms for it

    with open_file(path) as file:
        return hashlib.sha256(file.read()).hexdigest()


def check_labels(labels):
    """Raises ValueError for what cannot be the labels of learned classes."""
    if not isinstance(labels, list) or len(labels) < 2:
        raise ValueError("expected labels of 2 classes or more")
    if len(set(labels)) < len(labels):
        raise ValueError("expected labels that differ")
    for label in labels:
        if not isinstance(label, str) or not label or "\n" in label:
            raise ValueError(f"expected a label of one line, received {label!r:.80}")
        label.encode("utf-8")
    if UNKNOWN in labels:
        raise ValueError(f"expected no class of the name {UNKNOWN!r}")


def read_classes(path, model_path, channels):
    """Reads a file of learned classes.

    Args:
        path: of the file.
        model_path: of the features file that it must have been learned with.
        channels: int, how many features that gives.

    Returns:
        `Learned`.

    Raises:
        UserError: there is no such file, it belongs to another model, or it is damaged.
    """
    with open_file(path) as file, user_errors(path, OSError, ValueError):
        data = read_at_most(file, MAX_CLASSES_BYTES)
    try:
        found = json.loads(data.decode("utf-8"))
        version, sha256 = found["version"], found["model_sha256"]
        if type(version) is not int or version < 1:
            raise ValueError(f"version {version!r:.80}")
        learned = None
        if version == CLASSES_VERSION and sha256 == model_sha256(model_path):
            learned = _learned(found, channels)
    except UserError:
        raise
    # Whatever stands in the place of what is expected.
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise UserError(
            f"{path}: not a file of learned classes, or damaged: {reason:.120}; learn "
            "again into another file"
        ) from e
    if version > CLASSES_VERSION:
        raise UserError(
            f"{path}: version: this runner reads {CLASSES_VERSION}, received "
            f"{version!r:.80}; take the run_tflite.py that wrote it"
        )
    if learned is None:
        raise UserError(
            f"{path}: learned with another model than {model_path}, of SHA-256 "
            f"{sha256!r:.80}; give that one, or learn again into another file"
        )
    return learned


def _learned(found, channels):
    """Returns the `Learned` of a file's content, none of which is trusted."""
    import numpy as np

    labels = found["labels"]
    check_labels(labels)
    head = Head(*(np.array(found[name], float) for name in Head._fields))
    columns = head.bias.size
    if columns not in (len(labels), len(labels) + 1):  # one more is `unknown`
        raise ValueError(f"expected a bias for {len(labels)} classes, found {columns}")
    for name, shape in (("kernel", (channels, columns)), ("bias", (columns,))):
        array = getattr(head, name)
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
        if not (np.abs(array) <= LARGEST_NUMBER).all():  # nor is NaN
            raise ValueError(f"{name}: expected finite numbers to {LARGEST_NUMBER:g}")
    return Learned(labels, head)


def write_classes(path, learned, model_path):
    """Writes a file of learned classes whole or not at all.

    Args:
        path: of the file.
        learned: `Learned`.
        model_path: of the features file that it was learned with.

    Raises:
        UserError: it cannot be written, or is larger than a reader takes.
    """
    content = {
        "version": CLASSES_VERSION,
        "model_sha256": model_sha256(model_path),
        "labels": learned.labels,
    }
    for name, value in learned.head._asdict().items():
        content[name] = value.round(DECIMALS).tolist()
    data = json.dumps(content).encode("ascii")
    if len(data) > MAX_CLASSES_BYTES:
        raise UserError(
            f"{path}: {len(learned.labels)} classes need {len(data)} bytes, expected "
            f"at most {MAX_CLASSES_BYTES}; learn fewer classes"
        )
    part = f"{path}.part"
    with user_errors(path, OSError):
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            if os.path.exists(part):
                os.remove(part)
            raise
