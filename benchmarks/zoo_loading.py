"""Time and memory of importing weights into the largest model of the zoo.

    python -m benchmarks.zoo_loading                 # safetensors, ResNet-152
    python -m benchmarks.zoo_loading --format=h5     # as keras.applications has it

Prints one JSON object: seconds and MiB, each for a file of random weights with
the layout of the published one. Needs Linux (/proc).
"""

import argparse
import json
import os
import pathlib
import platform
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]


def memory(field):
    """Returns VmRSS (now) or VmHWM (peak) of this process, in MiB."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) / 1024


def reset_peak():
    """Lets VmHWM start again from what is in use now."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def write(path):
    """Writes a weight file for ResNet-152, as the publisher of its format does."""
    import keras

    import keras_resnet
    from tests.helpers import oracles

    if path.suffix == ".h5":
        model = keras.applications.ResNet152(weights=None)
        oracles.write_keras2_h5(model, path)
    else:
        model = keras_resnet.ResNet152(weights=None)
        oracles.write_safetensors(oracles.torch_state(model), path)


def measure(path):
    """Loads the file into a model that is built already."""
    start = time.perf_counter()
    import keras

    keras_seconds = time.perf_counter() - start
    start = time.perf_counter()
    import keras_resnet

    import_seconds = time.perf_counter() - start
    from keras_resnet import convert

    start = time.perf_counter()
    path.read_bytes()
    read_seconds = time.perf_counter() - start

    before_building = memory("VmRSS")
    start = time.perf_counter()
    model = keras_resnet.ResNet152(weights=None)
    build_seconds = time.perf_counter() - start
    built = memory("VmRSS")
    reset_peak()
    start = time.perf_counter()
    convert.load(model, path)
    load_seconds = time.perf_counter() - start
    peak = memory("VmHWM")
    size = path.stat().st_size / 2**20
    return {
        "file": path.name,
        "file_MiB": round(size, 1),
        "import_keras_s": round(keras_seconds, 3),
        "import_keras_resnet_s": round(import_seconds, 4),
        "read_file_s": round(read_seconds, 3),
        "build_model_s": round(build_seconds, 2),
        "load_s": round(load_seconds, 2),
        "peak_of_loading_MiB": round(peak - built, 1),
        "peak_of_loading_per_file": round((peak - built) / size, 2),
        "peak_of_building_and_loading_per_file": round(
            (peak - before_building) / size, 2
        ),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "cpus": os.cpu_count(),
    }


def main():
    """Writes the file in one process and measures in another, clean one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--format", choices=["safetensors", "h5"], default="safetensors"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / f"resnet152.{arguments.format}"
        child = os.fork()
        if not child:
            write(path)
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps(measure(path), indent=1))


if __name__ == "__main__":
    main()
