"""What a training reports while it runs, and the progress bar that shows it."""

import dataclasses
import sys

import keras


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training has come.

    A training reports at the beginning of each epoch, about once a second, and at the
    end of each epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: number of epochs of the training.
        step: steps made in this epoch.
        steps: number of steps in an epoch.
        loss: mean loss of the epoch's examples so far, in nats; None before the first.
        top1: share of them that were classified correctly, 0 to 1; likewise.
            None where images may have several labels.
        row: at the end of an epoch its row of `history.csv`, as a dict; else None.
        label_accuracy: where images may have several labels, the share of labels that
            were rightly given or not given, 0 to 1; else None.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None = None
    top1: float | None = None
    row: dict[str, float] | None = None
    label_accuracy: float | None = None


_METERS = ("loss", "top1", "label_accuracy")


class ProgressBar:
    """Prints a progress bar for each epoch, with its results at the end."""

    def __init__(self):
        """Prints nothing yet."""
        self._epoch = None

    def __call__(self, progress):
        """Prints what is new."""
        if self._epoch is None:
            done = (progress.epoch - 1) * progress.steps + progress.step
            if done:
                total = progress.epochs * progress.steps
                print(f"continuing after step {done} of {total}")
        if self._epoch != progress.epoch:
            self._epoch = progress.epoch
            print(f"Epoch {progress.epoch}/{progress.epochs}")
            self._bar = keras.utils.Progbar(progress.steps, stateful_metrics=_METERS)
        if progress.row:
            values = [item for item in progress.row.items() if item[0] != "epoch"]
            self._bar.update(progress.steps, values, finalize=True)
        elif progress.loss is not None and sys.stdout.isatty():
            values = ((name, getattr(progress, name)) for name in _METERS)
            values = [(name, value) for name, value in values if value is not None]
            self._bar.update(progress.step, values, finalize=False)
