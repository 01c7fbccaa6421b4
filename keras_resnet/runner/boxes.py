"""Boxes and masks: what they are, and their way to a model's input and back."""

import collections

from keras_resnet.runner.geometry import placement

IGNORED = 255  # a pixel of a mask that belongs to no class and is not counted


class Objects(collections.namedtuple("Objects", "boxes classes ignored crowd")):
    """The objects of one picture, as they are annotated.

    Boxes are shares of the upright picture, not pixels: these stay right when a JPEG is
    decoded at a fraction of its size, and they are in the order of
    TFLite_Detection_PostProcess, tensorflow-datasets and `tf.image`.

    Attributes:
        boxes: float array (n, 4): top, left, bottom and right edge, as shares of the
            picture's height and width.
        classes: int array (n,), from 0.
        ignored: bool array (n,): objects that count neither when they are found nor
            when they are missed, such as Pascal VOC's "difficult" ones.
        crowd: bool array (n,): boxes around many objects (COCO's "iscrowd"). They count
            as little, and any number of boxes may be found in one.
    """

    __slots__ = ()


class Detections(collections.namedtuple("Detections", "boxes classes scores")):
    """What a model finds in one picture.

    Attributes:
        boxes: float array (n, 4), as in `Objects`.
        classes: int array (n,), from 0.
        scores: float array (n,), in any order.
    """

    __slots__ = ()


def boxes_to_input(boxes, size, how):
    """Turns boxes of a picture into boxes of the model's input.

    Args:
        boxes: array (n, 4), as in `Objects`.
        size: (width, height) of the upright picture.
        how: `Preprocessing` that makes the input.

    Returns:
        float64 array (n, 4), shares of the input; beyond 0..1 where the picture is cut.
    """
    origin, extent = origin_and_extent(size, how)
    return boxes * extent + origin


def boxes_to_picture(boxes, size, how):
    """Turns boxes of the model's input into boxes of the picture.

    The arguments are those of `boxes_to_input`.

    Returns:
        float64 array (n, 4), cut off at the edges of the picture.
    """
    origin, extent = origin_and_extent(size, how)
    return ((boxes - origin) / extent).clip(0, 1)


def origin_and_extent(size, how):
    """Returns a picture's place in the input and its size, each (4,) to fit boxes."""
    import numpy as np

    left, top, right, bottom = placement(size, how)
    extent = [bottom - top, right - left]
    return np.array([top, left] * 2), np.array(extent * 2)


def mask_to_input(mask, how):
    """Turns a mask of a picture into one of the model's input.

    Args:
        mask: uint8 array (height, width) of the upright picture: class indices.
        how: `Preprocessing` that makes the input.

    Returns:
        uint8 array how.input_size, the nearest pixels; `IGNORED` around the picture.
    """
    # Where the input's first and last edges lie, as shares of the picture.
    origin, extent = origin_and_extent(mask.shape[::-1], how)
    (top, left), (bottom, right) = -(origin / extent)[:2], ((1 - origin) / extent)[:2]
    rows, is_row = nearest_rows(how.input_size[0], (top, bottom), mask.shape[0])
    columns, is_column = nearest_rows(how.input_size[1], (left, right), mask.shape[1])
    pixels = mask[rows][:, columns]
    pixels[~is_row] = IGNORED
    pixels[:, ~is_column] = IGNORED
    return pixels


def mask_to_picture(mask, size, how):
    """Turns a mask of the model's input into one of the picture.

    Args:
        mask: array (height, width, ...) over the whole input, of any resolution.
        size: (width, height) of the upright picture.
        how: `Preprocessing` that made the input.

    Returns:
        array (height, width, ...) of the picture's size: the nearest pixels; those at
        the edge where the input shows no more of the picture.
    """
    left, top, right, bottom = placement(size, how)
    rows, _ = nearest_rows(size[1], (top, bottom), mask.shape[0])
    columns, _ = nearest_rows(size[0], (left, right), mask.shape[1])
    return mask[rows][:, columns]


def nearest_rows(length, span, source_length):
    """Returns which rows of an array lie nearest to the rows of another.

    Args:
        length: number of the other's rows.
        span: (start, end) of the other, as shares of the array's height.
        source_length: number of the array's rows.

    Returns:
        (int array (length,), bool array (length,): whether the row lies in the array).
    """
    import numpy as np

    shares = span[0] + (np.arange(length) + 0.5) / length * (span[1] - span[0])
    places = np.floor(shares * source_length).astype(int)
    inside = (places >= 0) & (places < source_length)
    return places.clip(0, source_length - 1), inside
