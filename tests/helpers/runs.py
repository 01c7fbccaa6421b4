"""Short trainings on the embedded digits, and what they leave."""

import csv

import numpy as np

from keras_resnet.training.distribute import strategies
from keras_resnet.training.runs import checkpoints

# Arguments of `training.train` for a run of nine steps, three in an epoch.
SHORT = dict(
    model="resnet8", dataset="digits", batch_size=478, epochs=3, learning_rate=0.1
)


def two_replicas():
    return strategies.create("mirrored", cpu_replicas=2)


def silent(progress):
    """A progress callback that prints nothing."""


def history(directory):
    with open(directory / "history.csv") as file:
        return list(csv.DictReader(file))


def without_times(values):
    return {**values, "examples_per_second": 0}


def assert_equal_ends(one, other, name="step-00000009.npz"):
    """Two runs have the same last checkpoint and the same history, bit for bit."""
    for row, unbroken in zip(history(one), history(other), strict=True):
        assert without_times(row) == without_times(unbroken)
    paths = [max((run / "checkpoints").glob("step-*.npz")) for run in (one, other)]
    assert [path.name for path in paths] == [name, name]
    with np.load(paths[0]) as ours, np.load(paths[1]) as theirs:
        assert ours.files == theirs.files and len(ours.files) > 10
        for variable in set(ours.files) - {"state"}:  # that holds times
            np.testing.assert_array_equal(ours[variable], theirs[variable])


def break_after(patch, *steps):
    """Raises KeyboardInterrupt once a checkpoint of one of these steps is written."""
    save = checkpoints.Checkpoints.save

    def save_and_break(self, step, state):
        save(self, step, state)
        if step in steps:
            raise KeyboardInterrupt

    patch.setattr(checkpoints.Checkpoints, "save", save_and_break)
