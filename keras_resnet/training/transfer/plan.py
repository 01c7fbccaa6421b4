"""How a network is fine-tuned: tried on training pictures that are put aside."""

import dataclasses
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.training import optimizers, schedules
from keras_resnet.training.data import batching, datasets
from keras_resnet.training.steps import SUMS, step_function
from keras_resnet.training.transfer import classifier, features
from keras_resnet.weights.tensors import CLASSIFIER

# The learning rate that is tried first; if it helps a higher one is tried too, and if
# not a lower one.
FIRST, HIGHER, LOWER = 1e-4, 4e-4, 2e-5
# Of the training pictures, one in so many is put aside, at most so many of them and at
# least so many: fewer would tell nothing.
PUT_ASIDE_EVERY = 4
MOST_PUT_ASIDE = 500
LEAST_PUT_ASIDE = 20
# At most so many of the others are learned in a trial, in this share of the epochs. A
# quarter of them was tried: digits learned nothing then, but did in a whole training.
MOST_TRIED = 1000
SHARE_OF_EPOCHS = 3 / 4


def learning_rate(
    network, dataset, seen, preprocessing, recipe, strategy, *, balance, seed
):
    """Returns which learning rate serves a network and its training pictures best.

    It is 0 if all layers together do no better than the classifier alone: on few
    pictures a loss may be lower by chance, so it must be lower by more than a standard
    error, and more pictures must be right. Where the classifier alone is always right,
    nothing else is tried. One line on stderr for each trial says what it found.

    Args:
        network: of the zoo, which returns logits; its weights are published ones. They
            are the same afterwards.
        dataset: `Dataset`. Its held-out pictures are not touched.
        seen: `features.Features` of its training pictures.
        preprocessing: of the network.
        recipe: `Recipe` of the training, whose learning rate does not matter.
        strategy: in whose scope the network was built.
        balance: whether every class weighs the same.
        seed: decides which pictures are put aside, the order of the others and their
            augmentation.
    """
    number = len(seen.labels)
    aside = min(number // PUT_ASIDE_EVERY, MOST_PUT_ASIDE)
    if aside < LEAST_PUT_ASIDE or number - aside < recipe.batch_size:
        print(
            f"{number} training pictures are too few to try more than a classifier",
            file=sys.stderr,
        )
        return 0.0
    place = np.random.default_rng(seed).permutation(number)
    chosen, tried = place < aside, (place >= aside) & (place < aside + MOST_TRIED)
    put_aside = datasets.subset(dataset.train, chosen)
    tried_on = datasets.subset(dataset.train, tried)
    if balance:
        tried_on = datasets.balanced(tried_on)
    data = dataclasses.replace(dataset, train=tried_on, held_out=put_aside)
    epochs = max(1, round(SHARE_OF_EPOCHS * recipe.epochs))
    before = network.get_weights()
    choice = classifier.choose(seen.of(tried), balance)
    set_classifier(network, classifier.fit(seen.of(tried), choice, balance))
    start = network.get_weights()

    def trial(rate):
        network.set_weights(start)
        if rate:
            of_trial = dataclasses.replace(recipe, learning_rate=rate, epochs=epochs)
            _train(network, data, preprocessing, of_trial, strategy, seed)
        losses, right = _measures(network, put_aside, preprocessing)
        # Of a training that diverged they are no numbers.
        losses = np.nan_to_num(np.float64(losses), nan=1e6)
        what = f"learning rate {rate:g}" if rate else "classifier alone"
        print(
            f"{what}: loss {losses.mean():.3f}, {right.mean():.1%} right of {aside} "
            "training pictures that were put aside",
            file=sys.stderr,
        )
        return losses, right

    alone = trial(0.0)
    if alone[1].min() == 1:  # nothing can be better
        network.set_weights(before)
        return 0.0
    tried = {FIRST: trial(FIRST)}
    other = HIGHER if is_better(tried[FIRST], alone) else LOWER
    tried[other] = trial(other)
    network.set_weights(before)
    best = min(tried, key=lambda rate: tried[rate][0].mean())
    return best if is_better(tried[best], alone) else 0.0


def mirrored(recipe, mirrors):
    """Returns the recipe with or without mirror images."""
    name = "random_resized_crop_flip_30" if mirrors else "random_resized_crop_30"
    return dataclasses.replace(recipe, augmentation=name)


def set_classifier(network, weights):
    """Gives a network the (kernel, bias) of its classifier."""
    network.get_layer(CLASSIFIER).set_weights(weights)


def _measures(network, split, preprocessing):
    """Returns loss and share of right answers of each picture of a split."""

    @tf.function
    def predict(images):
        return tf.cast(network(images, training=False), tf.float32)

    found = batching.over_split(predict, split, preprocessing, features.BATCH_SIZE)
    return classifier.measures(*found)


def is_better(one, other):
    """Returns whether a trial is better than another, beyond chance.

    More pictures must be right: a loss alone may be lower because a strong penalty has
    made the classifier too modest.

    Args:
        one: (losses, share of right answers) of each picture, two arrays (pictures,).
        other: likewise, of the same pictures.
    """
    gain = other[0] - one[0]
    beyond_chance = gain.mean() > gain.std() / np.sqrt(len(gain))
    return bool(beyond_chance and one[1].mean() > other[1].mean())


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
