"""Other programs run the files of detectors and segmenters as they are."""

import json

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_resnet import edge
from tests.helpers import found_colours, metadata_reader, other_programs
from tests.helpers.found_colours import LABELS


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    files = found_colours.detector_files()
    for name, content in (
        ("raw", files.raw),
        ("boxes", files.boxes),
        ("masks", found_colours.segmenter_file()),
    ):
        (folder / f"{name}.tflite").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def pictures():
    return np.stack([pixels for pixels, _ in found_colours.pictures(8, seed=4)])


def test_mediapipe_finds_the_boxes_and_masks_of_the_runner(paths, pictures, tmp_path):
    files = paths / "boxes.tflite", paths / "masks.tflite"
    theirs, labels, masks = other_programs.mediapipe(*files, pictures, 0.4, tmp_path)
    assert labels == ["grey", *LABELS]
    detector = edge.Detector(files[0])
    assert sum(map(len, theirs)) > 15
    for pixels, found in zip(pictures, theirs, strict=True):
        ours = detector.detect(pixels)
        assert [one.label for one in ours] == [label for label, _, _ in found]
        for one, (_, score, (left, top, width, height)) in zip(
            ours, found, strict=True
        ):
            assert score == pytest.approx(one.score, abs=1e-6)
            box = (left, top, left + width, top + height)
            assert box == pytest.approx(one.box, abs=2)  # theirs are whole numbers
    segmenter = edge.Segmenter(files[1])
    for pixels, mask in zip(pictures, masks, strict=True):
        # They enlarge the scores before they choose: squares get smaller, and move.
        scores = segmenter.dequantized(0, segmenter.outputs(pixels)[0])
        ours = with_aligned_corners(scores, mask.shape).argmax(2)
        assert np.mean(mask == ours) > 0.999


def with_aligned_corners(scores, size):
    """Enlarges scores (rows, columns, classes) bilinearly, corner onto corner."""
    for axis, length in enumerate(size):
        cells = scores.shape[axis]
        places = np.arange(length) * (cells - 1) / (length - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, cells - 1)
        share = np.expand_dims(places - low, (1 - axis, 2))
        parts = scores.take(low, axis), scores.take(high, axis)
        scores = parts[0] * (1 - share) + parts[1] * share
    return scores


def test_pycorals_logic_finds_the_boxes_of_the_runner(paths, pictures):
    detector = edge.Detector(paths / "boxes.tflite")
    for pixels in pictures:
        theirs = other_programs.pycoral(paths / "boxes.tflite", pixels, 0.4)
        ours = detector.detect(pixels)
        assert [one[:2] for one in theirs] == [(one.index, one.score) for one in ours]
        for one, other in zip(theirs, ours, strict=True):
            assert one[2] == pytest.approx(other.box, abs=1e-3)


def test_files_of_scenes_have_their_own_version_of_preprocessing(paths):
    """Runners that would take boxes for scores refuse version 3 in one line."""
    for name, gives, extra in (
        ("raw", "boxes", {"box_scales": [10.0, 10.0, 5.0, 5.0]}),
        ("boxes", "boxes", {}),
        ("masks", "masks", {}),
    ):
        found = metadata_reader.read((paths / f"{name}.tflite").read_bytes())
        assert json.loads(found.files["preprocessing.json"]) == {
            "version": 3,
            "input_size": [64, 96],
            "crop_fraction": 1.0,
            "interpolation": "bilinear",
            "resize": "pad",
            "antialias": True,
            "output": gives,
            **extra,
        }
        assert ("anchors.npy" in found.files) == (name == "raw")


def test_quantized_outputs_have_one_scale_and_the_image_is_raw_pixels(paths):
    for name, dtypes in (("raw", ["uint8"] * 2), ("boxes", ["float32"] * 4)):
        interpreter = Interpreter(str(paths / f"{name}.tflite"))
        (image,) = interpreter.get_input_details()
        outputs = interpreter.get_output_details()
        assert image["dtype"] == np.uint8
        assert image["quantization"] == (pytest.approx(1 / 64), 128)
        assert [one["dtype"].__name__ for one in outputs] == dtypes
    raw = Interpreter(str(paths / "raw.tflite")).get_output_details()
    assert [one["shape"].tolist() for one in raw] == [[1, 96, 4], [1, 96, 3]]
    assert raw[1]["quantization"] == (pytest.approx(1 / 256), 0)
    assert len(raw[0]["quantization_parameters"]["scales"]) == 1
