"""What the training of one kind of answer differs in from that of another."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from keras_resnet.training import accuracy, losses, multi_label
from keras_resnet.training.data import batching
from keras_resnet.training.data.scenes import batching as scene_batching
from keras_resnet.training.scenes import answers, detection, evaluation, segmentation


@dataclasses.dataclass(frozen=True)
class Task:
    """How a kind of answer is trained and measured.

    Attributes:
        measures: names of what `evaluator` measures beside "loss", that come into the
            history and `metrics.json`; the most important one first.
        train_batches: `data.batching.train_batches`, or a function like it.
        evaluator: function of (model, strategy, whether it returns logits) that returns
            a function of (dataset, preprocessing, batch size over all replicas), which
            measures the held-out split: a dict of "loss" and the measures. Of boxes and
            masks it has "classes" too, a list of one dict for each.
        loss_function: function of (model, recipe) that returns a function of (logits,
            targets) -> (batch,).
        logits_of: turns the output of a model, in float32, into logits.
        calibration_images: `data.batching.calibration_images`, or a function like it.
        share: name of the share of right answers that the steps count, or None.
        right: function of (logits, targets) that returns this share of each example,
            (batch,), or None.
    """

    measures: tuple[str, ...]
    train_batches: Callable
    evaluator: Callable
    loss_function: Callable
    logits_of: Callable
    calibration_images: Callable = batching.calibration_images
    share: str | None = None
    right: Callable | None = None

    def history(self):
        """Returns the columns of `history.csv`."""
        shares = [self.share] if self.share else []
        measures = [f"val_{name}" for name in ("loss", *self.measures)]
        last = "learning_rate", "examples_per_second"
        return ["epoch", "loss", *shares, *measures, *last]

    def metrics(self):
        """Returns the names of the numbers that every `metrics.json` has."""
        rest = "loss", "examples_per_second", "epochs", "examples_evaluated"
        return [*self.measures, *rest]


def of(recipe):
    """Returns the `Task` of a `Recipe`, whose loss tells it."""
    return TASKS.get(recipe.loss, TASKS["cross_entropy"])


def of_metrics(metrics):
    """Returns the `Task` of what `metrics.json` holds, a dict."""
    for task in TASKS.values():
        if task.measures[0] in metrics:
            return task
    return TASKS["cross_entropy"]


def of_split(model, dataset, preprocessing, loss):
    """Returns what is measured of boxes or masks on this machine's first device.

    Args:
        model: which ends with scores.
        dataset: `SceneDataset`, whose held-out split is measured.
        preprocessing: of the model.
        loss: of the recipe.

    Returns:
        Dictionary of "loss", the measures, "examples_evaluated" and "by_class", {label:
        what is measured of it}.
    """
    task, strategy = TASKS[loss], tf.distribute.get_strategy()
    examples = dataset.held_out.examples
    evaluate = task.evaluator(model, strategy)
    found = evaluate(dataset, preprocessing, min(16, examples))
    by_class = dict(zip(dataset.labels, found.pop("classes"), strict=True))
    return {**found, "examples_evaluated": examples, "by_class": by_class}


def _classifier_evaluator(several):
    def evaluator(model, strategy, from_logits=False):
        evaluate = accuracy.evaluator(model, strategy, from_logits, several)
        return lambda dataset, *rest: evaluate(dataset.held_out, *rest)

    return evaluator


def _detector_logits(outputs):
    return {**outputs, "scores": losses.logits_of_sigmoids(outputs["scores"])}


def _same_class(logits, targets):
    return tf.equal(tf.argmax(logits, -1), tf.argmax(targets, -1))


def _same_labels(logits, targets):
    answers = tf.equal(logits >= 0, targets > 0.5)
    return tf.reduce_mean(tf.cast(answers, tf.float64), -1)


# By the loss of the recipe; all losses that are not here are classification's.
TASKS = {
    "cross_entropy": Task(
        measures=accuracy.names(multi_label=False),
        train_batches=batching.train_batches,
        evaluator=_classifier_evaluator(several=False),
        loss_function=lambda model, recipe: losses.loss_function(recipe),
        logits_of=losses.logits_of_scores,
        share="top1",
        right=_same_class,
    ),
    "multi_label": Task(
        measures=multi_label.NAMES,
        train_batches=batching.train_batches,
        evaluator=_classifier_evaluator(several=True),
        loss_function=lambda model, recipe: losses.loss_function(recipe),
        logits_of=losses.logits_of_sigmoids,
        share="label_accuracy",
        right=_same_labels,
    ),
    "detection": Task(
        measures=evaluation.DETECTION_MEASURES,
        train_batches=scene_batching.train_batches,
        evaluator=evaluation.detection_evaluator,
        loss_function=lambda model, recipe: detection.loss_function(model),
        logits_of=_detector_logits,
        calibration_images=answers.images,
    ),
    "segmentation": Task(
        measures=evaluation.SEGMENTATION_MEASURES,
        train_batches=scene_batching.train_batches,
        evaluator=evaluation.segmentation_evaluator,
        loss_function=lambda model, recipe: segmentation.loss,
        logits_of=losses.logits_of_scores,
        calibration_images=answers.images,
    ),
}
