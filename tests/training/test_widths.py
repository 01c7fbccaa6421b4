"""Narrow networks, from training to the device."""

import json
import math

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import edge, training
from keras_resnet.commands.models import NARROW_SIZES
from keras_resnet.edge.convert import converter
from keras_resnet.edge.targets import edgetpu
from keras_resnet.runner import Classifier
from keras_resnet.runner.errors import UserError
from keras_resnet.training.reporting import page
from tests.helpers import metadata_reader
from tests.helpers.commands import one_error, run_command
from tests.training.test_transfer import settings_of

NARROW = dict(model="resnet8", dataset="digits", width=0.25, epochs=6)
NAME = "resnet8_width0.25"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A run in the default folder."""
    folder = tmp_path_factory.mktemp("narrow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = training.train(**NARROW)
    assert str(run.directory) == f"runs/{NAME}-digits"
    return training.Run.open(folder / run.directory)


def parameters(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def test_a_narrow_network_is_trained_loaded_and_evaluated(narrow):
    model = keras_resnet.load(narrow)
    ((expected, _), *_) = NARROW_SIZES["resnet8"]
    assert (model.name, parameters(model)) == (NAME, expected)
    config = json.loads((narrow.directory / "config.json").read_text())
    assert config["settings"]["model"] == "resnet8"
    assert config["settings"]["width"] == 0.25
    title = "<title>resnet8_width0.25 on digits</title>"
    assert title in (narrow.directory / page.FILE).read_text()
    assert training.evaluate(narrow)["top1"] == narrow.metrics["top1"] > 0.8


def test_a_run_goes_on_with_its_own_width_alone(narrow):
    again = training.train(**NARROW, model_dir=narrow.directory)
    assert again.metrics == narrow.metrics
    for width in (0.5, 1):
        changes = NARROW | dict(width=width)
        with pytest.raises(UserError, match=r"holds another run: width=0.25 there, "):
            training.train(**changes, model_dir=narrow.directory)


def test_a_narrow_network_maps_to_the_edge_tpu_whole(narrow, tmp_path):
    path = tmp_path / "narrow.tflite"
    report = edge.export(narrow, path, quantize="int8", target="edgetpu")
    assert report["model"] == NAME
    content = path.read_bytes()
    found = edgetpu.check(content)
    assert found.complete and found.fits
    # Weights have a byte; the biases, four, are few.
    ((expected, _), *_) = NARROW_SIZES["resnet8"]
    assert found.parameter_bytes == pytest.approx(expected, rel=0.05)
    assert metadata_reader.read(content).about.name == NAME
    top1 = training.evaluate(path, "digits")["top1"]
    assert top1 == pytest.approx(narrow.metrics["top1"], abs=0.03)
    assert Classifier(path).classes == 10


@pytest.mark.slow
def test_a_narrow_network_is_fine_tuned_quantization_aware(narrow, tmp_path):
    aware = training.quantize_aware(narrow, epochs=1)
    assert aware.metrics["top1"] > narrow.metrics["top1"] - 0.03
    title = "resnet8_width0.25 on digits, quantization-aware"
    assert title in (aware.directory / page.FILE).read_text()
    path = tmp_path / "narrow.tflite"
    edge.export(narrow, path, quantize="qat", target="edgetpu")
    assert edgetpu.check(path.read_bytes()).complete


@pytest.mark.slow
def test_resnet34_of_half_the_width_is_the_largest_on_the_chip():
    """docs/training.md says so; by the highest estimate."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    fits = {}
    for name, width in (
        ("resnet34", 0.5),
        ("resnet18", 0.75),
        ("resnet50", 0.5),
        ("resnet16_224", 1),
    ):
        keras.utils.set_random_seed(0)
        model = keras_resnet.create_model(name, weights=None, width=width)
        preprocessing = keras_resnet.Preprocessing((224, 224))
        content = converter.from_keras(model, preprocessing, "int8", pixels)
        fits[name, width] = edgetpu.check(content)
    assert [report.fits for report in fits.values()] == [True, False, False, False]
    assert all(report.complete for report in fits.values())
    largest = {
        (name, width): count
        for name, sizes in NARROW_SIZES.items()
        for width, (count, _) in zip((0.25, 0.5, 0.75), sizes, strict=True)
        if count * edgetpu.PARAMETER_OVERHEAD[1] <= edgetpu.ON_CHIP_BYTES
    }
    assert max(largest, key=largest.get) == ("resnet34", 0.5)


@pytest.mark.parametrize(
    "width", [0, -0.5, 0.3, 1.5, float("nan"), float("inf"), "0.5", True]
)
def test_another_width_is_refused(width):
    with pytest.raises(
        UserError,
        match=r"^--width must be 0.25, 0.5, 0.75 or a whole number from 1. Received: ",
    ):
        settings_of(width=width)


def test_published_weights_are_for_width_1():
    with pytest.raises(UserError, match="--weights=none.*Received: --width=0.5"):
        settings_of(dataset="folder", width=0.5)
    assert settings_of(dataset="folder", width=0.5, weights="none").weights is None
    assert settings_of(width=2.0).network == "resnet20_width2"
    assert settings_of(width=1.0).network == "resnet20"


def test_the_command_refuses_a_width_in_one_line(tmp_path):
    done = run_command("training/train.py", "--width=1.5", cwd=tmp_path)
    assert one_error(done).endswith("from 1. Received: --width=1.5")
    assert not list(tmp_path.iterdir())
