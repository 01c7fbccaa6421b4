"""The rows of a report: classes, confusions, examples and sizes of pictures."""

import collections
import dataclasses
import statistics

import numpy as np

from keras_resnet.training.reporting import answers as of_answers

EXAMPLES = 20  # of mistakes, and of right answers
PAIRS = 20  # of classes that are confused
CLASSES = 20  # up to so many, a matrix shows all confusions
ROWS = 200  # of classes, and of pictures that are there twice
# Sides that differ by less than this factor make a square.
SQUARE = 1.1
FORMATS = ("portrait", "square", "landscape")


@dataclasses.dataclass(frozen=True)
class Example:
    """A held-out picture that is shown.

    Attributes:
        index: its place in the split.
        labels: what it is, as text.
        answer: what the model says, as text.
        score: probability that the model gives to its answer.
    """

    index: int
    labels: str
    answer: str
    score: float


def classes(answers):
    """Returns a row for each class that has examples, the worst first.

    Rows are dictionaries of "label", "examples", "share" (the recall, or the average
    precision) and, where an example has one label, "right", "error" (the standard
    error) and "low" and "high" (the 95% interval).
    """
    rows = []
    for label, found in answers.metrics()["by_class"].items():
        count = found["examples"]
        if not count:
            continue
        row = {"label": label, "examples": count}
        if not answers.multi_label:
            right = found["right"]
            row |= {"share": right / count, "right": right}
            row["error"] = of_answers.standard_error(right, count)
            row["low"], row["high"] = of_answers.interval(right, count)
        else:
            row |= {"share": found["average_precision"], "error": None}
        rows.append(row)
    return sorted(rows, key=lambda row: row["share"])


def confusion_matrix(answers):
    """Returns how often each class (rows) got each answer (columns), int."""
    classes = len(answers.labels)
    places = answers.targets.argmax(1) * classes + answers.scores.argmax(1)
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def confused_pairs(answers):
    """Returns (label, answer, count, share of the label's examples), most first."""
    counts = collections.Counter(
        zip(
            answers.targets.argmax(1).tolist(),
            answers.scores.argmax(1).tolist(),
            strict=True,
        )
    )
    examples = answers.examples()
    pairs = [
        (answers.labels[a], answers.labels[b], count, count / examples[a])
        for (a, b), count in counts.most_common()
        if a != b
    ]
    return pairs[:PAIRS]


def examples(answers):
    """Returns the most confident mistakes and the least confident right answers.

    Two lists of `Example`. Where a picture may have several labels, each label is an
    answer of its own: a mistake is a label too many or one too few, and a picture
    appears once in each list.
    """
    given = answers.given()
    if answers.multi_label:
        sure = np.where(given, answers.scores, 1 - answers.scores)
        wrong = given != answers.targets
        mistakes = np.where(wrong, sure, -1)
        hits = np.where(wrong, 2, sure)
    else:
        # Only the label that was given is an answer.
        right = (given & answers.targets).any(1)
        mistakes = np.where(given & ~right[:, None], answers.scores, -1)
        hits = np.where(given & right[:, None], answers.scores, 2)
    best, worst = mistakes.max(1), hits.min(1)
    places = np.argsort(-best, kind="stable")[:EXAMPLES]
    wrong = [i for i in places.tolist() if best[i] >= 0]
    places = np.argsort(worst, kind="stable")[:EXAMPLES]
    unsure = [i for i in places.tolist() if worst[i] <= 1]
    return (
        [_example(answers, i, mistakes[i].argmax(), given) for i in wrong],
        [_example(answers, i, hits[i].argmin(), given) for i in unsure],
    )


def _example(answers, index, label, given):
    has = [answers.labels[i] for i in np.flatnonzero(answers.targets[index])]
    answer = answers.labels[label]
    score = float(answers.scores[index, label])
    if not given[index, label]:
        answer, score = f"not {answer}", 1 - score
    return Example(index, ", ".join(has) or "no label", answer, score)


def pictures(survey):
    """Returns a row for each class, and one for all: their pictures in each split.

    Rows are dictionaries of "label" (None for all) and "train" and "held_out": None or
    a dictionary of "count", "median", "smallest" and "largest", sizes (width, height)
    or None, and "formats", the shares of `FORMATS`.
    """
    by_class = collections.defaultdict(lambda: collections.defaultdict(list))
    for picture in survey.pictures:
        for label in (None, *picture.labels):
            by_class[label][picture.split].append(picture.size)
    order = sorted(by_class, key=lambda label: (label is not None, label))
    return [
        {
            "label": label,
            **{
                split: _sizes(by_class[label][split]) for split in ("train", "held_out")
            },
        }
        for label in order
    ]


def _sizes(sizes):
    """Returns what `pictures` says of pictures of these sizes; None is damaged."""
    if not sizes:
        return None
    known = [size for size in sizes if size]
    found = {"count": len(sizes), "median": None, "formats": None}
    if known:
        by_area = sorted(known, key=lambda size: size[0] * size[1])
        formats = collections.Counter(map(_format, known))
        found |= {
            "median": tuple(
                round(statistics.median(x)) for x in zip(*known, strict=True)
            ),
            "smallest": by_area[0],
            "largest": by_area[-1],
            "formats": {name: formats[name] / len(known) for name in FORMATS},
        }
    return found


def _format(size):
    width, height = size
    if width > SQUARE * height:
        return "landscape"
    return "portrait" if height > SQUARE * width else "square"
