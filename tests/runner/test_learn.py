"""--learn and --classes: photographs are learned on the device, and nothing is lost."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner import (
    Classifier,
    UserError,
    classes_file,
    learning,
    pipeline,
)
from keras_resnet.runner import head as heads
from tests.helpers import lessons
from tests.helpers.runner import (
    HEIGHT,
    PREPROCESSING,
    WIDTH,
    assert_one_error,
    convert,
    run_alone,
    run_main,
    with_archive,
)

STEPS = dict(
    {key: value for key, value in PREPROCESSING.items() if key != "resize_size"},
    **{"version": 3, "resize": "stretch", "antialias": True, "output": "features"},
)
COLOURS = {"red": (220, 40, 40), "green": (40, 220, 40), "blue": (40, 40, 220)}
GREY = {"grey": (130, 130, 130)}


def pooled(pixels):
    """Features: the mean of 2 x 2 parts of the picture, of each channel."""
    import tensorflow as tf

    pixels = tf.cast(pixels, tf.float32) / 255
    parts = tf.nn.avg_pool2d(pixels, (HEIGHT // 2, WIDTH // 2), 4, "VALID")
    return tf.reshape(parts, (1, -1))[:, :12]


@pytest.fixture(scope="session")
def features_model(tmp_path_factory):
    """Paths of features files: int8 inside, float, and of another network."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("features")
    shape = [1, HEIGHT, WIDTH, 3]
    archive = {"preprocessing__json": json.dumps(STEPS)}
    contents = {
        "int8": convert(pooled, shape, io_type=tf.uint8),
        "float": convert(pooled, shape),
        "other": convert(lambda x: pooled(x) * 2, shape, io_type=tf.uint8),
    }
    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(with_archive(content, **archive))
    return {name: str(folder / f"{name}.tflite") for name in contents}


@pytest.fixture
def model(features_model):
    return features_model["int8"]


def paint(folder, colours, count=6, seed=0):
    """Writes folder/NAME/N.png: a colour, more or less."""
    rng = np.random.default_rng(seed)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = colour + rng.normal(0, 12, 3) + rng.normal(0, 20, (30, 40, 3))
            picture = Image.fromarray(np.uint8(pixels.clip(0, 255)))
            picture.save(folder / name / f"{seed}{number}.png")
    return folder


@pytest.fixture
def photos(tmp_path):
    return paint(tmp_path / "photos", COLOURS)


@pytest.fixture
def learned(model, photos, tmp_path):
    """A file of learned classes."""
    Classifier(model).learn(photos, tmp_path / "mine.json")
    return tmp_path / "mine.json"


def learn(model, photos, learned, *more):
    return [f"--model={model}", f"--learn={photos}", f"--classes={learned}", *more]


# --- What is learned ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "float"])
def test_the_folders_become_classes(features_model, photos, capfd, tmp_path, kind):
    model, mine = features_model[kind], tmp_path / "mine.json"
    code, out, errors = run_main(capfd, *learn(model, photos, mine))
    assert (code, errors) == (0, [])
    first, method, accuracy, known, *classes = out.splitlines()
    assert first.startswith(f"{mine}: 3 classes and unknown, learned from 18 pictures")
    assert method.startswith("method    class means, then nothing else: the best")
    assert accuracy.split()[0] == "accuracy" and known.split()[0] == "known"
    assert [line.split() for line in classes] == [
        ["6", "blue"],
        ["6", "green"],
        ["6", "red"],
    ]
    new = paint(tmp_path / "new", {**COLOURS, "unknown": GREY["grey"]}, seed=1)
    argv = [f"--model={model}", f"--classes={mine}", "--json", "--top_k=1", new]
    code, out, errors = run_main(capfd, *argv)
    assert (code, errors) == (0, [])
    records = [json.loads(line) for line in out.splitlines()]
    assert len(records) == 24
    for record in records:
        assert record["top"][0]["label"] == os.path.basename(
            os.path.dirname(record["file"])
        )


