"""What the command line shows of a result: classes, boxes or a mask."""

import collections

from keras_resnet.runner.boxes import IGNORED
from keras_resnet.runner.classifier import Classifier
from keras_resnet.runner.detector import SHOWN_SCORE, Detector
from keras_resnet.runner.output import Pen, enlarged, save_image, table_lines
from keras_resnet.runner.segmenter import Segmenter

STAGES = ("decode", "resize", "invoke")
TOP_K = 5
MASK_SHARE = 0.5  # of the colour of a class, over that of the picture

# What is shown of one picture: a list of named tuples, and the mask of a segmenter.
Shown = collections.namedtuple("Shown", "things mask")


class ClassesShown:
    """The best classes of a picture."""

    columns = ("rank", "index", "label", "score")
    stages = STAGES

    def __init__(self, classifier, options):
        """Takes the `Classifier` and the flags."""
        self._classifier = classifier
        self._top_k = TOP_K if options.top_k is None else options.top_k
        self._threshold = options.threshold or 0

    def select(self, result):
        """Returns the `Shown` of a `Result`."""
        top = self._classifier.top_k(result.answer, self._top_k)
        return Shown([one for one in top if one.score >= self._threshold], None)

    def record(self, shown):
        """Returns what JSON says of a picture, a dict."""
        return {"top": [one._asdict() for one in shown.things]}

    def rows(self, shown):
        """Returns the rows of CSV."""
        return [
            [rank, index, label or "", score]
            for rank, (index, label, score) in enumerate(shown.things, 1)
        ]

    def lines(self, shown):
        """Returns the lines for people."""
        return table_lines(shown.things)

    def draw(self, image, shown):
        """Returns an image with what is shown on it."""
        image, _ = enlarged(image)
        Pen(image).write_list((one.score, name_of(one)) for one in shown.things)
        return image


class BoxesShown(ClassesShown):
    """The objects in a picture, with boxes in pixels."""

    columns = ("rank", "index", "label", "score", "left", "top", "right", "bottom")
    stages = (*STAGES, "postprocess")

    def __init__(self, detector, options):
        """Takes the `Detector` and the flags."""
        self._detector = detector
        given = options.threshold
        self._threshold = SHOWN_SCORE if given is None else given

    def select(self, result):  # noqa: D102
        objects = self._detector.objects(result.answer, result.decoded, self._threshold)
        return Shown(objects, None)

    def record(self, shown):  # noqa: D102
        return {
            "objects": [
                dict(one._asdict(), box=tenths(one.box)) for one in shown.things
            ]
        }

    def rows(self, shown):  # noqa: D102
        return [
            [rank, one.index, one.label or "", one.score, *tenths(one.box).values()]
            for rank, one in enumerate(shown.things, 1)
        ]

    def lines(self, shown):  # noqa: D102
        corners = [
            ", ".join(
                f"{side} {value:.0f}" for side, value in one.box._asdict().items()
            )
            for one in shown.things
        ]
        return [
            f"{line}  ({corner})"
            for line, corner in zip(
                table_lines(one[:3] for one in shown.things), corners
            )
        ]

    def draw(self, image, shown):  # noqa: D102
        return draw_boxes(image, shown.things)


class MaskShown(ClassesShown):
    """The classes of the pixels of a picture, with their shares of it."""

    columns = ("rank", "index", "label", "share")
    stages = (*STAGES, "postprocess")

    def __init__(self, segmenter, options):
        """Takes the `Segmenter` and the flags."""
        self._segmenter = segmenter
        segmenter.use_threshold(options.threshold or 0.0)

    def select(self, result):  # noqa: D102
        mask = self._segmenter.picture_mask(result.answer, result.decoded)
        return Shown(self._segmenter.regions(mask), mask)

    def record(self, shown):  # noqa: D102
        return {"classes": [one._asdict() for one in shown.things]}

    def draw(self, image, shown):  # noqa: D102
        image, _ = enlarged(painted(image, shown.mask))
        Pen(image).write_list((one.share, name_of(one)) for one in shown.things)
        return image


SHOWS = {"classify": ClassesShown, "detect": BoxesShown, "segment": MaskShown}
MODELS = {"classify": Classifier, "detect": Detector, "segment": Segmenter}


def draw_boxes(image, objects):
    """Returns an image, enlarged if it is small, with boxes, scores and labels.

    Args:
        image: PIL image of mode RGB.
        objects: list of `Detection`, with boxes in its pixels; the first is on top.
    """
    image, times = enlarged(image)
    pen = Pen(image)
    width = max(1, image.height // 200)
    for one in objects[::-1]:
        left, top, right, bottom = (times * value for value in one.box)
        colour = colour_of_class(one.index + 1)
        for inset in range(width):  # Pillow 5 draws lines of one pixel
            far = max(left, right - inset - 1), max(top, bottom - inset - 1)
            if left + inset <= far[0] and top + inset <= far[1]:
                corners = (left + inset, top + inset, *far)
                pen.draw.rectangle(corners, outline=colour)
        pen.write(left + width + 1, top + width, one.score, name_of(one))
    return image


def painted(image, mask):
    """Returns an image with the colours of a mask of its size over it.

    Args:
        image: PIL image of mode RGB.
        mask: uint8 array (height, width) of class indices.
    """
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image).astype(np.float32)
    colours = palette()
    colours[IGNORED] = 0
    share = np.where(mask == IGNORED, 0, MASK_SHARE)[..., None]
    mixed = pixels * (1 - share) + colours[mask] * share
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def name_of(found):
    """Returns the label of what was found, or the number of its class."""
    return found.index if found.label is None else found.label


def tenths(box):
    """Returns a `Box` as a dict, in tenths of pixels."""
    return {side: round(value, 1) for side, value in box._asdict().items()}


def colour_of_class(index):
    """Returns the colour (red, green, blue) of a class, as Pascal VOC paints masks.

    Class 0, the background, is black. The bits of the index go to the three colours in
    turn, from the highest bit of each down.
    """
    return tuple(
        sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(8))
        for channel in range(3)
    )


def palette():
    """Returns the colours of 256 classes, uint8 (256, 3)."""
    import numpy as np

    return np.array([colour_of_class(index) for index in range(256)], np.uint8)


def save_mask(mask, path):
    """Writes a mask as PNG of class indices, which image viewers show in colours."""
    from PIL import Image

    image = Image.fromarray(mask)
    image.putpalette(palette().ravel().tolist())
    save_image(image, path, "PNG")
