"""Several networks are evaluated together, on the mean of their scores."""

import json

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import model_metadata, training
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner import Classifier
from keras_resnet.runner.errors import UserError
from tests.conftest import SMALL
from tests.helpers.commands import one_error, run_command
from tests.helpers.networks import randomize

DIGITS = list("0123456789")
OTHER = Preprocessing((32, 32), **NORMALIZATIONS["torch"])


def untrained(labels=DIGITS, **arguments):
    """A network whose scores are far from sure, as those of others are not."""
    model = randomize(keras_resnet.ResNet8(weights=None, **arguments), seed=5)
    model.layers[-1].kernel.assign(0.02 * model.layers[-1].kernel)
    return model_metadata.attach(model, OTHER, labels)


@pytest.fixture(scope="module")
def trained(digits_run):
    return training.Run.open(digits_run)


def predictions(model, images, mean, std):
    x = (images - np.float32(mean)) / np.float32(std)
    return model.predict(x, verbose=0)


def top(scores, labels, count):
    best = np.argsort(-scores, axis=1)[:, :count]
    return np.mean((best == labels[:, None]).any(axis=1))


def test_the_scores_are_averaged_each_network_with_its_own_preprocessing(
    trained, held_out, tmp_path
):
    images, labels = held_out
    other = untrained()
    sure = predictions(trained.load_model(), images, 128, 64)
    torch_mean, torch_std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    unsure = predictions(other, images, torch_mean, torch_std)
    expected = (sure + unsure) / 2
    output = tmp_path / "found.json"
    found = training.evaluate([trained, other], output=output)
    assert json.loads(output.read_text()) == found
    assert found["top1"] == pytest.approx(top(expected, labels, 1))
    assert found["top5"] == pytest.approx(top(expected, labels, 5))
    assert found["examples_evaluated"] == 360
    assert found["models"] == [str(trained.directory), "resnet8"]
    # The network of the run alone is better, and the other is near chance.
    assert top(unsure, labels, 1) < found["top1"]
    three = (2 * unsure + sure) / 3
    found = training.evaluate([other, trained, other])
    assert found["top1"] == pytest.approx(top(three, labels, 1))


def test_files_for_the_device_take_part(trained, files, held_out):
    images, labels = held_out
    other = untrained()
    path = files["int8"]
    classifier = Classifier(path)
    on_device = np.stack([classifier.scores(image) for image in images])
    normalized = other.preprocessing.normalize(images)
    expected = (on_device + other.predict(normalized, verbose=0)) / 2
    found = training.evaluate((other, path), "digits")
    assert found["top1"] == pytest.approx(top(expected, labels, 1))


@pytest.mark.parametrize("views", ["single", "ten_crop"])
def test_a_network_beside_itself_is_as_good_as_alone(trained, views):
    alone = training.evaluate(trained, views=views)
    together = training.evaluate([trained, trained.load_model()], views=views)
    for name in ("top1", "top5", "examples_evaluated", "views", "dataset"):
        assert together[name] == alone[name]


@pytest.mark.parametrize(
    "other, message",
    [
        (dict(labels=DIGITS[::-1]), r"another order: 9, 8, 7, 6, 5, ..., not 0, 1, 2"),
        (dict(labels=list("abcdefghij")), r"other classes than --model=.*: a, b, c"),
        (
            dict(labels=list("abc"), classes=3),
            "other classes than .*: a, b, c, not 0, ",
        ),
        (dict(labels=None, classes=3), "other classes than .*: 3 of them, not 0, 1, "),
    ],
)
def test_other_classes_are_refused(trained, other, message, tmp_path):
    other = untrained(**other)
    output = tmp_path / "found.json"
    for models in ([trained, other], [other, trained]):
        with pytest.raises(UserError) as error:
            training.evaluate(models, "digits", output=output)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=f"^--model=resnet8 has .*{message}"):
        training.evaluate([trained, other], "digits", output=output)
    assert not output.exists()


def test_a_network_without_labels_needs_the_same_number_of_classes(trained):
    other = untrained(labels=None)
    expected = training.evaluate([trained, untrained()])
    assert training.evaluate([trained, other]) == expected


def test_runs_that_held_out_other_pictures_need_a_dataset(trained, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("model.keras", "metrics.json", "config.json"):
        content = (trained.directory / name).read_bytes()
        (tmp_path / "other" / name).write_bytes(content)
    path = tmp_path / "other" / "config.json"
    config = json.loads(path.read_text())
    config["settings"]["hold_out"] = 100
    path.write_text(json.dumps(config))
    models = [trained, tmp_path / "other"]
    with pytest.raises(UserError, match="other held-out images: name .* by --dataset"):
        training.evaluate(models)
    expected = training.evaluate(trained)
    assert training.evaluate(models, "digits")["top1"] == expected["top1"]


def test_no_model_is_refused():
    with pytest.raises(UserError, match="--model must name a model. Received: \\[]"):
        training.evaluate([])


def test_the_command_takes_several_models(trained, tmp_path):
    one, other = tmp_path / "one.keras", tmp_path / "other.keras"
    model_metadata.attach(trained.load_model(), SMALL, DIGITS).save(one)
    untrained().save(other)
    flags = (f"--model={one}", f"--model={other}", "--dataset=digits")
    done = run_command("training/evaluate.py", *flags)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = json.loads((tmp_path / "one.keras.ensemble.evaluation.json").read_text())
    assert found == training.evaluate([one, other], "digits")
    assert f"top-1 {found['top1']:.2%}" in done.stdout
    assert "of 2 models together on 360 images" in done.stdout
    keras.models.clone_model(untrained(classes=3, labels=None)).save(other)
    done = run_command("training/evaluate.py", *flags, "--normalization=torch")
    assert "other classes than" in one_error(done)