def test_the_report_for_programs_has_every_number(model, photos, capfd, tmp_path):
    paint(photos, {"_none": GREY["grey"]}, 4)
    (photos / "red" / "bad.png").write_text("no picture")
    mine = tmp_path / "mine.json"
    code, out, errors = run_main(capfd, *learn(model, photos, mine, "--json"))
    assert code == 2 and len(errors) == 1 and "bad.png" in errors[0]
    report = json.loads(out)
    assert report["failures"] == [
        {"file": str(photos / "red" / "bad.png"), "error": errors[0][7:]}
    ]
    assert report["pictures"] == {"blue": 6, "green": 6, "red": 6}
    assert (report["nothing"], report["classes"]) == (4, str(mine))
    assert report["strength"] in learning.STRENGTHS
    assert 0.8 < report["accuracy"] <= 1 and 0.8 < report["known"] <= 1
    assert (18 * (1 - report["known"])) % 1 == pytest.approx(0, abs=1e-9)


def test_python_does_the_same(model, photos, tmp_path):
    classifier, mine = Classifier(model), tmp_path / "mine.json"
    report = classifier.learn(photos, mine)
    assert report["pictures"] == {"blue": 6, "green": 6, "red": 6}
    again = Classifier(model, classes=mine)
    for one in (classifier, again):
        assert one.labels == ["blue", "green", "red", "unknown"] and one.classes == 4
        array = np.full((9, 9, 3), COLOURS["green"], np.uint8)
        for image in (array, Image.fromarray(array), photos / "green" / "00.png"):
            assert one.classify(image)[0].label == "green"
    pixels = np.full((HEIGHT, WIDTH, 3), 77, np.uint8)
    np.testing.assert_array_equal(classifier.scores(pixels), again.scores(pixels))
    # What is written keeps what was learned, to less than is shown.
    paths = [x for name in sorted(COLOURS) for x in sorted((photos / name).iterdir())]
    loaded = [pipeline.load_pixels(path, classifier)[0] for path in map(str, paths)]
    features = np.stack([classifier.outputs(one) for one in loaded])
    labels = np.repeat([0, 1, 2], 6)
    choice = heads.choose_head(features, labels, 3, 0.95)
    expected = heads.head_scores(features, choice.head)
    actual = [again.scores(one) for one in loaded]
    np.testing.assert_allclose(actual, expected, atol=2e-6)
    assert classifier.scores(pixels).dtype == np.float32


def test_known_share_of_1_learns_no_unknown(model, photos, capfd, tmp_path):
    mine = tmp_path / "mine.json"
    argv = learn(model, photos, mine, "--known_share=1", "--json")
    code, out, errors = run_main(capfd, *argv)
    assert (code, errors, json.loads(out)["known"]) == (0, [], None)
    classifier = Classifier(model, classes=mine)
    assert classifier.labels == ["blue", "green", "red"]
    grey = np.full((9, 9, 3), 130, np.uint8)
    assert classifier.classify(grey)[0].label in classifier.labels


def test_a_lower_known_share_leaves_more_unknown(model, photos, tmp_path):
    paint(photos, COLOURS, 20, seed=2)
    thresholds = []
    for share in (0.5, 0.95):
        Classifier(model).learn(photos, tmp_path / f"{share}.json", known_share=share)
        found = json.loads((tmp_path / f"{share}.json").read_text())
        kernel, bias = (np.array(found[name]) for name in ("kernel", "bias"))
        # The scale is that of the class means, which are as long as each other.
        thresholds.append(bias[3] / np.linalg.norm(kernel[:, 0]))
    assert thresholds[0] > thresholds[1]


def test_pictures_of_nothing_are_unknown(model, photos, tmp_path):
    # Reds differ so much among themselves that their threshold lets pink pass.
    paint(photos, {"red": (220, 120, 40)}, seed=3)
    pink = {"_none": (220, 80, 75)}
    new = paint(tmp_path / "new", pink, 10, seed=5) / "_none"
    answers = []
    for name in ("without", "with"):
        classifier = Classifier(model)
        classifier.learn(photos, tmp_path / f"{name}.json", known_share=0.999)
        answers.append([classifier.classify(p)[0].label for p in new.iterdir()])
        paint(photos, pink)
    assert answers[0].count("red") >= 8 and answers[1].count("unknown") >= 6


