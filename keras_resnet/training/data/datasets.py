"""What a dataset is: named classes, and two splits of encoded images."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_resnet.runner.errors import UserError
from keras_resnet.runner.learning import NOTHING, UNKNOWN

# Where a dataset has only one split, one image in this many is held out.
HELD_OUT_EVERY = 5
# How TensorFlow's error begins when a label is none of the classes.
UNKNOWN_LABEL = "a label beyond the classes"


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Attributes:
        examples: number of examples.
        read: returns a `tf.data.Dataset` of (encoded image: string, label) that yields
            every example once, always in the same order. A label is int64 (), or if
            the dataset is `multi_label` float32 (classes,).
        names: names of the examples in the same order; None if they have no names.
        part: function of (start, stop) that returns `stop - start` examples, like
            `read`, without reading the rest; None if the source cannot. Spans that do
            not overlap have no example in common, but `part` may number the examples
            in another order than `read`.
        select: function of a bool array (examples,) that returns the `Split` of the
            examples for which it is true, which does not read the others; None if the
            source cannot.
    """

    examples: int
    read: Callable[[], tf.data.Dataset]
    names: Sequence[str] | None = None
    part: Callable[[int, int], tf.data.Dataset] | None = None
    select: Callable[[np.ndarray], "Split"] | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An image-classification dataset.

    Attributes:
        name: the name given to `sources.load`.
        labels: names of the classes, in the order of their indices. If there are
            pictures of nothing, their class is the last one, `UNKNOWN`.
        train: the `Split` to train on.
        held_out: the `Split` to evaluate on.
        fingerprint: what the data is, as JSON can hold it. It differs where the data
            differs, and a copy at another place has the same.
        note: what the user should know of it beside its numbers, or "".
        multi_label: whether an example may have several labels, or none. If so, its
            label is 1.0 for each class that it has, and 0.0 for the others.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    held_out: Split
    fingerprint: dict
    note: str = ""
    multi_label: bool = False

    @property
    def classes(self):
        """How many classes there are beside `UNKNOWN`."""
        return len(self.labels) - self.has_unknown

    @property
    def has_unknown(self):
        """Whether `UNKNOWN` is a label, the last one."""
        return has_unknown(self.labels, self.multi_label)

    def summary(self):
        """Returns as one line how many images it has and what was left out."""
        train, held_out = self.train.examples, self.held_out.examples
        numbers = (
            f"{train + held_out} pictures of {self.classes} classes"
            f"{' and of none' if self.classes < len(self.labels) else ''}, {train} to "
            f"train on and {held_out} held out"
        )
        return f"{numbers}; {self.note}" if self.note else numbers

    def classes_of(self, label):
        """Returns the names of the classes of an example by its label, an array."""
        if self.multi_label:
            return tuple(self.labels[i] for i in np.flatnonzero(label > 0.5))
        return (self.labels[label],)


