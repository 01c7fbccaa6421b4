"""How a network is fine-tuned: tried on training pictures that are put aside."""

import dataclasses
import functools
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.runner import learning
from keras_resnet.training import optimizers, schedules
from keras_resnet.training.data import batching, datasets
from keras_resnet.training.steps import SUMS, step_function
from keras_resnet.training.transfer import classifier, features, head
from keras_resnet.weights.tensors import CLASSIFIER

# The learning rate that is tried first; if it helps a higher one is tried too, and if
# not a lower one.
FIRST, HIGHER, LOWER = 1e-4, 2e-4, 2e-5
# Of the training pictures, one in so many is put aside, at most so many of them and at
# least so many: fewer would tell nothing.
PUT_ASIDE_EVERY = 4
MOST_PUT_ASIDE = 500
LEAST_PUT_ASIDE = 20
# At most so many of the others are learned in a trial, in this share of the epochs. A
# quarter of them was tried: digits learned nothing then, but did in a whole training.
MOST_TRIED = 1000
SHARE_OF_EPOCHS = 3 / 4


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a training found on pictures that were put aside.

    Attributes:
        rate: its learning rate; 0 if the classifier alone learned.
        choice: `classifier.Choice` with what the classifier said of these pictures.
    """

    rate: float
    choice: classifier.Choice

    @functools.cached_property
    def measures(self):
        """Loss and share of right answers of each picture."""
        losses, right = self.choice.measures
        # Of a training that diverged they are no numbers.
        return np.nan_to_num(np.float64(losses), nan=1e6), right


def best_trial(
    network, dataset, seen, preprocessing, recipe, strategy, *, rate, balance, seed
):
    """Returns the `Trial` with the learning rate that serves a network best, or None.

    The rate is 0 if all layers together do no better than the classifier alone: on few
    pictures a loss may be lower by chance, so it must be lower by more than a standard
    error, and more pictures must be right. Where the classifier alone is always right,
    nothing else is tried. One line on stderr for each trial says what it found. None
    stands for too few pictures.

    Args:
        network: of the zoo, which returns logits; its weights are published ones. They
            are the same afterwards.
        dataset: `Dataset`. Its held-out pictures are not touched.
        seen: `features.Features` of its training pictures.
        preprocessing: of the network.
        recipe: `Recipe` of the training, whose learning rate does not matter.
        strategy: in whose scope the network was built.
        rate: the learning rate that was asked for, the only one that is tried then.
        balance: whether every class weighs the same.
        seed: decides which pictures are put aside, the order of the others and their
            augmentation.
    """
    number = len(seen.labels)
    aside = min(number // PUT_ASIDE_EVERY, MOST_PUT_ASIDE)
    if aside < LEAST_PUT_ASIDE or number - aside < recipe.batch_size:
        return None
    place = np.random.default_rng(seed).permutation(number)
    chosen, tried = place < aside, (place >= aside) & (place < aside + MOST_TRIED)
    put_aside = datasets.subset(dataset.train, chosen)
    tried_on = datasets.subset(dataset.train, tried)
    both = datasets.subset(dataset.train, tried | chosen)
    if balance:
        tried_on = datasets.balanced(tried_on)
    data = dataclasses.replace(dataset, train=tried_on, held_out=put_aside)
    epochs = max(1, round(SHARE_OF_EPOCHS * recipe.epochs))
    before = network.get_weights()
    choice = classifier.choose(seen.of(tried), balance)
    start_classifier(network, seen.of(tried), choice, balance)
    start = network.get_weights()

    def answers(rate):
        """Returns the `Choice` of the network as it is."""
        if dataset.multi_label:
            found = batching.predictions(
                network, put_aside, preprocessing, features.BATCH_SIZE
            )
            return dataclasses.replace(choice, logits=found[0], labels=found[1])
        now = seen.of(tried | chosen)
        if rate:
            shown = dataclasses.replace(dataset, train=both)
            now = features.compute(network, shown, preprocessing)
        is_aside = chosen[tried | chosen]
        return classifier.best_on(
            now.of(~is_aside), now.of(is_aside), choice.mirrored, balance
        )

    def trial(rate):
        network.set_weights(start)
        if rate:
            of_trial = dataclasses.replace(recipe, learning_rate=rate, epochs=epochs)
            _train(network, data, preprocessing, of_trial, strategy, seed)
        found = Trial(rate, answers(rate))
        losses, right = found.measures
        what = f"learning rate {rate:g}" if rate else "classifier alone"
        print(
            f"{what}: loss {losses.mean():.3f}, {right.mean():.1%} right of {aside} "
            "training pictures that were put aside",
            file=sys.stderr,
        )
        return found

    try:
        if rate:
            return trial(rate)
        alone = trial(0.0)
        if alone.measures[1].min() == 1:  # nothing can be better
            return alone
        first = trial(FIRST)
        other = trial(
            HIGHER if learning.is_better(first.measures, alone.measures) else LOWER
        )
    finally:
        network.set_weights(before)
    best = min(first, other, key=lambda trial: trial.measures[0].mean())
    return best if learning.is_better(best.measures, alone.measures) else alone


def mirrored(recipe, mirrors):
    """Returns the recipe with or without mirror images."""
    name = "random_resized_crop_flip_30" if mirrors else "random_resized_crop_30"
    return dataclasses.replace(recipe, augmentation=name)


def start_classifier(network, seen, choice, balance):
    """Gives a network the classifier with which the training of all layers begins."""
    kernel, bias = classifier.fit(seen, choice, balance)
    if seen.labels.ndim == 1:  # of unit features
        head.set_start(network, kernel, bias, seen.plain)
    else:
        network.get_layer(CLASSIFIER).set_weights([kernel, bias])


def _train(network, dataset, preprocessing, recipe, strategy, seed):
    """Trains without checkpoints and reports."""
    steps = batching.steps_per_epoch(dataset, recipe.batch_size)
    rates = schedules.learning_rates(recipe, steps)
    with strategy.scope():
        optimizer = optimizers.create(keras, network, recipe, rates)
        totals = tf.Variable(tf.zeros(SUMS, tf.float64))
    run = step_function(network, optimizer, recipe, strategy, totals, from_logits=True)
    batches = strategy.distribute_datasets_from_function(
        lambda context: batching.train_batches(
            dataset, preprocessing, recipe, seed, share=batching.Share.of(context)
        )
    )
    run(iter(batches), tf.constant(len(rates)))
