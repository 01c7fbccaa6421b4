"""The training loop: steps, evaluation, checkpoints and the report of each epoch.

Float models of Keras 3 and quantization-aware ones of tf_keras go through the same
loop. Keras' own `fit` is not used: it fails with several workers (keras #20585), cannot
resume inside an epoch and waits for the device after every step.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import files
from keras_resnet.errors import Terminated
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import optimizers, recipes, schedules, tasks
from keras_resnet.training.averaging import Averages
from keras_resnet.training.data import batching, damaged, datasets
from keras_resnet.training.distribute import strategies
from keras_resnet.training.distribute.termination import termination
from keras_resnet.training.pace import Pace
from keras_resnet.training.progress import Progress, ProgressBar
from keras_resnet.training.runs import checkpoints, report
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.steps import SUMS, step_function


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: what is trained, on what, how, and where its files go.

    `api` is `keras` or `tf_keras`, whichever `model` belongs to; `model` was built in
    the scope of `strategy` and takes what `preprocessing` makes. `seed` decides the
    order of the examples and their augmentation. The newest checkpoint in `directory`
    is continued. `checkpoint_steps` lie between two checkpoints, and the end of each
    epoch has one too; the last epoch is always evaluated. `distilled` is a
    `distillation.open_teacher`.
    """

    api: Any
    model: Any
    dataset: datasets.Dataset
    preprocessing: Preprocessing
    recipe: recipes.Recipe
    strategy: tf.distribute.Strategy
    seed: int
    directory: pathlib.Path
    checkpoint_steps: int = 1000
    evaluation_epochs: int = 1
    from_logits: bool = False
    distilled: Callable | None = None
    progress: Callable[[Progress], None] | None = None


def fit(job):
    """Trains a model in place and writes history, curves, scalars and checkpoints.

    Returns the metrics, as in `metrics.json`.

    Raises:
        UserError: the loss or a weight is not finite any more.
        Terminated: this or another worker received SIGTERM; a checkpoint was written.
    """
    training = _Training(job)
    with (
        damaged.damaged_images_named(job.dataset),
        termination(job.strategy) as terminated,
    ):
        while len(training.history) < job.recipe.epochs:
            training.make_steps(terminated)
            training.end_epoch()
            if terminated():
                raise Terminated
    return training.finish()


