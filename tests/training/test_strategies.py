import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.runner.errors import UserError
from keras_resnet.training.distribute import strategies


def test_strategies_have_the_replicas_asked_for():
    assert strategies.create("one_device").num_replicas_in_sync == 1
    assert strategies.create("mirrored").num_replicas_in_sync == 1
    mirrored = strategies.create("mirrored", cpu_replicas=2)
    assert mirrored.num_replicas_in_sync == 2
    assert len(set(mirrored.extended.worker_devices)) == 2


@pytest.mark.parametrize("name, cpu_replicas", [("one_device", 2), ("multi_worker", 1)])
def test_cpu_replicas_that_make_no_sense_are_refused(name, cpu_replicas):
    with pytest.raises(UserError, match=f"--cpu_replicas={cpu_replicas}"):
        strategies.create(name, cpu_replicas)


def test_a_second_strategy_in_one_process_reduces_as_well():
    """The default cross-device operations abort here: see strategies.py."""
    for size in (3, 5):
        strategy = strategies.create("mirrored", cpu_replicas=2)
        with strategy.scope():
            variable = tf.Variable(
                tf.zeros(size), aggregation=tf.VariableAggregation.SUM
            )

        @tf.function
        def step(variable=variable, strategy=strategy, size=size):
            strategy.run(lambda: variable.assign_add(tf.ones(size)))

        step()
        np.testing.assert_array_equal(variable.numpy(), 2 * np.ones(size))
