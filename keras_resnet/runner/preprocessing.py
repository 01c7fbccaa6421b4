"""Preprocessing: how a picture becomes the input of a model."""

import dataclasses
import json
import math
import numbers

from keras_resnet.runner.errors import UserError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CHANNEL_ORDERS = ("rgb", "bgr")
MAX_SIDE = 16384  # pixels, of the input and of the resized picture


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
        """Check every field, and turn lists (from JSON) into tuples."""
        height_and_width = f"(height, width), whole numbers from 1 to {MAX_SIDE}"
        self._set_numbers("input_size", 2, height_and_width, _is_side, int)
        self._set_numbers("mean_rgb_255", 3, "3 finite numbers", _is_finite, float)
        three_above_0 = "3 finite numbers above 0"
        self._set_numbers("std_rgb_255", 3, three_above_0, _is_positive, float)
        self._check_name("channel_order", CHANNEL_ORDERS)
        fraction = self.crop_fraction
        least = max(self.input_size) / MAX_SIDE
        if not _is_finite(fraction) or not least <= fraction <= 1:
            expected = f"a number from {least:.3g} to 1"
            raise _wrong_field("crop_fraction", expected, fraction)
        object.__setattr__(self, "crop_fraction", float(fraction))
        self._check_name("interpolation", INTERPOLATIONS)

    def _set_numbers(self, field, length, expected, is_valid, number_type):
        """Check a field of several numbers and store it as a tuple."""
        value = getattr(self, field)
        try:
            values = tuple(value)
        except TypeError:
            values = ()
        if len(values) != length or not all(map(is_valid, values)):
            raise _wrong_field(field, expected, value)
        object.__setattr__(self, field, tuple(map(number_type, values)))

    def _check_name(self, field, names):
        value = getattr(self, field)
        if not isinstance(value, str) or value not in names:
            raise _wrong_field(field, " or ".join(names), value)

    @property
    def resize_size(self):
        """Shorter side of the resized image, in pixels."""
        return int(max(self.input_size) / self.crop_fraction)


def parse_preprocessing(data, input_size):
    """Read the `preprocessing.json` of a model, which is fed raw pixels.

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


def _wrong_field(field, expected, received):
    return UserError(f"{field}: expected {expected}, received {received!r:.80}")


def _is_finite(value):
    """Tell whether this is a finite number; True and False are none."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_positive(value):
    return _is_finite(value) and value > 0


def _is_side(value):
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_whole and 1 <= value <= MAX_SIDE
