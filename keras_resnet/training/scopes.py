"""Global settings of Keras that hold inside of a block only."""

import contextlib
import random

import keras
import numpy as np


@contextlib.contextmanager
def dtype_policy(name):
    """Builds layers with this dtype policy inside the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def random_seed(seed):
    """Draws initial weights from `seed` inside the block.

    Keras seeds every layer from Python's random numbers. Those and numpy's go on
    after the block as if it had not been there.
    """
    before = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
