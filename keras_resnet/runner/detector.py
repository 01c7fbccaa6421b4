"""The detector: a model that gives boxes."""

import io
import json
import typing

from keras_resnet.runner.boxes import Detections, boxes_to_picture
from keras_resnet.runner.detections import find_objects
from keras_resnet.runner.errors import UserError, user_errors
from keras_resnet.runner.image_model import AnyPath, SceneModel
from keras_resnet.runner.images import DecodedImage, geometry_of

if typing.TYPE_CHECKING:
    import numpy as np
    import PIL.Image

# Lower ones are not shown; pycoral's detect_image.py has the same.
SHOWN_SCORE = 0.4


class Box(typing.NamedTuple):
    """The edges of an object in pixels of the upright image."""

    left: float
    top: float
    right: float
    bottom: float


class Detection(typing.NamedTuple):
    """An object: the index of its class, its label (None without labels), its box."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    label: typing.Optional[str]
    score: float
    box: Box


class Detector(SceneModel):
    """A TFLite detector of objects, ready to run.

    It runs a file that gives raw boxes and scores, and one that ends with the operator
    TFLite_Detection_PostProcess, such as those of Coral.
    """

    task = "detect"
    output_counts = (2, 4)

    def _use_outputs(self):
        shapes = [tuple(output["shape"].tolist()) for output in self._outputs]
        self.classes = self._anchors = None
        with user_errors(self.path, ValueError):
            if len(shapes) == 2:
                self._use_raw(*shapes)
            else:
                self._places = places_of(shapes)

    def _use_raw(self, offsets, scores):
        """Reads what raw outputs of these shapes need."""
        if (
            len(offsets) != 3
            or len(scores) != 3
            or offsets[::2] != (1, 4)
            or scores[:2] != offsets[:2]
        ):
            raise ValueError(
                "expected outputs [1, anchors, 4] and [1, anchors, classes], received "
                f"{list(offsets)} and {list(scores)}"
            )
        self._anchors = parse_anchors(self._file.anchors, offsets[1])
        self._scales = self._read_inside(parse_box_scales)
        self.classes = scores[2]

    def interpret(self, outputs: "typing.List[np.ndarray]") -> Detections:
        """Returns the `Detections` in the model's input, the highest score first."""
        import numpy as np

        values = [self.dequantized(*pair) for pair in enumerate(outputs)]
        if self._anchors is not None:
            for part in values:
                self.check_finite(part)
            return find_objects(*values, self._anchors, self._scales)
        boxes, classes, scores, count = (values[place] for place in self._places)
        number = int(count.ravel()[:1].sum())
        found = boxes[:number], classes[:number], scores[:number]
        for part in found:
            self.check_finite(part)
        order = np.argsort(-found[2], kind="stable")
        boxes, classes, scores = (part[order] for part in found)
        return Detections(boxes, np.rint(classes).astype(int), scores)

    def objects(
        self,
        found: Detections,
        decoded: DecodedImage,
        threshold: float = SHOWN_SCORE,
    ) -> typing.List[Detection]:
        """Returns what is found in a picture as a list of `Detection`.

        Args:
            found: `Detections` in the model's input.
            decoded: the `DecodedImage`.
            threshold: the lowest score.
        """
        width, height = decoded.size
        boxes = boxes_to_picture(found.boxes, decoded.size, geometry_of(self))
        objects = []
        for (top, left, bottom, right), index, score in zip(
            boxes.tolist(), found.classes.tolist(), found.scores.tolist()
        ):
            # Around the picture, where the input is padded, there is nothing.
            if score >= threshold and top < bottom and left < right:
                box = Box(left * width, top * height, right * width, bottom * height)
                objects.append(Detection(index, self.label_of(index), score, box))
        return objects

    def detect(
        self,
        image: "typing.Union[AnyPath, PIL.Image.Image, np.ndarray]",
        threshold: float = SHOWN_SCORE,
    ) -> typing.List[Detection]:
        """Finds the objects in one image.

        Args:
            image: path of an image file, PIL image, or uint8 array (height, width, 3)
                of RGB pixels, of any size.
            threshold: the lowest score of an object, from 0 to 1.

        Returns:
            list of `Detection(index, label, score, box)`, the highest score first.
            `box` is `Box(left, top, right, bottom)`, floats in pixels of the image,
            upright. `label` is None for a class without one.

        Raises:
            UserError: the image cannot be read, or the model cannot run on it.
        """
        pixels, decoded = self.input_of(image)
        return self.objects(self.interpret(self.outputs(pixels)), decoded, threshold)


def places_of(shapes):
    """Returns where boxes, classes, scores and their number are among four outputs.

    By what pycoral knows too: the order of TFLite_Detection_PostProcess, and that of
    files which TensorFlow 2's Object Detection API exported.

    Args:
        shapes: of the outputs.
    """
    sizes = [shape for shape in shapes if len(shape) == 3 and shape[2] == 4]
    if len(sizes) == 1:
        for places in ((0, 1, 2, 3), (1, 3, 0, 2)):
            boxes, classes, scores, count = (shapes[place] for place in places)
            if boxes == sizes[0] and classes == scores == boxes[:2] and count == (1,):
                return places
    raise ValueError(
        "expected outputs [1, n, 4], [1, n], [1, n] and [1] (boxes, classes, scores, "
        f"count), received {', '.join(str(list(shape)) for shape in shapes)}"
    )


def parse_anchors(data, count):
    """Returns the anchors of a model, float32 (count, 4), from its anchors.npy.

    Raises:
        ValueError: they are missing or not so many.
    """
    import numpy as np

    if data is None:
        raise ValueError("has no anchors.npy inside; export the model again")
    file = io.BytesIO(data)
    try:
        # The header alone, which must fit before anything gets its memory.
        np.lib.format.read_magic(file)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"anchors.npy inside is damaged: {error}") from error
    if shape != (count, 4) or dtype != np.float32 or is_fortran:
        raise ValueError(
            f"anchors.npy inside: expected float32 {(count, 4)}, received "
            f"{dtype} {shape}; export the model again"
        )
    content = file.read()
    if len(content) != 16 * count:
        raise ValueError("anchors.npy inside is cut off; export the model again")
    anchors = np.frombuffer(content, np.float32).reshape(count, 4)
    if not (np.isfinite(anchors).all() and (anchors[:, 2:] > 0).all()):
        raise ValueError("anchors.npy inside: not finite or of no area")
    return anchors


def parse_box_scales(data):
    """Reads what the offsets of boxes are multiplied with, in preprocessing.json.

    Raises:
        UserError: they are no four numbers above 0.
    """
    scales = json.loads(data.decode("utf-8")).get("box_scales")
    is_list = isinstance(scales, list) and len(scales) == 4
    if not is_list or not all(
        type(scale) in (int, float) and 0 < scale < 1e9 for scale in scales
    ):
        raise UserError(
            f"box_scales: expected four numbers above 0, received {scales!r:.80}"
        )
    return tuple(map(float, scales))