def test_a_class_is_added_and_the_file_replaced(model, photos, learned, capfd):
    before = learned.read_bytes()
    paint(photos, {"yellow": (220, 220, 40)})
    code, out, errors = run_main(capfd, *learn(model, photos, learned))
    assert (code, errors) == (0, []) and "4 classes and unknown" in out
    assert learned.read_bytes() != before
    classifier = Classifier(model, classes=learned)
    yellow = np.full((9, 9, 3), (220, 220, 40), np.uint8)
    assert classifier.classify(yellow)[0].label == "yellow"
    assert sorted(os.listdir(learned.parent)) == ["mine.json", "photos"]


def test_all_modes_take_learned_classes(model, photos, learned, capfd, tmp_path):
    argv = [f"--model={model}", f"--classes={learned}"]
    paint(photos, {"_none": GREY["grey"]})
    code, out, errors = run_main(capfd, *argv, f"--evaluate={photos}", "--json")
    assert (code, errors) == (0, [])
    report = json.loads(out)
    assert (report["images"], report["top1"]) == (24, pytest.approx(1, abs=0.1))
    named = {found["label"]: found for found in report["classes"]}
    assert named["unknown"]["images"] == 6 and named["unknown"]["top1"] == 1
    wrong = sum(row["index"] == 3 for row in report["mistakes"])
    assert report["known"] == pytest.approx(1 - wrong / 18)
    out = run_main(capfd, *argv, "--benchmark")[1]
    assert "invoke" in out and "model load" in out
    out = run_main(capfd, *argv, "--csv", photos / "red")[1]
    assert out.splitlines()[1].split(",")[3] == "red"
    annotated = tmp_path / "annotated"
    code, _, errors = run_main(capfd, *argv, f"--annotate={annotated}", photos / "red")
    assert (code, errors, len(os.listdir(annotated))) == (0, [], 6)


def test_the_known_share_is_counted_for_any_model_with_unknown(models, capfd, tmp_path):
    for name, colour in {**COLOURS, **GREY}.items():
        paint(tmp_path / "photos", {name: colour}, 2)
    (tmp_path / "photos" / "blue").rename(tmp_path / "photos" / "_none")
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nunknown\n")
    shutil.rmtree(tmp_path / "photos" / "grey")
    argv = [f"--model={models['plain']}", f"--labels={labels}"]
    argv += [f"--evaluate={tmp_path / 'photos'}"]
    report = json.loads(run_main(capfd, *argv, "--json")[1])
    assert (report["images"], report["top1"], report["known"]) == (6, 1, 1)
    assert "known     100.00%" in run_main(capfd, *argv)[1]
    labels.write_text("unknown\ngreen\nred\n")  # now all reds are taken for unknown
    report = json.loads(run_main(capfd, *argv, "--json")[1])
    assert (report["top1"], report["known"]) == (pytest.approx(1 / 3), 0.5)


# --- Bad input ------------------------------------------------------------------------


def test_folders_that_cannot_be_learned_are_one_line(
    model, photos, learned, capfd, tmp_path
):
    before = learned.read_bytes()

    def refused(folder, *words, more=()):
        argv = learn(model, folder, learned, *more)
        assert_one_error(capfd, argv, *words)
        assert learned.read_bytes() == before

    refused(tmp_path / "none", "none", "No such file")
    refused(photos / "red", "expected a folder for each class, found none")
    one = paint(tmp_path / "one", {"red": COLOURS["red"]})
    refused(one, "expected folders of two classes or more, found 'red'")
    nothing = paint(tmp_path / "nothing", {"_none": GREY["grey"]})
    refused(nothing, "two classes or more, found '_none'")
    refused(photos, "expected a number above 0", more=["--known_share=0"])
    refused(photos, "at most 1, received 1.5", more=["--known_share=1.5"])
    refused(photos, "at most 1, received nan", more=["--known_share=nan"])
    refused(photos, "--known_share", "'x'", more=["--known_share=x"])
    refused(photos, "--learn takes no images; leave out a.png", more=["a.png"])
    refused(photos, "--learn and --csv do not go together", more=["--csv"])
    (photos / "empty").mkdir()
    refused(photos, "empty: expected 2 pictures or more that can be read, found 0")
    (photos / "empty").rmdir()
    paint(photos, {"single": GREY["grey"]}, 1)
    refused(photos, "single: expected 2 pictures", "found 1; add some, or remove")
    shutil.rmtree(photos / "single")
    paint(photos, {"unknown": GREY["grey"]})
    refused(photos, "no class of the name 'unknown'")
    (photos / "unknown").rename(photos / "_none")
    refused(photos, "known_share of 1 leaves out", more=["--known_share=1"])
    shutil.rmtree(photos / "_none")
    shutil.rmtree(photos / "red")
    refused(photos, f"{learned} knows 'red'", "no folder of that name; add it")


