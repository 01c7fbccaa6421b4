"""A strategy name -> `tf.distribute.Strategy`, for Keras 3."""

import os
import sys

import tensorflow as tf

from command_line import UserError


def create(name, cpu_replicas=0):
    """Creates the strategy. Call it before TensorFlow runs any operation.

    Args:
        name: "one_device" (the first GPU, or the CPU) or "mirrored" (all GPUs,
            or the CPU).
        cpu_replicas: with "mirrored": split the CPU into that many logical
            devices and train on them, so that mirrored training is real
            without a GPU. 0: do not.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        UserError: `cpu_replicas` is negative or without "mirrored".
    """
    if cpu_replicas < 0 or (cpu_replicas and name != "mirrored"):
        raise UserError(
            "--cpu_replicas takes a positive number and needs --strategy=mirrored. "
            f"Received: --cpu_replicas={cpu_replicas} --strategy={name}"
        )
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
