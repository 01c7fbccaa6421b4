"""A strategy name -> `tf.distribute.Strategy`, for Keras 3."""

import contextlib
import os

import tensorflow as tf

from keras_resnet.console import hidden_output, warn
from keras_resnet.runner.errors import UserError
from keras_resnet.training.distribute import workers


def is_multi_worker(strategy):
    """Returns whether the strategy spans several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy):
    """Returns whether this process writes the files of the run."""
    return strategy.extended.should_checkpoint


def create(name, cpu_replicas=0):
    """Creates a `tf.distribute.Strategy`.

    With `cpu_replicas`, or several workers, the first call in a process must come
    before TensorFlow runs any operation. The names are those of `train`; a TPU is that
    of TPU_NAME in the environment, or the local one.

    Raises:
        UserError: `cpu_replicas` without "mirrored"; a worker or the TPU cannot be
            had; TensorFlow has started with other devices.
    """
    if cpu_replicas and name != "mirrored":
        raise UserError(
            "--cpu_replicas needs --strategy=mirrored. "
            f"Received: --cpu_replicas={cpu_replicas} --strategy={name}"
        )
    if name == "multi_worker":
        resolver = workers.find_cluster()
        with hidden_output(2), _before_start("multi_worker"):
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if name == "tpu":
        return _tpu()
    if cpu_replicas > (os.cpu_count() or 1):
        warn(
            f"{cpu_replicas} replicas share {os.cpu_count()} CPU cores: more replicas "
            "than cores are slower"
        )
    gpus = tf.config.list_logical_devices("GPU") if not cpu_replicas else []
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    if gpus:
        return tf.distribute.MirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * max(1, cpu_replicas)
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) < len(parts):
        with _before_start(f"mirrored --cpu_replicas={cpu_replicas}"):
            tf.config.set_logical_device_configuration(cpu, parts)
    return tf.distribute.MirroredStrategy(
        [f"/cpu:{index}" for index in range(len(parts))],
        # The default, collective operations, breaks down when a process creates a
        # second strategy on the same devices, as a notebook does.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@contextlib.contextmanager
def _before_start(name):
    """Raises `UserError` where TensorFlow has already started with other devices."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"--strategy={name} must be the first that TensorFlow does in a process: "
            "restart Python (or the notebook's kernel) and begin with it"
        ) from error


def _tpu():
    """Returns the strategy of a TPU. It was never run: no TPU was at hand."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            os.environ.get("TPU_NAME", "local")
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(f"--strategy=tpu finds no TPU: {error}") from error
    return tf.distribute.TPUStrategy(resolver)
