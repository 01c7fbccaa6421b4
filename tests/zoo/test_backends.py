"""The same weights give the same logits on every backend of Keras."""

import re

import numpy as np
import pytest

import keras_resnet
from tests.helpers import oracles
from tests.helpers.backends import BACKENDS, run
from tests.helpers.commands import ROOT, run_python

PREDICT = """
import sys
import keras, keras_resnet
import numpy as np

data_format, model, weights, images, output = sys.argv[1:]
keras.config.set_image_data_format(data_format)
model = keras_resnet.create_model(model, weights=weights, classifier_activation=None)
images = np.load(images)
if data_format == "channels_first":
    images = images.transpose(0, 3, 1, 2)
np.save(output, model.predict(images, verbose=0))
print("tensorflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights and images on disk, and the logits of this process's backend."""
    directory = tmp_path_factory.mktemp("backends")
    np.save(directory / "images.npy", oracles.images())
    expected = {}
    for name in ("resnet18", "resnet50"):
        path = directory / f"{name}.safetensors"
        model = keras_resnet.create_model(
            name, weights=None, classifier_activation=None, stride_on="3x3"
        )
        oracles.randomize(model, seed=1)
        oracles.write_safetensors(oracles.torch_state(model), path)
        expected[name] = model.predict(oracles.images(), verbose=0)
    return directory, expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_are_the_same_on_every_backend(files, backend, name):
    directory, expected = files
    output = directory / f"{backend}.npy"
    formats = ["channels_last"]
    if backend != "tensorflow":  # whose CPU kernels know no channels_first
        formats.append("channels_first")
    for data_format in formats:
        printed = run(
            PREDICT,
            backend,
            data_format,
            name,
            directory / f"{name}.safetensors",
            directory / "images.npy",
            output,
        )
        difference = oracles.relative_difference(np.load(output), expected[name])
        assert difference <= 1e-4
        assert printed[-1] == str(backend == "tensorflow")


OPTION_A = """
import keras, keras_resnet
import numpy as np

images = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
last = keras_resnet.ResNet8(shortcut="A", classifier_activation=None)
keras.config.set_image_data_format("channels_first")
first = keras_resnet.ResNet8(shortcut="A", classifier_activation=None)
first.set_weights(last.get_weights())
a = last.predict(images, verbose=0)
b = first.predict(images.transpose(0, 3, 1, 2), verbose=0)
print(np.abs(a - b).max() / np.abs(a).max())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_option_a_pads_channels_in_both_data_formats(backend):
    assert float(run(OPTION_A, backend)[-1]) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_package_brings_no_framework_of_its_own(backend):
    # The backend itself imports more of its own parts as it builds a model.
    *added, tensorflow = run(
        "import keras, sys;"
        "names = {'tensorflow', 'tf_keras', 'torch', 'jax', 'huggingface_hub'};"
        "before = names & set(sys.modules); import keras_resnet;"
        "keras_resnet.ResNet8(); keras_resnet.list_weights();"
        "print(*names & set(sys.modules) - before);"
        "print('tensorflow' in sys.modules)",
        backend,
    )
    assert not added
    assert tensorflow == str(backend == "tensorflow")


@pytest.mark.parametrize("contender", ["keras_jax", "keras_torch", "pytorch"])
def test_training_steps_run_where_there_is_no_tensorflow(contender, tmp_path):
    needed = {"keras_jax": "jax"}.get(contender, "torch")
    pytest.importorskip(needed)
    for name in ("tensorflow", "tf_keras"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden')")
    done = run_python(
        *("-m", "benchmarks.train_step", f"--contenders={contender}"),
        *("--model=resnet8", "--batch_size=8", "--rounds=1", "--steps=2"),
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(rf"{contender} +([\d,]+) parameters", done.stdout)
    trainable = keras_resnet.ResNet8(weights=None).trainable_variables
    assert found == [f"{sum(np.prod(v.shape) for v in trainable):,}"], done.stdout
    assert re.search(rf"{contender} +[\d.]+ images/s", done.stdout)
