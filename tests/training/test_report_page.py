"""The report of a run: its numbers, and the page that shows them."""

import base64
import csv
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn import metrics

from keras_resnet import training
from keras_resnet.training.data import batching, sources, survey
from keras_resnet.training.reporting import charts, page, summary, tables
from keras_resnet.training.reporting.answers import Answers, interval, of_model
from tests.helpers.datasets import SMALL, photographs
from tests.helpers.runs import silent

LABELS = ("ant", "<script>alert(1)</script>", "cat & dog", "'eel\"")


def answers(examples=60, classes=4, multi_label=False, seed=0, absent=()):
    rng = np.random.default_rng(seed)
    if multi_label:
        targets = rng.random((examples, classes)) < 0.4
    else:
        present = [i for i in range(classes) if i not in absent]
        targets = np.eye(classes)[rng.choice(present, examples)] > 0.5
    scores = rng.random((examples, classes)) + targets * 0.5
    scores /= 1.5 if multi_label else scores.sum(1, keepdims=True)
    labels = LABELS if classes == 4 else tuple(f"class {i}" for i in range(classes))
    return Answers(labels, targets, np.float32(scores), multi_label)


def test_balanced_accuracy_and_confusions_are_those_of_scikit_learn():
    found = answers()
    truth, said = found.targets.argmax(1), found.scores.argmax(1)
    expected = metrics.balanced_accuracy_score(truth, said)
    assert found.metrics()["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
    matrix = metrics.confusion_matrix(truth, said)
    np.testing.assert_array_equal(tables.confusion_matrix(found), matrix)
    recalls = metrics.recall_score(truth, said, average=None)
    for row in tables.classes(found):
        label = LABELS.index(row["label"])
        assert row["share"] == pytest.approx(recalls[label])
        by_class = found.metrics()["by_class"][row["label"]]
        assert by_class == {
            "examples": matrix[label].sum(),
            "right": matrix[label, label],
        }
    shares = [row["share"] for row in tables.classes(found)]
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] < 1
    pairs = {(a, b): count for a, b, count, _ in tables.confused_pairs(found)}
    for (label, answer), count in pairs.items():
        assert count == matrix[LABELS.index(label), LABELS.index(answer)]
    assert sum(pairs.values()) == matrix.sum() - matrix.trace()


