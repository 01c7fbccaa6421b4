r"""Trains the networks for CIFAR-10 on one GPU, one after the other, and ships them.

    pip install "jax[cuda13]"
    python -m benchmarks.gpu_pretrain --data_dir=DATA_DIR

Needs the folder of tensorflow-datasets with cifar10. Broken off and started again, it
continues; complete networks are not trained again. It was never run on a GPU: only a
test on two CPU cores has run it, on the embedded digits.

The backend is JAX. In such small networks, starting kernels and feeding images limits
the speed, and not arithmetic. Under JAX an epoch is one program: the images lie in the
memory of the GPU, XLA fuses each normalization with its neighbours, and shuffling,
augmentation, teacher and optimizer run inside the same loop. training/train.py augments
on the CPU and starts each kernel from TensorFlow's runtime; PyTorch starts them from
Python. This is a reason and no measurement.

The machine with the GPU needs jax, keras, absl-py, h5py, safetensors and Pillow.
TensorFlow is needed to plan (benchmarks.gpu_plan) and to ship (edge/export.py and
benchmarks.ship). To do that elsewhere, copy the output folder there and back and call
the same command: it does what is missing.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

from absl import flags

from benchmarks import gpu_plan
from keras_resnet import files
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS
ROOT = pathlib.Path(__file__).resolve().parents[1]


def define_flags():
    """Defines the flags of the command."""
    gpu_plan.define_flags()


def main():
    """Plans, trains and ships what is missing."""
    output = pathlib.Path(FLAGS.output)
    if not (output / gpu_plan.PLAN).exists():
        _run(sys.executable, "-m", gpu_plan.__name__, *sys.argv[1:])
    plan = files.read_json(output / gpu_plan.PLAN)
    _check_flags(output, plan)
    os.environ["KERAS_BACKEND"] = "jax"
    import numpy as np

    from benchmarks import jax_training

    with np.load(output / gpu_plan.IMAGES) as found:
        arrays = dict(found)
    for network in plan["networks"]:
        folder = output / network["folder"]
        metrics = files.read_json(folder / "metrics.json")
        if metrics is None:
            metrics = jax_training.train(output, network, plan, arrays)
        print(f"{folder}: top-1 {metrics['top1']:.2%}", flush=True)
        if plan["flags"]["dataset"] == "cifar10":
            _ship(folder)


def _check_flags(output, plan):
    """Raises `UserError` if the user wants something else than was planned."""
    planned = plan["flags"]
    for name, value in gpu_plan.wanted().items():
        if FLAGS[name].present and value != planned[name]:
            raise UserError(
                f"{output} was planned with --{name}={planned[name]}: use another "
                f"--output, or delete that folder. Received: --{name}={value}"
            )


def _ship(folder):
    """Puts a complete network into the package, unless it is there already."""
    done = folder / "shipped"
    if done.exists():
        return
    if importlib.util.find_spec("tensorflow") is None:
        print(f"{folder} is not shipped: call this where TensorFlow is installed")
        return
    hardware = files.read_json(folder / "config.json")["hardware"]
    run = f"--model_dir={folder}"
    export = ROOT / "edge" / "export.py"
    _run(sys.executable, export, run, "--quantize=int8", "--report_examples=5000")
    _run(sys.executable, "-m", "benchmarks.ship", run, f"--hardware={hardware}")
    done.touch()


def _run(*command):
    """Runs a command that says itself what is wrong, and ends as it does."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "JAX_PLATFORMS": "cpu"}
    status = subprocess.run(list(map(str, command)), env=environment).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    app.run(sys.modules[__name__])