def test_pictures_that_cannot_be_read_are_named_and_nothing_is_written(
    model, photos, capfd, tmp_path
):
    for path in (photos / "red").iterdir():
        path.write_text("no picture")
    mine = tmp_path / "mine.json"
    code, out, errors = run_main(capfd, *learn(model, photos, mine))
    assert (code, out, len(errors)) == (2, "", 7)
    assert "red: expected 2 pictures or more that can be read, found 0" in errors[-1]
    assert not mine.exists()


def test_flags_that_miss_something_say_what(models, model, photos, learned, capfd):
    argv = [f"--model={model}", photos / "red"]
    assert_one_error(capfd, argv, "gives features and has no classes; learn some with")
    argv = [f"--model={model}", f"--learn={photos}"]
    assert_one_error(capfd, argv, "--learn needs --classes=FILE")
    argv = [f"--model={model}", f"--classes={learned}"]
    assert_one_error(capfd, argv, "no image given")
    assert_one_error(capfd, [*argv, "--known_share=0.9", "a"], "needs --learn=DIR")
    assert_one_error(capfd, [*argv, "--labels=x", "a"], "--classes and --labels do not")
    assert_one_error(capfd, [*argv, "--compare", "a"], "--compare and --classes do not")
    full = f"--model={models['full']}"
    wrong = "gives scores of"
    assert_one_error(capfd, [full, f"--classes={learned}", "a"], wrong, "--features")
    other = learned.with_name("other.json")
    assert_one_error(capfd, learn(models["full"], photos, other), wrong, "--features")
    assert not other.exists()


def test_classes_of_another_model_are_refused(features_model, photos, learned, capfd):
    before = learned.read_bytes()
    argv = [f"--model={features_model['other']}", f"--classes={learned}", photos]
    words = f"{learned}: learned with another model than {features_model['other']}"
    assert_one_error(capfd, argv, words, json.loads(before)["model_sha256"])
    assert_one_error(capfd, learn(features_model["other"], photos, learned), words)
    assert learned.read_bytes() == before


