"""Where results go: tables, CSV, annotated images, the progress."""

import csv
import io
import json
import os
import pty
import subprocess
import sys

import numpy as np
from PIL import Image

from keras_resnet.runner import Classifier, Prediction
from keras_resnet.runner.output import save_image
from keras_resnet.runner.pipeline import load_pixels
from keras_resnet.runner.showing import ClassesShown, Shown
from tests.helpers.runner import RUNNER, assert_one_error, run_alone, run_main


def test_csv_has_a_row_per_class(models, capfd, pictures):
    (pictures / 'a,"b".png').write_bytes((pictures / "g.png").read_bytes())
    argv = ["--model", models["full"], "--csv", "--top_k=2", pictures]
    code, out, errors = run_main(capfd, *argv)
    assert (code, errors) == (0, [])
    rows = list(csv.DictReader(io.StringIO(out)))
    names = "file rank index label score decode_ms resize_ms invoke_ms".split()
    assert list(rows[0]) == names
    assert [row["rank"] for row in rows] == ["1", "2"] * 4
    assert rows[0]["file"] == str(pictures / 'a,"b".png')
    assert [row["label"] for row in rows[::2]] == ["grün", "blue", "grün", "red"]
    assert all(float(row["invoke_ms"]) > 0 and 0 <= float(row["score"]) for row in rows)


def test_scores_below_the_threshold_are_left_out(models, capfd, pictures):
    argv = ["--model", models["full"], "--json", pictures / "g.png"]
    top = json.loads(run_main(capfd, *argv, "--threshold=0.5")[1])["top"]
    assert [one["label"] for one in top] == ["grün"]
    assert json.loads(run_main(capfd, *argv, "--threshold=1")[1])["top"] == []
    for wrong in ("high", "50", "-0.1", "nan"):
        text = f"from 0 to 1, received {wrong!r}"
        assert_one_error(capfd, [*argv, f"--threshold={wrong}"], "--threshold", text)


def test_annotated_pictures_show_the_labels_and_keep_the_rest(
    models, capfd, pictures, tmp_path
):
    out = tmp_path / "out" / "deep"
    Image.new("RGB", (400, 300), (9, 250, 5)).save(pictures / "g.png")
    (pictures / "bad.png").write_bytes(b"")
    os.makedirs(pictures / "same")
    (pictures / "r.png").rename(pictures / "same" / "g.png")
    argv = ["--model", models["full"], f"--annotate={out}", "--top_k=1"]
    code, _, errors = run_main(capfd, *argv, pictures / "g.png", pictures / "bad.png")
    assert code == 2 and len(errors) == 1
    assert run_main(capfd, *argv, pictures / "same")[0] == 0
    assert sorted(os.listdir(out)) == ["00001_g.jpg"]  # of the second run
    assert run_main(capfd, *argv, pictures / "g.png", pictures / "same")[0] == 0
    assert sorted(os.listdir(out)) == ["00001_g.jpg", "00002_g.jpg"]
    with Image.open(out / "00001_g.jpg") as image:
        pixels = np.asarray(image).astype(int)
    assert pixels.shape == (300, 400, 3)
    drawn = np.abs(pixels - (9, 250, 5)).max(-1) > 60
    assert 30 < drawn[:40].sum() < 6000 and drawn[60:].sum() == 0


def test_annotated_pictures_keep_their_size_unless_too_small_to_read(
    models, capfd, tmp_path
):
    for name, size in (
        ("large", (1600, 1200)),
        ("small", (32, 24)),
        ("line", (4096, 1)),
    ):
        Image.new("RGB", size).save(tmp_path / f"{name}.jpg")
        argv = [f"--model={models['full']}", f"--annotate={tmp_path / name}"]
        assert run_main(capfd, *argv, tmp_path / f"{name}.jpg")[0] == 0
        with Image.open(tmp_path / name / f"00001_{name}.jpg") as image:
            assert image.size == ((320, 240) if name == "small" else size)


def test_pictures_are_kept_only_to_be_annotated(models, tmp_path):
    classifier = Classifier(models["full"])
    Image.new("RGB", (1600, 1200)).save(tmp_path / "a.jpg")
    left_out = load_pixels(tmp_path / "a.jpg", classifier)[2]
    assert left_out.image is None and left_out.size == (1600, 1200)
    kept = load_pixels(tmp_path / "a.jpg", classifier, keep=True)[2]
    assert kept.image.size == kept.size == (1600, 1200)


def test_annotations_that_cannot_be_written_are_told(models, capfd, pictures):
    (pictures / "file").write_text("")
    argv = ["--model", models["full"], pictures / "g.png"]
    assert_one_error(capfd, [*argv, f"--annotate={pictures}/file/x"], "file/x")


def test_labels_of_any_script_can_be_drawn(tmp_path, monkeypatch):
    image = Image.new("RGB", (200, 100))
    top = Shown([Prediction(3, "猫 \x1b grün", 0.5)], None)

    def annotate(path):
        save_image(ClassesShown.draw(None, image, top), str(path), "JPEG")

    annotate(tmp_path / "a.jpg")
    from PIL import ImageFont

    def nothing(*_):
        raise OSError("no such font")

    monkeypatch.setattr(ImageFont, "truetype", nothing)
    monkeypatch.setattr(ImageFont, "load_default", ImageFont.load_default_imagefont)
    annotate(tmp_path / "b.jpg")
    for name in "ab":
        with Image.open(tmp_path / f"{name}.jpg") as drawn:
            assert np.asarray(drawn).max() > 200


def test_progress_is_shown_on_a_terminal_alone(models, pictures):
    argv = [sys.executable, RUNNER, f"--model={models['full']}", pictures]
    ours, theirs = pty.openpty()
    result = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=theirs, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10000).decode()
    os.close(ours)
    assert result.returncode == 0 and "3 of 3 images" in shown
    assert run_alone(f"--model={models['full']}", pictures).stderr == ""
