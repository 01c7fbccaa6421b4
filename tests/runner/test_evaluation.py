"""--evaluate counts what a classifier answers, by class."""

import collections
import json

import numpy as np
import pytest
import sklearn.datasets
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from keras_resnet.runner.evaluation import rank_of, worst_first
from tests.helpers.runner import (
    PEERS,
    SHIPPED,
    assert_one_error,
    fill,
    run_alone,
    run_main,
)


def evaluate(capfd, model, folder, code=0):
    found, out, errors = run_main(
        capfd, f"--model={model}", f"--evaluate={folder}", "--json"
    )
    assert found == code, errors
    return json.loads(out), errors


def test_accuracy_is_counted_by_class(models, capfd, tmp_path):
    folder = fill(tmp_path, **{"red": "rrrr", "grün": "ggbr", "Blue": "bbbbbr"})
    (folder / "red" / "bad.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("no class")
    (folder / ".hidden").mkdir()
    report, errors = evaluate(capfd, models["full"], folder, code=2)
    assert len(errors) == 1 and "bad.jpg" in errors[0]
    assert (report["images"], report["failed"]) == (14, 1)
    assert report["top1"] == pytest.approx(11 / 14) and report["top5"] is None
    assert [c["label"] for c in report["classes"]] == ["grün", "blue", "red"]
    worst, middle, best = report["classes"]
    assert (worst["images"], worst["top1"]) == (4, 0.5)
    assert worst["taken_for"] == {"index": 0, "label": "red", "images": 1}
    assert middle["taken_for"] == {"index": 0, "label": "red", "images": 1}
    assert middle["top1"] == pytest.approx(5 / 6)
    assert (best["top1"], best["taken_for"]) == (1.0, None)
    mistakes = [(m["file"], m["expected"], m["index"]) for m in report["mistakes"]]
    assert mistakes == [
        (str(folder / "Blue" / "5r.png"), 2, 0),
        (str(folder / "grün" / "2b.png"), 1, 2),
        (str(folder / "grün" / "3r.png"), 1, 0),
    ]
    (failure,) = report["failures"]
    assert failure["file"].endswith("bad.jpg") and "no picture" not in failure["file"]


def test_accuracy_is_shown_for_people(models, capfd, tmp_path):
    fill(tmp_path, red="rrb", blue="bb")
    argv = [f"--model={models['full']}", f"--evaluate={tmp_path}"]
    code, out, errors = run_main(capfd, *argv)
    assert (code, errors) == (0, [])
    lines = out.splitlines()
    assert lines[0].split() == ["images", "5"] and lines[1].split() == ["failed", "0"]
    assert lines[2].split() == ["top1", "80.00%"]
    assert lines[3:] == ["red: 66.67% of 3, 1 taken for blue"]


def test_folders_are_classes_by_label_number_or_order(models, capfd, tmp_path):
    cases = {
        "labels": (models["full"], {"blue": "b", "grün": "g", "red": "r"}),
        "numbers": (models["full"], {"0": "r", "2": "b"}),
        "zeros": (models["full"], {"000": "r", "002": "b"}),
        "order": (models["plain"], {"a": "r", "b": "g", "c": "b"}),
    }
    for name, (model, classes) in cases.items():
        (tmp_path / name).mkdir()
        report, _ = evaluate(capfd, model, fill(tmp_path / name, **classes))
        assert (report["top1"], report["images"]) == (1.0, len(classes)), name
    assert [c["label"] for c in report["classes"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "classes, words",
    [
        ({}, ["a folder for each class, found none"]),
        ({"red": "r", "purple": "b"}, ["2 folders", "3 classes", "'purple'"]),
        ({"red": "r", "grün": "g", "lila": "b"}, ["'lila'"]),
        ({"0": "r", "3": "b"}, ["expected one of 3 classes", "received 3"]),
        ({"red": ""}, ["no image in this folder"]),
    ],
)
def test_folders_that_are_no_classes_are_refused(
    models, capfd, tmp_path, classes, words
):
    folder = fill(tmp_path, **classes)
    argv = [f"--model={models['full']}", f"--evaluate={folder}"]
    code, out, errors = run_main(capfd, *argv)
    assert (code, out) == (2, "")
    for word in words:
        assert word in errors[0]


def test_a_label_of_two_classes_is_refused(models, capfd, tmp_path):
    (tmp_path / "labels.txt").write_text("crane\ncrane\nblue")
    folder = tmp_path / "d"
    folder.mkdir()
    argv = [f"--model={models['full']}", f"--labels={tmp_path / 'labels.txt'}"]
    argv.append(f"--evaluate={fill(folder, crane='r', blue='b')}")
    assert_one_error(capfd, argv, "crane", "received 0 and 1", "class numbers")


def test_a_missing_folder_is_one_line(models, capfd, tmp_path):
    argv = [f"--model={models['full']}", f"--evaluate={tmp_path}/none"]
    assert_one_error(capfd, argv, "none", "No such file")


def test_ranks_give_ties_to_the_lowest_index():
    scores = np.float32([0.2, 0.5, 0.2, 0.1, 0.2])
    ranks = [rank_of(index, scores) for index in range(5)]
    assert ranks == [1, 0, 2, 4, 3]
    order = (-scores).argsort(kind="stable").tolist()
    assert [order[rank] for rank in ranks] == list(range(5))


def test_the_worst_classes_come_first_and_ties_by_number():
    confusion = {
        4: collections.Counter({4: 1, 2: 1, 0: 1}),
        1: collections.Counter({1: 2}),
        2: collections.Counter({7: 5, 2: 5}),
    }
    found = worst_first(confusion, {1: "a", 7: "b"})
    assert [(c["index"], c["images"]) for c in found] == [(4, 3), (2, 10), (1, 2)]
    assert found[0]["taken_for"] == {"index": 0, "label": None, "images": 1}
    assert found[1]["taken_for"] == {"index": 7, "label": "b", "images": 5}


def test_accuracy_is_that_of_the_bare_interpreter(tmp_path):
    """The shipped model on handwritten digits: which class it takes each digit for."""
    interpreter = Interpreter(model_path=str(SHIPPED))
    interpreter.allocate_tensors()
    given, answer = interpreter.get_input_details(), interpreter.get_output_details()
    digits = sklearn.datasets.load_digits()
    hits = close = 0
    for number in range(300):
        image = Image.fromarray((digits.images[number] * 15).astype(np.uint8))
        image = image.convert("RGB").resize((32, 32), Image.Resampling.NEAREST)
        label = int(digits.target[number])
        (tmp_path / str(label)).mkdir(exist_ok=True)
        image.save(tmp_path / str(label) / f"{number:03d}.png")
        interpreter.set_tensor(given[0]["index"], np.asarray(image)[None])
        interpreter.invoke()
        scores = interpreter.get_tensor(answer[0]["index"])[0].astype(int)
        ranked = (-scores).argsort(kind="stable").tolist()
        hits, close = hits + (ranked[0] == label), close + (label in ranked[:5])
    done = run_alone(f"--model={SHIPPED}", f"--evaluate={tmp_path}", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (report["images"], report["failed"]) == (300, 0)
    assert (report["top1"], report["top5"]) == (hits / 300, close / 300)
    assert 0 < hits < close < 300
    assert len(report["mistakes"]) == 300 - hits


@pytest.fixture(scope="module")
def cifar(shared_data, tmp_path_factory):
    """The test images of CIFAR-10 that are here, as PNG files in class folders."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("cifar")
    source = shared_data / "tfds" / "cifar10" / "3.0.2"
    names = (source / "label.labels.txt").read_text().split()
    for name in names:
        (folder / name).mkdir()
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    records = tf.data.TFRecordDataset(list(map(str, source.glob("*-test.tfrecord*"))))
    for number, record in enumerate(records):
        example = tf.io.parse_single_example(record, features)
        name = names[int(example["label"])]
        path = folder / name / f"{number:05d}.png"
        path.write_bytes(example["image"].numpy())
    return folder


@pytest.mark.slow
def test_mlperfs_resnet_reaches_its_published_accuracy(cifar):
    model = PEERS / "mlperf_tiny_resnet8_int8.tflite"
    result = run_alone(f"--model={model}", f"--evaluate={cifar}", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (report["images"], report["failed"]) == (5000, 0)
    assert abs(report["top1"] - 0.8697) < 0.005
    assert len(report["mistakes"]) == round(5000 * (1 - report["top1"]))
    assert report["top5"] > 0.98
    assert report["classes"][0]["label"] in ("cat", "dog")
