"""The answers of a model to a held-out split, and what they say of each class."""

import dataclasses

import numpy as np

from keras_resnet.training import accuracy, label_order, multi_label
from keras_resnet.training.data import batching, damaged, datasets
from keras_resnet.training.reporting import calibration

BATCH = 64
_Z = 1.959964  # 95% of a normal distribution lie within so many deviations


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model says of every example of a split, in the order of the split.

    Attributes:
        labels: names of the classes.
        targets: bool array (examples, classes), which of them an example has.
        scores: float32 array (examples, classes), probabilities. Those of an example
            add up to 1 unless it may have several labels.
        multi_label: whether it may.
    """

    labels: tuple[str, ...]
    targets: np.ndarray
    scores: np.ndarray
    multi_label: bool

    @classmethod
    def of_scores(cls, dataset, scores, labels):
        """Makes them of scores (examples, classes) and of the labels of a `Dataset`."""
        targets = label_order.as_targets(labels, len(dataset.labels)) > 0.5
        return cls(tuple(dataset.labels), targets, scores, dataset.multi_label)

    def examples(self):
        """Returns how many examples each class has, int (classes,)."""
        return self.targets.sum(0)

    def right(self):
        """Returns how many examples of each class are answered right, int (classes,).

        Where an example may have several labels: how many of those with this label
        have a score of at least 0.5 for it.
        """
        return (self.targets & self.given()).sum(0)

    def given(self):
        """Returns which labels the model gives to each example, bool as `targets`."""
        if self.multi_label:
            return self.scores >= multi_label.THRESHOLD
        return np.eye(len(self.labels), dtype=bool)[self.scores.argmax(1)]

    def accuracy(self):
        """Returns the accuracy of the classes as `accuracy.of_answers` does.

        If `UNKNOWN` is a label, this is that of the others: of the examples of classes,
        by the scores of classes alone.
        """
        targets, scores = self.targets, self.scores
        if self.has_unknown:
            own = ~targets[:, -1]
            targets, scores = targets[own, :-1], scores[own, :-1]
            scores = scores / np.maximum(scores.sum(1, keepdims=True), 1e-7)
        return {
            **accuracy.of_answers(targets, scores, self.multi_label),
            "examples_evaluated": len(self.scores),
        }

    @property
    def classes(self):
        """How many classes there are beside `UNKNOWN`."""
        return len(self.labels) - self.has_unknown

    @property
    def has_unknown(self):
        """Whether `UNKNOWN` is a label, the last one."""
        return datasets.has_unknown(self.labels, self.multi_label)

    def metrics(self):
        """Returns what `metrics.json` says of the classes.

        Returns:
            Dictionary of "by_class", {label: {"examples", "right"}}, and
            "balanced_accuracy", the mean of the recalls of the classes that have
            examples, as scikit-learn defines it (`balanced_accuracy_score`), and
            "calibration_error", see `calibration.error`. If `UNKNOWN` is a label, there
            is what `of_unknown` returns. Where
            pictures may have several labels, there is no balanced accuracy, and
            "by_class" has "average_precision" beside the number of examples: None
            for a label that no example has.
        """
        examples = self.examples()
        if self.multi_label:
            name = "average_precision"
            found = [
                multi_label.average_precision(scores, has) if has.any() else None
                for scores, has in zip(self.scores.T, self.targets.T, strict=True)
            ]
        else:
            name, found = "right", self.right().tolist()
        by_class = {
            label: {"examples": count, name: value}
            for label, count, value in zip(
                self.labels, examples.tolist(), found, strict=True
            )
        }
        if self.multi_label:
            return {"by_class": by_class}
        known = examples > 0
        recalls = self.right()[known] / examples[known]
        found = {
            "balanced_accuracy": float(recalls.mean()),
            "calibration_error": calibration.error(self.scores, self.targets),
            "by_class": by_class,
        }
        return found | self.of_unknown()

    def of_unknown(self):
        """Returns what the label `UNKNOWN` does to the answers, or {} without it.

        Returns:
            Dictionary of shares of 1: "top1_with_unknown", where a wrong `UNKNOWN` is
            a mistake; "known", of the examples of classes those that are not answered
            with it; "top1_of_known", the top-1 among these; and of the examples that
            belong to no class "strangers_answered", those that are not answered with
            it, None where there are none.
        """
        if not self.has_unknown:
            return {}
        right = (self.targets & self.given()).any(1)
        own, known = ~self.targets[:, -1], ~self.given()[:, -1]
        strangers = known[~own]
        return {
            "top1_with_unknown": float(right.mean()),
            "known": float(known[own].mean()),
            "top1_of_known": float(right[own & known].mean())
            if known[own].any()
            else 0,
            "strangers_answered": float(strangers.mean()) if len(strangers) else None,
        }


def of_model(model, dataset, preprocessing):
    """Returns the `Answers` of a model to the held-out split of a dataset.

    The model, of Keras 3 or tf_keras, returns probabilities. Batches are evaluated one
    after the other: a large split does not have to fit into the memory.
    """
    split = dataset.held_out
    with damaged.damaged_images_named(dataset):
        scores, labels = batching.predictions(
            model, split, preprocessing, min(BATCH, split.examples)
        )
    return Answers.of_scores(dataset, scores, labels)


def standard_error(right, examples):
    """Returns the standard error of an accuracy: sqrt(p (1 - p) / n), binomial."""
    share = right / examples
    return (share * (1 - share) / examples) ** 0.5


def interval(right, examples):
    """Returns the 95% interval (low, high) of an accuracy by Wilson's formula.

    It stays within 0 and 1, and has a width where all or no answers are right (Wilson,
    1927).
    """
    share, n, z2 = right / examples, examples, _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
