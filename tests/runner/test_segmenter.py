"""Segmenters on the device: masks of photographs, as PNG and drawn."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from keras_resnet import edge
from keras_resnet.edge.convert import tflite_file
from keras_resnet.runner import UserError, showing
from tests.helpers import found_colours
from tests.helpers.found_colours import CELL, LABELS
from tests.helpers.runner import PEERS, assert_one_error, convert, run_main

SQUARES = [(1, 2, 0), (3, 5, 1), (6, 9, 2)]


def mask_of(squares, scale=1):
    mask = np.zeros((found_colours.HEIGHT, found_colours.WIDTH), np.uint8)
    for row, column, index in squares:
        part = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        mask[part] = index + 1
    return np.kron(mask, np.ones((scale, scale), np.uint8))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of segmenters, by name; "index" gives the class of each pixel."""
    import tensorflow as tf

    def brightest(pixels):
        return tf.argmax(tf.cast(pixels, tf.float32), axis=3)

    folder = tmp_path_factory.mktemp("segmenters")
    contents = {
        "int8": found_colours.segmenter_file(),
        "float16": found_colours.segmenter_file("float16"),
        "index": convert(brightest, [1, 64, 96, 3], "uint8"),
    }
    contents["foreign"] = tflite_file.pack(tflite_file.parse(contents["int8"]))
    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: str(folder / f"{name}.tflite") for name in contents}


@pytest.mark.parametrize("name", ["int8", "float16"])
@pytest.mark.parametrize("scale", [1, 3])
def test_the_mask_of_a_picture_has_its_size_and_classes(files, name, scale):
    pixels = np.kron(
        found_colours.picture(SQUARES), np.ones((scale, scale, 1), np.uint8)
    )
    mask = edge.Segmenter(files[name]).segment(pixels)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, mask_of(SQUARES, scale))


def test_padding_is_not_part_of_the_mask(files):
    tall = np.full((128, 96, 3), found_colours.GREY, np.uint8)
    tall[:32] = found_colours.COLOURS[1]
    mask = edge.Segmenter(files["float16"]).segment(tall)
    assert mask.shape == (128, 96)
    assert (mask[:30] == 2).all() and (mask[34:] == 0).all()


def test_a_file_of_class_indices_gives_its_mask(files):
    segmenter = edge.Segmenter(files["index"])
    assert (segmenter.classes, segmenter.labels) == (None, None)
    mask = segmenter.segment(found_colours.picture([(1, 2, 1), (3, 4, 2)]))
    expected = mask_of([(1, 2, 1), (3, 4, 2)])
    assert np.array_equal(mask, np.where(expected, expected - 1, 0))
    with pytest.raises(UserError, match="no scores, which --threshold needs"):
        segmenter.segment(found_colours.picture([]), threshold=0.5)


def test_corals_deeplab_finds_the_cat(capfd, tmp_path):
    if not PEERS.exists():
        pytest.skip("development data absent")
    path = PEERS / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    argv = ["--model", path, "--json", f"--masks={tmp_path}", PEERS / "cat.bmp"]
    code, out, errors = run_main(capfd, *argv)
    assert (code, errors) == (0, [])
    found = {one["index"]: one["share"] for one in json.loads(out)["classes"]}
    assert found[8] > 0.2  # Pascal VOC's cat
    with Image.open(tmp_path / "00001_cat.png") as mask:
        with Image.open(PEERS / "cat.bmp") as image:
            assert mask.size == image.size
        assert np.mean(np.asarray(mask) == 8) == pytest.approx(found[8])


def test_masks_are_png_of_class_numbers_and_drawn_over_the_image(
    files, capfd, tmp_path
):
    pixels = np.kron(found_colours.picture(SQUARES), np.ones((4, 4, 1), np.uint8))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    folders = [f"--masks={tmp_path / 'masks'}", f"--annotate={tmp_path / 'drawn'}"]
    argv = ["--model", files["int8"], *folders, "--csv", tmp_path / "a.png"]
    code, out, errors = run_main(capfd, *argv)
    assert (code, errors) == (0, [])
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["label"] for row in rows] == ["grey", *LABELS]
    shares = [float(row["share"]) for row in rows]
    assert shares == pytest.approx([93 / 96, 1 / 96, 1 / 96, 1 / 96])
    with Image.open(tmp_path / "masks" / "00001_a.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), mask_of(SQUARES, 4))
        colours = np.asarray(mask.convert("RGB"))
    # Class 1 is painted in Pascal VOC's 128, 0, 0.
    assert colours[40, 70].tolist() == [128, 0, 0]
    with Image.open(tmp_path / "drawn" / "00001_a.jpg") as image:
        drawn = np.asarray(image).astype(int)
    expected = (found_colours.COLOURS[1].astype(int) + [0, 128, 0]) / 2
    assert drawn[112, 176] == pytest.approx(expected, abs=12)


def test_pixels_below_the_threshold_have_no_class(files):
    segmenter = edge.Segmenter(files["int8"])
    mixed = found_colours.picture([(1, 2, 0)])
    mixed[8:16, 20:24] = found_colours.GREY  # half of the cell
    plain = segmenter.segment(mixed)
    strict = segmenter.segment(mixed, threshold=0.75)
    assert (plain != 255).all()
    unsure = strict == 255
    assert unsure[8:16, 16:24].all() and unsure.sum() == CELL * CELL
    assert (segmenter.segment(mixed, threshold=1.0) == 255).all()


def test_scores_of_pixels_of_unknown_files_are_refused(files):
    """They might be anything; only files that say so are masks."""
    with pytest.raises(UserError, match="expected output .1, classes., received"):
        edge.Classifier(files["foreign"])
    with pytest.raises(UserError, match="gives scores of classes .*use Classifier"):
        edge.Segmenter(files["foreign"])


def test_flags_of_other_tasks_are_refused_in_one_line(files, capfd, models, pictures):
    argv = ["--model", files["int8"], "--top_k=3", pictures / "g.png"]
    assert_one_error(capfd, argv, "--top_k", "gives a mask", "leave it out")
    argv = ["--model", models["full"], "--masks=out", pictures / "g.png"]
    assert_one_error(capfd, argv, "--masks", "gives scores of classes", "leave it out")


def test_colours_are_those_of_pascal_voc():
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0)}
    expected |= {8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    for index, colour in expected.items():
        assert showing.colour_of_class(index) == colour
        assert tuple(showing.palette()[index]) == colour
