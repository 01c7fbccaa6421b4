"""Other programs run the files of detectors and segmenters as they are."""

import ast
import json

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_resnet import edge
from tests.helpers import environments, found_colours, metadata_reader
from tests.helpers.found_colours import LABELS

BY_MEDIAPIPE = """
import sys
import mediapipe
import numpy
from mediapipe.tasks.python import BaseOptions, vision

pictures = numpy.load(sys.argv[3])
images = [mediapipe.Image(mediapipe.ImageFormat.SRGB, pixels) for pixels in pictures]
options = vision.ObjectDetectorOptions(BaseOptions(sys.argv[1]), score_threshold=0.4)
with vision.ObjectDetector.create_from_options(options) as detector:
    for image in images:
        for found in detector.detect(image).detections:
            (category,) = found.categories
            box = found.bounding_box
            sides = box.origin_x, box.origin_y, box.width, box.height
            print("box", (category.category_name, category.score, sides))
        print("end")
options = vision.ImageSegmenterOptions(
    BaseOptions(sys.argv[2]), output_category_mask=True, output_confidence_masks=False
)
with vision.ImageSegmenter.create_from_options(options) as segmenter:
    print("labels", segmenter.labels)
    masks = [segmenter.segment(image).category_mask.numpy_view().copy()
             for image in images]
numpy.save(sys.argv[4], numpy.stack(masks))
"""


def pycoral_get_objects(interpreter, threshold, size):
    """What `get_objects` of pycoral/adapters/detect.py does (Apache 2.0), restated."""
    outputs = interpreter.get_output_details()

    def tensor(number):
        return interpreter.tensor(outputs[number]["index"])()

    assert not interpreter.get_signature_list()  # else it reads by names
    assert tensor(3).size == 1
    boxes, classes, scores = (tensor(number)[0] for number in range(3))
    found = []
    for number in range(int(tensor(3)[0])):
        if scores[number] >= threshold:
            top, left, bottom, right = boxes[number]
            width, height = size
            box = (left * width, top * height, right * width, bottom * height)
            found.append((int(classes[number]), float(scores[number]), box))
    return found


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
    np.save(tmp_path / "in.npy", pictures)
    files = paths / "boxes.tflite", paths / "masks.tflite"
    places = tmp_path / "in.npy", tmp_path / "out.npy"
    lines = environments.run("mediapipe", BY_MEDIAPIPE, *files, *places).splitlines()
    *lines, labels = lines
    assert labels == f"labels {['grey', *LABELS]}"
    theirs = [[]]
    for line in lines:
        if line == "end":
            theirs.append([])
        else:
            theirs[-1].append(ast.literal_eval(line.removeprefix("box ")))
    detector = edge.Detector(files[0])
    assert sum(map(len, theirs)) > 15
    for pixels, found in zip(pictures, theirs, strict=False):
        ours = detector.detect(pixels)
        assert [one.label for one in ours] == [label for label, _, _ in found]
        for one, (_, score, (left, top, width, height)) in zip(
            ours, found, strict=True
        ):
            assert score == pytest.approx(one.score, abs=1e-6)
            box = (left, top, left + width, top + height)
            assert box == pytest.approx(one.box, abs=2)  # theirs are whole numbers
    segmenter = edge.Segmenter(files[1])
    masks = np.load(tmp_path / "out.npy").reshape(len(pictures), *pictures.shape[1:3])
    for pixels, mask in zip(pictures, masks, strict=True):
        ours = segmenter.segment(pixels)
        # They resize scores bilinearly before they choose: squares get smaller.
        assert np.mean((mask == ours)[mask > 0]) > 0.95
        assert 0.4 < np.sum(mask > 0) / np.sum(ours > 0) <= 1


def test_pycorals_logic_finds_the_boxes_of_the_runner(paths, pictures):
    interpreter = Interpreter(str(paths / "boxes.tflite"), num_threads=2)
    interpreter.allocate_tensors()
    detector = edge.Detector(paths / "boxes.tflite")
    for pixels in pictures:
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], pixels[None]
        )
        interpreter.invoke()
        theirs = pycoral_get_objects(interpreter, 0.4, pixels.shape[1::-1])
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
