"""What ships is what its card says, and shipping makes it so."""

import dataclasses
import hashlib
import json
import math
import shutil

import keras
import numpy as np
import pytest

import keras_resnet
from benchmarks import ship
from keras_resnet.edge.convert import metadata
from keras_resnet.preprocessing import classes
from keras_resnet.runner import Classifier
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import batching, sources
from keras_resnet.weights import registry
from tests.conftest import SMALL
from tests.helpers import metadata_reader
from tests.helpers.commands import one_error, run_command
from tests.helpers.project_copy import copy_project, in_the_place_of_ours

NAME = "resnet8.cifar10"
LABELS = tuple(name for _, name in classes("cifar10"))


def shipped():
    files = [e for tags in registry.weight_files().values() for e in tags.values()]
    return [entry for entry in files if entry.shipped and entry.dataset == "cifar10"]


def root():
    """The project whose registry is in use: this one or a copy."""
    return registry.PACKAGE.parents[1]


def card_of(entry):
    path = registry.PACKAGE / "pretrained" / f"{entry.name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def strings_in(value):
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [text for item in items for text in strings_in(item)]
    return [value] if isinstance(value, str) else []


def check_files(entry):
    """The files, the registry and the card tell the same."""
    card = card_of(entry)
    assert card["name"] == entry.name
    assert card["licence"] == entry.licence
    for kind in ("float", "int8"):
        content = (root() / card[kind]["file"]).read_bytes()
        assert card[kind]["sha256"] == hashlib.sha256(content).hexdigest()
        assert card[kind]["bytes"] == len(content)
        found = card[kind]["accuracy"]
        error = math.sqrt(found["top1"] * (1 - found["top1"]) / found["images"])
        assert found["standard_error"] == pytest.approx(error)
    assert entry.digest == card["float"]["sha256"]
    assert f"keras_resnet/weights/{entry.source}" == card["float"]["file"]
    for key in ("top1", "top5"):
        expected = round(100 * card["float"]["accuracy"][key], 2)
        assert getattr(entry.evaluations[0], key) == expected
    training = card["training"]
    assert training["settings"]["model"] == entry.model
    assert len(training["history"]) == 1 + training["recipe"]["epochs"]
    assert training["seconds"] > 0 and training["hardware"]
    device = (root() / card["int8"]["file"]).read_bytes()
    assert metadata_reader.read(device).about.license == card["licence"]
    for text in strings_in(card):
        assert not text.startswith("/") and "=/" not in text, text


def check_accuracy(entry, split):
    """Measures both files again, on the first test images."""
    card = card_of(entry)
    pairs = batching.images(split, entry.preprocessing).take(ship.FIRST)
    pairs = list(pairs.as_numpy_iterator())
    images, labels = (np.stack(column) for column in zip(*pairs, strict=True))
    model = keras_resnet.create_model(entry.model)
    x = entry.preprocessing.normalize(images)
    classifier = Classifier(str(root() / card["int8"]["file"]))
    assert classifier.labels == list(LABELS)
    for kind, scores in (
        ("float", model.predict(x, verbose=0)),
        ("int8", np.stack([classifier.scores(image) for image in images])),
    ):
        found = card[kind]["accuracy"]
        expected, count = found["first_top1"], found["first_images"]
        assert len(images) == count
        top1 = np.mean(scores.argmax(-1) == labels)
        assert abs(top1 - expected) <= math.sqrt(expected * (1 - expected) / count)


# --- what ships ---------------------------------------------------------------


@pytest.mark.parametrize("entry", shipped(), ids=lambda entry: entry.name)
def test_a_shipped_file_is_what_its_card_says(entry):
    check_files(entry)


@pytest.mark.parametrize("entry", shipped(), ids=lambda entry: entry.name)
def test_a_shipped_file_is_as_accurate_as_its_card_says(entry, shared_data):
    check_accuracy(entry, sources.load("cifar10", shared_data / "tfds").held_out)


def test_the_shipped_weights_are_small():
    sizes = [(registry.PACKAGE / entry.source).stat().st_size for entry in shipped()]
    assert sum(sizes) < 2_000_000


def test_nothing_lies_there_unregistered():
    names = {entry.name for entry in shipped()}
    found = {path.name for path in (registry.PACKAGE / "pretrained").glob("*")}
    features = {
        f"resnet20_224.imagenet.{k}" for k in ("json", "safetensors", "LICENSE")
    }
    trained_here = {f"{n}.{kind}" for n in names for kind in ("json", "weights.h5")}
    assert found == trained_here | features
    found = {path.name for path in (root() / "models").glob("*")}
    assert found == {f"{name}.int8.tflite" for name in names}


# --- shipping -----------------------------------------------------------------


@pytest.fixture(scope="module")
def stand_in(digits_run, export, tmp_path_factory):
    """A run on digits, passed off as one on CIFAR-10."""
    run = tmp_path_factory.mktemp("runs") / "resnet8-cifar10"
    # Other tests export to the same folder.
    others = [path for path in digits_run.glob("*.tflite") if path.stem != "model-qat"]
    shutil.copytree(digits_run, run, ignore=lambda *_: [path.name for path in others])
    config = json.loads((run / "config.json").read_text())
    config["labels"] = list(LABELS)
    config["settings"] |= {"dataset": "cifar10", "data_dir": "/somewhere/tfds"}
    config["settings"]["weights"] = str(run.parent / "teacher" / "model.keras")
    (run / "config.json").write_text(json.dumps(config))
    path = run / "model-qat.tflite"
    content = path.read_bytes()
    about = metadata_reader.read(content).about
    path.write_bytes(metadata.with_metadata(content, LABELS, SMALL, about))
    return run


