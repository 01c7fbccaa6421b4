"""The label `unknown`: what is learned, what is answered, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet import edge, training
from keras_resnet.edge.report.comparison import Comparison
from keras_resnet.runner import learning
from keras_resnet.runner.errors import UserError
from keras_resnet.training import distillation, losses
from keras_resnet.training.data import datasets, sources
from keras_resnet.training.reporting import calibration
from keras_resnet.training.reporting.answers import Answers
from keras_resnet.training.transfer.head import Calibration
from tests.helpers.pictures import discs
from tests.helpers.runs import silent

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Apples and limes; bare grounds are strangers, only among the held-out."""
    root = tmp_path_factory.mktemp("photos")
    discs(root / "train", 72, 80, count=30, names=["apple", "lime"])
    discs(root / "val", 72, 80, count=20, names=["apple", "lime"], seed=1)
    grounds(root / "val" / "_none", 20)
    return root


def grounds(folder, count, seed=0):
    """Writes pictures of stripes and noise without a disc."""
    rng = RNG(seed)
    folder.mkdir()
    for number in range(count):
        pixels = rng.integers(60, 200, (72, 80, 3))
        pixels[:, :: rng.integers(2, 9)] = rng.integers(0, 255, 3)
        Image.fromarray(np.uint8(pixels)).save(folder / f"{number:03}.png")


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    return trained(photos, tmp_path_factory.mktemp("run"))


def trained(photos, directory, **changes):
    arguments = dict(freeze="backbone", model_dir=directory, progress=silent)
    return training.train("resnet8", "folder", data_dir=photos, **arguments | changes)


def images(photos, preprocessing, folder):
    """Returns normalized images of a folder."""
    paths = sorted((photos / folder).iterdir())
    pixels = [tf.image.decode_png(path.read_bytes(), 3).numpy() for path in paths]
    return preprocessing.normalize(
        np.stack([preprocessing.resize_and_crop(x) for x in pixels])
    )


def test_strangers_are_answered_with_unknown_and_others_are_not(run, photos):
    assert run.labels == ("apple", "lime", "unknown")
    model = run.load_model()
    assert model.labels == list(run.labels)
    answers = {
        folder: model.predict(images(photos, run.preprocessing, f"val/{folder}"))
        for folder in ("apple", "lime", "_none")
    }
    for index, scores in enumerate(answers.values()):
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
        assert (scores.argmax(1) == index).mean() > 0.8
    own = np.concatenate([answers["apple"], answers["lime"]])
    metrics = run.metrics
    assert metrics["known"] == (own.argmax(1) < 2).mean()
    answered = (answers["_none"].argmax(1) < 2).mean()
    assert metrics["strangers_answered"] == answered
    right = np.repeat([0, 1, 2], 20) == np.concatenate([own, answers["_none"]]).argmax(
        1
    )
    assert metrics["top1_with_unknown"] == right.mean()
    # Without the label, only pictures of classes count.
    assert metrics["top1"] == (own[:, :2].argmax(1) == np.repeat([0, 1], 20)).mean()
    assert training.evaluate(run)["top1"] == right.mean()


def test_the_label_is_in_the_file_of_the_device(run, photos, tmp_path):
    report = edge.export(run, tmp_path / "m.tflite", quantize="int8", target="edgetpu")
    counts = {row["name"]: row["count"] for row in report["operators"]}
    assert counts["L2_NORMALIZATION"] == 1
    assert not report["problems"]
    classifier = edge.Classifier(tmp_path / "m.tflite")
    assert classifier.labels == ["apple", "lime", "unknown"]
    taken_for = [
        classifier.classify(path, top_k=1)[0].label
        for path in sorted((photos / "val" / "_none").iterdir())
    ]
    assert np.mean(np.array(taken_for) == "unknown") > 0.8


def test_unknown_is_no_class_in_another_order(run, photos):
    model = run.load_model()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + [0, 0, 20]])  # all are unknown
    data = datasets.of_classes(sources.load("folder", photos), run.labels)
    assert Comparison(model, run.preprocessing, data, 60).label_problem() is None
    # Two classes in another order are still found.
    model.layers[-1].set_weights([kernel[:, [1, 0, 2]], bias[[1, 0, 2]]])
    problem = Comparison(model, run.preprocessing, data, 60).label_problem()
    assert "in this one: lime, apple" in problem


def test_another_dataset_of_the_classes_is_measured(run, photos, tmp_path):
    other = tmp_path / "other"
    discs(other, 72, 80, count=10, names=["apple", "lime"], seed=3)
    found = training.evaluate(run, "folder", data_dir=other)
    assert found["top1"] > 0.8
    report = edge.export(
        run, tmp_path / "m.tflite", quantize="none", dataset="folder", data_dir=other
    )
    assert report["compared"]["keras_top1"] == found["top1_with_unknown"]


def test_an_evaluation_says_what_the_metrics_of_the_run_say(run, photos, tmp_path):
    found = training.evaluate(run)
    names = "top1 top5 loss known top1_with_unknown strangers_answered".split()
    for name in names:
        assert found[name] == pytest.approx(run.metrics[name], abs=1e-6), name
    edge.export(run, tmp_path / "m.tflite", quantize="none")
    on_device = training.evaluate(tmp_path / "m.tflite", "folder", data_dir=photos)
    for name in names:
        assert on_device[name] == pytest.approx(run.metrics[name], abs=0.02), name


