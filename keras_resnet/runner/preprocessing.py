"""Preprocessing: how an image becomes the input of a model."""

import dataclasses
import json
import numbers
import sys

from keras_resnet.runner.errors import UserError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
MAX_SIDE = 16384  # pixels, of the input and of the resized image


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a raw RGB image becomes a model's input.

    The image is resized so that its shorter side is `resize_size` (the longer
    one in proportion, rounded down), then its centre is cut out, then pixels
    are normalized: (pixel - mean) / std.

    Attributes:
        input_size: (height, width) of the model's input, in pixels.
        mean_rgb_255: mean of each channel, on the scale 0..255, in RGB order.
        std_rgb_255: standard deviation of each channel, likewise.
        channel_order: "rgb" or "bgr": the order in which the model takes them.
        crop_fraction: side of the crop relative to the shorter side of the
            resized image (timm's `crop_pct`).
        interpolation: one of `INTERPOLATIONS`, antialiased as PIL does.

    Raises:
        UserError: a field has a wrong type, length or value.
    """

    input_size: tuple
    mean_rgb_255: tuple = (128.0, 128.0, 128.0)
    std_rgb_255: tuple = (64.0, 64.0, 64.0)
    channel_order: str = "rgb"
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self):
        """Checks every field; lists (from JSON) become tuples."""
        smallest, largest = sys.float_info.min, sys.float_info.max
        for field, length, kind, lowest, highest, expected in (
            ("input_size", 2, int, 1, MAX_SIDE, f"whole numbers from 1 to {MAX_SIDE}"),
            ("mean_rgb_255", 3, float, -largest, largest, "finite numbers"),
            ("std_rgb_255", 3, float, smallest, largest, "finite numbers above 0"),
        ):
            value = getattr(self, field)
            values = list(value) if hasattr(value, "__iter__") else []
            valid = [_is_number(number, kind, lowest, highest) for number in values]
            if len(valid) != length or not all(valid):
                raise _wrong_field(field, f"{length} {expected}", value)
            object.__setattr__(self, field, tuple(map(kind, values)))
        lowest = max(self.input_size) / MAX_SIDE
        if not _is_number(self.crop_fraction, float, lowest, 1):
            expected = f"a number from {lowest:.3g} to 1"
            raise _wrong_field("crop_fraction", expected, self.crop_fraction)
        object.__setattr__(self, "crop_fraction", float(self.crop_fraction))
        for field, names in (
            ("channel_order", ("rgb", "bgr")),
            ("interpolation", INTERPOLATIONS),
        ):
            value = getattr(self, field)
            if not isinstance(value, str) or value not in names:
                raise _wrong_field(field, " or ".join(names), value)

    @property
    def resize_size(self):
        """Shorter side of the resized image, in pixels."""
        return int(max(self.input_size) / self.crop_fraction)


def parse_preprocessing(data, input_size):
    """Reads the `preprocessing.json` of a model, which is fed raw pixels.

    Unknown fields are ignored.

    Args:
        data: bytes of the file.
        input_size: (height, width) of the model's input, which the file repeats.

    Returns:
        `Preprocessing` with a mean of 0 and a standard deviation of 1.

    Raises:
        ValueError: the file is no JSON, or a field of it is wrong.
    """
    found = json.loads(data.decode("utf-8"))
    if not isinstance(found, dict):
        raise UserError(f"expected a JSON object, received {data[:40]!r}")
    preprocessing = Preprocessing(
        found.get("input_size"),
        mean_rgb_255=(0.0, 0.0, 0.0),
        std_rgb_255=(1.0, 1.0, 1.0),
        crop_fraction=found.get("crop_fraction"),
        interpolation=found.get("interpolation"),
    )
    for field, expected, value in (
        ("version", 1, found.get("version")),
        ("input_size", tuple(input_size), preprocessing.input_size),
        ("resize_size", preprocessing.resize_size, found.get("resize_size")),
    ):
        if type(value) is not type(expected) or value != expected:
            raise _wrong_field(field, expected, value)
    return preprocessing


def _is_number(value, kind, lowest, highest):
    """Tells whether this is a number within bounds; a bool or NaN is not."""
    abstract = numbers.Integral if kind is int else numbers.Real
    if not isinstance(value, abstract) or isinstance(value, bool):
        return False
    try:
        return lowest <= kind(value) <= highest
    except OverflowError:  # an int beyond all floats
        return False


def _wrong_field(field, expected, received):
    return UserError(f"{field}: expected {expected}, received {received!r:.80}")
