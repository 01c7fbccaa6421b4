"""Preprocessing: how an image becomes the input of a model."""

import contextlib
import dataclasses
import json
import math
import numbers
import sys
import typing

from keras_resnet.runner.errors import UserError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
RESIZES = ("crop", "stretch", "pad")
VERSIONS = (1, 2, 3)  # of preprocessing.json
# What the output of version 3 may be; without it, the scores of classes.
FEATURES, BOXES, MASKS = OUTPUTS = ("features", "boxes", "masks")
MAX_SIDE = 16384  # pixels, of the input and of the resized image
REDUCED_DECODING = 8.0  # where preprocessing.json says nothing


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a raw RGB image becomes a model's input.

    The image is resized, then its centre is cut out, then pixels are normalized:
    (pixel - mean) / std. `resize` says how an image of another aspect than the
    input's is resized:

    - "crop": in proportion, so that it covers `resized_size`. For a square input,
      its shorter side becomes `resize_size`; the longer one is rounded down.
      Without antialiasing it is cut to the input's aspect first, as Keras's
      `crop_to_aspect_ratio` does.
    - "stretch": to `resized_size`, whatever its aspect, as Keras's
      `image_dataset_from_directory` does by default.
    - "pad": in proportion, so that it fits into the input, and centred on black, as
      Keras's loaders do with `pad_to_aspect_ratio`. Nothing is cut off.

    Attributes:
        input_size: (height, width) of the model's input, in pixels.
        mean_rgb_255: mean of each channel, on the scale 0..255, in RGB order.
        std_rgb_255: standard deviation of each channel, likewise.
        channel_order: "rgb" or "bgr": the order in which the model takes them.
        crop_fraction: share of each side of `resized_size` that the crop keeps
            (timm's `crop_pct`); 1 where `resize` is "pad".
        interpolation: one of `INTERPOLATIONS`.
        resize: one of `RESIZES`.
        antialias: whether shrinking averages over all pixels, as Pillow does. If
            not, it picks some, as `tf.image.resize` and Keras's loaders do by
            default.
        reduced_decoding: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where each
            side of the result is still at least this many times as long as that of
            the resized image; from 1. Where pixels are picked (`antialias` false, or
            "nearest"), JPEGs are always decoded whole.

    Raises:
        UserError: a field has a wrong type, length or value.
    """

    input_size: typing.Tuple[int, int]
    mean_rgb_255: typing.Tuple[float, float, float] = (128.0, 128.0, 128.0)
    std_rgb_255: typing.Tuple[float, float, float] = (64.0, 64.0, 64.0)
    channel_order: str = "rgb"
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"
    resize: str = "crop"
    antialias: bool = True
    # 100 photographs kept their labels at 8; at 6, some lost them in small networks
    # that were trained on pictures that were decoded whole.
    reduced_decoding: float = REDUCED_DECODING

    def __post_init__(self) -> None:
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
        if not _is_number(self.reduced_decoding, float, 1, largest):
            expected = "a finite number from 1"
            raise _wrong_field("reduced_decoding", expected, self.reduced_decoding)
        for field in ("crop_fraction", "reduced_decoding"):
            object.__setattr__(self, field, float(getattr(self, field)))
        for field, names in (
            ("channel_order", ("rgb", "bgr")),
            ("interpolation", INTERPOLATIONS),
            ("resize", RESIZES),
        ):
            value = getattr(self, field)
            if not isinstance(value, str) or value not in names:
                raise _wrong_field(field, " or ".join(names), value)
        if not isinstance(self.antialias, bool):
            raise _wrong_field("antialias", "true or false", self.antialias)
        if self.resize == "pad" and self.crop_fraction != 1:
            expected = "1, since resize=pad cuts nothing off"
            raise _wrong_field("crop_fraction", expected, self.crop_fraction)

    @property
    def resized_size(self) -> typing.Tuple[int, int]:
        """(height, width) of the image before its centre is cut out, in pixels.

        Where the aspects differ, "crop" makes one of them larger and "pad" smaller.
        """
        height, width = self.input_size
        return int(height / self.crop_fraction), int(width / self.crop_fraction)

    @property
    def resize_size(self) -> int:
        """Longer side of `resized_size`."""
        return max(self.resized_size)


def parse_preprocessing(data, input_size):
    """Reads the `preprocessing.json` of a model, which is fed raw pixels.

    Version 1 has no `resize` and no `antialias`: their defaults hold, as that of
    `reduced_decoding` does in any version without it. Version 3 is that of a model
    that gives no scores of classes, and says what. Unknown fields are ignored.

    Args:
        data: bytes of the file.
        input_size: (height, width) of the model's input, which the file repeats.

    Returns:
        `Preprocessing` with a mean of 0 and a standard deviation of 1.

    Raises:
        UserError: the file is no JSON, a field of it is wrong, or its version is
            newer than this runner. The text says what to do.
    """
    try:
        found = json.loads(data.decode("utf-8"))
        if not isinstance(found, dict):
            raise UserError(f"expected a JSON object, received {data[:40]!r}")
        version = found.get("version")
        if not _is_number(version, int, max(VERSIONS) + 1, math.inf):
            return _read_fields(found, version, tuple(input_size))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{error}; export the model again") from error
    raise UserError(
        f"version: this runner reads 1 to {max(VERSIONS)}, received "
        f"{version!r:.80}; take the run_tflite.py of the keras_resnet that exported "
        "the model"
    )


def parse_threshold(data):
    """Reads from which score on an image has a label, of the same file.

    Returns:
        float in (0, 1) if the scores are independent, so that an image may have several
        labels or none; None if they are shares of 1.

    Raises:
        UserError: it is no such number.
    """
    threshold = json.loads(data.decode("utf-8")).get("threshold")
    if threshold is None:
        return None
    if not _is_number(threshold, float, 0, 1):
        raise _wrong_field("threshold", "a number from 0 to 1", threshold)
    return float(threshold)


def output_of(data):
    """Returns which of `OUTPUTS` a model gives by the same file, or None.

    `parse_preprocessing` says what is wrong with a file that is damaged.
    """
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads((data or b"{}").decode("utf-8"))
        output = found.get("output") if isinstance(found, dict) else None
        return output if isinstance(output, str) and output in OUTPUTS else None
    return None


def _read_fields(found, version, input_size):
    if version not in VERSIONS or isinstance(version, (bool, float)):
        raise _wrong_field("version", " or ".join(map(str, VERSIONS)), version)
    output = found.get("output")
    if version == 3 and (not isinstance(output, str) or output not in OUTPUTS):
        raise _wrong_field("output", " or ".join(OUTPUTS), output)
    added = ("resize", "antialias") if version > 1 else ()
    preprocessing = Preprocessing(
        found.get("input_size"),
        mean_rgb_255=(0.0, 0.0, 0.0),
        std_rgb_255=(1.0, 1.0, 1.0),
        crop_fraction=found.get("crop_fraction"),
        interpolation=found.get("interpolation"),
        reduced_decoding=found.get("reduced_decoding", REDUCED_DECODING),
        **{field: found.get(field) for field in added},
    )
    if preprocessing.input_size != input_size:
        raise _wrong_field("input_size", input_size, preprocessing.input_size)
    told, size = found.get("resize_size"), preprocessing.resize_size
    if version == 1 and (type(told) is not int or told != size):
        raise _wrong_field("resize_size", size, told)
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