def test_a_class_without_examples_has_no_recall():
    found = answers(absent=(2,))
    truth, said = found.targets.argmax(1), found.scores.argmax(1)
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = metrics.balanced_accuracy_score(truth, said)
    assert (said == 2).any()
    assert found.metrics()["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
    assert found.metrics()["by_class"][LABELS[2]] == {"examples": 0, "right": 0}
    assert LABELS[2] not in [row["label"] for row in tables.classes(found)]


def test_the_precision_of_a_label_is_that_of_scikit_learn():
    found = answers(multi_label=True)
    expected = metrics.average_precision_score(
        found.targets, found.scores, average=None
    )
    by_class = found.metrics()["by_class"]
    assert list(by_class) == list(LABELS)
    for row, precision in zip(by_class.values(), expected, strict=True):
        assert row["average_precision"] == pytest.approx(precision, abs=1e-12)
    assert "balanced_accuracy" not in found.metrics()


@pytest.mark.parametrize("right, examples", [(0, 4), (3, 4), (4, 4), (150, 153)])
def test_intervals_are_those_of_scipy(right, examples):
    expected = binomtest(right, examples).proportion_ci(0.95, method="wilson")
    assert interval(right, examples) == pytest.approx(expected, abs=1e-7)


def test_the_standard_error_is_the_spread_of_drawn_accuracies():
    rng = np.random.default_rng(0)
    drawn = rng.binomial(80, 0.7, 200_000) / 80
    (row,) = (row for row in tables.classes(answers_right(56, 80)) if row["right"])
    assert row["error"] == pytest.approx(drawn.std(), rel=0.01)


def answers_right(right, examples):
    """Answers of which so many are right."""
    targets = np.tile([[True, False]], (examples, 1))
    scores = np.where(np.arange(examples)[:, None] < right, [[0.9, 0.1]], [[0.2, 0.8]])
    return Answers(("yes", "no"), targets, np.float32(scores), False)


def test_mistakes_are_the_surest_ones_and_hits_the_least_sure():
    found = answers(200)
    truth, said = found.targets.argmax(1), found.scores.argmax(1)
    sure = found.scores.max(1)
    mistakes, unsure = tables.examples(found)
    wrong = np.flatnonzero(truth != said)
    right = np.flatnonzero(truth == said)
    expected = sorted(wrong, key=lambda i: -sure[i])[: tables.EXAMPLES]
    assert [example.index for example in mistakes] == expected
    expected = sorted(right, key=lambda i: sure[i])[: tables.EXAMPLES]
    assert [example.index for example in unsure] == expected
    for example in mistakes + unsure:
        assert example.labels == LABELS[truth[example.index]]
        assert example.answer == LABELS[said[example.index]]
        assert example.score == sure[example.index]


def test_mistakes_of_several_labels_are_one_too_many_or_too_few():
    targets = np.array([[1, 0], [1, 0], [0, 0], [1, 1]]) > 0
    scores = np.float32([[0.1, 0.1], [0.9, 0.8], [0.3, 0.2], [0.6, 0.7]])
    mistakes, unsure = tables.examples(Answers(("a", "b"), targets, scores, True))
    shown = [(x.index, x.labels, x.answer, round(x.score, 3)) for x in mistakes]
    assert shown == [(0, "a", "not a", 0.9), (1, "a", "b", 0.8)]
    shown = [(x.index, x.labels, x.answer, round(x.score, 3)) for x in unsure]
    assert shown == [
        (3, "a, b", "a", 0.6),
        (2, "no label", "not a", 0.7),
        (0, "a", "not b", 0.9),
        (1, "a", "a", 0.9),
    ]


def test_one_line_names_the_worst_class_and_says_if_classes_are_uneven():
    by_class = {
        "ant": {"examples": 30, "right": 30},
        "bee": {"examples": 10, "right": 5},
        "none": {"examples": 0, "right": 0},
    }
    uneven = {"balanced_accuracy": 0.75, "by_class": by_class}
    worst = "worst class 'bee': 5 of 10 right"
    assert summary.line(uneven) == f"balanced accuracy 75.00%, {worst}"
    by_class["ant"]["examples"] = 29
    assert summary.line(uneven) == worst
    assert summary.line({"top1": 0.9}) == ""
    labels = {"cat": (0.9, 3), "dog": (0.25, 2), "eel": (None, 0)}
    by_label = {
        label: {"examples": count, "average_precision": value}
        for label, (value, count) in labels.items()
    }
    text = "worst label 'dog': average precision 25.00%, 2 images have it"
    assert summary.line({"by_class": by_label}) == text


def test_every_example_has_the_scores_of_its_own_pixels(digits):
    """Whatever the batches: 360 examples are no multiple of 64."""

    def pixels_of_a_row(images, training):
        return images[:, 16, 8:20, 0]

    found = of_model(pixels_of_a_row, digits, SMALL)
    pairs = list(batching.images(digits.held_out, SMALL).as_numpy_iterator())
    pixels = SMALL.normalize(np.stack([image for image, _ in pairs]))
    np.testing.assert_allclose(found.scores, pixels[:, 16, 8:20, 0], rtol=1e-5)
    assert found.targets.argmax(1).tolist() == [label for _, label in pairs]
    assert found.targets.sum(1).tolist() == [1] * 360


def test_curves_lie_where_the_numbers_say():
    rows = [
        {"epoch": 1.0, "top1": 0.5, "loss": 2.0},
        {"epoch": 2.0, "top1": 0.75, "loss": 1.0, "val_top1": 0.6, "val_loss": 1.5},
        {"epoch": 3.0, "top1": 1.0, "loss": 0.5, "val_top1": 0.8, "val_loss": 1.25},
    ]
    error, loss = charts.of_history(rows)
    (_, training_points), (_, held_out_points) = error.lines
    top, text = error.y_ticks[-1]
    assert (top, text) == (charts.TOP, "60")

    def height(percent):
        return pytest.approx(np.interp(percent, [0, 60], [charts.BOTTOM, charts.TOP]))

    middle = (charts.LEFT + charts.RIGHT) / 2
    places = (charts.LEFT, middle, charts.RIGHT)
    heights = map(height, (50, 25, 0))
    assert training_points == list(zip(places, heights, strict=True))
    assert held_out_points == [(middle, height(40)), (charts.RIGHT, height(20))]
    assert [text for _, text in loss.y_ticks] == ["0", "0.5", "1", "1.5", "2"]
    assert [text for _, text in loss.x_ticks] == ["1", "2", "3"]
    assert charts.of_history([]) == []


class _Page(html.parser.HTMLParser):
    """What a browser makes of a page: its tags, and its text without style."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += " ".join(data.split()) + "\n"

    def images(self):
        """Returns the pictures of the page, decoded."""
        sources = [fields["src"] for tag, fields in self.tags if tag == "img"]
        assert all(re.match("data:image/(png|jpeg);base64,", x) for x in sources)
        return [
            Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
            for source in sources
        ]


def checked(path):
    """Returns a page that needs nothing but itself and is whole."""
    found = _Page(path)
    assert found.open == []
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "link", "iframe", "object", "base"}
    assert "@import" not in found.source and "url(" not in found.source
    for _, fields in found.tags:
        assert not {name for name in fields if name.startswith("on")}
        for name in ("href", "src", "srcset", "action"):
            assert (fields.get(name) or "data:").startswith("data:")
    assert path.stat().st_size < 2_000_000
    return found


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Sixteen photographs, listed under the names of `LABELS`, one copied."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [("image", "label", "split")]
    for number, encoded in enumerate(photographs(16)):
        name = f"<b>{number}&.jpg"
        (folder / name).write_bytes(encoded)
        split = "val" if number % 2 else "train"
        rows.append((name, LABELS[number // 2 % 4], split))
    (folder / "<i>copy.jpg").write_bytes((folder / "<b>1&.jpg").read_bytes())
    rows.append(("<i>copy.jpg", LABELS[1], "train"))
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return sources.load("csv", folder / "list.csv")


CONFIG = dict.fromkeys(("settings", "recipe", "preprocessing", "versions"), {})


def written(directory, dataset, found, config=CONFIG, **more):
    numbers = {"top5": 1.0, "mean_average_precision": 0.5, "label_accuracy": 0.75}
    values = numbers | found.metrics()
    page.write(directory, "<u>model", dataset, found, values, config, **more)
    return checked(directory / page.FILE)


def of(dataset, seed=0):
    """Random answers to the held-out pictures of a dataset."""
    labels = np.array([int(label) for _, label in dataset.held_out.read()])
    scores = np.random.default_rng(seed).dirichlet(np.ones(4), len(labels))
    return Answers(dataset.labels, np.eye(4)[labels] > 0, np.float32(scores), False)


def test_what_names_say_is_text(hostile, tmp_path):
    config = CONFIG | {"settings": {"model": "<img src=x>"}}
    looked_at = survey.examine(hostile, tmp_path)
    shown = written(tmp_path, hostile, of(hostile), config, survey=looked_at)
    for name in (*LABELS, "<b>1&.jpg", "<i>copy.jpg", "<u>model", "<img src=x>"):
        assert name in shown.text
    assert "u" not in {tag for tag, _ in shown.tags}
    assert len(shown.images()) == 8


def test_thumbnails_are_the_pictures_that_they_stand_for(hostile, tmp_path):
    shown = written(tmp_path, hostile, of(hostile))
    names = re.findall(r"<b>\d+&\.jpg", shown.text)
    assert sorted(names) == sorted(
        re.search(r"<b>\d+&\.jpg", name)[0] for name in hostile.held_out.names
    )
    folder = re.match("(.*)<b>", hostile.held_out.names[0])[1]
    for name, small in zip(names, shown.images(), strict=True):
        whole = Image.open(folder + name)
        orientation = whole.getexif().get(0x0112)
        if orientation in (5, 6, 7, 8):
            assert small.width / small.height == pytest.approx(
                whole.height / whole.width, rel=0.02
            )
        elif orientation in (None, 1):
            expected = np.asarray(whole.convert("RGB").resize(small.size), float)
            assert np.abs(np.asarray(small.convert("RGB")) - expected).mean() < 6
        assert max(small.size) <= 160


def test_many_classes_and_many_pictures_make_a_small_page(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (300, 400, 3), np.uint8) for _ in range(4)]
    folder = tmp_path / "noise"
    for label in range(2):
        for number in range(60):
            path = folder / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise[number % 4]).save(path, compress_level=0)
    dataset = sources.load("folder", folder)
    count = dataset.held_out.examples
    found = answers(count, 1000, seed=1)
    shown = written(tmp_path, dataset, found)
    assert "The pairs of classes that are confused most often." in shown.text
    assert len(shown.images()) <= 2 * tables.EXAMPLES
    text = (tmp_path / page.FILE).read_text()
    assert text.count('<td class="bar">') <= tables.ROWS


def test_several_labels_have_a_page_of_their_own(hostile, tmp_path):
    found = answers(8, multi_label=True)
    shown = written(tmp_path, hostile, found)
    for text in ("mean average precision", "50.0%", "Average precision of each label"):
        assert text in shown.text
    for text in ("top-1", "What is taken for what", "±", "None"):
        assert text not in shown.text


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on photographs, the classes of which are uneven."""
    folder = tmp_path_factory.mktemp("photos")
    for number, encoded in enumerate(photographs(24)):
        path = folder / ("rare" if number % 6 == 0 else "often") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    return training.train(
        model="resnet8",
        dataset="folder",
        data_dir=folder,
        recipe="digits",
        batch_size=8,
        epochs=2,
        image_size=32,
        weights="none",
        model_dir=folder / "run",
        progress=silent,
    )


def test_a_run_has_a_report_whose_numbers_are_its_metrics(run):
    assert run.metrics == json.loads((run.directory / "metrics.json").read_text())
    by_class = run.metrics["by_class"]
    assert {label: x["examples"] for label, x in by_class.items()} == {
        "often": 4,
        "rare": 1,
    }
    right = sum(found["right"] for found in by_class.values())
    assert right / 5 == pytest.approx(run.metrics["top1"])
    recalls = [found["right"] / found["examples"] for found in by_class.values()]
    assert run.metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    shown = checked(run.directory / "report.html")
    assert f"{100 * right / 5:.1f}%" in shown.text and "balanced accuracy" in shown.text
    assert "top-1 error, %" in shown.text and "often/" in shown.text
    assert "learning rate" in shown.text and "keras-resnet-zoo" in shown.text
    assert len(shown.images()) == 5
    assert (run.directory / survey.FILE).exists()


def test_a_run_of_an_older_version_opens_without_a_report(run):
    path = run.directory / "metrics.json"
    new = {"by_class", "balanced_accuracy"}
    older = {key: value for key, value in run.metrics.items() if key not in new}
    path.write_text(json.dumps(older))
    (run.directory / "report.html").unlink()
    opened = training.Run.open(run.directory)
    assert opened.metrics == older and summary.line(opened.metrics) == ""
