"""Time and memory of importing weights into the largest model of the zoo.

    python -m benchmarks.zoo_loading                 # safetensors, ResNet-152
    python -m benchmarks.zoo_loading --format=h5     # as keras.applications has it

Prints one JSON object: seconds and MiB, each for a file of random weights with
the layout of the published one. Memory is the anonymous memory of the process
(RssAnon): pages of a mapped file, which the system takes back whenever it needs
them, do not count. Needs Linux (/proc).
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import platform
import tempfile
import time

import keras

import keras_resnet
from benchmarks import turns
from keras_resnet.weights import formats
from tests.helpers import oracles


def anonymous_memory(process):
    """Returns the anonymous memory of a process, in MiB."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(function):
    """Calls a function; returns its seconds, and how many MiB more it needed."""
    before = anonymous_memory(os.getpid())
    ours, theirs = multiprocessing.Pipe()
    # Another process: a thread would wait for the same lock.
    watcher = multiprocessing.get_context("fork").Process(target=watch, args=[theirs])
    watcher.start()
    seconds = turns.seconds(function)
    ours.send("stop")
    return seconds, ours.recv() - before


def watch(connection):
    """Sends the peak of the parent's anonymous memory once it is told to stop."""
    peak, stopped = 0.0, False
    while not stopped:
        peak = max(peak, anonymous_memory(os.getppid()))
        stopped = connection.poll(0.0005)
    connection.send(peak)


def write(path):
    """Writes a weight file for ResNet-152, as the publisher of its format does."""
    if path.suffix == ".h5":
        oracles.write_keras2_h5(keras.applications.ResNet152(weights=None), path)
    else:
        model = keras_resnet.ResNet152(weights=None)
        oracles.write_safetensors(oracles.torch_state(model), path)


def report(path):
    """Loads the file into a model that is built already."""
    read_seconds, _ = measure(path.read_bytes)
    start = time.perf_counter()
    model = keras_resnet.ResNet152(weights=None)
    build_seconds = time.perf_counter() - start
    load_seconds, peak = measure(lambda: formats.load(model, path))
    size = path.stat().st_size / 2**20
    return {
        "file": path.name,
        "file_MiB": round(size, 1),
        "read_file_s": round(read_seconds, 3),
        "build_model_s": round(build_seconds, 2),
        "load_s": round(load_seconds, 2),
        "peak_of_loading_MiB": round(peak, 1),
        "peak_of_loading_per_file": round(peak / size, 2),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "cpus": os.cpu_count(),
    }


def main():
    """Writes the file in one process and measures in another, clean one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = ["safetensors", "h5"]
    parser.add_argument("--format", choices=choices, default="safetensors")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / f"resnet152.{arguments.format}"
        child = multiprocessing.get_context("fork").Process(target=write, args=[path])
        child.start()
        child.join()
        print(json.dumps(report(path), indent=1))


if __name__ == "__main__":
    main()
