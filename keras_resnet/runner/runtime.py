"""The TFLite runtime: which one, and with how many threads."""

import contextlib
import importlib
import os

from keras_resnet.runner.errors import UserError, open_file

SYSTEM = ""  # the folder that holds /sys and /dev


@contextlib.contextmanager
def silenced_stderr():
    """Sends file descriptor 2 to the null device: native code prints there directly."""
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed: nothing to silence
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def load_runtime():
    """Imports the first TFLite runtime that works on this machine.

    Returns:
        (Interpreter class, "name version").

    Raises:
        UserError: none works, with the reason for each.
    """
    reasons = []
    for package in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
        try:
            with silenced_stderr():
                module = importlib.import_module(package)
                if package == "tflite_runtime":
                    refuse_numpy_2(module.__version__)
                if package == "tensorflow":
                    interpreter = module.lite
                else:
                    interpreter = importlib.import_module(package + ".interpreter")
                name = package.replace("_", "-")
                return interpreter.Interpreter, f"{name} {module.__version__}"
        except (ImportError, OSError, AttributeError) as error:
            reasons.append(f"{package}: {error}")
    raise UserError(
        f"no TFLite runtime works here ({'; '.join(reasons)}); pip install "
        "ai-edge-litert, or tflite-runtime with 'numpy<2'"
    )


def refuse_numpy_2(version):
    """Raises ImportError where tflite-runtime, built for numpy 1, would fail later."""
    import numpy as np

    numpy_major = int(np.__version__.split(".")[0])
    if numpy_major > 1 and tuple(map(int, version.split(".")[:2])) < (2, 18):
        raise ImportError(
            f"{version} needs numpy < 2, found {np.__version__}: pip install 'numpy<2'"
        )


def build_interpreter(interpreter_class, path, threads, delegate=None):
    """Creates an interpreter whose tensors have no memory yet."""
    options = {"experimental_delegates": [delegate]} if delegate else {}
    if path.isascii():
        options["model_path"] = path
    else:  # some runtimes cannot open such a path
        with open_file(path) as file:
            options["model_content"] = file.read()
    with silenced_stderr():
        return interpreter_class(num_threads=threads, **options)


def default_threads():
    """Counts the physical cores that this process may use, at most 4.

    Two threads on one core are slower than one: they share its arithmetic units.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    else:
        cpus = range(os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        try:
            path = f"{SYSTEM}/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings"
            with open(path) as file:
                cores.add(file.read())
        except OSError:  # not Linux
            cores.add(cpu)
    return min(4, len(cores))
