"""Detectors on the device: what a file of boxes gives, and how it is shown."""

import csv
import io
import json
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_resnet import edge
from keras_resnet.edge.convert import tflite_file
from keras_resnet.runner import Box, Detection, UserError, detector, showing
from tests.helpers import found_colours
from tests.helpers.found_colours import CELL, LABELS
from tests.helpers.runner import assert_one_error, run_main, with_archive

SQUARES = [(1, 2, 0), (3, 5, 1), (6, 9, 2)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of detectors, by name."""
    folder = tmp_path_factory.mktemp("detectors")
    made = found_colours.detector_files()
    plain = tflite_file.pack(tflite_file.parse(made.boxes))  # without an archive
    model = tflite_file.parse(plain)
    graph = model.subgraphs[0]
    boxes, classes, scores, count = graph.outputs
    graph.outputs = [scores, boxes, count, classes]
    contents = {
        "raw": made.raw,
        "boxes": made.boxes,
        "float": found_colours.detector_files("none").raw,
        "coral": plain,
        "tensorflow2": tflite_file.pack(model),
        "coral_labels": with_archive(plain, labels__txt="red\ngreen\nblue\n"),
    }
    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: str(folder / f"{name}.tflite") for name in contents}


@pytest.fixture
def photo(tmp_path):
    """A photograph of three squares, twice as large as the input and turned by EXIF."""
    pixels = np.kron(found_colours.picture(SQUARES), np.ones((2, 2, 1), np.uint8))
    image = Image.fromarray(np.rot90(pixels))
    exif = image.getexif()
    exif[0x0112] = 6  # turn it by 90 degrees to the right
    image.save(tmp_path / "photo.png", exif=exif)
    return tmp_path / "photo.png"


def assert_squares(found, squares, scale=1):
    assert [one.index for one in found] == [index for _, _, index in squares]
    for one, (row, column, index) in zip(found, squares, strict=True):
        assert one.score > 0.9
        _, top, _, bottom = (value / scale for value in one.box)
        assert (top, bottom) == pytest.approx((row * CELL, (row + 1) * CELL), abs=0.1)
        middle = (one.box.left + one.box.right) / 2 / scale
        assert middle == pytest.approx((column + 0.5) * CELL, abs=0.1)
        width = (one.box.right - one.box.left) / scale
        # The red of a square that was resized is not that of the picture.
        near = 0.1 * scale
        assert width == pytest.approx(CELL if index == 0 else 5.76, abs=near)


@pytest.mark.parametrize("name", ["raw", "boxes", "float", "coral", "tensorflow2"])
def test_a_detector_of_any_layout_finds_the_squares(files, name):
    model = edge.Detector(files[name])
    found = sorted(model.detect(found_colours.picture(SQUARES)), key=lambda one: one[0])
    assert_squares(found, SQUARES)
    known = name in ("raw", "boxes", "float")
    assert [one.label for one in found] == (LABELS if known else [None] * 3)


def test_raw_and_post_processed_files_give_equal_boxes(files):
    raw, boxes = edge.Detector(files["raw"]), edge.Detector(files["boxes"])
    count = 0
    for pixels, _ in found_colours.pictures(20):
        one, other = (model.interpret(model.outputs(pixels)) for model in (raw, boxes))
        assert one.scores.tolist() == other.scores.tolist()
        assert one.classes.tolist() == other.classes.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-6)
        count += len(one.scores)
    assert count > 50


def test_boxes_are_in_pixels_of_the_upright_photograph(files, photo):
    found = edge.Detector(files["raw"]).detect(photo)
    assert_squares(sorted(found, key=lambda one: one[0]), SQUARES, scale=2)


def test_boxes_are_those_of_a_photograph_of_another_shape(files):
    """Padded on both sides: the margin is undone."""
    wide = np.full((64, 160, 3), found_colours.GREY, np.uint8)
    wide[8:24, 96:112] = found_colours.COLOURS[0]
    found = edge.Detector(files["float"]).detect(
        Image.fromarray(np.kron(wide, np.ones((5, 5, 1), np.uint8))), threshold=0.1
    )
    best = found[0]
    assert best.index == 0
    assert 80 * 5 < best.box.left < best.box.right < 128 * 5
    assert 0 <= best.box.top < best.box.bottom < 40 * 5


def test_a_jpeg_decoded_at_a_quarter_has_the_boxes_of_all_its_pixels(files, tmp_path):
    pixels = np.kron(found_colours.picture(SQUARES), np.ones((64, 64, 1), np.uint8))
    pixels = pixels[:-5]  # a side that 8 does not divide
    Image.fromarray(pixels).save(tmp_path / "large.jpg", quality=95)
    model = edge.Detector(files["float"])
    assert model.input_of(tmp_path / "large.jpg")[1].scale == 4
    small, whole = (model.detect(x) for x in (tmp_path / "large.jpg", pixels))
    assert [one.index for one in small] == [one.index for one in whole]
    assert len(small) == 3
    for one, other in zip(small, whole, strict=True):
        assert one.box == pytest.approx(other.box, abs=8)


def test_json_lists_the_objects(files, capfd, photo):
    code, out, errors = run_main(capfd, "--model", files["raw"], "--json", photo)
    assert (code, errors) == (0, [])
    report = json.loads(out)
    assert list(report) == ["file", "objects", "milliseconds"]
    assert list(report["milliseconds"]) == "decode resize invoke postprocess".split()
    first = min(report["objects"], key=lambda one: one["index"])
    assert first["label"] == "red" and first["score"] > 0.9
    expected = {"left": 32.0, "top": 16.0, "right": 48.0, "bottom": 32.0}
    assert first["box"] == pytest.approx(expected, abs=0.2)


def test_csv_has_a_row_per_box_and_one_for_an_image_without(files, capfd, tmp_path):
    Image.fromarray(found_colours.picture(SQUARES)).save(tmp_path / "a.png")
    Image.fromarray(found_colours.picture([])).save(tmp_path / "b.png")
    code, out, errors = run_main(capfd, "--model", files["boxes"], "--csv", tmp_path)
    assert (code, errors) == (0, [])
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3", ""]
    names = "file rank index label score left top right bottom"
    stages = "decode_ms resize_ms invoke_ms postprocess_ms"
    assert list(rows[0]) == f"{names} {stages}".split()
    red = next(row for row in rows if row["label"] == "red")
    corners = [float(red[side]) for side in ("left", "top", "right", "bottom")]
    assert corners == pytest.approx([16, 8, 24, 16], abs=0.1)


def test_the_threshold_hides_boxes_and_lists_more(files, capfd, tmp_path):
    half = found_colours.picture([(1, 1, 0)])
    half[8:16, 12:16] = found_colours.GREY  # a half of a square
    Image.fromarray(half).save(tmp_path / "a.png")

    def count(*flags):
        argv = ["--model", files["float"], "--json", tmp_path / "a.png", *flags]
        return len(json.loads(run_main(capfd, *argv)[1])["objects"])

    assert (count(), count("--threshold=0.05"), count("--threshold=1")) == (0, 1, 0)
    score = edge.Detector(files["float"]).detect(half, threshold=0)[0].score
    assert 0.05 < score < detector.SHOWN_SCORE


def test_annotated_images_have_the_boxes_in_the_colours_of_classes(
    files, capfd, tmp_path
):
    pixels = np.kron(found_colours.picture([(3, 5, 1)]), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    argv = ["--model", files["raw"], f"--annotate={tmp_path / 'out'}"]
    assert run_main(capfd, *argv, tmp_path / "a.png")[0] == 0
    with Image.open(tmp_path / "out" / "00001_a.jpg") as image:
        drawn = np.asarray(image).astype(int)
    changed = np.abs(drawn - pixels).max(axis=2) > 60
    rows = np.flatnonzero(changed.any(axis=1))
    assert (rows[0], rows[-1]) == pytest.approx((192, 255), abs=2)
    # Drawn without JPEG, the edge has Pascal VOC's colour of class 2, since class 0 is
    # the background there.
    options = types.SimpleNamespace(threshold=None)
    show = showing.BoxesShown(edge.Detector(files["raw"]), options)
    found = showing.Shown([Detection(1, "green", 0.9, Box(10, 20, 60, 90))], None)
    image = np.asarray(show.draw(Image.new("RGB", (300, 300)), found))
    assert image[80, 10].tolist() == image[89, 30].tolist() == [0, 128, 0]
    assert not image[80, 8].any() and not image[91, 30].any()


def test_flags_of_classification_are_refused_in_one_line(files, capfd, photo):
    for flags in (["--top_k=3"], ["--compare"], ["--masks=out"]):
        argv = ["--model", files["raw"], *flags, photo]
        assert_one_error(capfd, argv, flags[0].split("=")[0], "boxes", "leave it out")


def test_each_class_refuses_the_files_of_the_others(files, models):
    with pytest.raises(UserError, match="gives boxes, and not scores.*use Detector"):
        edge.Classifier(files["raw"])
    with pytest.raises(UserError, match="gives boxes, and not a mask; use Detector"):
        edge.Segmenter(files["coral"])
    with pytest.raises(UserError, match="gives scores.*use Classifier"):
        edge.Detector(models["full"])


def test_labels_with_gaps_are_those_of_their_numbers(files, tmp_path):
    (tmp_path / "coco.txt").write_text("0  red\n2  blue\n4  other\n")
    found = edge.Detector(files["coral"], tmp_path / "coco.txt")
    assert found.labels == ["red", None, "blue", None, "other"]
    inside = edge.Detector(files["coral_labels"])
    assert inside.labels == LABELS
    (tmp_path / "two.txt").write_text("red\ngreen\n")
    with pytest.raises(UserError, match="2 labels for a model of 3 classes"):
        edge.Detector(files["raw"], tmp_path / "two.txt")


def changed(content, **members):
    """The file with other members in its archive; None leaves one out."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    plain = tflite_file.pack(tflite_file.parse(content))
    files |= {name.replace("__", "."): data for name, data in members.items()}
    kept = {name: data for name, data in files.items() if data is not None}
    return with_archive(plain, **kept)


def steps_with(content, **fields):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        steps = json.loads(archive.read("preprocessing.json"))
    return json.dumps(steps | fields)


@pytest.mark.parametrize(
    "fault, words",
    [
        ("no anchors", "no anchors.npy inside; export the model again"),
        ("fewer anchors", "expected float32 (96, 4), received float32 (95, 4)"),
        ("no area", "anchors.npy inside: not finite or of no area"),
        ("cut off", "anchors.npy inside is cut off"),
        ("empty", "anchors.npy inside is damaged"),
        ("huge", "expected float32 (96, 4), received float32 (10000000000000, 4)"),
        ("archive", "anchors.npy inside is damaged"),
        ("no scales", "box_scales: expected four numbers above 0, received None"),
        ("output", "output: expected features or boxes or masks, received 'words'"),
        ("version", "version: this runner reads 1 to 3, received 4"),
    ],
)
def test_a_damaged_file_of_boxes_is_refused_in_one_line(fault, words, tmp_path):
    raw = found_colours.detector_files().raw
    members = {}
    if fault in ("fewer anchors", "no area"):
        anchors = found_colours.anchors()
        is_fewer = fault == "fewer anchors"
        anchors = anchors[:-1] if is_fewer else anchors * np.float32([1, 1, 1, 0])
        file = io.BytesIO()
        np.save(file, anchors)
        members["anchors__npy"] = file.getvalue()
    elif fault == "no anchors":
        members["anchors__npy"] = None
    elif fault in ("cut off", "empty", "huge", "archive"):
        file = io.BytesIO()
        np.save(file, found_colours.anchors())
        content = file.getvalue()
        archive = io.BytesIO()
        np.savez(archive, found_colours.anchors())
        members["anchors__npy"] = {
            "cut off": content[:-1],
            "empty": b"",
            "huge": content.replace(
                b"(96, 4), }           ", b"(10000000000000, 4), }"
            ),
            "archive": archive.getvalue(),
        }[fault]
    else:
        value = {"no scales": {"box_scales": None}, "version": {"version": 4}}
        fields = value.get(fault, {"output": "words"})
        members["preprocessing__json"] = steps_with(raw, **fields)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(changed(raw, **members))
    with pytest.raises(UserError) as error:
        (edge.Classifier if fault == "output" else edge.Detector)(path)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)
