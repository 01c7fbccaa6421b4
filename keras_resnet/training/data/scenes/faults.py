"""What is wrong with pictures and annotations: named, and left out or the end."""

import collections

from keras_resnet import console
from keras_resnet.runner.errors import UserError, printable

SHOWN = 10  # lines about faults of one kind


class Faults:
    """Names each fault in one line, and goes on or stops as `damaged_images` says.

    "skip" goes on and "stop" stops. None, the default of `train`, stops too, unless the
    fault costs nothing but the box that has it.
    """

    def __init__(self, damaged_images=None):
        """Has met no fault yet."""
        self._damaged_images = damaged_images
        self._counts = collections.Counter()

    def report(self, kind, text, done="left out", slight=False):
        """Raises `UserError`, or prints a warning and returns.

        Args:
            kind: what faults like this are called, for their number.
            text: what is wrong and where.
            done: what is done about it.
            slight: whether only `damaged_images="stop"` stops.
        """
        text = printable(text)
        if self._damaged_images == "stop" or not (slight or self._damaged_images):
            raise UserError(
                f"{text}. Correct it (train.py --damaged_images=skip goes on: {done})"
            )
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN:
            console.warn(f"{text}: {done}")

    def close(self):
        """Prints how many faults had no line of their own."""
        for kind, count in self._counts.items():
            if count > SHOWN:
                console.warn(f"{count - SHOWN} more {kind}")
        self._counts.clear()
