"""The export of detectors and segmenters: files, report, the accuracy gate."""

import dataclasses
import functools
import json
import re

import keras
import numpy as np
import pytest

from keras_resnet import edge
from keras_resnet.edge import scene_exporter
from keras_resnet.edge.page import runtime
from keras_resnet.edge.report.scene_comparison import Comparison
from keras_resnet.edge.source import Source
from keras_resnet.preprocessing import NORMALIZATIONS
from keras_resnet.runner import UserError
from keras_resnet.training.data.scenes import scene_dataset
from tests.helpers import found_colours
from tests.helpers.found_colours import CELL, HEIGHT, LABELS, WIDTH


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Datasets of squares, by task; boxes are those of the model, to a fifth."""
    folder = tmp_path_factory.mktemp("squares")
    made = {}
    for task in scene_dataset.TASKS:
        parts = {"train": [], "held_out": []}
        for number, (pixels, squares) in enumerate(found_colours.pictures(24, seed=6)):
            path = folder / f"{number}.png"
            keras.utils.save_img(path, pixels, scale=False)
            target = _objects(squares) if task == "detect" else _mask(squares)
            part = "train" if number < 12 else "held_out"
            parts[part].append(scene_dataset.Scene(str(path), target, str(number)))
        splits = {part: scene_dataset.split(part, of) for part, of in parts.items()}
        labels = LABELS if task == "detect" else ["grey", *LABELS]
        made[task] = scene_dataset.SceneDataset(
            name="squares",
            labels=tuple(labels),
            fingerprint="squares",
            **splits,
            task=task,
            most_objects=6,
        )
    return made


def _objects(squares):
    rows, columns = HEIGHT // CELL, WIDTH // CELL
    boxes = [
        (row / rows, column / columns, (row + 1) / rows, (column + 1) / columns)
        for row, column, _ in squares
    ]
    return scene_dataset.objects(boxes, [index for _, _, index in squares])


def _mask(squares):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, column, index in squares:
        part = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        mask[part] = index + 1
    return functools.partial(np.copy, mask)


def source(model, dataset, how=found_colours.PREPROCESSING):
    detects = isinstance(model.output, dict)
    labels = LABELS if detects else ["grey", *LABELS]
    gives = "boxes" if detects else "masks"
    return Source(model, how, labels, dataset, None, None, scores=gives)


def export_detector(path, dataset, how=found_colours.PREPROCESSING, **changes):
    return scene_exporter.export(
        source(found_colours.detector(), dataset, how),
        path,
        found_colours.ABOUT,
        anchors=found_colours.anchors(),
        **changes,
    )


def test_a_detector_becomes_two_files_with_a_report(scenes, tmp_path):
    report = export_detector(tmp_path / "a.tflite", scenes["detect"], target="edgetpu")
    names = ["a.report.html", "a.report.json", "a.tflite", "a_boxes.tflite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert report == json.loads((tmp_path / "a.report.json").read_text())
    compared = report["compared"]
    assert compared["images"] == 12
    for name in ("ap50", "keras_ap50", "boxes_ap50"):
        assert compared[name] == pytest.approx(1)
    for name in ("ap", "ap50", "ap75"):
        assert compared[name] == compared[f"boxes_{name}"]
    assert compared["ap"] == pytest.approx(compared["keras_ap"], abs=0.1)
    assert compared["max_difference"] < 0.02
    total = sum(row["count"] for row in report["operators"])
    assert report["edgetpu_operators"] == total  # all of the raw file
    # All but two DEQUANTIZE and TFLite_Detection_PostProcess.
    assert report["boxes"]["operators"] == total + 3
    assert report["boxes"]["edgetpu_operators"] == total
    text = str(report)
    assert "mAP50          100.00%; Keras model 100.00%" in text
    assert f"Edge TPU estimate: {total} of {total + 3} operators map" in text
    pixels, squares = found_colours.pictures(1, seed=8)[0]
    for name in ("a", "a_boxes"):
        found = edge.Detector(tmp_path / f"{name}.tflite").detect(pixels)
        assert len(found) == len(squares)


def test_a_segmenter_becomes_a_file_with_a_report(scenes, tmp_path):
    report = scene_exporter.export(
        source(found_colours.segmenter(), scenes["segment"]),
        tmp_path / "a.tflite",
        found_colours.ABOUT,
        target="edgetpu",
    )
    # SOFTMAX, and the QUANTIZE after it, stay on the CPU.
    total = sum(row["count"] for row in report["operators"])
    assert report["edgetpu_operators"] == total - 2
    assert (report["compared"]["miou"], report["compared"]["keras_miou"]) == (1, 1)
    assert "mean IoU       100.00%; Keras model 100.00%" in str(report)
    assert edge.Segmenter(tmp_path / "a.tflite").labels == ["grey", *LABELS]


def test_a_normalization_of_each_channel_is_folded(scenes, tmp_path):
    torch = NORMALIZATIONS["torch"]
    how = dataclasses.replace(found_colours.PREPROCESSING, **torch)
    report = export_detector(
        tmp_path / "a.tflite", scenes["detect"], how, quantize="none", max_drop=0
    )
    assert report["compared"]["max_difference"] < 1e-4
    assert report["compared"]["ap"] == pytest.approx(report["compared"]["keras_ap"])


def test_a_file_that_loses_too_much_is_not_written(scenes, tmp_path, monkeypatch):
    compare = Comparison.compare

    def worse(*arguments):
        return compare(*arguments) | {"ap50": 0.9, "keras_ap50": 0.95}

    monkeypatch.setattr(Comparison, "compare", worse)
    message = "int8 loses 5.00 points of mAP50 on 12 images.* Try training/qat"
    with pytest.raises(UserError, match=message):
        export_detector(tmp_path / "a.tflite", scenes["detect"], max_drop=4.9)
    assert not list(tmp_path.iterdir())
    export_detector(tmp_path / "a.tflite", scenes["detect"], max_drop=5)
    assert (tmp_path / "a_boxes.tflite").exists()


def test_without_a_dataset_float_files_are_not_judged(tmp_path):
    report = export_detector(tmp_path / "a.tflite", None, quantize="float16")
    assert report["gate_not_applied"] == "no --dataset was given"


def test_a_page_of_boxes_has_held_out_pictures(scenes, tmp_path):
    try:
        runtime.read()
    except UserError as error:
        pytest.skip(str(error))
    path = tmp_path / "a.tflite"
    report = export_detector(path, scenes["detect"], page=True)
    text = report.paths["page"].read_text(encoding="utf-8")
    config = json.loads(
        re.search(r'<script id="config"[^>]*>(.*?)</script>', text).group(1)
    )
    assert (config["task"], config["labels"]) == ("detect", LABELS)
    assert config["boxes"]["places"] is None  # of the file with raw outputs
    assert len(config["samples"]) == 6
    names = {name for one in config["samples"] for name in one["name"].split(", ")}
    assert names <= set(LABELS)
