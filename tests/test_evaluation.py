"""Every example counts once, whatever the strategy."""

import numpy as np
import pytest
import tensorflow as tf

import input_pipeline
import keras_resnet
import strategies
from evaluation import evaluator
from keras_resnet.preprocessing import Preprocessing

SMALL = Preprocessing((32, 32))


@pytest.fixture(scope="module")
def digits():
    return input_pipeline.load("digits")


def test_eval_under_mirrored_counts_every_example_once(digits):
    """With a remainder of one example: one replica gets nothing."""
    strategy = strategies.create("mirrored", cpu_replicas=2)
    with strategy.scope():
        model = keras_resnet.ResNet8()
    part = input_pipeline.Split(61, lambda: digits.held_out.read().take(61))
    result = evaluator(model, strategy)(part, SMALL, 20)
    batches = input_pipeline.evaluation_batches(part, SMALL, 20)
    images, labels = (np.concatenate(x) for x in zip(*batches.as_numpy_iterator()))  # noqa: B905
    images, labels = images[:61], labels[:61]  # the rest fills the last batch
    scores = model.predict(images, verbose=0)
    assert result["top1"] == pytest.approx(np.mean(scores.argmax(-1) == labels))
    right = scores[np.arange(61), labels]
    assert result["loss"] == pytest.approx(-np.log(right).mean(), rel=1e-5)


def test_eval_that_misses_examples_is_a_bug_that_shows(digits):
    short = input_pipeline.Split(360, lambda: digits.held_out.read().take(200))
    evaluate = evaluator(keras_resnet.ResNet8(), tf.distribute.get_strategy())
    with pytest.raises(RuntimeError, match="200 of 360"):
        evaluate(short, SMALL, 100)