@pytest.mark.slow
def test_quantization_aware_training_keeps_the_label(run, tmp_path):
    shutil.copytree(run.directory, tmp_path / "run")
    aware = training.quantize_aware(tmp_path / "run", epochs=1, progress=silent)
    assert aware.labels == ("apple", "lime", "unknown")
    assert aware.metrics["top1"] >= aware.metrics["top1_with_unknown"]
    assert aware.metrics["examples_evaluated"] == 60
    assert aware.metrics["known"] > 0.9 and aware.metrics["strangers_answered"] < 0.1
    report = edge.export(tmp_path / "run", quantize="qat")
    counts = {row["name"]: row["count"] for row in report["operators"]}
    assert counts["L2_NORMALIZATION"] == 1 and report["compared"]["top1"] > 0.9


def test_the_report_says_what_unknown_costs_and_brings(run):
    page = (run.directory / "report.html").read_text()
    assert "Known and unknown" in page and "strangers answered" in page
    assert "Can the scores be believed?" in page


def test_pictures_of_nothing_are_learned(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    grounds(tmp_path / "photos" / "train" / "_none", 20, seed=2)
    run = trained(tmp_path / "photos", tmp_path / "run")
    assert run.labels == ("apple", "lime", "unknown")
    assert run.metrics["strangers_answered"] == 0
    assert run.metrics["known"] > 0.8
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["labels"] == ["apple", "lime", "unknown"]
    one_class = tmp_path / "photos" / "train" / "lime"
    shutil.rmtree(one_class)
    shutil.rmtree(tmp_path / "photos" / "val" / "lime")
    alone = trained(tmp_path / "photos", tmp_path / "alone")
    assert alone.labels == ("apple", "unknown") and alone.metrics["known"] > 0.8


def test_a_share_of_1_leaves_the_label_out(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos" / "val" / "_none")
    run = trained(tmp_path / "photos", tmp_path / "run", known_share=1)
    assert run.labels == ("apple", "lime")
    assert "known" not in run.metrics
    assert run.load_model().output_shape == (None, 2)


def test_a_share_of_1_and_pictures_of_nothing_are_refused(photos, tmp_path):
    with pytest.raises(UserError, match="pictures of it, in '_none' or a class"):
        trained(photos, tmp_path / "run", known_share=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan"), "most", True])
def test_a_share_out_of_its_range_is_refused(share, photos, tmp_path):
    with pytest.raises(
        UserError, match="--known_share must be a finite number above 0"
    ):
        trained(photos, tmp_path / "run", known_share=share)
    assert not (tmp_path / "run").exists()


def test_what_unknown_cannot_be_is_refused(photos, tmp_path):
    with pytest.raises(UserError, match="--known_share needs --recipe=finetune"):
        training.train(known_share=0.9, model_dir=tmp_path / "run")
    shutil.copytree(photos, tmp_path / "photos")
    for part in ("train", "val"):
        (tmp_path / "photos" / part / "lime").rename(
            tmp_path / "photos" / part / "unknown"
        )
    with pytest.raises(UserError, match="a class has that name"):
        trained(tmp_path / "photos", tmp_path / "run")
    shutil.rmtree(tmp_path / "photos" / "val" / "_none")
    for part in ("train", "val"):
        (tmp_path / "photos" / part / "apple").rename(
            tmp_path / "photos" / part / "zebra"
        )
    with pytest.raises(UserError, match="--known_share adds the label 'unknown'"):
        trained(tmp_path / "photos", tmp_path / "run")
    only = tmp_path / "only"
    discs(only, 72, 80, count=5, names=["plum"])
    (only / "plum").rename(only / "_none")
    with pytest.raises(UserError, match="at least two folders"):
        trained(only, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_of_one_picture_leaves_the_label_out_with_a_word(tmp_path, capsys):
    photos = discs(tmp_path / "photos" / "train", 72, 80, count=4, names=["apple"])
    discs(photos, 72, 80, count=1, names=["lime"])
    discs(photos.parent / "val", 72, 80, count=2, names=["apple", "lime"])
    run = trained(photos.parent, tmp_path / "run")
    assert run.labels == ("apple", "lime")
    assert "a folder has one training picture" in capsys.readouterr().err


def test_the_dataset_of_a_model_with_unknown_has_its_labels(photos):
    data = sources.load("folder", photos)
    assert data.labels == ("apple", "lime", "unknown") and data.classes == 2
    found = datasets.of_classes(data, ("lime", "apple", "unknown"))
    for split in ("train", "held_out"):
        names = {
            found.labels[int(label)]: tf.strings.length(image).numpy()
            for image, label in getattr(found, split).read()
        }
        assert set(names) == {"apple", "lime", "unknown"} - (
            {"unknown"} if split == "train" else set()
        )
    assert datasets.of_classes(data, ("apple", "unknown")) is None
    assert datasets.of_classes(data, ("apple", "lime")) is None


def test_the_temperature_is_that_of_the_logits():
    rng = RNG(0)
    logits = rng.normal(0, 3, (20_000, 4))
    chances = learning.softmax(logits)
    labels = (chances.cumsum(1) > rng.uniform(size=(20_000, 1))).argmax(1)
    for factor in (0.5, 1, 3):
        found = learning.temperature(factor * logits, labels)
        assert found == pytest.approx(factor, rel=0.04)
    # Few pictures that are all right make no score certain.
    sure = np.float64([[4, 0], [0, 4], [4, 0]])
    found = learning.softmax(sure / learning.temperature(sure, np.array([0, 1, 0])))
    assert found.max() == pytest.approx(4 / 5, abs=0.02)  # Platt's target


@pytest.mark.parametrize("number, share", [(243, 0.95), (100, 0.9), (59, 0.95)])
def test_the_share_is_known_of_new_pictures_in_19_of_20_cases(number, share):
    rng = RNG(number)
    known = np.empty(4000)
    for case in range(len(known)):
        nearness = rng.uniform(size=(number, 1))
        known[case] = 1 - learning.known_from(nearness, 1, share)
    # The limit is the best one of its kind: the next picture would be too high.
    assert 0.94 < np.mean(known >= share) < 0.985
    assert known.mean() > share


def test_pictures_of_nothing_count_in_the_limit():
    logits = np.float64([[9, 1, 4], [3, 8, 2], [5, 4, 3]])
    assert learning.known_from(logits, 2, 0.5) == 2.0
    # A file of 8 bits may move a cosine by 0.01.
    found = Calibration.of(logits, np.array([0, 1, 0]), 2, 0.5)
    assert found.known_from == pytest.approx(2.0 - 0.4)
    kernel, bias = learning.with_unknown(np.ones((4, 3)), np.zeros(3), 2, 2.0)
    assert kernel.shape == (4, 3) and bias.tolist() == [0, 0, 2]
    kernel, bias = learning.with_unknown(np.ones((4, 2)), np.zeros(2), 2, 7.5)
    assert kernel[:, 2].tolist() == [0] * 4 and bias.tolist() == [0, 0, 7.5]


def test_the_calibration_error_is_the_distance_of_score_and_share():
    rng = RNG(0)
    scores = learning.softmax(rng.normal(0, 2, (500, 3)))
    targets = np.eye(3, dtype=bool)[rng.integers(0, 3, 500)]
    total = 0.0
    for low in range(15):
        inside = [
            (row.max(), target[row.argmax()])
            for row, target in zip(scores, targets, strict=True)
            if low <= row.max() * 15 < low + 1
        ]
        if inside:
            sure, right = np.mean(inside, axis=0)
            total += len(inside) * abs(sure - right)
    assert calibration.error(scores, targets) == pytest.approx(total / 500)


def test_more_strangers_are_answered_where_more_pictures_are_known():
    rng = RNG(1)
    margins = np.concatenate([rng.normal(2, 1, 500), rng.normal(0, 1, 400)])
    own = np.arange(900) < 500
    logits = np.stack([margins, np.full(900, -5.0), np.zeros(900)], 1)
    targets = np.stack([own, np.zeros(900, bool), ~own], 1)
    found = calibration.strangers(learning.softmax(logits), targets)
    for share, (known, answered) in zip(calibration.KNOWN, found, strict=True):
        limit = np.quantile(margins[own], 1 - share, method="higher")
        assert known == pytest.approx(share, abs=0.005)
        assert answered == pytest.approx(np.mean(margins[~own] >= limit), abs=0.01)
    assert calibration.strangers(learning.softmax(logits)[own], targets[own]) == []


def test_answers_with_unknown_are_counted_by_hand():
    scores = np.float32(
        [[0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0.3, 0.6, 0.1], [0.6, 0.2, 0.2]]
    )
    targets = np.eye(3, dtype=bool)[[0, 1, 0, 2]]
    answers = Answers(("a", "b", "unknown"), targets, scores, False)
    found = answers.metrics() | answers.accuracy()
    assert found["top1_with_unknown"] == 1 / 4  # a mistake, and two wrong answers
    assert found["known"] == pytest.approx(2 / 3)
    assert found["top1_of_known"] == 1 / 2
    assert found["strangers_answered"] == 1
    assert found["top1"] == pytest.approx(2 / 3)  # 0.3 of b is more than 0.2 of a
    assert found["examples_evaluated"] == 4


def test_a_run_teaches_its_classes_without_unknown(run, photos):
    distilled = distillation.open_teacher(
        str(run.directory), run.labels[:-1], run.preprocessing
    )
    pictures = images(photos, run.preprocessing, "val/apple")
    logits = np.zeros((len(pictures), 2), np.float32)
    scores = run.load_model().predict(pictures, verbose=0)[:, :-1]
    soft = losses.distillation(logits, np.log(scores), distillation.TEMPERATURE)
    found = distilled(tf.constant(pictures), logits, tf.zeros(len(pictures)))
    np.testing.assert_allclose(found, 0.9 * soft.numpy(), rtol=1e-3, atol=1e-5)
