"""A strategy name -> `tf.distribute.Strategy`, for Keras 3."""

import os
import sys

import tensorflow as tf

from keras_resnet.console import hidden_output
from keras_resnet.runner.errors import UserError
from keras_resnet.training.distribute import workers


def is_multi_worker(strategy):
    """Returns whether the strategy spans several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy):
    """Returns whether this process writes the files of the run."""
    return strategy.extended.should_checkpoint


def create(name, cpu_replicas=0):
    """Creates the strategy. Call it before TensorFlow runs any operation.

    Args:
        name: "one_device" (the first GPU, or the CPU), "mirrored" (all GPUs,
            or the CPU), "multi_worker" (all GPUs, or the CPU, of several
            processes: see `workers.find`) or "tpu" (TPU_NAME in the
            environment, or the local one).
        cpu_replicas: with "mirrored": split the CPU into that many logical
            devices and train on them, so that mirrored training is real
            without a GPU. 0: do not.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        UserError: `cpu_replicas` is negative or without "mirrored"; a worker or
            the TPU cannot be had.
    """
    if cpu_replicas < 0 or (cpu_replicas and name != "mirrored"):
        raise UserError(
            "--cpu_replicas takes a positive number and needs --strategy=mirrored. "
            f"Received: --cpu_replicas={cpu_replicas} --strategy={name}"
        )
    if name == "multi_worker":
        resolver = workers.find()
        with hidden_output(2):
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if name == "tpu":
        return _tpu()
    if cpu_replicas > (os.cpu_count() or 1):
        print(
            f"warning: {cpu_replicas} replicas share {os.cpu_count()} CPU cores: more "
            "replicas than cores are slower",
            file=sys.stderr,
        )
    gpus = tf.config.list_logical_devices("GPU") if not cpu_replicas else []
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    if gpus:
        return tf.distribute.MirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * max(1, cpu_replicas)
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) < len(parts):
        tf.config.set_logical_device_configuration(cpu, parts)
    return tf.distribute.MirroredStrategy(
        [f"/cpu:{index}" for index in range(len(parts))],
        # The default, collective operations, breaks down when a process creates a
        # second strategy on the same devices, as a notebook does.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def _tpu():
    """Returns the strategy of a TPU. Written by the book: none was at hand."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            os.environ.get("TPU_NAME", "local")
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(f"--strategy=tpu finds no TPU: {error}") from error
    return tf.distribute.TPUStrategy(resolver)