@pytest.fixture
def digits(monkeypatch):
    """The digits, in the place of CIFAR-10."""
    digits = dataclasses.replace(sources.load("digits"), labels=LABELS)
    asked = []
    monkeypatch.setattr(
        sources, "load", lambda *arguments: asked.append(arguments) or digits
    )
    yield digits
    assert set(asked) <= {("cifar10", "/somewhere/tfds")}


@pytest.fixture
def package(tmp_path):
    with in_the_place_of_ours(copy_project(tmp_path)) as package:
        yield package


def test_what_is_shipped_passes_these_tests(stand_in, digits, package):
    card = ship.ship(stand_in, None, None, "two cores")
    (entry,) = shipped()
    check_files(entry)
    check_accuracy(entry, digits.held_out)
    assert card == card_of(entry)
    assert card["float"]["accuracy"]["top1"] > 0.9 < card["int8"]["accuracy"]["top1"]
    assert card["float"]["accuracy"]["images"] == 360
    assert card["training"]["settings"]["data_dir"] == "tfds"
    assert card["training"]["commands"] == [
        "python training/train.py --model=resnet8 --dataset=cifar10 --recipe=digits "
        "--strategy=mirrored --cpu_replicas=2 --epochs=6 --precision=float32 "
        "--weights=runs/teacher/model.keras --evaluation_epochs=1 --seed=0 "
        "--model_dir=runs/resnet8-cifar10",
        "python training/qat.py --model_dir=runs/resnet8-cifar10 --strategy=mirrored "
        "--cpu_replicas=2 --epochs=1 --learning_rate=0.001",
        "python edge/export.py --model_dir=runs/resnet8-cifar10 --quantize=qat",
    ]
    page = (root() / "docs" / "weights.md").read_text()
    accuracy = f"{100 * card['float']['accuracy']['top1']:.2f}".rstrip("0").rstrip(".")
    assert f"| cifar10 (default) | - | {accuracy} (32 px) | apache-2.0 |" in page
    assert page.count("| resnet8 | 0.078 |") == page.count("| resnet8 | 6,530 |") == 1
    for path in (*package.glob("pretrained/*"), *root().glob("models/*")):
        assert str(stand_in.parent).encode() not in path.read_bytes(), path
    # These tests would notice other weights, and other figures.
    path = package / "pretrained" / f"{NAME}.json"
    path.write_text(path.read_text().replace('"first_top1": 0.9', '"first_top1": 0.8'))
    with pytest.raises(AssertionError):
        check_accuracy(entry, digits.held_out)
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(AssertionError):
        check_files(entry)


def test_shipping_again_changes_nothing(stand_in, digits, package):
    def everything():
        paths = [path for path in root().rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in paths}

    before = everything()
    ship.ship(stand_in, None, None, "two cores")
    once = everything()
    assert len(once) == len(before) + 3
    ship.ship(stand_in, stand_in / "model-qat.tflite", None, "two cores")
    assert everything() == once


def test_only_kernels_lose_digits_and_keras_reads_the_file(tmp_path):
    model = keras_resnet.ResNet8(weights=None)
    for variable in model.variables:
        if variable.ndim == 1:
            variable.assign(np.random.default_rng(1).uniform(1e-6, 1e6, variable.shape))
    path = tmp_path / "w.weights.h5"
    ship.write_weights(model, path)
    read = keras_resnet.ResNet8(weights=None)
    read.load_weights(path)
    for variable, other in zip(model.variables, read.variables, strict=True):
        expected = variable.numpy()
        if variable.ndim > 1:
            expected = expected.astype(np.float16)
        np.testing.assert_array_equal(other.numpy(), expected)
    assert path.stat().st_size < 260_000
    again = tmp_path / "again.weights.h5"
    other = keras_resnet.ResNet8(weights=None)
    other.set_weights(model.get_weights())
    ship.write_weights(other, again)
    assert again.read_bytes() == path.read_bytes()


def refuses(run, message, package, **arguments):
    before = sorted(root().rglob("*"))
    with pytest.raises(UserError, match=message):
        ship.ship(run, arguments.get("tflite"), None, "two cores")
    assert sorted(root().rglob("*")) == before


def test_what_must_not_ship_is_refused(stand_in, digits_run, digits, package, tmp_path):
    refuses(digits_run, "it must be trained on CIFAR-10", package)
    refuses(tmp_path, "holds no run", package)
    run = tmp_path / "run"
    shutil.copytree(stand_in, run)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"resnet8"', '"plain20"'))
    refuses(run, "it must be a ResNet for CIFAR", package)
    (run / "config.json").write_text(config)
    report = run / "model-qat.report.json"
    report.rename(run / "away")
    refuses(run, "lacks its .report.json", package)
    (run / "away").rename(report)
    foreign = run / "foreign.tflite"
    foreign.write_bytes(b"TFL3" * 100)
    refuses(run, "foreign.tflite is no export", package, tflite=foreign)
    export = run / "model-qat.tflite"
    shutil.copy(digits_run / export.name, export)
    refuses(run, "other labels than the run", package)
    shutil.copy(stand_in / export.name, export)
    keras.saving.load_model(run / "model.keras").save(run / "model.keras")
    refuses(run, "was not made from .*model.keras", package)
    export.unlink()
    refuses(run, "no int8 export: run edge/export.py", package)
    (run / "metrics.json").unlink()
    refuses(run, "has not ended", package)


def test_the_command_tells_users_in_one_line(tmp_path):
    done = run_command(
        "benchmarks.ship", f"--model_dir={tmp_path}", "--hardware=two cores"
    )
    assert "holds no run" in one_error(done)