class _Training:
    """The state of a training: variables, steps done and the history of its epochs."""

    def __init__(self, job):
        """Creates the variables, and restores the newest checkpoint if there is one."""
        recipe, strategy = job.recipe, job.strategy
        self._job, self._task = job, tasks.of(recipe)
        self._steps = batching.steps_per_epoch(job.dataset, recipe.batch_size)
        self._rates = schedules.learning_rates(recipe, self._steps)
        self._averages = None
        with strategy.scope():
            optimizer = optimizers.create(job.api, job.model, recipe, self._rates)
            self._totals = tf.Variable(tf.zeros(SUMS, tf.float64), name="totals")
            if recipe.average_epochs:
                steps = recipe.average_epochs * self._steps
                self._averages = Averages(job.model, steps)
        self._run_steps = step_function(
            job.model,
            optimizer,
            recipe,
            strategy,
            self._totals,
            job.from_logits,
            job.distilled,
            self._averages,
        )
        self._evaluate = self._task.evaluator(job.model, strategy, job.from_logits)
        self._checkpoints = checkpoints.Checkpoints(
            run_folder.checkpoints_of(job.directory),
            checkpoints.named(
                model=job.model.variables,
                optimizer=optimizer.variables,
                averages=self._averages.variables if self._averages else (),
                epoch=[self._totals],
            ),
            strategy,
        )
        self._step, state = self._checkpoints.restore()
        # One dict for each epoch, and the seconds of the steps of the present one.
        self.history, self._seconds = state or ([], 0.0)
        self._batches = iter(
            strategy.distribute_datasets_from_function(
                lambda context: self._task.train_batches(
                    job.dataset,
                    training_preprocessing(job.preprocessing, recipe),
                    recipe,
                    job.seed,
                    self._step,
                    batching.Share.of(context),
                )
            )
        )
        self._pace = Pace(strategy)
        self._progress = job.progress or ProgressBar()
        self._board = None
        if strategies.is_chief(strategy):
            for folder in (job.directory, run_folder.checkpoints_of(job.directory)):
                files.remove_unfinished(folder)
            self._board = report.open_board(job.directory)

    def make_steps(self, terminated):
        """Makes the steps that the present epoch still lacks."""
        # An epoch that was broken off before its evaluation lacks none.
        epoch = len(self.history) + 1
        done = self._step - (epoch - 1) * self._steps
        self._report(epoch, done)
        every = self._job.checkpoint_steps
        while done < self._steps:
            started = time.perf_counter()
            at_most = min(self._steps - done, every - self._step % every)
            count = self._pace.steps(at_most)
            waited = self._run_steps(self._batches, tf.constant(count))
            *_, finite_steps = self._totals.numpy()  # waits for the device
            elapsed = time.perf_counter() - started
            self._seconds += elapsed
            self._pace.add(count, float(waited), elapsed)
            self._step, done = self._step + count, done + count
            if finite_steps < done:
                last = self._step - done + int(finite_steps)
                raise self._diverged("loss is", last)
            self._report(epoch, done, self._means())
            stop = terminated()
            if stop or (done < self._steps and self._step % every == 0):
                self.save()
            if stop:
                raise Terminated

    def end_epoch(self):
        """Evaluates the model, then writes, saves and reports the epoch."""
        job, epoch = self._job, len(self.history) + 1
        means = self._means()
        row = {"epoch": epoch, **means}
        _synchronize(job.model)
        if epoch % job.evaluation_epochs == 0 or epoch == job.recipe.epochs:
            averages = self._averages
            with averages.applied() if averages else contextlib.nullcontext():
                found = self._evaluate(
                    job.dataset, job.preprocessing, job.recipe.batch_size
                )
            measured = ("loss", *self._task.measures)
            row |= {f"val_{name}": found[name] for name in measured}
        row["learning_rate"] = self._rates[self._step - 1]
        examples = self._steps * job.recipe.batch_size
        row["examples_per_second"] = examples / self._seconds
        self.history.append(row)
        self._totals.assign(tf.zeros_like(self._totals))
        self._seconds = 0.0
        if self._board:
            report.write_history(job.directory, self.history, self._task.history())
            report.write_scalars(self._board, row)
        self.save()
        self._report(epoch, self._steps, means, dict(row))
        self._pace.warn_once()

    def save(self):
        """Writes a checkpoint, or raises `UserError` where a weight is not finite."""
        try:
            self._checkpoints.save(self._step, (self.history, self._seconds))
        except FloatingPointError as error:
            raise self._diverged("weights are", self._step) from error

    def finish(self):
        """Gives the model its final weights, and returns the metrics."""
        if self._averages:
            self._averages.apply()
        if self._board:
            report.draw_curves(self._job.directory, self.history)
        last = self.history[-1]
        speeds = [row["examples_per_second"] for row in self.history]
        return {
            **{name: last[f"val_{name}"] for name in self._task.measures},
            "loss": last["val_loss"],
            "examples_per_second": float(np.median(speeds)),
            "epochs": self._job.recipe.epochs,
            "examples_evaluated": self._job.dataset.held_out.examples,
        }

    def _means(self):
        examples, loss, right, _ = self._totals.numpy().tolist()
        means = {"loss": loss / examples}
        if self._task.share:
            means[self._task.share] = right / examples
        return means

    def _report(self, epoch, step, means=None, row=None):
        epochs, steps = self._job.recipe.epochs, self._steps
        means = means or {}
        self._progress(Progress(epoch, epochs, step, steps, **means, row=row))

    def _diverged(self, what, step):
        """Returns the `UserError` about numbers that are not finite any more.

        The same command would repeat every step: it does not help to continue.
        """
        newest = self._checkpoints.newest()
        return UserError(
            f"the {what} no finite number after step {step}: try a lower "
            f"--learning_rate. Received: {self._job.recipe.learning_rate:g}. "
            + (
                f"The last checkpoint with finite weights is {newest}, but the same "
                "flags end here again: use another --model_dir, or delete this one"
                if newest
                else "No checkpoint yet: the same --model_dir will do"
            )
        )


def training_preprocessing(preprocessing, recipe):
    """Returns the preprocessing at the size of the images that are trained on."""
    if recipe.train_size is None:
        return preprocessing
    return dataclasses.replace(preprocessing, input_size=(recipe.train_size,) * 2)


def _synchronize(model):
    """Gives all replicas the same batch statistics and quantization ranges.

    While it trains, each replica keeps its own; a file holds one value. What is
    evaluated must be what is saved, and a resumed run must not differ.
    """
    for variable in model.non_trainable_variables:
        variable.assign(variable.numpy())
