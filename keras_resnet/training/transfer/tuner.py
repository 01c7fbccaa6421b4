"""What is fine-tuned: a network, its pictures, and what is decided about them."""

import dataclasses
import functools
import sys
import time

from keras_resnet.runner.learning import UNKNOWN
from keras_resnet.training.data import datasets
from keras_resnet.training.transfer import classifier, features, head, plan


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
        found = features.compute(self._network, self._dataset, self._preprocessing)
        self._seconds = time.perf_counter() - started
        return self._with_kept(found)

    def _with_kept(self, found):
        before = self._settings.previous
        if not before or self._dataset.multi_label:
            return found
        kept = before.kept(self._dataset.labels[: self._dataset.classes])
        return dataclasses.replace(found, kept=kept)

    @functools.cached_property
    def _choice(self):
        return classifier.choose(self._features, self._settings.balance)

    def decided(self, recipe):
        """Returns the recipe with what the user or the trials decided."""
        settings, several = self._settings, self._dataset.multi_label
        recipe = plan.mirrored(recipe, self._choice.mirrored)
        rate, trial = settings.learning_rate, None
        # The layers of an earlier run know pictures like these already.
        frozen = settings.freeze or (settings.previous and not rate)
        # With several labels there is no calibration, which a trial is made for too.
        if not frozen and not (rate and several):
            trial = plan.best_trial(
                self._network,
                self._dataset,
                self._features,
                self._preprocessing,
                recipe,
                self._strategy,
                rate=rate,
                balance=settings.balance,
                seed=settings.seed,
            )
            if trial:
                rate = trial.rate
            elif not rate:
                pictures = self._dataset.train.examples
                print(
                    f"{pictures} training pictures are too few to try more than a "
                    "classifier",
                    file=sys.stderr,
                )
        rate = 0.0 if frozen else rate or 0.0
        epochs = recipe.epochs if rate else 0
        print(
            f"all layers learn for {epochs} epochs, at a rate of {rate:g}"
            if rate
            else "the classifier alone learns",
            file=sys.stderr,
        )
        recipe = dataclasses.replace(recipe, learning_rate=rate, epochs=epochs)
        if several:
            return recipe
        # What the classifier alone says of all pictures tells more than one trial of
        # it, and of few pictures it is all that is known.
        choice = trial.choice if trial and rate else self._choice
        calibration = head.Calibration.of(
            choice.logits, choice.labels, self._dataset.classes, settings.known_share
        )
        if settings.previous and not rate:
            with_nothing = UNKNOWN in self._dataset.labels
            same_kind = settings.previous.learned_nothing == with_nothing
            calibration = calibration.beside(settings.previous.recipe, same_kind)
        if settings.known_share < 1 and calibration.known_from is None:
            print(
                "a folder has one training picture, which is too few to tell when "
                f"pictures are {UNKNOWN}: there is no limit",
                file=sys.stderr,
            )
        return dataclasses.replace(
            recipe,
            strength=choice.strength,
            temperature=calibration.temperature,
            known_from=calibration.known_from,
        )

    def start(self):
        """Gives the network a classifier that was fitted to all training pictures."""
        plan.start_classifier(
            self._network, self._features, self._choice, self._settings.balance
        )

    def weights(self, recipe):
        """Returns the weights of the trained network, with its final classifier.

        Where pictures have several labels, that is the one it was trained with.
        """
        *weights, kernel, bias = self._network.get_weights()
        if not self._dataset.multi_label:
            found = self._features
            if recipe.epochs:
                # What an earlier run knew of the classes was of other features.
                found = features.compute(
                    self._network, self._dataset, self._preprocessing
                )
            choice = dataclasses.replace(self._choice, strength=recipe.strength)
            kernel, bias = classifier.fit(found, choice, self._settings.balance)
            kernel, bias = head.calibrated(kernel, bias, self._dataset.classes, recipe)
        return [*weights, kernel, bias]

    def shown(self):
        """Returns the dataset as a training of all layers shows it."""
        if not self._settings.balance:
            return self._dataset
        train = datasets.balanced(self._dataset.train)
        return dataclasses.replace(self._dataset, train=train)

    def metrics(self):
        """Returns what is known of a run that trained the classifier alone."""
        return {
            "examples_per_second": 2 * self._dataset.train.examples / self._seconds,
            "epochs": 0,
        }
