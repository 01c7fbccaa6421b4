"""A finished run, as `train`, `quantize_aware` and `adopt` return it."""

import dataclasses
import os
import pathlib
from typing import Any

import keras

from keras_resnet import model_metadata
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import checks
from keras_resnet.training.formats import custom_code
from keras_resnet.training.runs import folder, model_file


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a finished run, and what it holds.

    Attributes:
        directory: the folder, a `pathlib.Path`.
        metrics: what `metrics.json` holds: "top1", "top5" (shares of 1) and "loss"
            (mean cross entropy in nats) on the "examples_evaluated" held-out images,
            or where these may have several labels "mean_average_precision",
            "label_accuracy" and "loss". Of boxes they are "ap50", "ap" and "ap75" (mean
            average precision at an IoU of 0.5, from 0.5 to 0.95, and at 0.75), of masks
            "miou" (mean IoU), with "by_class" as `runner.metrics` has it; "epochs",
            and the median "examples_per_second" of the training steps.
            "balanced_accuracy" is the mean of the classes' recalls and "by_class" has
            the numbers of each class; see `reporting.answers.Answers.metrics`. Runs of
            version 0.1 lack these two, and so do the workers that write no files.
        labels: names of the classes, in the order of the scores.
        preprocessing: the `keras_resnet.Preprocessing` of the model.
    """

    directory: pathlib.Path
    metrics: dict[str, Any]
    labels: tuple[str, ...] = dataclasses.field(repr=False)
    preprocessing: Preprocessing

    @classmethod
    def open(cls, run: "Run | str | os.PathLike") -> "Run":
        """Opens a run.

        Args:
            run: path of its folder, or a `Run`, which is returned as it is.

        Raises:
            UserError: the folder holds no run, an unfinished or a damaged one.
        """
        if isinstance(run, cls):
            return run
        directory = checks.path("model_dir", run)
        config = folder.read_config(directory)
        metrics = folder.read_metrics(directory)
        if metrics is None:
            raise UserError(
                f"the run in {directory} has not ended: start it again with the same "
                "settings, and it continues"
            )
        preprocessing = Preprocessing(**config["preprocessing"])
        return cls(directory, metrics, tuple(config["labels"]), preprocessing)

    def __fspath__(self) -> str:
        """Returns the path of the folder: whatever opens a path opens a run."""
        return str(self.directory)

    def load_model(self) -> keras.Model:
        """Loads the trained model.

        Returns:
            A `keras.Model` in float32, from images (batch, height, width, 3) that were
            preprocessed as `preprocessing` says to scores (batch, classes). It has the
            attributes `preprocessing` and `labels`.

        Raises:
            UserError: the file is missing or damaged, or the custom code that the run
                needs is not there or has changed.
        """
        settings = folder.read_config(self.directory)["settings"]
        code = custom_code.of_run(settings)
        model = model_file.load(self.directory / "model.keras", **code)
        if getattr(model, "preprocessing", None) is None:  # a run of version 0.1
            model_metadata.attach(model, self.preprocessing, list(self.labels))
        return model


def open_trained(run):
    """Opens the run of a training; the folder of its fine-tuning stands for it too.

    Args:
        run: a `Run` or the path of a folder.

    Returns:
        (the `Run`, its config as `folder.read_config` returns it).

    Raises:
        UserError: the folder holds no run, an unfinished or a damaged one.
    """
    run = Run.open(run)
    config = folder.read_config(run.directory)
    if "dataset" not in config["settings"]:  # the folder of the fine-tuning
        run = Run.open(run.directory.parent)
        config = folder.read_config(run.directory)
    return run, config
