"""The weights in the package: found by default, checked, right on every backend."""

import hashlib
import warnings

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.commands.models import table
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import registry
from tests.helpers import oracles
from tests.helpers.backends import BACKENDS, run
from tests.helpers.commands import ROOT
from tests.helpers.project_copy import copy_project, in_the_place_of_ours

NAME = "resnet8.cifar10"


def same_weights(model, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(model.get_weights(), other.get_weights(), strict=True)
    )


def random_resnet8(**arguments):
    return oracles.randomize(keras_resnet.ResNet8(weights=None, **arguments), seed=6)


@pytest.fixture
def package(tmp_path):
    """A copy of the registry that ships a stand-in, random weights for ResNet-8."""
    package = copy_project(tmp_path)
    (package / "pretrained").mkdir()
    weights = package / "pretrained" / f"{NAME}.weights.h5"
    random_resnet8().save_weights(weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    row = "resnet8 cifar10 cifar10 apache-2.0 1x1 yes - zoo bilinear 32:1.0:88.1:99.5"
    with open(package / "weights.tsv", "a") as file:
        print(
            *row.split(), digest, f"pretrained/{NAME}.weights.h5", sep="\t", file=file
        )
    with in_the_place_of_ours(package):
        yield package


# --- what `weights` gives ---------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        dict(weights="cifar10"),
        dict(weights=NAME),
        dict(classifier_activation=None),
        dict(dropout=0.1, stride_on="3x3"),
        dict(include_top=False),
        dict(include_top=False, classes=7),
        dict(input_shape=(64, 48, 3)),
    ],
)
def test_a_network_whom_the_shipped_weights_fit_has_them(package, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = keras_resnet.ResNet8(**arguments)
    top = arguments.get("include_top", True)
    assert same_weights(model, random_resnet8(include_top=top))
    assert model.preprocessing == Preprocessing(
        arguments.get("input_shape", (32, 32))[:2]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        dict(weights=None),
        dict(classes=100),
        dict(shortcut="A"),
        dict(shortcut="C"),
        dict(residual=False),
        dict(width=2),
        dict(input_shape=(32, 32, 1)),
    ],
)
def test_another_network_does_not_fail_because_of_a_default(package, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras.utils.set_random_seed(3)
        model = keras_resnet.ResNet8(**arguments)
    keras.utils.set_random_seed(3)
    assert same_weights(model, keras_resnet.ResNet8(**(arguments | dict(weights=None))))
    assert not hasattr(model, "preprocessing")


def test_a_model_of_which_none_ship_starts_at_random(package):
    assert not hasattr(keras_resnet.ResNet14(), "preprocessing")
    with pytest.raises(UserError, match="No weights are published for resnet14"):
        keras_resnet.ResNet14(weights="cifar10")


def test_weights_that_are_asked_for_are_loaded_or_refused(package):
    with pytest.warns(UserWarning, match="classifier for 100 classes keeps its init"):
        model = keras_resnet.ResNet8(weights="cifar10", classes=100)
    np.testing.assert_array_equal(
        model.get_layer("conv1_conv").kernel,
        random_resnet8().get_layer("conv1_conv").kernel,
    )
    for arguments in (dict(shortcut="A"), dict(residual=False), dict(width=2)):
        with pytest.raises(UserError, match=f"weights {NAME} are for.*Received: "):
            keras_resnet.ResNet8(weights="cifar10", **arguments)
    with pytest.raises(
        UserError, match="unknown weights for resnet8: choose one of cifar10. Rec"
    ):
        keras_resnet.ResNet8(weights="imagenet")
    with pytest.raises(UserError, match="another model than resnet14.*Received"):
        keras_resnet.ResNet14(weights=NAME)


def test_the_other_functions_know_them(package):
    assert NAME in keras_resnet.list_weights()
    assert keras_resnet.list_weights("resnet8") == [NAME]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    model = keras_resnet.ResNet8()
    scores = np.eye(10)[[3, 9]]
    expected = (pixels - np.float32(128)) / 64
    for known in (model, NAME, "resnet8", "cifar10"):
        x = keras_resnet.preprocess_input(pixels, known)
        np.testing.assert_array_equal(x, expected)
        decoded = keras_resnet.decode_predictions(scores, 1, known)
        assert decoded == [[("cat", "cat", 1.0)], [("truck", "truck", 1.0)]]
    with pytest.raises(UserError, match="10. of scores for airplane, .*Received"):
        keras_resnet.decode_predictions(np.zeros((1, 1000)), model_or_weights=model)
    row = "resnet8 | 0.078 | 0.013 | cifar10 (default) | - | 88.1 (32 px) | apache-2.0"
    assert f"| {row} |" in table().splitlines()


# --- damage -----------------------------------------------------------------


def test_a_damaged_or_missing_file_is_refused(package):
    path = package / "pretrained" / f"{NAME}.weights.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    advice = f"Install keras-resnet-zoo again. Received: '{path}'"
    with pytest.raises(UserError) as error:
        keras_resnet.ResNet8()
    digest = registry.find("resnet8", "cifar10").digest
    assert f"{NAME} are damaged: the SHA256 must be {digest}" in str(error.value)
    assert str(error.value).endswith(advice)
    path.unlink()
    with pytest.raises(UserError, match="are missing") as error:
        keras_resnet.ResNet8()
    assert str(error.value).endswith(advice)


# --- the weights that ship --------------------------------------------------

PREDICT = """
import sys
import keras_resnet
import numpy as np

name, pixels, output = sys.argv[1:]
model = keras_resnet.create_model(name)
x = keras_resnet.preprocess_input(np.load(pixels), model)
np.save(output, model.predict(x, verbose=0))
"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
def test_shipped_weights_predict_the_same_on_every_backend_without_a_network(
    tmp_path, monkeypatch, backend, name
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    run(PREDICT, backend, name, tmp_path / "pixels.npy", tmp_path / "scores.npy")
    model = keras_resnet.create_model(name)
    x = (pixels - np.float32(128)) / 64
    expected = model.predict(x, verbose=0)
    assert model.preprocessing is not None and expected.std() > 0.1
    actual = np.load(tmp_path / "scores.npy")
    assert oracles.relative_difference(actual, expected) < 1e-4
    assert not (tmp_path / "keras" / "models").exists()


# --- the example ------------------------------------------------------------


@pytest.mark.slow
def test_the_example_of_fine_tuning_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # python -c looks for modules here first
    script = (ROOT / "examples" / "finetune.py").read_text()
    *_, accuracy, of, count, digits = run(script, keras.backend.backend())[:-5]
    assert (of, count, digits) == ("of", "397", "digits")
    assert float(accuracy.rstrip("%")) > 90
