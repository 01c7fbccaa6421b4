"""Finds the other workers of a training on several machines, and waits for them.

TensorFlow alone would wait for hours for a missing worker, and abort the process on a
wrong TF_CONFIG.
"""

import contextlib
import json
import os
import socket
import time

import tensorflow as tf
from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver

from keras_resnet.runner.errors import UserError

# Seconds within which all workers must have been started.
PATIENCE = 120
EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def find_cluster():
    """Returns the cluster's resolver, once all its workers are there.

    It is read from TF_CONFIG, else from Slurm's environment.

    Raises:
        UserError: there is neither, it is malformed, or a worker does not come.
    """
    if "TF_CONFIG" not in os.environ and "SLURM_PROCID" in os.environ:
        os.environ["TF_CONFIG"] = json.dumps(config_from_slurm(os.environ))
    if "TF_CONFIG" not in os.environ:
        raise UserError(
            "--strategy=multi_worker needs TF_CONFIG or Slurm. Example: "
            f"TF_CONFIG='{EXAMPLE}'. Workers on this machine: python "
            "training/launch.py --workers=2 training/train.py ..."
        )
    check_config(os.environ["TF_CONFIG"])
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    spec = resolver.cluster_spec()
    own = spec.task_address(resolver.task_type, resolver.task_id)
    addresses = [address for job in spec.jobs for address in spec.job_tasks(job)]
    wait_for(addresses, own, PATIENCE)
    return resolver


def config_from_slurm(environment):
    """Returns the TF_CONFIG of a task of Slurm, from the variables that srun sets.

    TensorFlow's own `SlurmClusterResolver` fails without GPUs, and where Slurm has
    given each task its own; and it sorts the nodes by name, n10 before n9, while Slurm
    numbers the tasks in the order of the nodes.
    """
    names = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    for name in names:
        if name not in environment:
            raise UserError(
                f"{name} is missing in the environment: under Slurm start the training "
                "by srun, inside of sbatch too, or set TF_CONFIG"
            )
    rank, nodes, tasks = (environment[name] for name in names)
    try:
        # Jobs that share a node have ports of their own, for up to 16 tasks each.
        port = 10000 + int(environment.get("SLURM_JOB_ID", 0)) % 1000 * 16
        addresses = [
            f"{node}:{port + index}"
            for node, count in zip(
                slurm_cluster_resolver.expand_hostlist(nodes),
                slurm_cluster_resolver.expand_tasks_per_node(tasks),
                strict=True,
            )
            for index in range(count)
        ]
        task = range(len(addresses))[int(rank)]
    except (ValueError, IndexError) as error:
        received = ", ".join(f"{name}={environment[name]}" for name in names)
        raise UserError(
            f"Slurm's environment names no cluster ({error}): start the training by "
            f"srun, or set TF_CONFIG. Received: {received}"
        ) from error
    return {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": task}}


@contextlib.contextmanager
def report_lost_workers():
    """Raises `UserError` for what TensorFlow raises when another worker dies."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise UserError(
            "another worker is gone. Start all of them again with the same command: "
            "they continue from the last checkpoint. TensorFlow says: "
            f"{error.message.splitlines()[0]}"
        ) from error


def check_config(text):
    """Raises `UserError` if a TF_CONFIG is malformed, and says where."""

    def refuse(reason):
        return UserError(f"TF_CONFIG {reason}. Expected like {EXAMPLE}")

    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is no JSON ({error})") from error
    if not isinstance(config, dict) or not {"cluster", "task"} <= config.keys():
        raise refuse("must be an object with 'cluster' and 'task'")
    cluster, task = config["cluster"], config["task"]
    jobs = cluster.keys() if isinstance(cluster, dict) else ()
    if not jobs or not jobs <= {"chief", "worker"}:
        raise refuse("'cluster' must hold 'worker', and 'chief' if you like")
    for job, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses:
            raise refuse(f"cluster[{job!r}] must be a list of addresses")
        for address in addresses:
            host, _, port = str(address).rpartition(":")
            if ":" in host and not (host.startswith("[") and host.endswith("]")):
                raise refuse(f"IPv6 address {address!r} must be like [fd00::1]:2222")
            if not (host and port.isdecimal() and 0 < int(port) < 65536):
                raise refuse(f"address {address!r} must be host:port")
    if not isinstance(task, dict) or task.get("type") not in tuple(cluster):
        raise refuse(f"task['type'] must be one of {', '.join(cluster)}")
    count, index = len(cluster[task["type"]]), task.get("index")
    if type(index) is not int or not 0 <= index < count:
        raise refuse(f"task['index'] must be 0 to {count - 1}, is {index!r}")


def wait_for(addresses, own, seconds):
    """Waits until somebody listens at every address (host:port).

    This process listens at its own meanwhile.

    Raises:
        UserError: a worker did not come, or the own address cannot be had.
    """
    until = time.monotonic() + seconds
    both = socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            ("", int(own.rpartition(":")[2])),
            family=socket.AF_INET6 if both else socket.AF_INET,
            dualstack_ipv6=both,
        )
    except OSError as error:
        raise UserError(
            f"this worker cannot listen at {own}: {error.strerror}. Is another run "
            "going on?"
        ) from error
    with listener:
        for address in addresses:
            while address != own:
                host, _, port = address.rpartition(":")
                try:
                    socket.create_connection((host.strip("[]"), int(port)), 5).close()
                    break
                except OSError as error:
                    if time.monotonic() > until:
                        raise UserError(
                            f"worker {address} cannot be reached for {seconds} s: "
                            f"{error}. Start all workers within that time"
                        ) from error
                    time.sleep(0.2)
        # Whoever started later must still find this one: TensorFlow listens soon.
        time.sleep(0.5)
