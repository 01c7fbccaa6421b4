"""Real microscope pictures with Pascal VOC boxes, two of which have no area."""

import numpy as np
import pytest

from keras_resnet.runner.boxes import Detections
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.metrics import AveragePrecision
from keras_resnet.training.data.scenes.sources import load


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "bccd"


def test_the_pictures_are_read_and_the_bad_boxes_named(folder, capsys):
    dataset = load("detect", "voc_folder", folder)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for line in lines[:2]:
        assert "the box of RBC" in line and line.endswith("has no area: left out")
    assert "292 pictures of 3 classes, 205 to train on and 87 held out" in lines[2]
    assert "3941 objects, at most 30 in a picture" in lines[2]
    assert dataset.labels == ("Platelets", "RBC", "WBC")
    with pytest.raises(UserError, match="has no area. Correct it"):
        load("detect", "voc_folder", folder, damaged_images="stop")


def test_its_own_boxes_are_all_right(folder):
    dataset = load("detect", "voc_folder", folder)
    metric = AveragePrecision(3)
    for _, objects in dataset.held_out.read().as_numpy_iterator():
        scores = np.ones(len(objects.classes))
        metric.add(objects, Detections(objects.boxes, objects.classes, scores))
    result = metric.result()
    assert result["ap"] == pytest.approx(1)
    assert min(found["objects"] for found in result["classes"]) > 50
