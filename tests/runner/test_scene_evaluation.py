"""--evaluate of boxes and masks, on folders as annotation tools write them."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.helpers import found_colours
from tests.helpers.found_colours import CELL, LABELS
from tests.helpers.runner import assert_one_error, run_main

ALL = pytest.approx(1)  # a mean of ones is a little less
XML = "<annotation>{size}{objects}</annotation>"
SIZE = "<size><width>{}</width><height>{}</height></size>"
OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin>"
    "<ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene_models")
    for name, content in (
        ("boxes", found_colours.detector_files().boxes),
        ("raw", found_colours.detector_files().raw),
        ("masks", found_colours.segmenter_file()),
    ):
        (folder / f"{name}.tflite").write_bytes(content)
    return folder


def xml(squares, scale=1, size=(96, 64), difficult=()):
    """What LabelImg writes for squares: the cells themselves."""
    objects = [
        OBJECT.format(
            LABELS[index],
            int(number in difficult),
            *(CELL * scale * value for value in (column, row, column + 1, row + 1)),
        )
        for number, (row, column, index) in enumerate(squares)
    ]
    size = SIZE.format(*(side * scale for side in size))
    return XML.format(size=size, objects="".join(objects))


def write(folder, name, squares, scale=1):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = found_colours.picture(squares)
    Image.fromarray(np.kron(pixels, np.ones((scale, scale, 1), np.uint8))).save(
        folder / f"{name}.png"
    )


def evaluated(capfd, model, folder):
    code, out, errors = run_main(
        capfd, "--model", model, "--json", f"--evaluate={folder}"
    )
    return code, json.loads(out), errors


@pytest.mark.parametrize("name", ["raw", "boxes"])
def test_boxes_that_are_all_found_have_an_average_precision_of_1(
    models, tmp_path, capfd, name
):
    """Red squares are found exactly; green and blue boxes have an IoU of 0.72."""
    for number, (_, squares) in enumerate(found_colours.pictures(8, seed=2)):
        write(tmp_path / "JPEGImages", f"{number}", squares, 1 + number % 2)
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        text = xml(squares, 1 + number % 2)
        (tmp_path / "Annotations" / f"{number}.xml").write_text(text)
    code, report, errors = evaluated(capfd, models / f"{name}.tflite", tmp_path)
    assert (code, errors) == (0, [])
    assert (report["images"], report["failed"]) == (8, 0)
    assert report["ap50"] == pytest.approx(1)
    classes = {one["label"]: one for one in report["classes"]}
    assert classes["red"]["ap"] > 0.9
    # Five of ten thresholds, 0.5 to 0.7, are reached.
    assert classes["green"]["ap"] == pytest.approx(0.5)
    assert report["classes"][-1]["label"] == "red"  # the worst comes first


def test_masks_are_no_pictures_of_a_detector(models, tmp_path, capfd):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(xml([(1, 2, 0)]))
    for folder in ("images", "masks"):
        write(tmp_path / folder, "a", [(1, 2, 0)])
    code, report, _ = evaluated(capfd, models / "boxes.tflite", tmp_path)
    assert (code, report["images"], report["ap50"]) == (0, 1, ALL)


def test_what_is_missed_and_what_is_wrong_costs_precision(models, tmp_path, capfd):
    write(tmp_path, "a", [(1, 2, 0)])
    (tmp_path / "a.xml").write_text(xml([(1, 2, 0), (5, 5, 0)]))  # one is not there
    code, report, _ = evaluated(capfd, models / "raw.tflite", tmp_path)
    assert code == 0
    # A recall of a half: 51 of 101 points have a precision of 1.
    assert report["ap50"] == pytest.approx(51 / 101)
    (tmp_path / "a.xml").write_text(xml([(1, 2, 0), (5, 5, 0)], difficult=[1]))
    assert evaluated(capfd, models / "raw.tflite", tmp_path)[1]["ap50"] == ALL


@pytest.mark.parametrize(
    "text, words",
    [
        ("<annotation>", ["a.xml: no valid XML"]),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', ["a.xml: it has a DOCTYPE"]),
        (xml([(1, 2, 0)]).replace("red", "cat"), ["class 'cat'", "3 labels"]),
        (xml([(1, 2, 0)], scale=2), ["192 x 128 pixels", "96 x 64"]),
        (xml([(1, 2, 0)]).replace("xmin", "left"), ["lacks a corner"]),
    ],
)
def test_a_bad_annotation_is_one_line_and_counted(models, tmp_path, capfd, text, words):
    for name in "ab":
        write(tmp_path, name, [(1, 2, 0)])
    (tmp_path / "a.xml").write_text(text)
    (tmp_path / "b.xml").write_text(xml([(1, 2, 0)]))
    code, report, errors = evaluated(capfd, models / "raw.tflite", tmp_path)
    assert (code, len(errors)) == (2, 1)
    assert all(word in errors[0] for word in words)
    assert (report["images"], report["failed"], report["ap50"]) == (1, 1, ALL)


def test_boxes_of_no_area_are_named_and_left_out(models, tmp_path, capfd):
    write(tmp_path, "a", [(1, 2, 0)])
    empty = OBJECT.format("red", 0, 5, 5, 5, 9) + OBJECT.format("red", 0, 99, 5, 120, 9)
    text = xml([(1, 2, 0)]).replace("</annotation>", empty + "</annotation>")
    (tmp_path / "a.xml").write_text(text)
    code, report, errors = evaluated(capfd, models / "raw.tflite", tmp_path)
    assert (code, report["ap50"], len(errors)) == (0, ALL, 2)
    assert "a.xml: a box of red has no area (5, 5, 5, 9): left out" in errors[0]
    assert "1 boxes lie outside of the picture of 96 x 64 pixels" in errors[1]


def test_a_folder_without_annotations_is_refused(models, tmp_path, capfd):
    write(tmp_path, "a", [(1, 2, 0)])
    argv = ["--model", models / "raw.tflite", f"--evaluate={tmp_path}"]
    assert_one_error(capfd, argv, "no picture with an annotation", "Annotations")


def write_masks(folder, names=("blue", "grey", "red", "green"), file="classes.txt"):
    """Masks beside pictures, with indices in the order of `names`."""
    folder.mkdir(exist_ok=True)
    numbers = [list(names).index(label) for label in ("grey", *LABELS)]
    for number, (pixels, squares) in enumerate(found_colours.pictures(6, seed=3)):
        mask = np.full(pixels.shape[:2], numbers[0], np.uint8)
        for row, column, index in squares:
            part = (slice(CELL * row, CELL * row + CELL),)
            mask[(*part, slice(CELL * column, CELL * column + CELL))] = numbers[
                index + 1
            ]
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
    (folder / file).write_text("\n".join(names) + "\n")


def test_masks_that_are_right_have_a_mean_iou_of_1(models, tmp_path, capfd):
    """The classes of the folder have another order than those of the model."""
    write_masks(tmp_path / "a")
    code, report, errors = evaluated(capfd, models / "masks.tflite", tmp_path / "a")
    assert (code, errors) == (0, [])
    assert (report["images"], report["failed"], report["miou"]) == (6, 0, 1.0)
    assert sum(one["pixels"] for one in report["classes"]) == 6 * 64 * 96


def test_a_wrong_mask_costs_its_share(models, tmp_path, capfd):
    write(tmp_path, "a", [(1, 2, 0)])
    mask = np.zeros((64, 96), np.uint8)
    mask[8:16, 16:32] = 1  # twice the square
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    (tmp_path / "classes.txt").write_text("grey\nred\n")
    report = evaluated(capfd, models / "masks.tflite", tmp_path)[1]
    iou = {one["label"]: one["iou"] for one in report["classes"]}
    assert iou["red"] == pytest.approx(0.5)
    assert iou["grey"] == pytest.approx((6144 - 128) / (6144 - 64))
    assert iou["green"] is None
    assert report["miou"] == pytest.approx((iou["red"] + iou["grey"]) / 2)


def test_what_is_wrong_with_masks_is_one_line(models, tmp_path, capfd):
    argv = ["--model", models / "masks.tflite", f"--evaluate={tmp_path}"]
    write(tmp_path, "a", [(1, 2, 0)])
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "a_mask.png")
    assert_one_error(capfd, argv, "nothing names the classes", "classes.txt")
    (tmp_path / "classes.txt").write_text("grey\ncat\n")
    assert_one_error(capfd, argv, "names a class 'cat'", "4 labels of the model")
    (tmp_path / "classes.txt").write_text("grey\n")
    Image.fromarray(np.ones((64, 96), np.uint8)).save(tmp_path / "a_mask.png")
    code, _, errors = run_main(capfd, *argv)
    assert code == 2 and "index 1 is none of the classes" in errors[0]
    Image.fromarray(np.zeros((32, 96), np.uint8)).save(tmp_path / "a_mask.png")
    code, _, errors = run_main(capfd, *argv)
    assert code == 2 and "is for 96 x 32 pixels" in errors[0]


def test_the_table_names_the_worst_classes(models, tmp_path, capfd):
    write_masks(tmp_path / "a")
    argv = ["--model", models / "masks.tflite", f"--evaluate={tmp_path / 'a'}"]
    code, out, errors = run_main(capfd, *argv)
    assert (code, errors) == (0, [])
    assert out.splitlines()[:3] == [
        "images          6",
        "failed          0",
        "miou      100.00%",
    ]
    assert "green: iou 100.00%" in out
