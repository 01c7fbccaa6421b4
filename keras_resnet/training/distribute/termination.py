"""SIGTERM ends a training at the next look, with a checkpoint."""

import contextlib
import signal
import threading

import tensorflow as tf

from keras_resnet.training.distribute import strategies


@contextlib.contextmanager
def termination(strategy):
    """Yields a function that tells whether a worker has received SIGTERM.

    If there are several workers, all of them must call it equally often, and all get
    the same answer. Outside of the main thread Python allows no signal handlers: there
    SIGTERM ends the process as usual.
    """
    received = []

    @tf.function
    def added_up(count):
        counts = strategy.run(lambda: tf.identity(count))
        return strategy.reduce("SUM", counts, axis=None)

    def terminated():
        if strategies.is_multi_worker(strategy):
            return added_up(tf.constant(float(len(received)))) > 0
        return bool(received)

    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(1))
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)
