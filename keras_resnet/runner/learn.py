"""--learn: a classifier of the folders of photographs, for a features file."""

import os
import time

from keras_resnet.runner.classes_file import (
    Learned,
    check_labels,
    read_classes,
    write_classes,
)
from keras_resnet.runner.errors import (
    UserError,
    printable,
    result_or_error,
    user_errors,
)
from keras_resnet.runner.head import choose_head
from keras_resnet.runner.learning import NOTHING, UNKNOWN
from keras_resnet.runner.pipeline import load_pixels, map_ahead
from keras_resnet.runner.sources import class_folders, find_images_below

LEAST_PICTURES = 2  # of each class: one to learn from, one to try


def learn_classes(classifier, folder, path, known_share, messages, state):
    """Learns the folders of photographs as classes, and writes their file.

    A bad picture is reported, counted and left out. Nothing is written if anything else
    is wrong, and a file that is there is replaced at the end.

    Args:
        classifier: `Classifier` of a features file.
        folder: of one folder for each class, and perhaps `_none`.
        path: of the file to write, or one of the same model to replace.
        known_share: of new pictures of the classes that must be known, in (0, 1]; 1
            learns no `unknown`.
        messages: `Messages`.
        state: `SharedState`.

    Returns:
        dict of the JSON output, as the help describes it.

    Raises:
        UserError: the classifier gives no features, the folders cannot be learned, or
            the file belongs to another model or cannot be written.
    """
    import numpy as np

    start = time.perf_counter()
    folder, path = os.fspath(folder), os.fspath(path)
    known_share = _checked_share(known_share)
    if not classifier.channels:
        raise UserError(
            f"{classifier.path}: gives scores of classes, and learning needs features; "
            "take a file of edge/export.py --features"
        )
    labels, nothing = find_lessons(folder, known_share)
    if os.path.lexists(path):
        before = read_classes(path, classifier.path, classifier.channels).labels
        lost = [label for label in before if label not in labels]
        if lost:
            raise UserError(
                f"{path} knows {lost[0]!r}, and {folder} has no folder of that name; "
                "add it, or learn into another file"
            )
    expected = {
        picture: number
        for number, name in enumerate(labels + [NOTHING] * nothing)
        for picture in find_images_below(os.path.join(folder, name), messages)
    }
    features, numbers, failures = [], [], []
    for picture, found in features_of(expected, classifier, state):
        if isinstance(found, UserError):
            messages.error(found)
            failures.append({"file": picture, "error": str(found)})
        else:
            features.append(found)
            numbers.append(expected[picture])
        done = len(numbers) + len(failures)
        messages.progress(done, len(expected), start)
    counts = np.bincount(numbers, minlength=len(labels) + nothing).tolist()
    for name, count in zip(labels + [NOTHING], counts):
        if count < LEAST_PICTURES:
            raise UserError(
                f"{os.path.join(folder, name)}: expected {LEAST_PICTURES} pictures or "
                f"more that can be read, found {count}; add some, or remove the folder"
            )
    state.begin(f"{path}: learning it")
    numbers = np.array(numbers)
    choice = choose_head(np.array(features), numbers, len(labels), known_share)
    write_classes(path, Learned(labels, choice.head), classifier.path)
    own = numbers < len(labels)
    known = float(np.mean(choice.answers[own] < len(labels)))
    return {
        "model": classifier.path,
        "classes": path,
        "strength": choice.strength,
        "accuracy": float(np.mean(choice.answers == numbers)),
        "known": known if known_share < 1 else None,
        "pictures": dict(zip(labels, counts)),
        "nothing": counts[-1] if nothing else 0,
        "failures": failures,
        "seconds": round(time.perf_counter() - start, 3),
    }


def _checked_share(share):
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise UserError(f"known_share: expected a number, received {share!r:.80}")
    if not 0 < share <= 1:  # nor is NaN
        raise UserError(
            f"known_share: expected a number above 0 and at most 1, received {share}"
        )
    return share


def find_lessons(folder, known_share):
    """Returns (names of the folders of classes, whether there is one of nothing)."""
    names = class_folders(folder)
    nothing = NOTHING in names
    labels = [name for name in names if name != NOTHING]
    if len(labels) < 2:
        found = " and ".join(map(repr, names))
        raise UserError(
            f"{folder}: expected folders of two classes or more, found {found}; a "
            "classifier needs something to tell apart"
        )
    if nothing and known_share == 1:
        raise UserError(
            f"{folder}: {NOTHING!r} holds pictures of {UNKNOWN!r}, which known_share "
            "of 1 leaves out; give a lower one, or remove the folder"
        )
    with user_errors(f"{folder}: the folders name the classes", ValueError):
        check_labels(labels)
    return labels, nothing


def features_of(paths, classifier, state):
    """Yields (path, features or UserError) of images in their order."""

    def load(path):
        return result_or_error(load_pixels, path, classifier)

    for path, loaded in map_ahead(load, list(paths), state):
        state.begin(f"{path}: running {classifier.path} on it")
        if not isinstance(loaded, UserError):
            loaded = result_or_error(classifier.outputs, loaded[0])
        yield path, loaded


def print_learned(report):
    """Prints what was learned for people."""
    pictures = sum(report["pictures"].values()) + report["nothing"]
    unknown = "" if report["known"] is None else f" and {UNKNOWN}"
    print(
        f"{printable(report['classes'])}: {len(report['pictures'])} classes{unknown}, "
        f"learned from {pictures} pictures in {report['seconds']:.1f} s"
    )
    strength = report["strength"]
    method = f"regression near them, C={strength:g}" if strength else "nothing else"
    print(f"method    class means, then {method}: the best in a cross-validation")
    print(f"accuracy  {report['accuracy']:7.2%} of pictures that it had not seen")
    if report["known"] is not None:
        print(f"known     {report['known']:7.2%} of those of classes are not {UNKNOWN}")
    for label, count in report["pictures"].items():
        print(f"{count:7d}  {printable(label)}")
    if report["nothing"]:
        print(f"{report['nothing']:7d}  {UNKNOWN} (from {NOTHING})")
