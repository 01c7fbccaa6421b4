"""What a dataset is: named classes, and two splits of encoded images."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

# Where a dataset has only one split, one image in this many is held out.
HELD_OUT_EVERY = 5
# How TensorFlow's error begins when a label is none of the classes.
UNKNOWN_LABEL = "a label beyond the classes"


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Attributes:
        examples: number of examples.
        read: returns a `tf.data.Dataset` of (encoded image: string, label: int64)
            that yields every example once, always in the same order.
        names: names of the examples in the same order; None if they have no names.
        part: function of (start, stop) that returns `stop - start` examples, like
            `read`, without reading the rest; None if the source cannot. Spans that do
            not overlap have no example in common, but `part` may number the examples
            in another order than `read`.
    """

    examples: int
    read: Callable[[], tf.data.Dataset]
    names: Sequence[str] | None = None
    part: Callable[[int, int], tf.data.Dataset] | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An image-classification dataset.

    Attributes:
        name: the name given to `sources.load`.
        labels: names of the classes, in the order of their indices.
        train: the `Split` to train on.
        held_out: the `Split` to evaluate on.
        fingerprint: what the data is, as JSON can hold it. It differs where the data
            differs, and a copy at another place has the same.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    held_out: Split
    fingerprint: dict


def hold_out(split, count):
    """Splits off `count` examples, spread evenly because a source may be sorted.

    Returns:
        Two `Split`s: the examples that stay, and those that are held out.
    """
    chosen = np.zeros(split.examples, bool)
    chosen[np.arange(count) * split.examples // count] = True
    return subset(split, ~chosen), subset(split, chosen)


def subset(split, chosen):
    """Returns the `Split` of the examples for which the array `chosen` is true."""

    def read():
        numbered = split.read().enumerate()
        numbered = numbered.filter(lambda index, _: tf.gather(chosen, index))
        return numbered.map(lambda _, example: example)

    names = split.names and tuple(itertools.compress(split.names, chosen))
    return Split(int(chosen.sum()), read, names)


def in_memory(dataset):
    """Returns a `Dataset` that keeps the encoded images it has read in memory."""

    def of(split):
        kept = split.read().cache()
        part = split.part and functools.cache(
            lambda start, stop: split.part(start, stop).cache()
        )
        return dataclasses.replace(split, read=lambda: kept, part=part)

    return dataclasses.replace(
        dataset, train=of(dataset.train), held_out=of(dataset.held_out)
    )
