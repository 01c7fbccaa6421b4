"""The report of a run: `report.html`, and the accuracy of each class."""

import os

from keras_resnet.training.data.scenes.sources import OWN_PICTURES
from keras_resnet.training.reporting import page, scenes, summary
from keras_resnet.training.runs import folder as run_folder

__all__ = ["print_summary", "scenes", "title", "write"]


def write(directory, title, dataset, answers, metrics, survey=None):
    """Writes the report of a run; returns its metrics with those of each class.

    Args:
        directory: the folder of the run, a `pathlib.Path`.
        title: what was trained, on what: see `title`.
        dataset: its `Dataset`.
        answers: the `Answers` of the model to the held-out split.
        metrics: dictionary of what was measured at the end of the training.
        survey: the `Survey` of the pictures, or None.
    """
    metrics = metrics | answers.metrics()
    config = run_folder.read_config(directory)
    page.write(directory, title, dataset, answers, metrics, config, survey)
    return metrics


def print_summary(run):
    """Prints where the report of a run is, and how its classes do, if it has one."""
    if line := summary.line(run.metrics):
        print(f"{line}; see {run.directory / page.FILE}")


def title(model, dataset, data_dir=None):
    """Returns the title of a report: of the user's own pictures, it names the place."""
    if dataset in ("folder", "csv", *OWN_PICTURES):
        dataset = os.path.basename(os.path.normpath(data_dir))
    return f"{os.path.basename(model)} on {dataset}"
