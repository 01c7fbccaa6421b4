"""--evaluate: the accuracy on folders of images that are named by class."""

import collections
import os
import re
import time

from keras_resnet.runner.errors import UserError, printable
from keras_resnet.runner.learning import NOTHING, UNKNOWN
from keras_resnet.runner.pipeline import run_all
from keras_resnet.runner.sources import class_folders, find_images

WORST_CLASSES = 5


def find_classes(folder, classifier):
    """Returns [(name of a subfolder, index of its class)], sorted by name."""
    names = class_folders(folder)
    indices = collections.defaultdict(list)
    for index, label in enumerate(classifier.labels or ()):
        indices[simplified(label)].append(index)
    if simplified(UNKNOWN) in indices:
        indices.setdefault(simplified(NOTHING), indices[simplified(UNKNOWN)])
    unknown = [name for name in names if simplified(name) not in indices]
    if not unknown:
        found = [indices[simplified(name)] for name in names]
    elif all(re.match("[0-9]{1,9}$", name) for name in names):
        found = [[int(name)] for name in names]
    elif len(names) == classifier.classes and len(unknown) == len(names):
        found = [[index] for index in range(len(names))]
    else:
        raise UserError(
            f"{folder}: {len(names)} folders for a model of {classifier.classes} "
            f"classes, and {unknown[0]!r} is none of its labels; name the folders by "
            "labels, or by class numbers from 0"
        )
    for name, classes in zip(names, found):
        if len(classes) > 1 or classes[0] >= classifier.classes:
            raise UserError(
                f"{os.path.join(folder, name)}: expected one of {classifier.classes} "
                f"classes, received {' and '.join(map(str, classes))}; name the "
                "folders by class numbers from 0"
            )
    return [(name, classes[0]) for name, classes in zip(names, found)]


def simplified(label):
    """Reduces a label to what the name of a folder can hold of it."""
    return re.sub(r"[\W_]+", " ", label.casefold()).strip()


def evaluate(classifier, folder, messages, state):
    """Measures the accuracy on a folder with one subfolder per class.

    A bad image is reported, counted and left out.

    Returns:
        dict of the JSON output, as the help describes it.
    """
    if classifier.threshold is not None:
        raise UserError(
            f"{classifier.path}: an image may have several labels, and --evaluate "
            "measures one class an image; use training/evaluate.py with a csv file"
        )
    classes = find_classes(folder, classifier)
    expected = {
        path: index
        for name, index in classes
        for path in find_images([os.path.join(folder, name)], messages)
    }
    folder_names = {index: name for name, index in classes}
    names = dict(enumerate(classifier.labels or ())) or folder_names
    ranks, mistakes, failures = [], [], []
    confusion = collections.defaultdict(collections.Counter)
    start = time.perf_counter()
    for path, result in run_all(expected, classifier, state):
        if isinstance(result, UserError):
            messages.error(result)
            failures.append({"file": path, "error": str(result)})
        else:
            index, best = expected[path], int(result.answer.argmax())
            ranks.append(rank_of(index, result.answer))
            confusion[index][best] += 1
            if best != index:
                score = float(result.answer[best])
                mistakes.append(
                    {"file": path, "expected": index, "index": best, "score": score}
                )
        messages.progress(len(ranks) + len(failures), len(expected), start)
    if not ranks:
        raise UserError(f"{folder}: none of the images can be read")
    known = known_share_of(confusion, classifier.labels or [])
    top5 = sum(rank < 5 for rank in ranks) / len(ranks)
    return {
        "model": classifier.path,
        "images": len(ranks),
        "failed": len(failures),
        "top1": ranks.count(0) / len(ranks),
        "top5": top5 if classifier.classes > 5 else None,
        "known": known,
        "classes": worst_first(confusion, names),
        "mistakes": mistakes,
        "failures": failures,
    }


def known_share_of(confusion, labels):
    """Returns the share of the images of classes that are not taken for `unknown`.

    Args:
        confusion: {class: Counter of the classes it was taken for}.
        labels: list of str.

    Returns:
        float, or None where no label is `unknown` or all images are of it.
    """
    if UNKNOWN not in labels:
        return None
    unknown = labels.index(UNKNOWN)
    own = [counts for index, counts in confusion.items() if index != unknown]
    images = sum(sum(counts.values()) for counts in own)
    return 1 - sum(counts[unknown] for counts in own) / images if images else None


def rank_of(index, scores):
    """Counts the classes that rank before this one; see `Classifier.top_k` for ties."""
    higher = (scores > scores[index]).sum()
    return int(higher + (scores[:index] == scores[index]).sum())


def worst_first(confusion, names):
    """Lists the accuracy of each class, and the class it is most often taken for.

    Args:
        confusion: {class: Counter of the classes it was taken for}.
        names: {class: str}.
    """

    def named(index, **more):
        return dict({"index": index, "label": names.get(index)}, **more)

    classes = []
    for index, counts in sorted(confusion.items()):
        images, wrong = sum(counts.values()), collections.Counter(counts)
        share = wrong.pop(index, 0) / images
        other = min(wrong, key=lambda i: (-wrong[i], i)) if wrong else None  # noqa: B023
        taken_for = named(other, images=wrong[other]) if wrong else None
        classes.append(named(index, images=images, top1=share, taken_for=taken_for))
    return sorted(classes, key=lambda found: found["top1"])


def print_evaluation(report):
    """Prints an evaluation for people: the shares, and the worst classes."""
    for name in ("images", "failed"):
        print(f"{name:8}{report[name]:9d}")
    for name in ("top1", "top5", "known"):
        if report[name] is not None:
            print(f"{name:8}{report[name]:9.2%}")

    def name_of(found):
        return printable(found["index"] if found["label"] is None else found["label"])

    for found in report["classes"][:WORST_CLASSES]:
        other = found["taken_for"]
        if other:
            print(
                f"{name_of(found)}: {found['top1']:.2%} of {found['images']}, "
                f"{other['images']} taken for {name_of(other)}"
            )
