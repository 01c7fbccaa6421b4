"""A student of a teacher: what it learns from, and whom it cannot take."""

import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet import training
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing, classes
from keras_resnet.runner.errors import UserError
from keras_resnet.training import distillation, losses
from keras_resnet.training.data import decoding
from keras_resnet.training.runs import folder as run_folder
from tests.helpers.runs import SHORT

SMALL = Preprocessing((32, 32))
CIFAR10 = [name for name, _ in classes("cifar10")]


def test_the_teacher_has_its_share_of_the_loss():
    """Also where it wants its pixels in another way than the student."""
    model = keras_resnet.ResNet20()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("f4")
    other = Preprocessing((32, 32), **NORMALIZATIONS["caffe"])
    logits = np.zeros((4, 10), np.float32)
    scores = model.predict(model.preprocessing.normalize(pixels), verbose=0)
    soft = losses.distillation(logits, np.log(scores), distillation.TEMPERATURE)
    expected = 0.1 * np.arange(4) + 0.9 * soft.numpy()
    for preprocessing in (model.preprocessing, other):
        distilled = distillation.open_teacher("resnet20", CIFAR10, preprocessing)
        found = distilled(
            tf.constant(preprocessing.normalize(pixels)),
            logits,
            tf.constant(np.arange(4, dtype=np.float32)),
        )
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_renormalizing_is_normalizing_otherwise():
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 6, 3)).astype("f4")
    kinds = [Preprocessing((8, 6), **kind) for kind in NORMALIZATIONS.values()]
    for one in kinds:
        for other in kinds:
            found = decoding.renormalize(tf.constant(one.normalize(pixels)), one, other)
            np.testing.assert_allclose(found, other.normalize(pixels), atol=2e-4)


@pytest.mark.slow
def test_a_student_learns_from_a_run(digits_run, tmp_path):
    changes = dict(batch_size=64, epochs=8, learning_rate=0.05, teacher=digits_run)
    taught = training.train(**SHORT | changes, model_dir=tmp_path)
    assert taught.metrics["top1"] > 0.8
    config = run_folder.read_config(tmp_path)
    assert config["settings"]["teacher"] == str(digits_run.resolve())


@pytest.mark.parametrize(
    "teacher, change, message",
    [
        ("resnet32", {}, "no weights ship for resnet32"),
        (
            "resnet20",
            {},
            r"knows 10 classes \(airplane, ...\), .* 10 others \(0, ...\)",
        ),
        ("nobody", {}, "or the folder of a run. Received: '.*nobody'"),
        ("run", dict(image_size=64), "takes images of 32x32 pixels, the student of 64"),
    ],
)
def test_who_cannot_teach_is_refused(digits_run, tmp_path, teacher, change, message):
    teacher = str(digits_run) if teacher == "run" else teacher
    with pytest.raises(UserError, match=message):
        training.train(**SHORT, **change, teacher=teacher, model_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_is_refused(digits_run):
    with pytest.raises(UserError, match="other classes"):
        distillation.open_teacher(str(digits_run), ("cat", "dog"), SMALL)
    with pytest.raises(UserError, match="knows 10 classes .* dataset has 2 others"):
        distillation.open_teacher("resnet20", ("cat", "dog"), SMALL)


def test_a_teacher_that_cannot_be_downloaded_is_one_line(monkeypatch):
    def no_network(name):
        raise UserError("the weights cannot be downloaded")

    monkeypatch.setattr(keras_resnet, "create_model", no_network)
    with pytest.raises(UserError, match="--teacher=resnet50: the weights cannot be"):
        distillation.open_teacher("resnet50", CIFAR10, SMALL)
