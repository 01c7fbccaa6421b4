"""What is fine-tuned: a network, its pictures, and what is decided about them."""

import dataclasses
import functools
import sys
import time

from keras_resnet.training import accuracy
from keras_resnet.training.data import datasets
from keras_resnet.training.transfer import classifier, features, plan


class Tuner:
    """Decides how a network of published weights learns, and fits its classifier.

    Args:
        network: of the zoo, which returns logits.
        dataset: `Dataset`, not balanced.
        preprocessing: of the network.
        strategy: in whose scope the network was built.
        settings: `Settings` of the training.
    """

    def __init__(self, network, dataset, preprocessing, strategy, settings):
        """Computes nothing yet."""
        self._network, self._dataset = network, dataset
        self._preprocessing, self._strategy = preprocessing, strategy
        self._settings = settings

    @functools.cached_property
    def _features(self):
        started = time.perf_counter()
        found = features.compute(
            self._network, self._dataset.train, self._preprocessing
        )
        self._seconds = time.perf_counter() - started
        return found

    @functools.cached_property
    def _choice(self):
        return classifier.choose(self._features, self._settings.balance)

    def decided(self, recipe):
        """Returns the recipe with what the user or the trials decided."""
        settings = self._settings
        recipe = plan.mirrored(recipe, self._choice.mirrored)
        rate = settings.learning_rate
        if settings.freeze:
            rate = 0.0
        elif rate is None:
            rate = plan.learning_rate(
                self._network,
                self._dataset,
                self._features,
                self._preprocessing,
                recipe,
                self._strategy,
                balance=settings.balance,
                seed=settings.seed,
            )
        epochs = recipe.epochs if rate else 0
        print(
            f"all layers learn for {epochs} epochs, at a rate of {rate:g}"
            if rate
            else "the classifier alone learns",
            file=sys.stderr,
        )
        return dataclasses.replace(recipe, learning_rate=rate, epochs=epochs)

    def fit_classifier(self):
        """Gives the network a classifier that was fitted to all training pictures."""
        weights = classifier.fit(self._features, self._choice, self._settings.balance)
        plan.set_classifier(self._network, weights)

    def shown(self):
        """Returns the dataset as a training of all layers shows it."""
        if not self._settings.balance:
            return self._dataset
        train = datasets.balanced(self._dataset.train)
        return dataclasses.replace(self._dataset, train=train)

    def metrics(self):
        """Returns the metrics of a run that trained the classifier alone."""
        found = accuracy.evaluator(
            self._network,
            self._strategy,
            from_logits=True,
            multi_label=self._dataset.multi_label,
        )(self._dataset.held_out, self._preprocessing, features.BATCH_SIZE)
        views = 2 * self._dataset.train.examples
        return {
            **found,
            "examples_per_second": views / self._seconds,
            "epochs": 0,
            "examples_evaluated": self._dataset.held_out.examples,
        }
