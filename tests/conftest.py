"""What the tests share: two CPU devices, the data beside the checkout, one run."""

import os
import pathlib
import shutil

import filelock
import numpy as np
import pytest

from keras_resnet import console
from keras_resnet.preprocessing import Preprocessing
from tests.helpers.commands import ROOT, run_command

# The tests of the zoo run on the other backends of Keras too.
if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    console.import_tensorflow()

    from keras_resnet.training.distribute import strategies

    # Before TensorFlow runs anything: mirrored tests need two devices.
    strategies.create("mirrored", cpu_replicas=2)


@pytest.fixture(scope="session")
def shared_data():
    """The data for development; a user's machine has none of it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs ../shared/data")
    return path


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run of train.py and qat.py: ResNet-8 on digits, two replicas.

    The first of several test processes trains it; each has a copy of its own.
    """
    trained = made_once(tmp_path_factory, "trained", train_digits)
    own = tmp_path_factory.mktemp("runs") / "resnet8-digits"
    return pathlib.Path(shutil.copytree(trained, own))


def made_once(tmp_path_factory, name, make):
    """Returns a path that several test processes share; the first calls make(path)."""
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    path, complete = common / name, common / f"{name}.complete"
    with filelock.FileLock(common / f"{name}.lock"):
        if not complete.exists():
            make(path)
            complete.touch()
    return path


def train_digits(directory):
    replicas = ("--strategy=mirrored", "--cpu_replicas=2")
    for script, *flags in (
        ("training/train.py", "--model=resnet8", "--epochs=6"),
        ("training/qat.py", "--epochs=1"),
    ):
        done = run_command(script, f"--model_dir={directory}", *replicas, *flags)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory):
    """A folder of pictures with boxes: 13 to train on, and 3 that are held out."""
    from tests.helpers.scenes import made_scenes, write_labelme

    def write(path):
        write_labelme(path, made_scenes(16))

    return made_once(tmp_path_factory, "pictures", write)


@pytest.fixture(scope="session")
def scene_runs(scene_folder, tmp_path_factory):
    """{task: a run of two epochs}, a tiny detector and a tiny segmenter, to read."""
    from keras_resnet import training
    from tests.helpers.scenes import train

    tasks = ("detect", "segment")

    def train_both(path):
        for task in tasks:
            train(task, scene_folder, path / task)

    path = made_once(tmp_path_factory, "scene_runs", train_both)
    return {task: training.Run.open(path / task) for task in tasks}


QUANTIZATIONS = ("qat", "int8", "int16x8", "dynamic", "float16", "none")
SMALL = Preprocessing((32, 32))


@pytest.fixture(scope="session")
def held_out():
    """The held-out digits as raw pixels, and their labels."""
    from keras_resnet.training.data import batching, sources

    split = sources.load("digits").held_out
    pairs = batching.images(split, SMALL).as_numpy_iterator()
    return tuple(np.stack(x) for x in zip(*pairs, strict=True))


@pytest.fixture(scope="session")
def export(digits_run):
    """The `Report` of `edge.export` on that run, which has quantization-aware weights.

    The files lie in the folder of the run.
    """
    from keras_resnet import edge

    return edge.export(digits_run)


@pytest.fixture(scope="session")
def files(digits_run, export):
    """Every kind of export of one run: {quantize: path}."""
    import keras

    from keras_resnet.edge.convert import converter, metadata
    from keras_resnet.training.data import batching, sources

    paths = {name: digits_run / f"model-{name}.tflite" for name in QUANTIZATIONS}
    model = keras.saving.load_model(digits_run / "model.keras")
    calibration = batching.calibration_images(sources.load("digits"), SMALL, 500)
    for name in QUANTIZATIONS[1:]:
        content = converter.from_keras(model, SMALL, name, calibration)
        about = metadata.About(name)
        paths[name].write_bytes(metadata.with_metadata(content, None, SMALL, about))
    return paths