DAMAGE = {
    "empty": lambda found: "",
    "no JSON": lambda found: "{",
    "text": lambda found: '"mine"',
    "a list": lambda found: "[]",
    "deep": lambda found: "[" * 100_000,
    "version": lambda found: {**found, "version": "1"},
    "version -1": lambda found: {**found, "version": -1},
    "hash": lambda found: {k: v for k, v in found.items() if k != "model_sha256"},
    "labels": lambda found: {**found, "labels": ["red", "red", "blue"]},
    "one label": lambda found: {**found, "labels": ["red"]},
    "no text": lambda found: {**found, "labels": ["red", 3, "blue"]},
    "two lines": lambda found: {**found, "labels": ["red", "a\nb", "blue"]},
    "surrogate": lambda found: {**found, "labels": ["red", "\ud800", "blue"]},
    "no hash": lambda found: {**found, "labels": [{}, {}, {}]},
    "more labels": lambda found: {**found, "labels": ["a", "b", "c", "d", "e"]},
    "words": lambda found: {**found, "bias": ["NaN"] * 4},
    "infinite": lambda found: {**found, "bias": [float("inf")] * 4},
    "NaN": lambda found: {**found, "bias": [float("nan"), 0, 0, 0]},
    "too large": lambda found: {**found, "bias": [1e7, 0, 0, 0]},
    "1e999": lambda found: json.dumps(found).replace("0.0", "1e999"),
    "whole number": lambda found: {**found, "bias": [10**400, 0, 0, 0]},
    "dict": lambda found: {**found, "bias": {"0": 1}},
    "ragged": lambda found: {**found, "kernel": [[1, 2, 3], [1]]},
    "shape": lambda found: {**found, "kernel": found["kernel"][1:]},
    "columns": lambda found: {**found, "bias": found["bias"] * 2},
    "no bias": lambda found: {**found, "bias": None},
    "kernel": lambda found: {k: v for k, v in found.items() if k != "kernel"},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_hostile_file_is_one_line(
    model, photos, learned, capfd, monkeypatch, name
):
    damaged = DAMAGE[name](json.loads(learned.read_text()))
    text = damaged if isinstance(damaged, str) else json.dumps(damaged)
    learned.write_text(text)
    argv = [f"--model={model}", f"--classes={learned}", photos]
    words = f"{learned}: not a file of learned classes, or damaged: "
    assert_one_error(capfd, argv, words, "learn again into another file")
    # Nor is it lost: it may be something else.
    assert_one_error(capfd, learn(model, photos, learned), words)
    assert learned.read_text() == text


def test_a_file_too_large_is_neither_read_nor_written(
    model, photos, learned, capfd, monkeypatch
):
    before = learned.read_bytes()
    monkeypatch.setattr(classes_file, "MAX_CLASSES_BYTES", len(before) - 1)
    argv = [f"--model={model}", f"--classes={learned}", photos]
    assert_one_error(capfd, argv, f"is larger than {len(before) - 1} bytes")
    new = learned.with_name("new.json")
    assert_one_error(capfd, learn(model, photos, new), "3 classes need", "bytes")
    assert not new.exists() and learned.read_bytes() == before


def test_a_newer_file_asks_for_a_newer_runner(model, photos, learned, capfd):
    newer = dict(json.loads(learned.read_text()), version=2)
    learned.write_text(json.dumps(newer))
    argv = [f"--model={model}", f"--classes={learned}", photos]
    assert_one_error(capfd, argv, "this runner reads 1, received 2; take the")


def test_what_was_learned_survives_a_full_disk(model, photos, learned, monkeypatch):
    before = learned.read_bytes()
    paint(photos, {"yellow": (220, 220, 40)})

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(classes_file.os, "fsync", full)
    classifier = Classifier(model, classes=learned)
    with pytest.raises(UserError, match="mine.json: .*No space left on device"):
        classifier.learn(photos, learned)
    assert learned.read_bytes() == before and classifier.classes == 4
    assert sorted(os.listdir(learned.parent)) == ["mine.json", "photos"]


def test_an_older_runner_would_refuse_the_features(features_model):
    steps = dict(STEPS, version=4)
    with open(features_model["int8"], "rb") as file:
        content = file.read()
    assert json.dumps(STEPS).encode() in content or b"preprocessing.json" in content
    path = features_model["int8"].replace("int8", "newer")
    archive = {"preprocessing__json": json.dumps(steps)}
    with open(path, "wb") as file:
        file.write(with_archive(content[: content.index(b"PK\x03\x04")], **archive))
    with pytest.raises(UserError, match="this runner reads 1 to 3, received 4; take"):
        Classifier(path)


# --- The file on its own --------------------------------------------------------------


def test_the_copied_file_learns_and_classifies(model, photos, tmp_path):
    mine = tmp_path / "mine.json"
    done = run_alone(*learn(model, photos, mine))
    assert (done.returncode, done.stderr) == (0, "") and "3 classes" in done.stdout
    argv = [f"--model={model}", f"--classes={mine}", "--json", photos / "red"]
    done = run_alone(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[0])["top"][0]["label"] == "red"


def test_the_copied_file_is_a_module_without_side_effects(
    models, model, photos, tmp_path
):
    path = tmp_path / "red.png"
    Image.new("RGB", (30, 40), COLOURS["red"]).save(path)
    answers = lessons.answers_of_the_module(
        [sys.executable], models["full"], model, path, photos, tmp_path / "mine.json"
    )
    first, *others, pictures, label = answers
    assert first.startswith("red ") and others == [first, first]
    assert "'red': 6" in pictures and label == "red"
