"""What random functions give for many seeds, and whether it is as it should be.

The seeds are fixed, so that a test either always passes or never.
"""

import numpy as np
import tensorflow as tf
from scipy import stats

NUMBER = 1000


def draw(function, number=NUMBER):
    """Returns what a function of the seed gives for many seeds, stacked."""
    seeds = tf.data.Dataset.range(number).map(
        lambda index: tf.stack([tf.constant(11, tf.int64), index])
    )
    drawn = seeds.map(function, num_parallel_calls=tf.data.AUTOTUNE).batch(number)
    return next(drawn.as_numpy_iterator())


def same_distribution(some, others):
    """Kolmogorov and Smirnov's test; `others` may be a cumulative function."""
    return stats.kstest(some, others).pvalue > 0.001


def as_likely(values, expected):
    """Chi-square test: whether each of the expected values comes equally often."""
    found, counts = np.unique(values, return_counts=True)
    return found.tolist() == sorted(expected) and stats.chisquare(counts).pvalue > 0.001


def share_is(flags, probability):
    """Whether so many flags are true, to four standard deviations."""
    deviation = np.sqrt(probability * (1 - probability) / len(flags))
    return abs(np.mean(flags) - probability) < 4 * deviation
