"""What programs of others find with the files of detectors and segmenters."""

import ast

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tests.helpers import environments

BY_MEDIAPIPE = """
import sys
import mediapipe
import numpy
from mediapipe.tasks.python import BaseOptions, vision

pictures = numpy.load(sys.argv[3])
images = [mediapipe.Image(mediapipe.ImageFormat.SRGB, pixels) for pixels in pictures]
options = vision.ObjectDetectorOptions(
    BaseOptions(sys.argv[1]), score_threshold=float(sys.argv[5])
)
with vision.ObjectDetector.create_from_options(options) as detector:
    for image in images:
        for found in detector.detect(image).detections:
            box = found.bounding_box
            sides = box.origin_x, box.origin_y, box.width, box.height
            for category in found.categories:  # several of equal whole-number boxes
                print("box", (category.category_name, category.score, sides))
        print("end")
options = vision.ImageSegmenterOptions(
    BaseOptions(sys.argv[2]), output_category_mask=True, output_confidence_masks=False
)
with vision.ImageSegmenter.create_from_options(options) as segmenter:
    print("labels", segmenter.labels)
    found = [segmenter.segment(image) for image in images]
    masks = [one.category_mask.numpy_view() for one in found]
    numpy.save(sys.argv[4], numpy.stack(masks))
"""


def mediapipe(boxes, masks, pictures, threshold, folder):
    """Runs MediaPipe's ObjectDetector and ImageSegmenter.

    Args:
        boxes: path of a file with TFLite_Detection_PostProcess.
        masks: path of the file of a segmenter.
        pictures: uint8 (pictures, height, width, 3).
        threshold: the lowest score.
        folder: where arrays are put.

    Returns:
        (of each picture a list of (label, score, (left, top, width, height)), the
        labels of the segmenter, masks (pictures, height, width)).
    """
    np.save(folder / "in.npy", pictures)
    places = folder / "in.npy", folder / "out.npy"
    code = BY_MEDIAPIPE
    output = environments.run("mediapipe", code, boxes, masks, *places, str(threshold))
    *lines, labels = output.splitlines()
    found = [[]]
    for line in lines:
        if line == "end":
            found.append([])
        else:
            found[-1].append(ast.literal_eval(line.removeprefix("box ")))
    classes = np.load(folder / "out.npy").reshape(pictures.shape[:3])
    return found[:-1], ast.literal_eval(labels.removeprefix("labels ")), classes


def pycoral(path, pixels, threshold):
    """Returns what `get_objects` of pycoral finds: [(index, score, box)].

    Args:
        path: of a file with TFLite_Detection_PostProcess.
        pixels: uint8 (height, width, 3), of the size of the model's input.
        threshold: the lowest score.
    """
    interpreter = Interpreter(str(path), num_threads=2)
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]
    interpreter.set_tensor(place, pixels[None])
    interpreter.invoke()
    return _get_objects(interpreter, threshold, pixels.shape[1::-1])


def _get_objects(interpreter, threshold, size):
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