def spread_evenly(count, examples):
    """Returns a bool array (examples,) that is true `count` times, evenly spread."""
    chosen = np.zeros(examples, bool)
    chosen[np.arange(count) * examples // count] = True
    return chosen


def hold_out(split, count):
    """Splits off `count` examples, spread evenly because a source may be sorted.

    Returns:
        Two `Split`s: the examples that stay, and those that are held out.
    """
    chosen = spread_evenly(count, split.examples)
    return subset(split, ~chosen), subset(split, chosen)


def subset(split, chosen):
    """Returns the `Split` of the examples for which the array `chosen` is true."""
    if split.select is not None:
        return split.select(chosen)

    def read():
        numbered = split.read().enumerate()
        numbered = numbered.filter(lambda index, _: tf.gather(chosen, index))
        return numbered.map(lambda _, example: example)

    names = split.names and tuple(itertools.compress(split.names, chosen))
    return Split(int(chosen.sum()), read, names)


def reordered(dataset, labels):
    """Returns a `Dataset` whose classes are in another order, that of `labels`.

    Raises:
        UserError: `labels` are not the names of its classes, each once.
    """
    if sorted(labels) != sorted(dataset.labels):
        missing = [label for label in dataset.labels if label not in labels]
        unknown = [label for label in labels if label not in dataset.labels]
        raise UserError(
            f"--labels must name each of the {len(dataset.labels)} classes of dataset "
            f"{dataset.name} once. Received: {len(labels)} names"
            + (f", without {', '.join(missing[:5])}" if missing else "")
            + (f", with {', '.join(unknown[:5])}" if unknown else "")
        )
    if list(labels) == list(dataset.labels):
        return dataset
    places = [list(labels).index(label) for label in dataset.labels]
    sources = [dataset.labels.index(label) for label in labels]

    def moved(label):
        if dataset.multi_label:
            return tf.gather(label, sources)
        return tf.gather(tf.constant(places, tf.int64), label)

    def of(split):
        def renumbered(function):
            return lambda *span: function(*span).map(
                lambda image, label: (image, moved(label))
            )

        part = split.part and renumbered(split.part)
        select = split.select and (lambda chosen: of(split.select(chosen)))
        return dataclasses.replace(
            split, read=renumbered(split.read), part=part, select=select
        )

    return dataclasses.replace(
        dataset,
        labels=tuple(labels),
        train=of(dataset.train),
        held_out=of(dataset.held_out),
    )


def has_unknown(labels, multi_label):
    """Returns whether the last of some labels is `UNKNOWN`, and not one of several."""
    return not multi_label and labels[-1] == UNKNOWN


def with_unknown_last(dataset):
    """Returns a `Dataset` whose class `NOTHING` is the last one and called `UNKNOWN`.

    Raises:
        UserError: another class has that name.
    """
    if NOTHING not in dataset.labels or dataset.multi_label:
        return dataset
    if UNKNOWN in dataset.labels:
        raise UserError(
            f"the pictures of {NOTHING!r} are learned as {UNKNOWN!r}, and a class has "
            "that name: put its pictures there too, or rename it"
        )
    own = [label for label in dataset.labels if label != NOTHING]
    moved = reordered(dataset, [*own, NOTHING])
    return dataclasses.replace(moved, labels=(*own, UNKNOWN))


def of_classes(dataset, labels):
    """Returns a `Dataset` with the classes of a model in their order, or None.

    It is None if the dataset has other classes. A model may have `UNKNOWN` as one more.
    """
    own = tuple(labels[:-1])
    if has_unknown(labels, dataset.multi_label) and sorted(own) == sorted(
        dataset.labels
    ):
        return dataclasses.replace(reordered(dataset, own), labels=tuple(labels))
    if sorted(labels) == sorted(dataset.labels):
        return reordered(dataset, labels)
    return None


def balanced(split):
    """Returns a `Split` that has as many examples of each class as of the largest.

    Examples of the others are repeated, those that come first once more than the rest.
    All are read once, for their labels, which must be int64.
    """
    labels = np.array([int(label) for _, label in split.read()])
    most = np.bincount(labels).max()
    copies = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        copies[of_class] = most // len(of_class)
        copies[of_class[: most % len(of_class)]] += 1

    def read():
        def repeated(index, example):
            return tf.data.Dataset.from_tensors(example).repeat(
                tf.gather(copies, index)
            )

        return split.read().enumerate().flat_map(repeated)

    names = split.names and tuple(np.repeat(split.names, copies))
    return Split(int(copies.sum()), read, names)


def in_memory(dataset):
    """Returns a `Dataset` that keeps the encoded images it has read in memory."""

    def of(split):
        kept = split.read().cache()
        part = split.part and functools.cache(
            lambda start, stop: split.part(start, stop).cache()
        )
        return dataclasses.replace(split, read=lambda: kept, part=part, select=None)

    return dataclasses.replace(
        dataset, train=of(dataset.train), held_out=of(dataset.held_out)
    )
