"""The report page of a run that learned boxes or masks."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner.boxes import Detections
from keras_resnet.training.data.scenes import scene_dataset
from keras_resnet.training.reporting import scenes, summary


def pictures_of(page):
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_the_page_shows_numbers_and_pictures(task, scene_runs):
    run = scene_runs[task]
    page = (run.directory / "report.html").read_text()
    for label, found in run.metrics["by_class"].items():
        value = found["ap50" if task == "detect" else "iou"]
        row = re.search(rf"</span>{label}</td>(.*?)</tr>", page, re.S)[1]
        assert "none" in row if value is None else f"{100 * value:.1f}%" in row
    pictures = pictures_of(page)
    assert len(pictures) == 2 * 3  # of each held-out one, what is there and found
    assert all(min(picture.size) >= 256 for picture in pictures)
    assert ("Precision and recall" in page) == (task == "detect")
    names = {"detect": ["mAP50", "mAP75"], "segment": ["mean IoU"]}[task]
    assert all(f"<span>{name}</span>" in page for name in names)
    assert not re.search(r"<script|https?://", page)


def test_the_worst_class_is_named():
    by_class = {
        "a": {"objects": 3, "ap50": 0.9, "ap": 0.5, "ap75": 0.4},
        "b": {"objects": 2, "ap50": 0.25, "ap": 0.1, "ap75": 0.0},
        "c": {"objects": 0, "ap50": None, "ap": None, "ap75": None},
    }
    assert summary.line({"by_class": by_class}) == "worst class 'b': AP50 25.00%"
    rows = scenes._classes(by_class)
    assert [row[0] for row in rows] == ["b", "a", "c"]
    masks = {"a": {"pixels": 5, "iou": 0.5}, "b": {"pixels": 0, "iou": 0.0}}
    assert summary.line({"by_class": masks}) == "worst class 'b': IoU 0.00%"


def test_boxes_are_drawn_where_they_are():
    data = scene_dataset.SceneDataset(
        "one", ("cup",), None, None, fingerprint={}, task="detect", most_objects=1
    )
    target = scene_dataset.objects([(0.25, 0.5, 0.75, 1.0)], [0])
    nothing = Detections(np.zeros((1, 4)), np.zeros(1, int), np.array([0.1]))
    picture = scenes._picture(data, np.zeros((64, 64, 3), np.uint8), target, nothing)
    annotated, found = pictures_of(f'src="{picture.annotated}" src="{picture.found}"')
    drawn = np.asarray(annotated.convert("L")) > 20
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    size = annotated.size[0]
    assert rows[[0, -1]] == pytest.approx([size / 4, size * 3 / 4], abs=2)
    assert columns[[0, -1]] == pytest.approx([size / 2, size - 1], abs=2)
    assert not (np.asarray(found) > 20).any()  # below the least score
