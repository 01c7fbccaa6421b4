#!/usr/bin/env python3
"""Runs a TensorFlow Lite model on images: one file, for the device.

    python3 run_tflite.py --model=resnet20.tflite photo.jpg
    python3 run_tflite.py --model=resnet20.tflite --top_k=1 --json photos/ a.png
    python3 run_tflite.py --model=mobilenet.tflite --labels=labels.txt photo.jpg
    python3 run_tflite.py --model=mobilenet_edgetpu.tflite photo.jpg
    python3 run_tflite.py --model=float.tflite --mean=127.5 --std=127.5 photo.jpg
    python3 run_tflite.py --model=resnet20.tflite --evaluate=photos/
    python3 run_tflite.py --model=resnet20.tflite --benchmark --threads=2
    python3 run_tflite.py --model=resnet20.tflite --camera=0 --top_k=1
    python3 run_tflite.py --model=detector.tflite --annotate=out/ photos/
    python3 run_tflite.py --model=segmenter.tflite --masks=out/ photo.jpg
    python3 run_tflite.py --model=features.tflite --learn=photos/ --classes=mine.json
    python3 run_tflite.py --model=features.tflite --classes=mine.json photo.jpg

The device needs this file, the model, Python 3.7 or newer, numpy, Pillow, and one of
ai-edge-litert, tflite-runtime and tensorflow.

Pixels
    The model receives raw RGB pixels: 0 to 255 for a uint8 or float input, pixel - 128
    for an int8 input. Normalization is part of the model, or its TFLite metadata ask
    for it, if the input is float. For any other model, pass --mean and --std on the
    scale of pixels; the input is then (pixel - mean) / std, quantized with the model's
    own scale and zero point if it is not float. Scores are dequantized likewise.
Resizing
    A model that was written by our export contains `preprocessing.json`, which says how
    to resize: in proportion, then the centre is cropped, as torchvision and timm
    evaluate (`crop`); whatever its proportions (`stretch`); or padded with black
    (`pad`). Without `antialias`, pixels are interpolated as tf.image.resize and Keras's
    image_dataset_from_directory do. For any other model, the image is stretched to the
    input size, as in pycoral's classify_image.py.
    EXIF orientation is applied, alpha is dropped, 16-bit grey keeps its high byte, and
    an animation is represented by its first frame. A JPEG much larger than needed is
    decoded at a half, quarter or eighth of its size, except with --annotate and without
    `antialias`.
Labels
    Labels come from --labels or, without it, from the model. If neither has any, the
    output shows class numbers alone.
Boxes and masks
    The file tells what it gives. A detector's boxes are listed with their places in
    pixels of the upright image, if their score is 0.4 or more (--threshold=SCORE). It
    may give raw boxes and scores, or end with TFLite_Detection_PostProcess, as Coral's
    files do. A segmenter's classes are listed with their shares of the image's pixels;
    --masks=DIR writes PNG files of class numbers, 255 where no class reaches
    --threshold. --annotate=DIR draws either on the images.
Delegates
    --delegate=auto, the default, uses the Edge TPU for a model that is compiled for it
    and the CPU for any other model. `none` uses the CPU. `edgetpu` uses any Edge TPU,
    and `edgetpu:usb`, `edgetpu:pci` or `edgetpu:usb:0` a particular one. Anything else
    is the path of an external delegate.
Learning
    --learn=DIR learns the subfolders of DIR as classes, here on the device, in little
    more time than the model runs on each photograph. The model is one of
    `edge/export.py --features`; --classes=FILE is written, and used later with the same
    model. Each class needs 2 photographs or more, better 20. Class means and logistic
    regressions are compared in a cross-validation: each photograph is answered by a
    classifier that has not seen it, and the accuracy of the best is printed.
    What resembles none of the classes is answered with `unknown`: an image whose cosine
    to the nearest class mean is low. --known_share=0.95 says which share of new images
    of the classes must not be answered so; 1 leaves `unknown` out. A folder DIR/_none
    of pictures of nothing is learned as `unknown` too.
    To add photographs or a class, add them to DIR and learn again. FILE is replaced at
    the end; if anything is wrong, it stays as it was.
Evaluation
    For a classifier, --evaluate=DIR expects one subfolder per class in DIR. Name the
    subfolders by label or by class number. If there are as many as classes, any names
    will do: their sorted order is the order of the classes, as in training. With a
    label `unknown`, its subfolder may be called `_none` too, and `known` is the share
    of the images of the other classes that are not answered with it.
    For a detector, DIR holds images with Pascal VOC's XML files beside them or in
    folders `Annotations` beside theirs. The result is COCO's average precision: `ap`
    over IoU 0.5 to 0.95, `ap50`, `ap75`. For a segmenter, DIR holds images with masks,
    NAME_mask.png beside NAME.jpg or NAME.png in a folder `masks`, and the names of the
    classes in `classes.txt`, one a line, or in `labelmap.txt` or `_classes.csv`. The
    result is the mean IoU. Names must be labels of the model.
JSON
    --json prints one object per line and image, in the given order. Times are in
    milliseconds:
    {"file": str, "top": [{"index": int, "label": str or null, "score": float}, ...],
     "milliseconds": {"decode": float, "resize": float, "invoke": float}}
    Instead of "top", a detector has "objects", a segmenter "classes", and both have a
    fourth time, "postprocess":
    "objects": [{"index": int, "label": str or null, "score": float,
      "box": {"left": float, "top": float, "right": float, "bottom": float}}, ...]
    "classes": [{"index": int, "label": str or null, "share": float}, ...]
    For an image that cannot be read, there is a line on stderr instead.
    With --compare:
    {"file": str, "same_top": bool, "max_difference": float,
     "cpu" | "delegate": {"top": [...], "invoke": float}}
    With --evaluate, one object in all, shares from 0 to 1, the worst class first:
    {"model": str, "images": int, "failed": int, "top1": float, "top5": float or null,
     "known": float or null,
     "classes": [{"index": int, "label": str or null, "images": int, "top1": float,
       "taken_for": {"index": int, "label": str or null, "images": int} or null}, ...],
     "mistakes": [{"file": str, "expected": int, "index": int, "score": float}, ...],
     "failures": [{"file": str, "error": str}, ...]}
    for a detector or a segmenter, null for a class that is not there:
    {"model": str, "images": int, "failed": int,
     "ap" | "ap50" | "ap75": float, or "miou": float,
     "classes": [{"index": int, "label": str, "objects": int, "ap" | "ap50" | "ap75":
       float} or {"index": int, "label": str, "pixels": int, "iou": float}, ...],
     "failures": [{"file": str, "error": str}, ...]}
    With --learn, one object in all. "accuracy" and "known", the share of photographs of
    classes that are not answered with `unknown`, are those of the cross-validation:
    {"model": str, "classes": str, "strength": float (0: class means alone),
     "accuracy": float, "known": float or null, "pictures": {label: int, ...},
     "nothing": int, "failures": [{"file": str, "error": str}, ...], "seconds": float}
    With --benchmark, one object in all. Without images, the model is timed on random
    pixels and "decode", "resize" and "total" are absent. The memory is the peak of the
    process:
    {"model": str, "runtime": str, "delegate": str, "threads": int, "images": int,
     "invokes": int, "peak_memory_mib": float or null, "model_load": float,
     "first_inference": float,
     "decode" | "resize" | "invoke" | "total":
       {"median": float, "p90": float, "p99": float}}
    A detector and a segmenter have "postprocess" too.
Exit codes
    0: done. 1: a bug of ours. 2: an error that you can fix, described by one line
    `error: ...` on stderr; a bad image does not stop the others. 130: Ctrl-C.
    The work is done in a child process, so that even a crash of native code is reported
    as an error.
"""

# Generated from keras_resnet/runner by `python edge/build_run_tflite.py`: edit the
# modules there, not this file. numpy, Pillow and the runtime are imported where they
# are used, so that --help and errors are quick.

import argparse
import collections
import contextlib
import ctypes
import dataclasses
import gc
import importlib
import io
import itertools
import json
import math
import mmap
import numbers
import os
import re
import signal
import struct
import sys
import time
import traceback
import typing
import warnings
import zipfile

# --- Errors that the user can fix, text that is safe to print, and files to read ------


class UserError(ValueError):
    """An error that the user can fix.

    Its text is one line: what is wrong, what was received and what to do. The commands
    print it as `error: ...` and exit with 2.
    """


@contextlib.contextmanager
def user_errors(subject, *types):
    """Turns exceptions of these types into a UserError that begins with `subject`.

    A UserError passes unchanged: it names its subject already.
    """
    try:
        yield
    except UserError:
        raise
    except types as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{subject}: {reason}") from error


def result_or_error(function, *arguments):
    """Returns what a function returns, or the UserError that it raises."""
    try:
        return function(*arguments)
    except UserError as error:
        return error


def printable(text):
    """Escapes line breaks and control characters, as labels and file names may hold."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)
    )


def open_file(path):
    """Opens a regular file in binary; a device or a pipe could block or never end.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a directory" if os.path.isdir(path) else "a device or pipe"
        raise UserError(f"{path}: expected a file, received {kind}")
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from error


def read_at_most(file, limit):
    """Reads a whole file; ValueError if it has more than `limit` bytes."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{file.name} is larger than {limit} bytes")
    return data


# --- Preprocessing: how an image becomes the input of a model -------------------------

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


# --- The model file: a flatbuffer, and behind it a ZIP archive ------------------------

MAX_MODEL_BYTES = (2 << 30) - 1  # offsets in a flatbuffer are signed
MAX_LABEL_BYTES = 4 << 20
MAX_PREPROCESSING_BYTES = 64 << 10
MAX_ANCHOR_BYTES = 16 << 20  # of a million anchors

# The fields of each table in order, up to the last one that is needed:
#   -         skipped
#   B, I      a plain value, by its code in `struct`
#   1, 4, 8   a vector whose items have so many bytes
#   string    text
#   X, [X]    a table X, a vector of tables X
# A field with a name in front ("name=string") is kept under that name.
SCHEMA = {
    # https://github.com/tensorflow/tensorflow tensorflow/lite/schema/schema.fbs
    "Model": "- codes=[OperatorCode] graphs=[SubGraph] string buffers=[Buffer] 4 "
    "metadata=[Metadata] [SignatureDef]",
    "OperatorCode": "- custom=string",
    "SubGraph": "tensors=[Tensor] 4 outputs=4 operators=[Operator] string",
    "Buffer": "data=1",
    "Metadata": "name=string buffer=I",
    "SignatureDef": "[TensorMap] [TensorMap] string",
    "TensorMap": "string",
    "Tensor": "shape=4 - - string Quantization - - 4",
    "Quantization": "4 4 4 8",
    "Operator": "- 4 4 - Options 1 - 1 4",
    "Options": "",
    "ShapeOptions": "4",
    # https://github.com/tensorflow/tflite-support metadata_schema.fbs
    "ModelMetadata": "string string string graphs=[GraphMetadata]",
    "GraphMetadata": "- - inputs=[TensorMetadata] outputs=[TensorMetadata]",
    "TensorMetadata": "string - - - steps=[Step] - files=[AssociatedFile]",
    "Step": "type=B options=StepOptions",
    "StepOptions": "",
    "Normalization": "mean=4 std=4",
    "AssociatedFile": "name=string - type=B locale=string",
}
# Unions: the field that holds the type, and the table of each type that is needed.
UNIONS = {
    "Options": (3, {17: "ShapeOptions", 30: "ShapeOptions"}),  # RESHAPE, SQUEEZE
    "StepOptions": (0, {1: "Normalization"}),
}
LABEL_FILE_TYPES = (2, 3)  # AssociatedFileType: labels of an axis, or of the values


class FlatbufferWalk:
    """Checks that every table and vector of a flatbuffer lies inside it.

    tflite-runtime trusts the file and crashes on a damaged one; ai-edge-litert
    verifies it, but does not say what is wrong.

    Attributes:
        end: first byte behind everything that was reached.
        root: the tables, as dicts of the fields that SCHEMA names. An absent field is
            absent from the dict, a vector of tables is a list, any other vector the
            `slice` of its bytes.
    """

    def __init__(self, data, kind="Model"):
        """Walks through bytes; raises ValueError where they are damaged."""
        self.data = data
        self.end = 0
        self._seen = {}
        # The vectors of a sound file do not overlap. Without this limit, those of a
        # hostile file could be read forever.
        self._budget = 2 * len(data) + 64
        self.root = self._table(kind, self._number("<I", 0))

    def _require(self, start, size):
        """Requires the bytes start..start+size to exist."""
        if start < 0 or start + size > len(self.data):
            raise ValueError(f"byte {start + size} of {len(self.data)} is needed")
        self.end = max(self.end, start + size)

    def _number(self, code, position):
        self._require(position, struct.calcsize(code))
        return struct.unpack_from(code, self.data, position)[0]

    def _table(self, kind, position):
        """Walks through a table once; returns its named fields."""
        if (kind, position) in self._seen:
            return self._seen[kind, position]
        found = self._seen[kind, position] = {}
        vtable = position - self._number("<i", position)
        vtable_size = self._number("<H", vtable)
        table_size = self._number("<H", vtable + 2)
        self._require(vtable, vtable_size)
        self._require(position, table_size)
        count = vtable_size // 2 - 2
        if count < 0 or vtable_size % 2 or table_size < 4:
            raise ValueError(f"bad vtable at byte {vtable}")
        fields = struct.unpack_from(f"<{count}H", self.data, vtable + 4)
        if any(offset >= table_size for offset in fields):
            raise ValueError(f"bad field in the vtable at byte {vtable}")
        for field, offset in zip(SCHEMA[kind].split(), fields):
            name, _, what = field.rpartition("=")
            if not offset or what == "-":
                continue
            if what in UNIONS:
                type_field, tables = UNIONS[what]
                union_type = fields[type_field]
                union_type = self.data[position + union_type] if union_type else 0
                what = tables.get(union_type, what)
            value = self._field(what, position + offset)
            if name:
                found[name] = value
        return found

    def _field(self, what, position):
        """Returns a plain value, or what the offset at `position` points to."""
        if what in ("B", "I"):
            return self._number("<" + what, position)
        target = position + self._number("<I", position)
        if target % 4:
            raise ValueError(f"misaligned offset at byte {position}")
        if what in SCHEMA:
            return self._table(what, target)
        if (what, target) not in self._seen:
            self._seen[what, target] = self._vector(what, target)
        return self._seen[what, target]

    def _vector(self, what, target):
        count = self._number("<I", target)
        start = target + 4
        size = count * {"string": 1}.get(what, int(what) if what.isdigit() else 4)
        self._require(start, size)
        self._budget -= size
        if self._budget < 0:
            raise ValueError(f"overlapping vectors at byte {start}")
        if what == "string":
            if self._number("<B", start + count):  # native code reads up to a zero
                raise ValueError(f"unterminated text at byte {start}")
            return self.data[start : start + count].decode("utf-8", "replace")
        if what.startswith("["):
            return [
                self._table(what[1:-1], item + self._number("<I", item))
                for item in range(start, start + size, 4)
            ]
        return slice(start, start + size)


ModelFile = collections.namedtuple(
    "ModelFile",
    "path operators custom_operators outputs mean std labels preprocessing anchors",
)


def read_model(path):
    """Reads what a `.tflite` file says of itself; refuses a damaged one.

    Returns:
        `ModelFile`: the path; the number of operators; the set of names of custom
        operators; the shapes of the outputs, tuples of int; mean and std of the TFLite
        metadata, tuples of floats on the scale of pixels, or None; the bytes of the
        label file, of `preprocessing.json` and of `anchors.npy`, or None.

    Raises:
        UserError: the file is no TFLite model, truncated or damaged.
    """
    data = _map_model(path)
    try:
        walk = FlatbufferWalk(data)
        tail = data[walk.end :]
        has_archive = zipfile.is_zipfile(io.BytesIO(tail))
        if b"PK\3\4" in tail[:16] and not has_archive:
            raise ValueError("the archive with its labels has no end")
    except ValueError as error:
        raise UserError(
            f"{path}: truncated or damaged model ({error}); copy or export it again"
        ) from error
    with user_errors(f"{path}: its metadata is damaged", ValueError):
        mean, std, labels_name = _read_metadata(data, walk.root)
    members = (None,) * 3
    if has_archive:
        # zipfile raises exceptions of many types on a damaged archive.
        with user_errors(f"{path}: the archive inside is damaged", Exception):
            members = _read_archive(path, labels_name)
    graph = (walk.root.get("graphs") or [{}])[0]
    custom_operators = {code.get("custom") for code in walk.root.get("codes", ())}
    operators = len(graph.get("operators", ()))
    with user_errors(f"{path}: its outputs are damaged", ValueError):
        shapes = _output_shapes(data, graph)
    return ModelFile(path, operators, custom_operators, shapes, mean, std, *members)


def _output_shapes(data, graph):
    def numbers(part):
        return struct.unpack(f"<{(part.stop - part.start) // 4}i", data[part])

    tensors, shapes = graph.get("tensors", ()), []
    for index in numbers(graph.get("outputs", slice(0, 0))):
        if not 0 <= index < len(tensors):
            raise ValueError(f"tensor {index} of {len(tensors)}")
        shapes.append(numbers(tensors[index].get("shape", slice(0, 0))))
    return shapes


def _map_model(path):
    """Maps a model into memory: the parts that nobody needs are not read."""
    with open_file(path) as file, user_errors(path, OSError):
        size, identifier = os.fstat(file.fileno()).st_size, file.read(8)[4:]
        if identifier != b"TFL3":
            raise UserError(
                f"{path}: not a TFLite model: bytes 4 to 8 are {identifier!r}, "
                f"expected b'TFL3' ({size} bytes in all); give a .tflite file"
            )
        if size > MAX_MODEL_BYTES:
            raise UserError(
                f"{path}: {size} bytes, a TFLite model has at most {MAX_MODEL_BYTES}"
            )
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_metadata(data, root):
    """Returns (mean, std, name of the label file) of TFLite's standard metadata.

    Each is None where the metadata do not say.
    """
    content = b""
    for entry in root.get("metadata", ()):
        if entry.get("name") == "TFLITE_METADATA":
            buffers, index = root.get("buffers", ()), entry.get("buffer", 0)
            if index >= len(buffers):
                raise ValueError(f"is buffer {index} of {len(buffers)}")
            content = data[buffers[index].get("data", slice(0))]
    if not content:
        return None, None, None
    if content[4:8] != b"M001":
        raise ValueError(f"expected the identifier b'M001', found {content[4:8]!r}")
    graph = FlatbufferWalk(content, "ModelMetadata").root.get("graphs", [{}])[:1]
    tensors = graph[0] if graph else {}
    mean = std = labels_name = None
    for step in (tensors.get("inputs") or [{}])[0].get("steps", ()):
        options = step.get("options", {})
        if step.get("type") == 1 and {"mean", "std"} <= set(options):
            mean, std = (
                struct.unpack(f"<{(part.stop - part.start) // 4}f", content[part])
                for part in (options["mean"], options["std"])
            )
    for file in reversed((tensors.get("outputs") or [{}])[0].get("files", ())):
        if file.get("type") in LABEL_FILE_TYPES and not file.get("locale"):
            labels_name = file.get("name")
    return mean, std, labels_name


def _read_archive(path, labels_name):
    """Returns the bytes of the members that `read_model` names; None where absent.

    The labels are the file that the metadata name, else `labels.txt`, else the only
    .txt file (Coral's `imagenet_labels.txt`).
    """
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        texts = [name for name in names if name.endswith(".txt")]
        if labels_name not in names:
            labels_name = texts[0] if len(texts) == 1 else "labels.txt"
        found = []
        for name, limit in (
            (labels_name, MAX_LABEL_BYTES),
            ("preprocessing.json", MAX_PREPROCESSING_BYTES),
            ("anchors.npy", MAX_ANCHOR_BYTES),
        ):
            if name in names:
                with archive.open(name) as member:
                    found.append(read_at_most(member, limit))
            else:
                found.append(None)
    return found


def parse_labels(data, numbered):
    """Splits a label file into labels.

    Args:
        data: bytes, UTF-8, one label per line. Empty lines at the end do not count.
        numbered: whether to accept Coral's form `0  name` too. Lines are read so only
            if their numbers are exactly 0..n-1: labels such as `7 up` stay whole.

    Returns:
        list of str.

    Raises:
        ValueError: the file is not UTF-8.
    """
    lines = [line.strip() for line in data.decode("utf-8-sig").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if numbered:
        pairs = [re.match(r"([0-9]{1,9})(?::\s*|\s+)(\S.*)", line) for line in lines]
        names = {int(pair.group(1)): pair.group(2) for pair in pairs if pair}
        if sorted(names) == list(range(len(lines))):
            return [names[number] for number in range(len(lines))]
    return lines


def parse_sparse_labels(data, numbered):
    """Splits a label file whose numbers may have gaps into labels.

    Coral's `coco_labels.txt` has such lines as `0  person`, and no class 11.

    Args:
        data: bytes, as `parse_labels` takes them.
        numbered: whether to accept lines with numbers.

    Returns:
        list of str, None in the gaps. If a line has no number, or two have the same,
        all lines are labels.
    """
    lines = parse_labels(data, numbered)
    if not numbered or lines != parse_labels(data, False):
        return lines
    pairs = [re.match(r"([0-9]{1,4})(?::\s*|\s+)(\S.*)", line) for line in lines]
    names = {int(pair.group(1)): pair.group(2) for pair in pairs if pair}
    if not lines or len(names) < len(lines):
        return lines
    return [names.get(number) for number in range(max(names) + 1)]


# --- The TFLite runtime: which one, and with how many threads -------------------------

SYSTEM = ""  # the folder that holds /sys and /dev


@contextlib.contextmanager
def silenced_stderr():
    """Sends file descriptor 2 to the null device: native code prints there directly."""
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed: nothing to silence
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def load_runtime():
    """Imports the first TFLite runtime that works on this machine.

    Returns:
        (Interpreter class, "name version").

    Raises:
        UserError: none works, with the reason for each.
    """
    reasons = []
    for package in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
        try:
            with silenced_stderr():
                module = importlib.import_module(package)
                if package == "tflite_runtime":
                    refuse_numpy_2(module.__version__)
                if package == "tensorflow":
                    interpreter = module.lite
                else:
                    interpreter = importlib.import_module(package + ".interpreter")
                name = package.replace("_", "-")
                return interpreter.Interpreter, f"{name} {module.__version__}"
        except (ImportError, OSError, AttributeError) as error:
            reasons.append(f"{package}: {error}")
    raise UserError(
        f"no TFLite runtime works here ({'; '.join(reasons)}); pip install "
        "ai-edge-litert, or tflite-runtime with 'numpy<2'"
    )


def refuse_numpy_2(version):
    """Raises ImportError where tflite-runtime, built for numpy 1, would fail later."""
    import numpy as np

    numpy_major = int(np.__version__.split(".")[0])
    if numpy_major > 1 and tuple(map(int, version.split(".")[:2])) < (2, 18):
        raise ImportError(
            f"{version} needs numpy < 2, found {np.__version__}: pip install 'numpy<2'"
        )


def build_interpreter(interpreter_class, path, threads, delegate=None):
    """Creates an interpreter whose tensors have no memory yet."""
    options = {"experimental_delegates": [delegate]} if delegate else {}
    if path.isascii():
        options["model_path"] = path
    else:  # some runtimes cannot open such a path
        with open_file(path) as file:
            options["model_content"] = file.read()
    with silenced_stderr():
        return interpreter_class(num_threads=threads, **options)


def default_threads():
    """Counts the physical cores that this process may use, at most 4.

    Two threads on one core are slower than one: they share its arithmetic units.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    else:
        cpus = range(os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        try:
            path = f"{SYSTEM}/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings"
            with open(path) as file:
                cores.add(file.read())
        except OSError:  # not Linux
            cores.add(cpu)
    return min(4, len(cores))


# --- Delegates: libraries that run a model on another chip, such as the Edge TPU ------

EDGETPU_LIBRARIES = {
    "linux": "libedgetpu.so.1",
    "darwin": "libedgetpu.1.dylib",
    "win32": "edgetpu.dll",
}
# Vendor and product on USB, before the first use and after it, and on PCIe.
EDGETPU_USB = ("1a6e:089a", "18d1:9302")
EDGETPU_PCI = "0x1ac1:0x089a"

Delegate = collections.namedtuple("Delegate", "name library options")


def choose_delegate(text, options, compiled):
    """Returns the `Delegate` that --delegate stands for, or None for the CPU.

    Raises:
        ValueError: it does not fit the model, which is `compiled` for the Edge TPU or
            not.
    """
    if text == "auto":
        text = "edgetpu" if compiled else "none"
    if text == "none":
        if compiled:
            raise ValueError(
                "compiled for the Edge TPU, which --delegate=none does not use; give "
                "the uncompiled file (the one without _edgetpu in its name)"
            )
        if options:
            raise ValueError("--delegate_options needs a --delegate to pass them to")
        return None
    match = re.match(r"edgetpu(?::((?:usb|pci)?(?::[0-9]+)?))?$", text)
    if match:
        if not compiled:
            raise ValueError(
                "not compiled for the Edge TPU, so all of it would run on the CPU; "
                "compile it with edgetpu_compiler, or leave --delegate out"
            )
        if match.group(1):
            options = dict(options, device=match.group(1))
        return Delegate(text, EDGETPU_LIBRARIES.get(sys.platform, ""), options)
    if os.path.isfile(text):
        return Delegate(text, os.path.abspath(text), options)
    raise ValueError(
        f"--delegate={text}: expected auto, none, edgetpu, edgetpu:usb, edgetpu:pci, "
        "edgetpu:usb:0, or the path of a library that exists"
    )


def load_delegate(delegate, interpreter_class, runtime):
    """Loads the library of a delegate for a runtime; it opens its device then.

    Raises:
        ValueError: it cannot be loaded, with what is missing.
    """
    try:
        # Asked first: where it fails, the runtime prints a second exception.
        library = ctypes.CDLL(delegate.library)
        library.tflite_plugin_create_delegate  # noqa: B018
        module = importlib.import_module(interpreter_class.__module__)
        with silenced_stderr():
            return module.load_delegate(delegate.library, delegate.options)
    except (OSError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if not delegate.name.startswith("edgetpu"):
            text = f"delegate {delegate.name} cannot be loaded: {reason}"
            raise ValueError(text) from error
        checks = "; ".join(
            f"{'ok' if good else 'MISSING'}: {text}"
            for good, text in check_edgetpu(runtime)
        )
        raise ValueError(
            f"compiled for the Edge TPU, and no Edge TPU answers ({reason}); {checks}; "
            "or give the uncompiled file (the one without _edgetpu in its name)"
        ) from error


def check_edgetpu(runtime):
    """Lists what an Edge TPU needs: (whether it is there, what was found or a fix)."""
    checks = [check_edgetpu_library(runtime)]
    usb, pci = find_edgetpu_usb(), find_edgetpu_pci()
    for node in usb:
        fix = "install the udev rule of libedgetpu1-std, join its group with "
        fix += "`sudo usermod -aG plugdev $USER`, log in again, replug"
        checks.append(check_access("USB accelerator", node, fix))
    for node in pci:
        fix = "install gasket-dkms, then give /dev/apex_0 to your group by a udev rule"
        checks.append(check_access("PCIe accelerator", node, fix))
    if not usb + pci:
        ids = f"no {' or '.join(EDGETPU_USB)} on USB, no {EDGETPU_PCI} on PCIe"
        fix = "plug it into a USB 3 port that gives enough power"
        checks.append((False, f"device ({ids}): {fix}"))
    return checks


def check_edgetpu_library(runtime):
    """Checks that libedgetpu loads, and compares its version with the runtime's."""
    name = EDGETPU_LIBRARIES.get(sys.platform, "libedgetpu")
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        package = "`sudo apt install libedgetpu1-std` from Coral's repository"
        return False, f"library {name} ({error}): {package}"
    try:
        library.edgetpu_version.restype = ctypes.c_char_p
        version = library.edgetpu_version().decode("utf-8", "replace")
    except (AttributeError, UnicodeError):
        version = "of unknown version"
    fit = f"beside {runtime}"
    family, _, numbers = runtime.partition(" ")
    newer = tuple(map(int, re.findall("[0-9]+", numbers)[:2])) >= (2, 12)
    if newer or family == "ai-edge-litert":  # google-coral/edgetpu #812
        fit += ", which needs a community build: Google's is for TFLite before 2.12"
    return True, f"library {name} {version}, {fit}"


def check_access(what, node, fix):
    """Checks that the node of a device exists and may be written to."""
    if not os.path.exists(node):
        return False, f"{what} is plugged in, but its node {node} is missing: {fix}"
    if not os.access(node, os.R_OK | os.W_OK):
        return False, f"right to use the {what} at {node}: {fix}"
    return True, f"{what} at {node}"


def read_kernel_file(*path):
    """Reads a short file of the kernel; "" if there is none."""
    try:
        with open(os.path.join(*path)) as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return ""


def find_edgetpu_usb():
    """Lists the device nodes of Edge TPUs on USB."""
    folder = f"{SYSTEM}/sys/bus/usb/devices"
    nodes = []
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else ()):
        vendor, product, bus, device = (
            read_kernel_file(folder, name, file)
            for file in ("idVendor", "idProduct", "busnum", "devnum")
        )
        if f"{vendor}:{product}" in EDGETPU_USB:
            nodes.append(f"{SYSTEM}/dev/bus/usb/{bus.zfill(3)}/{device.zfill(3)}")
    return nodes


def find_edgetpu_pci():
    """Lists the device nodes of Edge TPUs on PCIe, as the driver numbers them."""
    folder = f"{SYSTEM}/sys/bus/pci/devices"
    found = [
        name
        for name in (os.listdir(folder) if os.path.isdir(folder) else ())
        if EDGETPU_PCI
        == ":".join(read_kernel_file(folder, name, id) for id in ("vendor", "device"))
    ]
    return [f"{SYSTEM}/dev/apex_{number}" for number in range(len(found))]


# --- Geometry: an image is cut or padded, resized and cropped to the model's input ----

MAX_PIXELS = 89478485  # Pillow warns of larger images: 256 MiB of RGB


def resize_and_crop(image, how, box=None):
    """Makes a model's input of an image, in training as on the device.

    Args:
        image: PIL image of mode RGB. Not changed.
        how: `Preprocessing`, whose docstring defines the result.
        box: (left, top, right, bottom) of the part of the image that is filled,
            where it `may_shrink`; None is all of it.

    Returns:
        uint8 array (*how.input_size, 3), RGB.

    Raises:
        ValueError: the image is too elongated to be resized within MAX_PIXELS.
    """
    import numpy as np

    target, new_size = how.input_size[::-1], how.resized_size[::-1]
    region = box if box and may_shrink(how) else (0, 0) + image.size
    size = (region[2] - region[0], region[3] - region[1])
    resize_region = resize_with_pillow if how.antialias else sample
    if how.resize == "pad":
        (width, height), (left, top) = fitting_size(size, target)
        whole = (0, 0, width, height)
        pixels = np.zeros(how.input_size + (3,), np.uint8)
        pixels[top : top + height, left : left + width] = resize_region(
            image, region, (width, height), whole, how.interpolation
        )
        return pixels
    if how.resize == "crop" and how.antialias:
        new_size = covering_size(size, new_size)
        if new_size[0] * new_size[1] > MAX_PIXELS:
            raise ValueError(
                f"{image.width} x {image.height} pixels: too elongated to be resized"
            )
    elif how.resize == "crop":
        region = region_of_aspect(size, target)
    crop = centre(new_size, target)
    return resize_region(image, region, new_size, crop, how.interpolation)


def placement(size, how):
    """Returns where a whole image lies in a model's input, as `resize_and_crop` has it.

    Args:
        size: (width, height) of the image, or of the part of it that is filled.
        how: `Preprocessing`.

    Returns:
        (left, top, right, bottom) as shares of the input's width and height. They lie
        within 0..1 where the image is padded, and beyond where it is cropped.
    """
    target, new_size = how.input_size[::-1], how.resized_size[::-1]
    region = (0, 0) + tuple(size)
    if how.resize == "pad":
        new_size, first = fitting_size(size, target)
    else:
        if how.resize == "crop" and how.antialias:
            new_size = covering_size(size, new_size)
        elif how.resize == "crop":
            region = region_of_aspect(size, target)
        first = [-side for side in centre(new_size, target)[:2]]
    low, high = [], []
    for axis in (0, 1):
        scale = new_size[axis] / (region[axis + 2] - region[axis])
        start = first[axis] - region[axis] * scale
        low.append(start / target[axis])
        high.append((start + size[axis] * scale) / target[axis])
    return tuple(low + high)


def may_shrink(how):
    """Returns whether a large JPEG may be decoded at a fraction of its size.

    Without antialiasing, pixels are picked: they must be the real ones.
    """
    return how.antialias and how.interpolation != "nearest"


def centre(size, crop):
    """Returns the box (left, top, right, bottom) of a crop, both (width, height)."""
    left, top = (round((whole - part) / 2) for whole, part in zip(size, crop))
    return left, top, left + crop[0], top + crop[1]


def covering_size(size, target):
    """Returns the least (width, height) of an image's aspect that covers a target."""
    width, height = size
    if width * target[1] <= height * target[0]:
        return target[0], int(target[0] * height / width)
    return int(target[1] * width / height), target[1]


def fitting_size(size, target):
    """Returns how `tf.image.resize_with_pad` fits an image into a target.

    In its 32 bits, in which a side sometimes comes out one pixel short.

    Returns:
        (width, height) of the image after resizing, and its place (left, top).
    """
    import numpy as np

    sides, targets = np.float32(size), np.float32(target)
    fitted = sides / (sides / targets).max()
    margins = ((targets - fitted) / 2).clip(0)
    new_size = fitted.clip(1).astype(int).tolist()  # TensorFlow fails at 0 pixels
    return tuple(new_size), tuple(margins.astype(int).tolist())


def region_of_aspect(size, aspect):
    """Returns the largest centred region of an aspect, as Keras's loaders cut it out.

    Args:
        size: (width, height) of the image, whole numbers.
        aspect: (width, height) whose ratio is wanted.

    Returns:
        (left, top, right, bottom).
    """
    width = max(1, min(size[0], size[1] * aspect[0] // aspect[1]))
    height = max(1, min(size[1], size[0] * aspect[1] // aspect[0]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def resize_with_pillow(image, region, new_size, crop, interpolation):
    """Resizes a region of an image with antialiasing, and returns a crop of it.

    The arguments and the result are those of `sample`.
    """
    import numpy as np
    from PIL import Image

    method = getattr(Image, interpolation.upper())
    if interpolation == "nearest":
        return np.array(image.resize(new_size, method).crop(crop))
    # Resize and crop at once: pixels outside the crop are never computed.
    across = (region[2] - region[0]) / new_size[0]
    down = (region[3] - region[1]) / new_size[1]
    part = (
        region[0] + crop[0] * across,
        region[1] + crop[1] * down,
        region[0] + crop[2] * across,
        region[1] + crop[3] * down,
    )
    size = (crop[2] - crop[0], crop[3] - crop[1])
    return np.array(image.resize(size, method, part))


def sample(image, region, new_size, crop, interpolation):
    """Resizes a region of an image as `tf.image.resize(antialias=False)` does.

    Args:
        image: PIL image of mode RGB.
        region: (left, top, right, bottom) in it, whole numbers.
        new_size: (width, height) of the resized region.
        crop: (left, top, right, bottom) in it: only these pixels are computed.
        interpolation: one of `INTERPOLATIONS`.

    Returns:
        uint8 array (height, width, 3), rounded, halves to the even number.
    """
    import numpy as np

    columns, across = taps(region[::2], new_size[0], crop[::2], interpolation)
    rows, down = taps(region[1::2], new_size[1], crop[1::2], interpolation)
    # Row by row: an array of a whole photograph takes more time and memory than the
    # rest.
    used_rows, used_columns = np.unique(rows), np.unique(columns)
    pixels = np.empty((len(used_rows), len(used_columns), 3), np.uint8)
    for number, row in enumerate(used_rows.tolist()):
        line = np.asarray(image.crop((0, row, image.width, row + 1)))
        pixels[number] = line[0, used_columns]
    columns = np.searchsorted(used_columns, columns)
    rows = np.searchsorted(used_rows, rows)
    lines = sum(
        pixels[:, column] * weight[:, np.newaxis]
        for column, weight in zip(columns, across)
    )
    levels = sum(
        lines[row] * weight[:, np.newaxis, np.newaxis]
        for row, weight in zip(rows, down)
    )
    return np.rint(levels).clip(0, 255).astype(np.uint8)


def taps(region, new_size, crop, interpolation):
    """Returns which pixels make each pixel of a resized axis, and with what weights.

    Positions are computed in 32 bits, as TensorFlow does: in 64 bits, the nearest
    pixel would sometimes be another one.

    Args:
        region: (start, end) of what is resized, in pixels of the image.
        new_size: of the resized region.
        crop: (start, end) of the pixels wanted, of the resized region.
        interpolation: one of `INTERPOLATIONS`.

    Returns:
        (places, weights): int and float32 arrays (taps, pixels wanted).
    """
    import numpy as np

    length = region[1] - region[0]
    scale = np.float32(length) / np.float32(new_size)
    centres = (np.arange(*crop, dtype=np.float32) + np.float32(0.5)) * scale
    if interpolation == "nearest":
        places = np.minimum(np.floor(centres), length - 1)[np.newaxis]
        weights = np.ones_like(places)
    else:
        centres -= np.float32(0.5)
        before = np.floor(centres)
        rest = centres - before
        radius = {"bilinear": 1, "bicubic": 2, "lanczos": 3}[interpolation]
        offsets = np.arange(1 - radius, radius + 1)[:, np.newaxis]
        places = before + offsets
        if interpolation == "bilinear":
            weights = 1 - abs(rest - offsets)
        elif interpolation == "bicubic":
            weights = keys_cubic(abs(np.rint(rest * 1024) / 1024 - offsets))
        else:
            weights = np.sinc(rest - offsets) * np.sinc((rest - offsets) / 3)
        weights = weights * ((places >= 0) & (places < length))
        weights /= weights.sum(0)
    places = places.clip(0, length - 1).astype(int) + region[0]
    return places, weights.astype(np.float32)


def keys_cubic(distance):
    """Weights by distance in pixels, up to 2 (Keys 1981, a = -0.5).

    TensorFlow reads them from a table of 1024 steps a pixel.
    """
    import numpy as np

    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, far)


# --- Images: from a file to the pixels of the model's input ---------------------------

# Pillow knows more formats; for EPS, for one, it would run a program.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "HEIF")
# The kinds of HEIF files that hold a picture of a phone (.heic).
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")
# Each scan of a JPEG costs as much as an image; progressive files have about ten.
MAX_SCANS = 100
MAX_IMAGE_BYTES = 256 << 20
# EXIF orientation -> what turns the image upright.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class DecodedImage(collections.namedtuple("DecodedImage", "image box scale")):
    """A picture, of mode RGB and upright.

    Attributes:
        image: PIL image.
        box: (left, top, right, bottom) of it that is filled: not all of it where an
            odd number of pixels was halved.
        scale: by how much its sides were divided when it was decoded: 1, 2, 4 or 8.
    """

    __slots__ = ()

    @property
    def size(self):
        """(width, height) of the whole picture in pixels."""
        left, top, right, bottom = self.box
        return round((right - left) * self.scale), round((bottom - top) * self.scale)


def read_image(source, classifier=None):
    """Decodes an image, whole or not at all.

    Args:
        source: path, "-" for the standard input, binary file that can seek, PIL image
            or uint8 array (height, width, 3) of RGB pixels.
        classifier: `Classifier` whose input needs the image: a large JPEG is decoded
            at a half, quarter or eighth of its size. None decodes all pixels.

    Returns:
        `DecodedImage`.

    Raises:
        UserError: missing, empty, not an image, truncated, or larger than MAX_PIXELS.
    """
    if isinstance(source, (str, os.PathLike)):
        with read_stdin() if source == "-" else open_file(source) as file:
            return read_image(file, classifier)
    # Pillow raises exceptions of many types on a damaged file.
    with user_errors(getattr(source, "name", "image"), Exception):
        if hasattr(source, "read"):
            image, size, scale = decode(source, classifier)
        else:
            image, scale = as_pil_image(source), 1
            size = image.size
        return upright_rgb(image, size)._replace(scale=scale)


def as_pil_image(image):
    """Returns the PIL image of an array of RGB pixels, or a PIL image as it is."""
    import numpy as np
    from PIL import Image

    if not isinstance(image, Image.Image):
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                "expected a path, a PIL image or a uint8 array (height, width, 3), "
                f"received {type(image).__name__} {pixels.shape} of {pixels.dtype}"
            )
        image = Image.fromarray(pixels)
    if 0 in image.size:
        raise ValueError(f"expected pixels, received {image.width} x {image.height}")
    return image


def read_stdin():
    """Reads an image from the standard input into memory, since it cannot seek."""
    if sys.stdin is None:
        raise UserError("standard input: it is closed")
    file = io.BytesIO(sys.stdin.buffer.read(MAX_IMAGE_BYTES + 1))
    file.name = "standard input"
    if len(file.getbuffer()) > MAX_IMAGE_BYTES:
        raise UserError(f"{file.name}: more than {MAX_IMAGE_BYTES} bytes")
    return file


def decode(file, classifier):
    """Decodes the pixels of a file.

    Returns:
        (PIL image as it was stored, (width, height) of the part that is filled, by
        how much its sides were divided).
    """
    from PIL import Image

    start = file.read(16)
    file.seek(0)
    if not start:
        raise ValueError("empty, expected an image")
    is_jpeg = start[:3] == b"\xff\xd8\xff"
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        teach_pillow_heif()
    try:
        image = (is_jpeg and open_jpeg(file)) or Image.open(file)
    except OSError as error:
        raise ValueError(f"not an image, or damaged; it begins {start!r}") from error
    if image.format not in FORMATS:
        raise ValueError(
            f"expected one of {', '.join(FORMATS)}, received {image.format}"
        )
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
        )
    if is_jpeg:
        # The header of a scan has 8 to 14 bytes. Others that look alike may follow
        # the image: the film of a phone's moving picture.
        file.seek(0)
        data = file.read(MAX_IMAGE_BYTES)
        scans = len(re.findall(b"\xff\xda\0[\x08\x0a\x0c\x0e]", data))
        if scans > MAX_SCANS:
            raise ValueError(f"{scans} scans, expected at most {MAX_SCANS}")
    scale, (width, height) = 1, image.size
    if classifier and is_jpeg:
        scale = reduction(image.size, geometry_of(classifier))
    if scale > 1:
        image.draft(image.mode, (width // scale, height // scale))
    image.load()
    return image, (width / scale, height / scale), scale


def teach_pillow_heif():
    """Lets Pillow open HEIF files, by the optional package pillow-heif."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ValueError("HEIC needs pillow-heif: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()


def open_jpeg(file):
    """Opens a JPEG, or returns None; `Image.open` imports other formats, for 3 ms."""
    from PIL import JpegImagePlugin

    try:
        return JpegImagePlugin.jpeg_factory(file, "")
    except Exception:  # `Image.open` comes next and says what is wrong
        file.seek(0)
        return None


def reduction(size, how):
    """Returns by how much the sides of a JPEG are divided when it is decoded.

    Args:
        size: (width, height) of the image, as it is stored.
        how: `Preprocessing`.

    Returns:
        1, 2, 4 or 8. Sides that this does not divide are rounded up, so that the last
        row or column of the decoded image is not filled with the image alone.
    """
    if not may_shrink(how):
        return 1
    least = [how.reduced_decoding * pixels for pixels in needed_size(size, how)]
    room = min(pixels // needed for pixels, needed in zip(size, least))
    return next(scale for scale in (8, 4, 2, 1) if scale <= max(room, 1))


def needed_size(size, how):
    """Returns the (width, height) to which an image of this size is resized."""
    if how.resize == "stretch":
        return how.resize_size, how.resize_size  # EXIF may still turn it
    fitted = max(size) if how.resize == "pad" else min(size)
    return [math.ceil(how.resize_size * pixels / fitted) for pixels in size]


def geometry_of(classifier):
    """Returns the preprocessing of a classifier, or how others feed their models."""
    size = classifier.input_shape[1:3]
    stretched = Preprocessing(size, interpolation="lanczos", resize="stretch")
    return classifier.preprocessing or stretched


def upright_rgb(image, size):
    """Turns an image upright as EXIF says and converts it to RGB.

    Args:
        image: PIL image of any mode, filled from its upper left corner.
        size: (width, height) of the part that is filled.

    Returns:
        `DecodedImage`.
    """
    file_format = image.format
    turned = upright(image, size, orientation_of(image))
    return turned._replace(image=to_rgb(turned.image, file_format))


def orientation_of(image):
    """Returns the EXIF orientation of a PIL image; None where it has none."""
    # Pillow 5 (Mendel Linux) has `_getexif`, for JPEG only.
    read_exif = getattr(image, "getexif", None) or getattr(image, "_getexif", dict)
    try:
        return (read_exif() or {}).get(0x0112)
    except Exception:  # damaged EXIF: the pixels are whole all the same
        return None


def upright(image, size, orientation):
    """Turns an image as its EXIF orientation says; see `upright_rgb`."""
    from PIL import Image

    if orientation in UPRIGHT:
        image = image.transpose(getattr(Image, UPRIGHT[orientation]))
    else:
        orientation = 1
    width, height = size[::-1] if orientation > 4 else size
    left = image.width - width if orientation in (2, 3, 6, 7) else 0
    top = image.height - height if orientation in (3, 4, 7, 8) else 0
    return DecodedImage(image, (left, top, left + width, top + height), 1)


def to_rgb(image, file_format):
    """Converts an image of any mode to RGB, as training's tf.io.decode_image does.

    Alpha is dropped, and 16-bit grey keeps its high byte (Pillow alone would clip it).
    """
    import numpy as np
    from PIL import Image

    # Older versions of Pillow give 16-bit grey PNG the mode of 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known range; save it with 8 or 16 bits")
    return image if image.mode == "RGB" else image.convert("RGB")


def prepare(image, classifier, box=None):
    """Resizes an RGB image, or the box of a `DecodedImage`, to the model's input.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: the image is too elongated to be resized within MAX_PIXELS.
    """
    return resize_and_crop(image, geometry_of(classifier), box)


# --- Output: messages on stderr, results on stdout, annotated images ------------------


class Messages:
    """Prints on stderr: one line per error or warning, and the progress.

    Attributes:
        errors: int, how many there were.
    """

    def __init__(self, quiet=False):
        """Starts without errors; `quiet` counts messages and prints none."""
        self.errors = 0
        self._quiet = quiet
        self._shown = None  # when the progress was shown last

    def error(self, error):
        """Prints an error: an exception or text."""
        self.errors += 1
        self._print(f"error: {printable(error)}")

    def warning(self, text):
        """Prints what a user should know, though the results are right."""
        self._print(f"warning: {printable(text)}")

    def progress(self, done, total, since):
        """Shows on a terminal how many images are finished since a `perf_counter()`."""
        now = time.perf_counter()
        if not sys.stderr or not sys.stderr.isatty():
            return
        if done < total and now - (self._shown or since) < 0.2:
            return
        self._shown = now
        text = f"{done} of {total} images, {done / (now - since):.1f} per second"
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)

    def _print(self, line):
        # A closed stderr is None, for which print would write on stdout.
        if sys.stderr and not self._quiet:
            start = "\r\x1b[K" if self._shown else ""
            print(start + line, file=sys.stderr, flush=True)


def write_lines(text):
    """Prints whole lines at once: native code may end us between two writes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(path, found, times):
    """Prints the result for one image as a line of JSON.

    Args:
        path: of the image.
        found: dict of what was found in it.
        times: {stage: milliseconds}.
    """
    write_lines(json.dumps(dict({"file": path}, **found, milliseconds=times)))


def print_rows(rows):
    """Prints rows of CSV."""
    import csv  # other outputs need no time for it

    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    sys.stdout.flush()


def print_csv_header(columns, stages):
    """Prints the names of the columns that `print_csv` fills."""
    print_rows([["file", *columns, *(f"{stage}_ms" for stage in stages)]])


def print_csv(path, rows, columns, times, stages):
    """Prints the result for one image as rows of CSV, one for each thing in it."""
    spent = [times.get(stage, "") for stage in stages]
    # Where nothing was found, a row says so.
    print_rows([path, *row, *spent] for row in rows or [[""] * len(columns)])


def print_table(path, lines, times):
    """Prints the result for one image for people."""
    spent = ", ".join(f"{name} {value:.1f} ms" for name, value in times.items())
    write_lines("\n".join([f"{printable(path)}  ({spent})", *lines]))


def table_lines(top):
    """Formats predictions, one per line."""
    return [
        f"{score:10.4f}  {index:5d}  {printable(label or '')}".rstrip()
        for index, label, score in top
    ]


def enlarged(image):
    """Returns a copy of an image, in which text is large enough to read.

    Returns:
        (PIL image, by how much its sides were multiplied).
    """
    from PIL import Image

    times = min(256 // min(image.size), 4096 // max(image.size))
    if times > 1:
        size = [times * pixels for pixels in image.size]
        return image.resize(size, Image.NEAREST), times
    return image.copy(), 1


class Pen:
    """Draws text of one size on an image."""

    def __init__(self, image):
        """Takes a PIL image of mode RGB, which is drawn on."""
        from PIL import ImageDraw

        self.draw = ImageDraw.Draw(image)
        self.height = max(10, image.height // 24)
        self._font, self._only_latin = load_font(self.height)

    def write(self, left, upper, score, label):
        """Writes a score from 0 to 1 and a label."""
        text = f"{score:.2f} {printable(label)}"
        if self._only_latin:
            text = text.encode("latin-1", "replace").decode("latin-1")
        self.draw.text((left + 1, upper + 1), text, fill="black", font=self._font)
        self.draw.text((left, upper), text, fill="white", font=self._font)

    def write_list(self, pairs):
        """Writes pairs of score and label below each other, from the upper left."""
        for line, pair in enumerate(pairs):
            upper = self.height // 2 + line * self.height * 5 // 4
            self.write(self.height // 2, upper, *pair)


def save_image(image, path, file_format, **options):
    """Writes an image, whole or not at all."""
    part = f"{path}.part"
    with user_errors(path, OSError, ValueError):
        image.save(part, file_format, **options)
        os.replace(part, path)


def load_font(height):
    """Returns (font of about `height` pixels, whether it has Latin-1 alone)."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", height), False
    except (OSError, ImportError):  # Pillow's own font has no more
        return ImageFont.load_default(), True


def output_path(folder, number, path, suffix):
    """Names a file for an image; the number keeps equal names apart."""
    name = os.path.splitext(os.path.basename(path))[0]
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:100]
    return os.path.join(folder, f"{number:05d}_{name}{suffix}")


# --- The supervisor: the work is done in a child process, since native code may crash -

FORWARDED = (signal.SIGINT, signal.SIGTERM)
MAX_CRASHES = 3
CRASH_HINT = (
    "the file may be damaged, or the delegate built for another version of the runtime"
)


class SharedState(ctypes.Structure):
    """What the working process tells the supervisor, in memory that both share.

    Attributes:
        done: int, how many images are finished.
        resumable: bool, whether another process can go on with the next image.
        overlapping: bool, whether several images are in work at once.
        one_by_one: bool, whether that is forbidden, because several were in work
            when a process crashed.
    """

    _fields_ = [
        ("done", ctypes.c_int64),
        ("resumable", ctypes.c_bool),
        ("overlapping", ctypes.c_bool),
        ("one_by_one", ctypes.c_bool),
        ("_begun", ctypes.c_char * 4000),
    ]

    def begin(self, text):
        """Notes what is begun, in case it crashes the process."""
        self._begun = text.encode("utf-8", "backslashreplace")[:4000]

    def last_begun(self):
        """Returns what was begun last."""
        return self._begun.decode("utf-8", "replace")


def run_and_exit(work, state):
    """Runs `work` in the child process, and keeps native code off its stderr."""
    with contextlib.suppress(Exception):  # only Linux can end a child with its parent
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # Ctrl-C reaches the child through its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    with contextlib.suppress(OSError, AttributeError):  # a closed stderr
        own = os.dup(2)
        sys.stderr = open(own, "w", buffering=1, encoding=sys.stderr.encoding)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        code = work(state)
    except SystemExit as leaving:  # --help
        code = leaving.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # native libraries crash most at a regular exit


def run_child(work, state):
    """Returns the exit code of a child process, or minus the signal that ended it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = os.fork()
    if not child:
        run_and_exit(work, state)
    received = []

    def forward(number, frame):
        received.append(number)
        # The first one asks the child to end, the second one kills it.
        os.kill(child, signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    status = os.waitpid(child, 0)[1]
    if received:
        return 130
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def supervise(work):
    """Runs `work` in child processes, so that a crash of native code is one line.

    After a crash with several images in work, the next child takes them one by one:
    then the image that crashes it is known, and the child after it goes on with the
    next image. A result that was just being printed is printed again, rather than
    never.

    Args:
        work: function of a `SharedState`; returns the exit code.

    Returns:
        the exit code.
    """
    state = SharedState.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
    messages, code = Messages(), -1
    while code < 0:
        last_code, code = code, run_child(work, state)
        if code < 0 and (state.one_by_one or not state.overlapping):
            why = signal.Signals(-code).name
            hint = "out of memory?" if -code == signal.SIGKILL else CRASH_HINT
            messages.error(f"{state.last_begun()}: native code crashed ({why}); {hint}")
            if messages.errors == MAX_CRASHES or not state.resumable:
                return 2
            state.done += 1
        state.one_by_one = code < 0 or state.one_by_one
    if state.one_by_one and not messages.errors:
        why = signal.Signals(-last_code).name
        messages.error(f"native code crashed ({why}), and did not when tried again")
    return 2 if messages.errors and code == 0 else code


# --- The pipeline: images are decoded by threads while the model runs on others -------

# `answer` is what the model's `interpret` returns; `decoded` is the `DecodedImage`,
# without its pixels if nobody needs them.
Result = collections.namedtuple("Result", "answer times decoded")


def milliseconds_since(start):
    """Returns the time since `start`, a `time.perf_counter()`, to the microsecond."""
    return round(1000 * (time.perf_counter() - start), 3)


def load_pixels(path, model, keep=False):
    """Reads and prepares one image.

    Returns:
        (pixels for the model, {"decode" | "resize": milliseconds}, the `DecodedImage`,
        with all its pixels if `keep` is set, else without any).
    """
    start = time.perf_counter()
    decoded = read_image(path, None if keep else model)
    times = {"decode": milliseconds_since(start)}
    start = time.perf_counter()
    with user_errors(path, ValueError, MemoryError):
        pixels = prepare(decoded.image, model, decoded.box)
    times["resize"] = milliseconds_since(start)
    return pixels, times, decoded if keep else decoded._replace(image=None)


def invoke(model, pixels, times, decoded=None):
    """Returns the `Result` of a model, with its time added to `times`.

    That is "invoke", and "postprocess" where boxes or a mask are made of the outputs.
    """
    start = time.perf_counter()
    outputs = model.outputs(pixels)
    times = dict(times, invoke=milliseconds_since(start))
    start = time.perf_counter()
    answer = model.interpret(outputs)
    if model.task != "classify":
        times["postprocess"] = milliseconds_since(start)
    return Result(answer, times, decoded)


def run_all(paths, model, state, keep=False):
    """Yields (path, `Result` or UserError) of images in their order."""

    def load(path):
        return result_or_error(load_pixels, path, model, keep)

    for path, loaded in map_ahead(load, list(paths), state):
        state.begin(f"{path}: running {model.path} on it")
        if not isinstance(loaded, UserError):
            loaded = result_or_error(invoke, model, *loaded)
        yield path, loaded
        state.done += 1


def map_ahead(function, paths, state):
    """Yields (path, function(path)) in order; threads compute a few paths ahead."""
    if len(paths) < 2 or state.one_by_one:
        for path in paths:
            state.begin(f"{path}: reading it")
            yield path, function(path)
        return
    from concurrent.futures import ThreadPoolExecutor  # one image needs no 4 ms for it

    state.overlapping = True
    # How long the thread that runs the model waits for one that runs Python.
    sys.setswitchinterval(0.0005)
    workers = default_threads()
    pool, waiting = ThreadPoolExecutor(workers), collections.deque()
    try:
        for path in paths:
            waiting.append((path, pool.submit(function, path)))
            if len(waiting) > 2 * workers:
                path, future = waiting.popleft()
                yield path, future.result()
        for path, future in waiting:
            yield path, future.result()
    finally:
        pool.shutdown(wait=False)  # Ctrl-C: one may wait for the standard input


# --- Sources of images: files, folders, patterns, a watched folder, a camera ----------

SUFFIXES = tuple(".jpg .jpeg .png .bmp .gif .tif .tiff .webp .heic .heif".split())
WATCH_SECONDS = 0.5
PI_CAMERA = "the camera module of a Raspberry Pi is --camera=picamera"


def find_images(arguments, messages):
    """Lists the image files that arguments of the command line stand for.

    Args:
        arguments: list of str. Each is a file, taken as it is; "-", the standard
            input; a pattern that no shell expanded; or a folder: the files with an
            image's suffix at all levels below it, sorted. Links are followed, but no
            folder is visited twice.
        messages: `Messages`, for folders that cannot be read or hold no image.
    """
    found = []
    for argument in arguments:
        if re.search(r"[*?\[]", argument) and not os.path.lexists(argument):
            import glob  # the shell expands most patterns

            matches = sorted(glob.glob(argument, recursive=True))
            if not matches:
                messages.error(f"{argument}: no file matches")
            found += find_images(matches, messages)
        elif os.path.isdir(argument):
            before, below = messages.errors, find_images_below(argument, messages)
            if not below and messages.errors == before:
                suffixes = " ".join(SUFFIXES)
                messages.error(f"{argument}: no image in this folder ({suffixes})")
            found += below
        else:
            found.append(argument)
    return found


def find_images_below(root, messages):
    """Lists the image files of a folder, at all levels, sorted."""
    found, visited = [], set()
    walk = os.walk(root, onerror=messages.error, followlinks=True)
    for folder, subfolders, names in walk:
        real_folder = os.path.realpath(folder)
        if real_folder in visited:
            del subfolders[:]
            continue
        visited.add(real_folder)
        found += [os.path.join(folder, name) for name in names if is_image(name)]
    return sorted(found)


def class_folders(root):
    """Returns the names of the folders in a folder, which name classes, sorted.

    Raises:
        UserError: there is none.
    """
    with user_errors(root, OSError):
        names = sorted(
            entry.name
            for entry in os.scandir(root)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    if not names:
        raise UserError(f"{root}: expected a folder for each class, found none")
    return names


def is_image(name):
    """Tells by its name whether a file in a folder is an image.

    Hidden files are not: macOS puts a file `._photo.jpg` beside each `photo.jpg`.
    """
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def watch(folder):
    """Yields the images that appear in a folder from now on, each once it is whole."""
    seen, growing = None, {}
    while True:
        now = {}
        with user_errors(folder, OSError):
            for entry in os.scandir(folder):
                with contextlib.suppress(OSError):  # deleted in the meantime
                    if is_image(entry.name):
                        status = entry.stat()
                        now[entry.path] = (status.st_mtime_ns, status.st_size)
        seen = now if seen is None else seen
        for path in sorted(now):
            if seen.get(path) != now[path] == growing.get(path):
                seen[path] = now[path]
                yield path
        growing = now
        seen = {path: seen[path] for path in seen if path in now}
        time.sleep(WATCH_SECONDS)


def camera_frames(camera):
    """Yields ("camera N frame M", PIL image, milliseconds that it took) without end.

    Args:
        camera: a number of OpenCV's, or "picamera", the Pi's camera module.

    Raises:
        UserError: the package or the camera is missing, or the camera stopped.
    """
    from PIL import Image

    frames = picamera_frames() if camera == "picamera" else opencv_frames(camera)
    start = time.perf_counter()
    with contextlib.closing(frames):
        for number, pixels in enumerate(frames):
            image = Image.fromarray(pixels)
            yield f"camera {camera} frame {number}", image, milliseconds_since(start)
            start = time.perf_counter()


def opencv_frames(number):
    """Yields RGB pixels, uint8 (height, width, 3), of a camera that OpenCV opens."""
    hint = f"--camera={number} needs OpenCV (pip install opencv-python); {PI_CAMERA}"
    with user_errors(hint, ImportError):
        cv2 = importlib.import_module("cv2")
    with silenced_stderr():
        capture = cv2.VideoCapture(number)
    try:
        for frame in itertools.count():
            captured, pixels = capture.read()
            if not captured:
                what = "stopped" if frame else "cannot be opened"
                raise UserError(
                    f"camera {number}: {what}; is it plugged in, and may you read "
                    f"/dev/video{number}? ({PI_CAMERA})"
                )
            yield pixels[..., ::-1].copy()  # OpenCV's blue is first
    finally:
        capture.release()


def picamera_frames():
    """Yields RGB pixels, uint8 (480, 640, 3), of the Pi's camera by picamera2."""
    hint = "--camera=picamera needs picamera2 (sudo apt install python3-picamera2)"
    with user_errors(hint, ImportError):
        picamera2 = importlib.import_module("picamera2")
    # picamera2 raises IndexError for no camera, RuntimeError for one in use.
    with user_errors("camera picamera: cannot be opened", IndexError, RuntimeError):
        with silenced_stderr():  # libcamera logs there
            camera = picamera2.Picamera2()
    try:
        with user_errors("camera picamera", RuntimeError, OSError):
            # By libcamera's name; in memory, red comes first.
            main = {"format": "BGR888", "size": (640, 480)}
            camera.configure(camera.create_preview_configuration(main=main))
            camera.start()
        while True:
            with user_errors("camera picamera: stopped", RuntimeError, OSError):
                pixels = camera.capture_array()
            yield pixels
    finally:
        camera.close()


# --- Learning: a classifier of features, and when it answers `unknown` ----------------

UNKNOWN = "unknown"  # the label of what belongs to no class
NOTHING = "_none"  # the folder of its pictures
KNOWN_SHARE = 0.95  # of new pictures of the classes, by default
# What cosines are multiplied by to become logits, as in Qi et al., "Low-shot learning
# with imprinted weights", arXiv 1712.07136, where it is learned.
SCALE = 40.0
# Inverse strengths of the penalty (scikit-learn's C) that are tried, strongest first.
# With 0, the class means are the classifier.
STRENGTHS = (0.0, 5.0, 50.0, 500.0, 5000.0)
# How sure a share of known pictures must be; see `known_from`.
CONFIDENCE = 0.95
TEMPERATURES = (0.1, 10.0)  # the least and the greatest


def unit(features):
    """Divides rows by their Euclidean length; a row of zeros stays as it is.

    Args:
        features: (..., channels).

    Returns:
        float64 array of the same shape.
    """
    import numpy as np

    features = np.asarray(features, np.float64)
    length = np.sqrt((features**2).sum(-1, keepdims=True))
    return features / np.where(length > 0, length, 1)


def class_means(features, labels, classes):
    """Returns the mean direction of each class.

    Args:
        features: (pictures, channels).
        labels: int (pictures,).
        classes: int; pictures of other labels do not count.

    Returns:
        float64 (classes, channels), rows of length 1: the means of the unit features,
        divided by their length. The row of a class without pictures is 0.
    """
    return unit(_one_hot(labels, classes).T @ unit(features))


def _one_hot(labels, classes):
    import numpy as np

    return np.float64(np.asarray(labels)[:, np.newaxis] == np.arange(classes))


def softmax(logits):
    """Returns the shares (..., classes) of logits."""
    import numpy as np

    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def losses(logits, labels):
    """Returns the cross entropy of each picture, in nats, (pictures,)."""
    import numpy as np

    logits = logits - logits.max(-1, keepdims=True)
    right = logits[np.arange(len(labels)), labels]
    return np.log(np.exp(logits).sum(-1)) - right


def fit(features, labels, classes, columns, strengths, weights=None, kept=None):
    """Fits classifiers of the directions of features, one for each strength.

    The logits are `unit(features) @ kernel + bias`. At first, the kernel is `SCALE`
    times the class means: a picture belongs to the class whose mean has the highest
    cosine with it. A logistic regression moves the kernel where that tells the classes
    apart better, and its penalty holds the kernel near the means. So the highest logit
    still says how near a picture is to what was learned.

    Args:
        features: (pictures, channels).
        labels: int (pictures,): of a class, or `classes` for a picture of nothing.
        classes: int, 1 or more.
        columns: int, `classes`, or one more for pictures of nothing, which have a mean
            too; without any such picture, its logits are 0.
        strengths: inverse strengths of the penalty, from the lowest to the highest;
            with 0, the means stay as they are.
        weights: (pictures,), how much each picture counts; None is 1.
        kept: {class: (channels,)}, what an earlier fit found for some classes; it
            stands in the place of their means.

    Yields:
        (kernel, bias): float64 (channels, columns) and (columns,).
    """
    import numpy as np

    units = unit(features)
    learned = columns
    if (np.asarray(labels) < classes).all():
        learned = classes
    means = np.zeros((units.shape[1], columns))
    means[:, :learned] = SCALE * class_means(units, labels, learned).T
    for index, column in (kept or {}).items():
        means[:, index] = column
    found = means.copy(), np.zeros(columns)
    for strength in strengths:
        if strength:
            found[0][:, :learned], found[1][:learned] = logistic_regression(
                units,
                labels,
                learned,
                strength,
                weights,
                means[:, :learned],
                (found[0][:, :learned], found[1][:learned]),
            )
        yield found[0].copy(), found[1].copy()


def logistic_regression(
    features, labels, classes, strength, weights=None, centre=0.0, start=None
):
    """Fits a multinomial logistic regression with an L2 penalty of the kernel.

    It minimizes what scikit-learn's `LogisticRegression(C=strength)` minimizes, by
    Newton's method with conjugate gradients (Nocedal and Wright, "Numerical
    Optimization", algorithm 7.1). For two classes scikit-learn penalizes the difference
    of the two columns, which is half as strict.

    Args:
        features: (pictures, channels).
        labels: int (pictures,).
        classes: int, 2 or more.
        strength: inverse strength of the penalty, above 0.
        weights: (pictures,), how much each picture counts; None is 1.
        centre: (channels, classes), the kernel that is not penalized.
        start: (kernel, bias) to begin with; None is 0.

    Returns:
        (kernel, bias): float64 (channels, classes) and (classes,).
    """
    import numpy as np

    features = np.asarray(features, np.float64)
    # The bias takes up the mean, without which far fewer steps are needed.
    mean = features.mean(0)
    inputs = np.column_stack([features - mean, np.ones(len(features))])
    counts = np.ones((len(inputs), 1)) if weights is None else weights[:, np.newaxis]
    wanted = _one_hot(labels, classes)
    penalty = np.full((inputs.shape[1], 1), (2 if classes == 2 else 1) / strength)
    penalty[-1] = 0  # of the bias
    middle = np.zeros((inputs.shape[1], classes))
    middle[:-1] = centre

    def loss_of(found):
        of_pictures = losses(inputs @ found, labels)
        return of_pictures @ counts[:, 0] + (penalty * (found - middle) ** 2).sum() / 2

    found = np.zeros_like(middle)
    if start is not None:
        found[:-1], found[-1] = start[0], start[1] + mean @ start[0]
    loss, first = loss_of(found), None
    while True:
        shares = softmax(inputs @ found)
        gradient = inputs.T @ (counts * (shares - wanted))
        gradient += penalty * (found - middle)
        size = np.sqrt((gradient**2).sum())
        first = first or size
        if not size > max(1e-6 * first, 1e-9 * counts.sum()):  # nor is NaN
            break
        # As exact as the weights are; more would be lost in rounding.
        tolerance = min(0.1, max(size / first, 1e-4))
        step = _newton_step(inputs, counts, shares, penalty, gradient, tolerance)
        slope, length = (gradient * step).sum(), 1.0
        # What is left at the end is smaller than the rounding of the loss.
        while loss_of(found + length * step) > loss + 1e-4 * length * slope:
            length /= 2
            if length < 1e-6:
                return found[:-1], found[-1] - mean @ found[:-1]
        found = found + length * step
        loss = loss_of(found)
    return found[:-1], found[-1] - mean @ found[:-1]


def _newton_step(inputs, counts, shares, penalty, gradient, tolerance):
    """Solves Hessian @ step = -gradient by conjugate gradients."""
    import numpy as np

    def hessian_times(step):
        change = inputs @ step
        change = shares * (change - (shares * change).sum(1, keepdims=True))
        return inputs.T @ (counts * change) + penalty * step

    step, residual = np.zeros_like(gradient), -gradient
    direction, square = residual, (residual**2).sum()
    enough = tolerance**2 * square
    for _ in range(gradient.size):
        bent = hessian_times(direction)
        length = square / (direction * bent).sum()
        step = step + length * direction
        residual = residual - length * bent
        before, square = square, (residual**2).sum()
        if square <= enough:
            break
        direction = residual + square / before * direction
    return step


def temperature(logits, labels):
    """Returns what logits are divided by, so that their softmax is calibrated.

    That is the least cross entropy on pictures that the classifier did not learn (Guo
    et al., "On calibration of modern neural networks", arXiv 1706.04599). Few pictures
    may all be right, and then no temperature would be low enough: the targets are
    (right + 1) / (pictures + 2) instead of 1, as in Platt's "Probabilistic outputs for
    support vector machines", 1999.

    Args:
        logits: (pictures, classes).
        labels: int (pictures,).

    Returns:
        float, within `TEMPERATURES`.
    """
    import numpy as np

    number, classes = logits.shape
    if classes < 2:
        return 1.0
    share = (number + 1) / (number + 2)
    targets = np.full_like(logits, (1 - share) / (classes - 1), dtype=np.float64)
    targets[np.arange(number), labels] = share
    tried = np.geomspace(*TEMPERATURES, 401)

    def loss(value):
        scaled = logits / value
        scaled = scaled - scaled.max(1, keepdims=True)
        return (np.log(np.exp(scaled).sum(1)) - (targets * scaled).sum(1)).mean()

    return float(min(tried, key=loss))


def best_of(measured):
    """Returns which strength answers best pictures that the classifiers did not learn.

    It is the strongest penalty, unless a weaker one `is_better`: the nearer a
    classifier is to the class means, the better it tells what is unknown.

    Args:
        measured: list of (losses, share of right answers) of each picture, as for
            `is_better`, the strongest penalty first.

    Returns:
        int, the place of the strength.
    """
    best = 0
    for place, found in enumerate(measured):
        if is_better(found, measured[best]):
            best = place
    return best


def calibrated_measures(logits, labels):
    """Returns cross entropy and whether it is right, of each picture, as a pair.

    The logits are divided by the temperature that suits them.
    """
    scaled = logits / temperature(logits, labels)
    return losses(scaled, labels), scaled.argmax(1) == labels


def is_better(one, other):
    """Returns whether a classifier is better than another, beyond chance.

    Its losses must be lower by more than a standard error of the difference. More
    pictures must be right, too: a loss alone may be lower because a strong penalty has
    made the other classifier too modest.

    Args:
        one: (losses, share of right answers) of each picture, two arrays (pictures,).
        other: likewise, of the same pictures.
    """
    gain = other[0] - one[0]
    beyond_chance = gain.mean() > gain.std() / len(gain) ** 0.5
    return bool(beyond_chance and one[1].mean() > other[1].mean())


def known_from(logits, classes, share):
    """Returns the bias of `unknown` with which a share of the pictures is known.

    A picture is known if the highest logit of a class exceeds that of `unknown`. Of
    new pictures, at least the given share is known with a probability of `CONFIDENCE`:
    that is the lower tolerance limit of Wilks, "Determination of sample sizes for
    setting tolerance limits", 1941. Where the pictures are too few for it, all of them
    are known.

    Args:
        logits: (pictures, columns), of pictures of classes that the classifier did not
            learn.
        classes: int, the first columns; one more is that of `unknown` without bias.
        share: in (0, 1).

    Returns:
        float.
    """
    import numpy as np

    margins = logits[:, :classes].max(1)
    if logits.shape[1] > classes:
        margins = margins - logits[:, classes]
    below = _tolerated(len(margins), share)
    return float(np.sort(margins)[max(below - 1, 0)])


def _tolerated(number, share):
    """Returns how many of some pictures may be no better than the limit.

    It is the highest number k for which fewer than k pictures outside of a share occur
    with a probability of at most 1 - CONFIDENCE, by the binomial distribution.
    """
    total, count = 0.0, 0
    while count < number:
        ways = math.lgamma(number + 1) - math.lgamma(count + 1)
        ways -= math.lgamma(number - count + 1)
        logarithm = count * math.log(1 - share) + (number - count) * math.log(share)
        total += math.exp(ways + logarithm)
        if total > 1 - CONFIDENCE:
            break
        count += 1
    return count


def calibrated(logits, labels, classes, share):
    """Returns (temperature, bias of `unknown`), from pictures that were not learned.

    Args:
        logits: (pictures, columns), as for `known_from`, of all pictures.
        labels: int (pictures,): of a class, or `classes` for a picture of nothing.
        classes: int.
        share: of the pictures of classes that must be known; 1 gives None for a bias.
    """
    own = labels < classes
    scale = temperature(logits[own, :classes], labels[own])
    return scale, known_from(logits[own], classes, share) if share < 1 else None


def with_unknown(kernel, bias, classes, known):
    """Gives a classifier the column of `unknown`.

    Args:
        kernel: (channels, classes), or with a column for pictures of nothing.
        bias: likewise.
        classes: int.
        known: of `known_from`; None leaves the classifier as it is.

    Returns:
        (kernel, bias) with one more column than classes.
    """
    import numpy as np

    if known is None:
        return kernel, bias
    if len(bias) == classes:
        kernel = np.concatenate([kernel, np.zeros((len(kernel), 1))], axis=1)
        bias = np.append(bias, 0.0)
    else:
        bias = np.array(bias)
    bias[classes] += known
    return kernel, bias


# --- The classifier that a device learns: how it is chosen, and what it answers -------

FOLDS = 5

# A classifier of features; `head_scores` says how it answers.
#   kernel     (channels, columns): from unit features to logits. The columns are the
#              classes, and one more if `unknown` is answered.
#   bias       (columns,)
Head = collections.namedtuple("Head", "kernel bias")

# What `choose_head` found.
#   strength  one of STRENGTHS; 0 stands for the class means
#   answers   (pictures,): what each picture was taken for in the cross-validation
Choice = collections.namedtuple("Choice", "head strength answers")


def head_scores(features, head):
    """Returns the scores of a classifier of features.

    Args:
        features: (pictures, channels).
        head: `Head`.

    Returns:
        float64 (pictures, columns), rows of sum 1.
    """
    return softmax(unit(features) @ head.kernel + head.bias)


def choose_head(features, labels, classes, share):
    """Fits the classifier that a cross-validation finds best; see `learning.fit`.

    The same pictures tell how sure its scores may be, and when a picture is unknown.

    Args:
        features: (pictures, channels).
        labels: int (pictures,): of a class, or `classes` for a picture of nothing.
            Each occurs twice or more.
        classes: int, 2 or more.
        share: of new pictures of the classes that must be known, in (0, 1]; 1 makes a
            classifier without `unknown`, for which no picture may be of nothing.

    Returns:
        `Choice`.
    """
    import numpy as np

    units, labels = unit(features), np.asarray(labels)
    columns = max(classes, int(labels.max()) + 1)
    folds = fold_numbers(labels)
    logits = np.empty((len(STRENGTHS), len(labels), columns))
    for fold in np.unique(folds):
        learned, tested = folds != fold, folds == fold
        fits = fit(units[learned], labels[learned], classes, columns, STRENGTHS)
        for row, (kernel, bias) in enumerate(fits):
            logits[row, tested] = units[tested] @ kernel + bias
    row = best_of([calibrated_measures(each, labels) for each in logits])
    scale, known = calibrated(logits[row], labels, classes, share)
    ((kernel, bias),) = fit(units, labels, classes, columns, [STRENGTHS[row]])
    kernel, bias = with_unknown(kernel, bias, classes, known)
    # What `unknown` adds to logits is what it adds to a classifier of logits.
    same, added = with_unknown(np.eye(columns), np.zeros(columns), classes, known)
    answers = (logits[row] @ same + added).argmax(1)
    return Choice(Head(kernel / scale, bias / scale), STRENGTHS[row], answers)


def fold_numbers(labels):
    """Divides pictures among folds; a class of two pictures or more is in several.

    Pictures that follow each other stay together: they often show one scene.

    Args:
        labels: int (pictures,).

    Returns:
        int (pictures,), from 0 to FOLDS - 1.
    """
    import numpy as np

    folds = np.empty(len(labels), int)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        folds[own] = np.arange(len(own)) * FOLDS // len(own)
    return folds


# --- The file of learned classes: --learn writes it, --classes names it ---------------

CLASSES_VERSION = 1
MAX_CLASSES_BYTES = 16 << 20
# Far beyond what a classifier of unit features needs; scores stay finite.
LARGEST_NUMBER = 1e6
DECIMALS = 7  # scores are shown with four

# What a file holds: the labels of the classes, without `unknown`, and their `Head`.
Learned = collections.namedtuple("Learned", "labels head")


def model_sha256(path):
    """Returns the SHA-256 of a model file, in hexadecimal."""
    import hashlib  # most starts need no 2 ms for it

    with open_file(path) as file:
        return hashlib.sha256(file.read()).hexdigest()


def check_labels(labels):
    """Raises ValueError for what cannot be the labels of learned classes."""
    if not isinstance(labels, list) or len(labels) < 2:
        raise ValueError("expected labels of 2 classes or more")
    if len(set(labels)) < len(labels):
        raise ValueError("expected labels that differ")
    for label in labels:
        if not isinstance(label, str) or not label or "\n" in label:
            raise ValueError(f"expected a label of one line, received {label!r:.80}")
        label.encode("utf-8")
    if UNKNOWN in labels:
        raise ValueError(f"expected no class of the name {UNKNOWN!r}")


def read_classes(path, model_path, channels):
    """Reads a file of learned classes.

    Args:
        path: of the file.
        model_path: of the features file that it must have been learned with.
        channels: int, how many features that gives.

    Returns:
        `Learned`.

    Raises:
        UserError: there is no such file, it belongs to another model, or it is damaged.
    """
    with open_file(path) as file, user_errors(path, OSError, ValueError):
        data = read_at_most(file, MAX_CLASSES_BYTES)
    try:
        found = json.loads(data.decode("utf-8"))
        version, sha256 = found["version"], found["model_sha256"]
        if type(version) is not int or version < 1:
            raise ValueError(f"version {version!r:.80}")
        learned = None
        if version == CLASSES_VERSION and sha256 == model_sha256(model_path):
            learned = _learned(found, channels)
    except UserError:
        raise
    # Whatever stands in the place of what is expected.
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise UserError(
            f"{path}: not a file of learned classes, or damaged: {reason:.120}; learn "
            "again into another file"
        ) from e
    if version > CLASSES_VERSION:
        raise UserError(
            f"{path}: version: this runner reads {CLASSES_VERSION}, received "
            f"{version!r:.80}; take the run_tflite.py that wrote it"
        )
    if learned is None:
        raise UserError(
            f"{path}: learned with another model than {model_path}, of SHA-256 "
            f"{sha256!r:.80}; give that one, or learn again into another file"
        )
    return learned


def _learned(found, channels):
    """Returns the `Learned` of a file's content, none of which is trusted."""
    import numpy as np

    labels = found["labels"]
    check_labels(labels)
    head = Head(*(np.array(found[name], float) for name in Head._fields))
    columns = head.bias.size
    if columns not in (len(labels), len(labels) + 1):  # one more is `unknown`
        raise ValueError(f"expected a bias for {len(labels)} classes, found {columns}")
    for name, shape in (("kernel", (channels, columns)), ("bias", (columns,))):
        array = getattr(head, name)
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
        if not (np.abs(array) <= LARGEST_NUMBER).all():  # nor is NaN
            raise ValueError(f"{name}: expected finite numbers to {LARGEST_NUMBER:g}")
    return Learned(labels, head)


def write_classes(path, learned, model_path):
    """Writes a file of learned classes whole or not at all.

    Args:
        path: of the file.
        learned: `Learned`.
        model_path: of the features file that it was learned with.

    Raises:
        UserError: it cannot be written, or is larger than a reader takes.
    """
    content = {
        "version": CLASSES_VERSION,
        "model_sha256": model_sha256(model_path),
        "labels": learned.labels,
    }
    for name, value in learned.head._asdict().items():
        content[name] = value.round(DECIMALS).tolist()
    data = json.dumps(content).encode("ascii")
    if len(data) > MAX_CLASSES_BYTES:
        raise UserError(
            f"{path}: {len(learned.labels)} classes need {len(data)} bytes, expected "
            f"at most {MAX_CLASSES_BYTES}; learn fewer classes"
        )
    part = f"{path}.part"
    with user_errors(path, OSError):
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            if os.path.exists(part):
                os.remove(part)
            raise


# --- --learn: a classifier of the folders of photographs, for a features file ---------

LEAST_PICTURES = 2  # of each class: one to learn from, one to try


def learn_classes(classifier, folder, path, known_share, messages, state):
    """Learns the folders of photographs as classes, and writes their file.

    A bad picture is reported, counted and left out. Nothing is written if anything else
    is wrong, and a file that is there is replaced at the end.

    Args:
        classifier: `Classifier` of a features file.
        folder: of one folder for each class, and perhaps `_none`.
        path: of the file to write, or one of the same model to replace.
        known_share: of new pictures of the classes that must be known, in (0, 1]; 1
            learns no `unknown`.
        messages: `Messages`.
        state: `SharedState`.

    Returns:
        dict of the JSON output, as the help describes it.

    Raises:
        UserError: the classifier gives no features, the folders cannot be learned, or
            the file belongs to another model or cannot be written.
    """
    import numpy as np

    start = time.perf_counter()
    folder, path = os.fspath(folder), os.fspath(path)
    known_share = _checked_share(known_share)
    if not classifier.channels:
        raise UserError(
            f"{classifier.path}: gives scores of classes, and learning needs features; "
            "take a file of edge/export.py --features"
        )
    labels, nothing = find_lessons(folder, known_share)
    if os.path.lexists(path):
        before = read_classes(path, classifier.path, classifier.channels).labels
        lost = [label for label in before if label not in labels]
        if lost:
            raise UserError(
                f"{path} knows {lost[0]!r}, and {folder} has no folder of that name; "
                "add it, or learn into another file"
            )
    expected = {
        picture: number
        for number, name in enumerate(labels + [NOTHING] * nothing)
        for picture in find_images_below(os.path.join(folder, name), messages)
    }
    features, numbers, failures = [], [], []
    for picture, found in features_of(expected, classifier, state):
        if isinstance(found, UserError):
            messages.error(found)
            failures.append({"file": picture, "error": str(found)})
        else:
            features.append(found)
            numbers.append(expected[picture])
        done = len(numbers) + len(failures)
        messages.progress(done, len(expected), start)
    counts = np.bincount(numbers, minlength=len(labels) + nothing).tolist()
    for name, count in zip(labels + [NOTHING], counts):
        if count < LEAST_PICTURES:
            raise UserError(
                f"{os.path.join(folder, name)}: expected {LEAST_PICTURES} pictures or "
                f"more that can be read, found {count}; add some, or remove the folder"
            )
    state.begin(f"{path}: learning it")
    numbers = np.array(numbers)
    choice = choose_head(np.array(features), numbers, len(labels), known_share)
    write_classes(path, Learned(labels, choice.head), classifier.path)
    own = numbers < len(labels)
    known = float(np.mean(choice.answers[own] < len(labels)))
    return {
        "model": classifier.path,
        "classes": path,
        "strength": choice.strength,
        "accuracy": float(np.mean(choice.answers == numbers)),
        "known": known if known_share < 1 else None,
        "pictures": dict(zip(labels, counts)),
        "nothing": counts[-1] if nothing else 0,
        "failures": failures,
        "seconds": round(time.perf_counter() - start, 3),
    }


def _checked_share(share):
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise UserError(f"known_share: expected a number, received {share!r:.80}")
    if not 0 < share <= 1:  # nor is NaN
        raise UserError(
            f"known_share: expected a number above 0 and at most 1, received {share}"
        )
    return share


def find_lessons(folder, known_share):
    """Returns (names of the folders of classes, whether there is one of nothing)."""
    names = class_folders(folder)
    nothing = NOTHING in names
    labels = [name for name in names if name != NOTHING]
    if len(labels) < 2:
        found = " and ".join(map(repr, names))
        raise UserError(
            f"{folder}: expected folders of two classes or more, found {found}; a "
            "classifier needs something to tell apart"
        )
    if nothing and known_share == 1:
        raise UserError(
            f"{folder}: {NOTHING!r} holds pictures of {UNKNOWN!r}, which known_share "
            "of 1 leaves out; give a lower one, or remove the folder"
        )
    with user_errors(f"{folder}: the folders name the classes", ValueError):
        check_labels(labels)
    return labels, nothing


def features_of(paths, classifier, state):
    """Yields (path, features or UserError) of images in their order."""

    def load(path):
        return result_or_error(load_pixels, path, classifier)

    for path, loaded in map_ahead(load, list(paths), state):
        state.begin(f"{path}: running {classifier.path} on it")
        if not isinstance(loaded, UserError):
            loaded = result_or_error(classifier.outputs, loaded[0])
        yield path, loaded


def print_learned(report):
    """Prints what was learned for people."""
    pictures = sum(report["pictures"].values()) + report["nothing"]
    unknown = "" if report["known"] is None else f" and {UNKNOWN}"
    print(
        f"{printable(report['classes'])}: {len(report['pictures'])} classes{unknown}, "
        f"learned from {pictures} pictures in {report['seconds']:.1f} s"
    )
    strength = report["strength"]
    method = f"regression near them, C={strength:g}" if strength else "nothing else"
    print(f"method    class means, then {method}: the best in a cross-validation")
    print(f"accuracy  {report['accuracy']:7.2%} of pictures that it had not seen")
    if report["known"] is not None:
        print(f"known     {report['known']:7.2%} of those of classes are not {UNKNOWN}")
    for label, count in report["pictures"].items():
        print(f"{count:7d}  {printable(label)}")
    if report["nothing"]:
        print(f"{report['nothing']:7d}  {UNKNOWN} (from {NOTHING})")


# --- What all models of images share: the runtime, the input, the outputs -------------

if typing.TYPE_CHECKING:
    import numpy as np

AnyPath = typing.Union[str, os.PathLike]
Numbers = typing.Sequence[float]
POSTPROCESS = "TFLite_Detection_PostProcess"
# What a model may do: what it gives, and what runs it.
TASKS = {
    "classify": ("scores of classes or features", "Classifier"),
    "detect": ("boxes", "Detector"),
    "segment": ("a mask", "Segmenter"),
}


def task_of(file):
    """Returns which of `TASKS` a model does, by its `ModelFile`.

    Our own files say it. Of others, those whose operator finds boxes detect, and those
    with one output of a class index for each pixel segment, such as Coral's DeepLab.
    """
    output = output_of(file.preprocessing)
    if output in (BOXES, MASKS):
        return "detect" if output == BOXES else "segment"
    if POSTPROCESS in file.custom_operators and len(file.outputs) == 4:
        return "detect"
    if len(file.outputs) == 1:
        shape = file.outputs[0]
        shape = shape[:3] if shape[3:] == (1,) else shape
        if len(shape) == 3 and min(shape[1:]) > 1:
            return "segment"
    return "classify"


class ImageModel:
    """A TFLite model of images, ready to run.

    Attributes:
        path: str, of the model.
        labels: list of str, one per class, or None.
        classes: int, the number of classes, or None where the file does not tell.
        input_shape: (1, height, width, 3).
        preprocessing: `Preprocessing`, or None where the model carries none.
        runtime: str, name and version of the TFLite runtime.
        delegate: str, the delegate that runs the model, or "none" for the CPU.
        idle_delegate: bool, whether the delegate left all of the model to the CPU.
        threads: int, CPU threads.
        load_milliseconds: float, the time to read, check and build the model, without
            the imports of Python.
    """

    task = ""  # of `TASKS`
    output_counts: typing.Tuple[int, ...] = (1,)
    path: str
    labels: typing.Any
    classes: typing.Any
    input_shape: typing.Tuple[int, ...]
    preprocessing: typing.Optional[Preprocessing]
    runtime: str
    delegate: str
    idle_delegate: bool
    threads: int
    load_milliseconds: float

    def __init__(
        self,
        model,
        threads=None,
        delegate="auto",
        delegate_options=None,
        normalization=None,
        bgr=False,
    ):
        """Loads a model; `Classifier` describes the arguments.

        `model` may also be the `ModelFile` of a file that was read already.
        """
        interpreter_class, self.runtime = load_runtime()
        self.threads = threads or default_threads()
        self._bgr = bgr
        start = time.perf_counter()
        file = model if isinstance(model, ModelFile) else read_model(os.fspath(model))
        self._file, self.path = file, file.path
        task = task_of(file)
        if task != self.task:
            gives, name = TASKS[task]
            raise UserError(
                f"{self.path}: gives {gives}, and not {TASKS[self.task][0]}; use {name}"
            )
        self._build(interpreter_class, file, delegate, delegate_options or {})
        with user_errors(self.path, ValueError):
            self._check_input()
        self.preprocessing = None
        if file.preprocessing is not None:
            how = self._read_inside(parse_preprocessing, self.input_shape[1:3])
            self.preprocessing = how
        if len(self._outputs) not in self.output_counts:
            expected = " or ".join(map(str, self.output_counts))
            raise UserError(
                f"{self.path}: has 1 inputs and {len(self._outputs)} outputs, expected "
                f"1 and {expected}"
            )
        where = self.path
        # A quantized input needs no metadata: its scale and zero point say the same.
        is_float = "float" in self._input["dtype"].__name__
        if normalization is None and file.mean and is_float:
            where = f"{self.path}: its metadata is damaged"
            normalization = (file.mean, file.std)
        with user_errors(where, ValueError):
            self._lookup = normalization and self._input_values(*normalization)
        self.load_milliseconds = milliseconds_since(start)

    def _read_inside(self, parse, *arguments):
        """Returns what a function reads in the model's preprocessing.json."""
        try:
            return parse(self._file.preprocessing, *arguments)
        except UserError as error:
            raise UserError(
                f"{self.path}: preprocessing.json inside: {error}"
            ) from error

    def _read_labels(self, path, parse):
        """Returns the labels of the model, or of the file at `path` if one is given.

        Args:
            path: of a label file, or None.
            parse: function of the bytes, and of whether they are of a file of its own.

        Raises:
            UserError: the file is missing or damaged, or has not one for each class.
        """
        data = self._file.labels
        with user_errors(path or f"{self.path}: labels inside", ValueError, OSError):
            if path:
                with open_file(path) as file:
                    data = read_at_most(file, MAX_LABEL_BYTES)
            if data is None:
                return None
            labels = parse(data, bool(path))
            if self.classes not in (None, len(labels)):
                raise ValueError(
                    f"{len(labels)} labels for a model of {self.classes} classes; pass "
                    "the label file of this model with --labels"
                )
        return labels

    def _build(self, interpreter_class, file, delegate, options):
        """Builds the interpreter, with a delegate if there is one."""
        compiled = "edgetpu-custom-op" in file.custom_operators
        with user_errors(self.path, ValueError):
            chosen = choose_delegate(delegate, options, compiled)
            loaded = chosen and load_delegate(chosen, interpreter_class, self.runtime)
        self.delegate = chosen.name if chosen else "none"
        runner = self.runtime + (f" with delegate {chosen.name}" if chosen else "")
        self._runner = f"{self.path}: {runner}"
        with user_errors(self._runner, RuntimeError, ValueError):
            self._interpreter = build_interpreter(
                interpreter_class, self.path, self.threads, loaded
            )
            # Each part that a delegate takes becomes one more operator. XNNPACK, the
            # runtime's own delegate, comes only when the tensors get their memory.
            list_operators = getattr(self._interpreter, "_get_ops_details", None)
            self.idle_delegate = bool(
                chosen and list_operators and len(list_operators()) == file.operators
            )
            with silenced_stderr():
                self._interpreter.allocate_tensors()

    def _check_input(self):
        """Raises ValueError for a model that does not take one RGB image."""
        inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        if len(inputs) != 1:
            raise ValueError(f"has {len(inputs)} inputs, expected 1")
        self._input = inputs[0]
        self.input_shape = tuple(self._input["shape"].tolist())
        # `shape` shows a dynamic size as 1; only `shape_signature` shows it as -1.
        shape = self._input.get("shape_signature", self._input["shape"]).tolist()
        dtype = self._input["dtype"].__name__
        if (
            (self.input_shape[:1], self.input_shape[3:]) != ((1,), (3,))
            or -1 in shape[1:]
            or dtype not in ("uint8", "int8", "float32", "float16")
        ):
            raise ValueError(
                "expected an input [1, height, width, 3] of uint8, int8, float32 or "
                f"float16, received {shape} of {dtype}"
            )

    def _input_values(self, mean, std):
        """Returns an array (256, 3): the input value of each pixel value and channel.

        real = (pixel - mean) / std, and a quantized input holds real as
        scale * (value - zero_point).
        """
        import numpy as np

        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
                raise ValueError(
                    f"{name}: expected 1 or 3 finite numbers, received {values}"
                )
        if min(std) <= 0:
            raise ValueError(f"std: expected numbers above 0, received {std}")
        dtype = self._input["dtype"]
        with np.errstate(all="ignore"):
            table = (np.arange(256.0)[:, np.newaxis] - mean) / std + np.zeros(3)
            fits = np.isfinite(table.astype(np.float32)).all()
        if not fits:
            raise ValueError(f"mean {mean} and std {std} leave the range of numbers")
        if not np.issubdtype(dtype, np.floating):
            scale, zero_point = self._input["quantization"]
            if not scale:
                raise ValueError("its input has no scale, which --mean and --std need")
            limits = np.iinfo(dtype)
            table = np.rint(table / scale) + zero_point
            table = table.clip(limits.min, limits.max)
        return table.astype(dtype)

    def _to_input(self, pixels):
        """Turns pixels into the values of the input tensor."""
        import numpy as np

        if self._bgr:
            pixels = pixels[..., ::-1]
        if self._lookup is not None:
            return self._lookup[pixels, np.arange(3)]
        if self._input["dtype"] == np.int8:
            return (pixels ^ 128).view(np.int8)  # pixel - 128 in two's complement
        return pixels.astype(self._input["dtype"])

    def tensors(self, pixels):
        """Runs the model on one prepared image.

        Args:
            pixels: uint8 array (height, width, 3) of the input size, RGB.

        Returns:
            list of the output arrays as the runtime gives them, without the batch.

        Raises:
            UserError: the array has another shape or dtype, or the runtime failed.
        """
        import numpy as np

        if pixels.shape != self.input_shape[1:] or pixels.dtype != np.uint8:
            raise UserError(
                f"expected uint8 {self.input_shape[1:]}, received {pixels.dtype} "
                f"{pixels.shape}"
            )
        values = self._to_input(pixels)
        self._interpreter.set_tensor(self._input["index"], values[np.newaxis])
        with user_errors(self._runner, RuntimeError, ValueError):
            self._interpreter.invoke()
        return [
            self._interpreter.get_tensor(output["index"])[0] for output in self._outputs
        ]

    def check_finite(self, values):
        """Raises UserError for an array with a number that is not finite."""
        import numpy as np

        if not np.isfinite(values).all():
            raise UserError(f"{self.path}: gave scores that are not finite numbers")

    def dequantized(self, number, values):
        """Returns values of an output as float32: a copy.

        Args:
            number: of the output.
            values: array of its dtype.
        """
        import numpy as np

        values = values.astype(np.float32)
        scale, zero_point = self._outputs[number]["quantization"]
        if scale:  # 0 where the output is not quantized
            values = (values - np.float32(zero_point)) * np.float32(scale)
        return values

    def input_of(self, image):
        """Reads and prepares one image.

        Args:
            image: as `read_image` takes it.

        Returns:
            (pixels for `tensors`, the `DecodedImage`).
        """
        decoded = read_image(image, self)
        with user_errors("image", ValueError, MemoryError):
            return prepare(decoded.image, self, decoded.box), decoded


class SceneModel(ImageModel):
    """What `Detector` and `Segmenter` share."""

    def __init__(
        self,
        model_path: AnyPath,
        labels_path: typing.Optional[AnyPath] = None,
        threads: typing.Optional[int] = None,
        delegate: str = "auto",
        delegate_options: typing.Optional[typing.Dict[str, str]] = None,
        normalization: typing.Optional[typing.Tuple[Numbers, Numbers]] = None,
        bgr: bool = False,
    ) -> None:
        """Loads a model; the arguments and errors are those of `Classifier`."""
        super().__init__(
            model_path, threads, delegate, delegate_options, normalization, bgr
        )
        self._use_outputs()
        self.labels = self._read_labels(labels_path, parse_sparse_labels)

    def _use_outputs(self):
        """Sets `classes`, or raises UserError for outputs that are not understood."""
        raise NotImplementedError

    def outputs(self, pixels: "np.ndarray") -> "typing.List[np.ndarray]":
        """Runs the model on one prepared image; returns what `interpret` takes."""
        return self.tensors(pixels)

    def label_of(self, index: int) -> typing.Optional[str]:
        """Returns the label of a class, or None."""
        labels = self.labels or ()
        return labels[index] if 0 <= index < len(labels) else None


# --- The classifier: a model that gives scores of classes, or features ----------------

if typing.TYPE_CHECKING:
    import numpy as np
    import PIL.Image


class Prediction(typing.NamedTuple):
    """A class of an image: its index, its label (None without labels), its score."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    label: typing.Optional[str]
    score: float


class Classifier(ImageModel):
    """A TFLite image classifier, ready to run.

    It has the attributes of `ImageModel`, and its own.

    Attributes:
        classes: 0 for features without learned classes.
        channels: int, the number of features of a model that gives features; else None.
        threshold: float, the score from which on an image has a label, of a model that
            was trained for several labels an image; else None.
    """

    task = "classify"
    classes: int
    channels: typing.Optional[int]
    threshold: typing.Optional[float]

    def __init__(
        self,
        model_path: AnyPath,
        labels_path: typing.Optional[AnyPath] = None,
        threads: typing.Optional[int] = None,
        delegate: str = "auto",
        delegate_options: typing.Optional[typing.Dict[str, str]] = None,
        normalization: typing.Optional[typing.Tuple[Numbers, Numbers]] = None,
        bgr: bool = False,
        classes: typing.Optional[AnyPath] = None,
    ) -> None:
        """Loads a model.

        Args:
            model_path: a `.tflite` file.
            labels_path: a label file, one per line or Coral's `0  name` form; None
                takes the labels inside the model.
            threads: int, CPU threads; None is one per physical core, at most 4.
            delegate: "auto" (the Edge TPU for a model that is compiled for it, the
                CPU for any other), "none", "edgetpu", "edgetpu:DEVICE" as pycoral
                names devices, or the path of an external delegate.
            delegate_options: dict of str, passed on to the delegate.
            normalization: (mean, std) on the scale of pixels, tuples of one or three
                numbers; None takes the normalization of the model's metadata.
            bgr: bool, whether the model expects blue first.
            classes: for a model that gives features, the file of the classes that
                `learn` wrote for it.

        Raises:
            UserError: a file, the runtime or the delegate is missing or does not fit.
        """
        super().__init__(
            model_path, threads, delegate, delegate_options, normalization, bgr
        )
        shape = self._outputs[0]["shape"].tolist()
        if len(shape) != 2 or shape[0] != 1:
            raise UserError(
                f"{self.path}: expected output [1, classes], received {shape}"
            )
        self.classes = shape[1]
        self.threshold = self.channels = self._head = None
        if self.preprocessing is not None:
            self.threshold = self._read_inside(parse_threshold)
            if output_of(self._file.preprocessing) == FEATURES:
                self.channels, self.classes = self.classes, 0
        if classes is not None:
            self._use_classes(classes, labels_path)
        else:
            self.labels = self._read_labels(labels_path, parse_labels)

    def _use_classes(self, path, labels_path=None):
        """Makes a model of features a classifier of learned classes."""
        if labels_path:
            raise UserError(
                f"{labels_path}: learned classes have their labels; give no others"
            )
        if not self.channels:
            raise UserError(
                f"{self.path}: gives scores of its own classes, and learned classes "
                "need features; take a file of edge/export.py --features"
            )
        learned = read_classes(path, self.path, self.channels)
        self._head = learned.head
        self.labels = list(learned.labels)
        if self._head.bias.size > len(self.labels):
            self.labels.append(UNKNOWN)
        self.classes = len(self.labels)

    def learn(
        self,
        photos: AnyPath,
        classes: AnyPath,
        known_share: float = KNOWN_SHARE,
    ) -> typing.Dict[str, typing.Any]:
        """Learns folders of photographs as classes, which this classifier then has.

        A cross-validation chooses the classifier, from class means to a logistic
        regression. It takes little more time than running the model on every
        photograph.

        Args:
            photos: folder with one folder for each class, of 2 photographs or more.
                Those in a folder `_none` are learned as `unknown`.
            classes: file to write, for the argument `classes` of other classifiers. One
                of this model that is there is replaced.
            known_share: the share of new photographs of the classes that must not be
                answered with `unknown`, in (0, 1]. 1 learns no `unknown`.

        Returns:
            dict of what `run_tflite.py --learn --json` prints. Photographs that could
            not be read were left out; they are in its list "failures".

        Raises:
            UserError: the model gives no features, the folders cannot be learned, or
                the file belongs to another model or cannot be written. The file and
                this classifier are as they were.
        """
        messages = Messages(quiet=True)
        report = learn_classes(
            self, photos, classes, known_share, messages, SharedState()
        )
        self._use_classes(classes)
        return report

    def classify(
        self,
        image: "typing.Union[AnyPath, PIL.Image.Image, np.ndarray]",
        top_k: int = 5,
    ) -> typing.List[Prediction]:
        """Classifies one image.

        Args:
            image: path of an image file, PIL image, or uint8 array (height, width, 3)
                of RGB pixels, of any size.
            top_k: int, how many classes to return.

        Returns:
            list of `Prediction(index, label, score)`, the best first. `label` is None
            for a model without labels. If the model was trained for several labels an
            image, only those that the image has: it may be empty.

        Raises:
            UserError: the image cannot be read, or the model cannot run on it.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise UserError(f"top_k: expected a whole number above 0, received {top_k}")
        return self.top_k(self.scores(self.input_of(image)[0]), top_k)

    def scores(self, pixels: "np.ndarray") -> "np.ndarray":
        """Runs the model on one prepared image.

        Args:
            pixels: uint8 array (height, width, 3) of the input size, RGB.

        Returns:
            float32 array (classes,), dequantized. It is a copy.

        Raises:
            UserError: the array has another shape or dtype, the runtime failed, a
                score is not a finite number, or the model gives features and no
                classes were learned.
        """
        return self.interpret(self.outputs(pixels))

    def interpret(self, outputs: "np.ndarray") -> "np.ndarray":
        """Returns the scores of classes for what `outputs` returns."""
        if not self.channels:
            return outputs
        self.check_classes()
        return head_scores(outputs[None], self._head)[0].astype("float32")

    def check_classes(self) -> None:
        """Raises UserError for a model of features without learned classes."""
        if self.channels and self._head is None:
            raise UserError(
                f"{self.path}: gives features and has no classes; learn some with "
                "--learn=DIR --classes=FILE, then give --classes=FILE"
            )

    def outputs(self, pixels: "np.ndarray") -> "np.ndarray":
        """Runs the model on one prepared image; returns what it gives.

        That is the scores, float32 (classes,), or the features, float32 (channels,);
        see `scores`.
        """
        outputs = self.dequantized(0, self.tensors(pixels)[0])
        self.check_finite(outputs)
        return outputs

    def top_k(self, scores: "np.ndarray", k: int) -> typing.List[Prediction]:
        """Ranks classes by score; of equal scores, the lowest index comes first.

        Args:
            scores: float array (classes,). uint8 scores are often equal.
            k: int >= 1, the number of classes to return; at most all.

        Returns:
            list of `Prediction`, with a `threshold` those that reach it.
        """
        order = (-scores).argsort(kind="stable")[:k].tolist()
        if self.threshold is not None:
            order = [index for index in order if scores[index] >= self.threshold]
        labels = self.labels
        return [
            Prediction(i, labels[i] if labels else None, float(scores[i]))
            for i in order
        ]


# --- Boxes and masks: what they are, and their way to a model's input and back --------

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


# --- How good boxes and masks are: COCO's average precision, and the mean IoU ---------

MAX_DETECTIONS = 100  # of a class in a picture, those of the highest scores
THRESHOLDS = 10  # of the IoU: 0.5, 0.55, ... 0.95
RECALLS = 101  # 0, 0.01, ... 1
# Names of the precisions averaged over all thresholds, and over one of them.
PRECISIONS = (("ap", slice(None)), ("ap50", slice(0, 1)), ("ap75", slice(5, 6)))


class AveragePrecision:
    """Average precision of boxes, with the rules and the numbers of pycocotools.

    They are described at cocodataset.org/#detection-eval. Pictures are added one by
    one. Boxes may be in pixels or in shares, of the picture or of the model's input:
    the IoU is the same.
    """

    def __init__(self, classes):
        """Counts nothing yet.

        Args:
            classes: number of classes.
        """
        import numpy as np

        self._thresholds = np.linspace(0.5, 0.95, THRESHOLDS)
        self._objects = np.zeros(classes, int)
        # Of each class, for each picture: scores, whether each is right and whether it
        # counts at each threshold.
        self._scores = [[] for _ in range(classes)]
        self._right = [[] for _ in range(classes)]
        self._counts = [[] for _ in range(classes)]

    def add(self, objects, found):
        """Adds a picture.

        Args:
            objects: `Objects` that are there.
            found: `Detections`. Of equal scores, the first counts first.
        """
        import numpy as np

        for index in np.unique(np.append(objects.classes, found.classes)).tolist():
            there = [part[objects.classes == index] for part in objects]
            boxes, _, scores = (part[found.classes == index] for part in found)
            best = np.argsort(-scores, kind="stable")[:MAX_DETECTIONS]
            crowd = there[3]
            ignored = there[2] | crowd
            iou = intersection_over_union(boxes[best], there[0], crowd)
            right, counts = match_objects(iou, ignored, crowd, self._thresholds)
            self._objects[index] += (~ignored).sum()
            self._scores[index].append(scores[best])
            self._right[index].append(right)
            self._counts[index].append(counts)

    def precisions(self):
        """Returns the precision at each recall, the highest at that recall or above.

        float64 array (thresholds, recalls, classes): the IoU from 0.5 to 0.95, the
        recall from 0 to 1; NaN for a class of which there are no objects.
        """
        import numpy as np

        recalls = np.linspace(0, 1, RECALLS)
        result = np.full((THRESHOLDS, RECALLS, len(self._objects)), np.nan)
        for index in np.flatnonzero(self._objects):
            result[:, :, index] = 0
            if not self._scores[index]:
                continue
            order = np.argsort(-np.concatenate(self._scores[index]), kind="stable")
            right, counts = (
                np.concatenate(parts[index], axis=1)[:, order]
                for parts in (self._right, self._counts)
            )
            hits = (right & counts).cumsum(axis=1)
            found = counts.cumsum(axis=1)
            precision = hits / (found + np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            for threshold in range(THRESHOLDS):
                recall = hits[threshold] / self._objects[index]
                places = np.searchsorted(recall, recalls, side="left")
                reached = places < len(order)
                result[threshold, reached, index] = precision[
                    threshold, places[reached]
                ]
        return result

    def result(self):
        """Returns the average precisions, shares of 1.

        dict of "ap" (the mean over the thresholds 0.5 to 0.95), "ap50", "ap75", which
        are means over the classes, and "classes": one dict for each class of "objects"
        and the same three. All are None where there are no objects.
        """
        import numpy as np

        precisions = self.precisions()
        known = np.flatnonzero(self._objects)

        def averages(classes):
            return {
                name: float(precisions[part][:, :, classes].mean())
                if len(classes)
                else None
                for name, part in PRECISIONS
            }

        each = [
            dict(objects=int(number), **averages([index] if number else []))
            for index, number in enumerate(self._objects)
        ]
        return dict(averages(known), classes=each)


def intersection_over_union(boxes, others, crowd=None):
    """Returns the IoU of each box with each other one, float64 (boxes, others).

    Args:
        boxes: array (n, 4): two corners of each, the lesser first.
        others: array (m, 4), likewise.
        crowd: bool array (m,): where it is true, the share of the box that lies in the
            other is returned instead.
    """
    import numpy as np

    boxes, others = (np.asarray(x, np.float64).reshape(-1, 4) for x in (boxes, others))
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    area, other_area = ((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (boxes, others))
    union = area[:, None] + other_area - shared
    if crowd is not None:
        union = np.where(crowd, area[:, None], union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def match_objects(iou, ignored, crowd, thresholds):
    """Decides which detections of one class in one picture are right.

    Each takes the object of the highest IoU that none before it has taken, and one that
    is ignored only if there is no other. Crowds can be taken again and again.

    Args:
        iou: float array (detections, objects), the highest score first.
        ignored: bool array (objects,).
        crowd: bool array (objects,).
        thresholds: float array: the least IoU.

    Returns:
        Two bool arrays (thresholds, detections): whether each is right, and whether it
        counts.
    """
    import numpy as np

    right = np.zeros((len(thresholds), len(iou)), bool)
    counts = np.ones_like(right)
    taken = np.zeros((len(thresholds), len(ignored)), bool)
    least = thresholds[:, None]
    every = np.arange(len(thresholds))
    if not len(ignored):
        return right, counts
    for place in np.flatnonzero((iou >= least[0]).any(axis=1)):
        possible = (iou[place] >= least) & (crowd | ~taken)
        preferred = possible & ~ignored
        has_preferred = preferred.any(axis=1, keepdims=True)
        chosen = np.where(has_preferred, preferred, possible)
        # Of equal ones the last, as in pycocotools, where ignored ones come last.
        values = np.where(chosen, iou[place], -1)[:, ::-1]
        best = len(ignored) - 1 - values.argmax(axis=1)
        matched = chosen.any(axis=1)
        right[:, place] = matched
        counts[:, place] = ~(matched & ignored[best])
        taken[every[matched], best[matched]] = True
    return right, counts


def confusion_matrix(expected, found, classes):
    """Counts the pixels of one or more masks.

    Args:
        expected: uint8 array of class indices; `IGNORED` ones are left out.
        found: int array of the same shape.
        classes: number of classes.

    Returns:
        int64 array (expected class, found class).
    """
    import numpy as np

    counted = expected != IGNORED
    pairs = expected[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(confusion):
    """Returns the IoU of classes, of all pixels together, from a confusion matrix.

    A class counts if any pixel is of it or is taken for it (Everingham et al., "The
    Pascal visual object classes challenge: a retrospective", section 3.3).

    Returns:
        dict of "miou", the mean over the classes that count, and "classes": one dict
        for each class of "pixels" that are of it and "iou"; shares of 1, None where
        nothing counts.
    """
    right, of_class = confusion.diagonal(), confusion.sum(axis=1)
    union = of_class + confusion.sum(axis=0) - right
    each = [
        {"pixels": int(pixels), "iou": float(hits / every) if every else None}
        for hits, pixels, every in zip(right, of_class, union)
    ]
    known = [found["iou"] for found in each if found["iou"] is not None]
    return {"miou": sum(known) / len(known) if known else None, "classes": each}


# --- From what a detector computes to its boxes: the box coder, and the suppression ---

# What the offsets of a box are multiplied with in training: y, x, height, width. They
# are those of SSD (Liu et al., "SSD: Single Shot MultiBox Detector").
BOX_SCALES = (10.0, 10.0, 5.0, 5.0)
# As RetinaNet has them (Lin et al., "Focal Loss for Dense Object Detection", 4.1).
MIN_SCORE = 0.05  # lower ones are no detections
MAX_IOU = 0.5  # of two boxes with a larger IoU, one is suppressed
# Pairs of so many boxes are compared at once: more cost memory, fewer cost time.
BOXES_AT_ONCE = 192


def find_objects(offsets, scores, anchors, scales=BOX_SCALES):
    """Returns the `Detections` of a picture from the outputs of a detector.

    They are those of the operator TFLite_Detection_PostProcess with the options
    `max_detections` of `MAX_DETECTIONS`, `nms_score_threshold` of `MIN_SCORE` and
    `nms_iou_threshold` of `MAX_IOU`, so that training, a raw file and one with the
    operator give the same boxes. Like it, an anchor has its best class alone, and boxes
    of all classes suppress each other.

    Args:
        offsets: float array (anchors, 4), see `decode_boxes`.
        scores: float array (anchors, classes), each from 0 to 1.
        anchors: float array (anchors, 4), see `decode_boxes`.
        scales: of the offsets.

    Returns:
        `Detections` in the model's input, the highest score first, at most
        `MAX_DETECTIONS`: of several boxes around one object, the best.
    """
    import numpy as np

    classes = scores.argmax(axis=1)
    best = scores.max(axis=1)
    # Only boxes that may be found are decoded.
    possible = np.flatnonzero(best >= np.float32(MIN_SCORE))
    boxes = decode_boxes(offsets[possible], anchors[possible], scales)
    kept = suppress(boxes, best[possible], MAX_IOU, MAX_DETECTIONS)
    rows = possible[kept]
    return Detections(boxes[kept], classes[rows], best[rows])


def decode_boxes(offsets, anchors, scales=BOX_SCALES):
    """Turns offsets to anchors into boxes.

    Args:
        offsets: float array (n, 4): how far the box's centre lies from the anchor's (y,
            x), in heights and widths of the anchor, and the logarithms of the quotients
            of height and width, all multiplied with the scales.
        anchors: float array (n, 4): y and x of the centre, height and width, as shares
            of the input.
        scales: four numbers.

    Returns:
        float32 array (n, 4): top, left, bottom and right edge, shares of the input.
    """
    import numpy as np

    shares = np.asarray(offsets, np.float64) / scales
    anchors = np.asarray(anchors, np.float64)
    centres = shares[:, :2] * anchors[:, 2:] + anchors[:, :2]
    halves = np.exp(shares[:, 2:]) * anchors[:, 2:] / 2
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    return boxes.astype(np.float32)


def suppress(boxes, scores, max_iou, most):
    """Keeps of boxes that overlap the one with the highest score.

    Of equal scores, the box that comes first is the higher one.

    Args:
        boxes: float array (n, 4), as in `Detections`.
        scores: float array (n,).
        max_iou: the largest IoU of two boxes that are both kept.
        most: how many to keep.

    Returns:
        int array: the indices of those that are kept, the highest score first.
    """
    import numpy as np

    boxes = np.asarray(boxes, np.float32)
    kept = np.empty(0, int)
    for part in by_score(scores):
        free = ~overlaps(boxes[part], boxes[kept], max_iou).any(axis=1)
        part = part[free]
        clashes = overlaps(boxes[part], boxes[part], max_iou)
        alive = np.ones(len(part), bool)
        for number in np.flatnonzero(clashes.sum(axis=1) > 1).tolist():
            if alive[number]:
                alive[number + 1 :] &= ~clashes[number, number + 1 :]
        kept = np.append(kept, part[alive])
        if len(kept) >= most:
            break
    return kept[:most]


def by_score(scores):
    """Yields indices from the highest score to the lowest, `BOXES_AT_ONCE` a time.

    Most often the first ones are enough, and the others need not be sorted.
    """
    import numpy as np

    left = np.arange(len(scores))
    while len(left):
        values = scores[left]
        best = np.ones(len(left), bool)
        if len(left) > BOXES_AT_ONCE:
            best = values >= np.partition(values, -BOXES_AT_ONCE)[-BOXES_AT_ONCE]
        order = np.argsort(-values[best], kind="stable")
        sorted_part = left[best][order]
        for start in range(0, len(sorted_part), BOXES_AT_ONCE):
            yield sorted_part[start : start + BOXES_AT_ONCE]
        left = left[~best]


def overlaps(ones, others, max_iou):
    """Returns which boxes have an IoU above `max_iou`.

    In 32 bits, as TFLite_Detection_PostProcess computes it: quantized boxes lie on a
    grid, where an IoU may be exactly the limit.

    Args:
        ones: float32 array (n, 4).
        others: float32 array (m, 4).
        max_iou: float.

    Returns:
        bool array (n, m).
    """
    import numpy as np

    first, second = [side[:, None] for side in ones.T], list(others.T)
    down = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    across = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    shared = np.maximum(down, 0) * np.maximum(across, 0)
    area, other_area = (
        (bottom - top) * (right - left) for top, left, bottom, right in (first, second)
    )
    union = area + other_area - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return iou > np.float32(max_iou)


# --- The detector: a model that gives boxes -------------------------------------------

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


# --- The segmenter: a model that gives a class for each pixel -------------------------

if typing.TYPE_CHECKING:
    import numpy as np
    import PIL.Image


class Region(typing.NamedTuple):
    """A class of a mask: its index, its label, its share of the picture's pixels."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    label: typing.Optional[str]
    share: float


class Segmenter(SceneModel):
    """A TFLite model for segmentation, ready to run.

    It runs a file that gives scores of classes for each pixel, and one that gives the
    class of each, such as Coral's DeepLab. It has the attributes of `ImageModel`, and
    one of its own.

    Attributes:
        threshold: float, the score below which a pixel has no class; 0 at first.
    """

    task = "segment"

    def _use_outputs(self):
        self.threshold = 0.0
        shape, dtype = self._outputs[0]["shape"].tolist(), self._outputs[0]["dtype"]
        self.classes = shape[3] if len(shape) == 4 and shape[3] > 1 else None
        is_index = self.classes is None and "int" in dtype.__name__
        if not (is_index or self.classes and self.classes <= IGNORED):
            raise UserError(
                f"{self.path}: expected scores [1, height, width, 2 to {IGNORED}] or "
                f"class indices [1, height, width], received {shape} of "
                f"{dtype.__name__}"
            )

    def use_threshold(self, threshold: float) -> None:
        """Leaves pixels of a lower score without a class.

        Raises:
            UserError: the model gives no scores.
        """
        if threshold and self.classes is None:
            raise UserError(
                f"{self.path}: gives the class of each pixel and no scores, which "
                "--threshold needs; leave it out"
            )
        self.threshold = threshold

    def interpret(self, outputs: "typing.List[np.ndarray]") -> "np.ndarray":
        """Returns the mask of the model's input, at the resolution of the output.

        uint8 (height, width): class indices, `IGNORED` below the threshold.
        """
        import numpy as np

        (values,) = outputs
        if self.classes is None:
            mask = values.reshape(values.shape[:2])
            if mask.min() < 0 or mask.max() >= IGNORED:
                raise UserError(f"{self.path}: gave class {mask.max()}, of at most 254")
            return mask.astype(np.uint8)
        self.check_finite(values)
        # The order of quantized scores is that of the real ones, and 8 bits are quick.
        mask = values.argmax(axis=2).astype(np.uint8)
        if self.threshold:
            best = self.dequantized(0, values.max(axis=2))
            mask[best < np.float32(self.threshold)] = IGNORED
        return mask

    def picture_mask(self, mask: "np.ndarray", decoded: DecodedImage) -> "np.ndarray":
        """Returns the mask of a picture for that of the input: uint8, its size."""
        with user_errors("image", MemoryError):
            return mask_to_picture(mask, decoded.size, geometry_of(self))

    def regions(self, mask: "np.ndarray") -> typing.List[Region]:
        """Returns the classes of a mask as a list of `Region`, the largest first.

        `share` is that of the picture's pixels. Pixels without a class are left out.
        """
        import numpy as np

        counts = np.bincount(mask.ravel(), minlength=IGNORED + 1)[:IGNORED]
        order = (-counts).argsort(kind="stable").tolist()
        shares = (counts / mask.size).tolist()
        return [
            Region(index, self.label_of(index), shares[index])
            for index in order
            if counts[index]
        ]

    def segment(
        self,
        image: "typing.Union[AnyPath, PIL.Image.Image, np.ndarray]",
        threshold: float = 0.0,
    ) -> "np.ndarray":
        """Finds the class of each pixel of one image.

        Args:
            image: path of an image file, PIL image, or uint8 array (height, width, 3)
                of RGB pixels, of any size.
            threshold: the score below which a pixel has no class, from 0 to 1.

        Returns:
            uint8 array (height, width) of the upright image: class indices, the places
            in `labels`; 255 where a pixel has none.

        Raises:
            UserError: the image cannot be read, or the model cannot run on it.
        """
        self.use_threshold(threshold)
        pixels, decoded = self.input_of(image)
        return self.picture_mask(self.interpret(self.outputs(pixels)), decoded)


# --- What the command line shows of a result: classes, boxes or a mask ----------------

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


# --- --benchmark: the time of each stage, and the memory ------------------------------

BENCHMARK_INVOKES = 50
WARM_UP_INVOKES = 5


def peak_memory_mib():
    """Returns the peak memory of this process; None where it is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def measure_stages(classifier, path):
    """Runs a classifier on an image, or on random pixels; returns milliseconds."""
    import numpy as np

    if path:
        times = invoke(classifier, *load_pixels(path, classifier)).times
        return dict(times, total=sum(times.values()))
    noise = np.random.RandomState(0).randint(0, 256, classifier.input_shape[1:])
    return invoke(classifier, noise.astype(np.uint8), {}).times


def benchmark(classifier, paths, messages):
    """Times a model on images, each at least once, or without any on random pixels.

    A bad image is reported once and left out.

    Returns:
        dict of the JSON output, as the help describes it.
    """
    import numpy as np

    queue, samples = collections.deque(paths or [None]), []
    while queue and len(samples) < WARM_UP_INVOKES + max(BENCHMARK_INVOKES, len(queue)):
        path = queue.popleft()
        try:
            samples.append(measure_stages(classifier, path))
            queue.append(path)
        except UserError as error:
            messages.error(error)
    if not queue:
        raise UserError("nothing to time: none of the images can be read")
    report = {
        "model": classifier.path,
        "runtime": classifier.runtime,
        "delegate": classifier.delegate,
        "threads": classifier.threads,
        "images": len(queue) if paths else 0,
        "invokes": len(samples) - WARM_UP_INVOKES,
        "peak_memory_mib": peak_memory_mib(),
        "model_load": classifier.load_milliseconds,
        "first_inference": samples[0]["invoke"],
    }
    for stage in samples[0]:
        times = [sample[stage] for sample in samples[WARM_UP_INVOKES:]]
        values = np.percentile(times, (50, 90, 99)).round(3).tolist()
        report[stage] = dict(zip(("median", "p90", "p99"), values))
    return report


def print_benchmark(report):
    """Prints a benchmark as a table."""
    stages = {name: value for name, value in report.items() if isinstance(value, dict)}
    units = {"peak_memory_mib": " MiB", "model_load": " ms", "first_inference": " ms"}
    for name in report:
        if name not in stages:
            title = name.replace("_mib", "").replace("_", " ")
            print(f"{title:16}  {printable(report[name])}{units.get(name, '')}")
    print(f"{'milliseconds':16}{'median':>12}{'p90':>12}{'p99':>12}")
    for name, values in stages.items():
        numbers = "".join(f"{value:12.3f}" for value in values.values())
        print(f"{name:16}{numbers}")


# --- --evaluate: the accuracy on folders of images that are named by class ------------

WORST_CLASSES = 5


def find_classes(folder, classifier):
    """Returns [(name of a subfolder, index of its class)], sorted by name."""
    names = class_folders(folder)
    indices = collections.defaultdict(list)
    for index, label in enumerate(classifier.labels or ()):
        indices[simplified(label)].append(index)
    if simplified(UNKNOWN) in indices:
        indices.setdefault(simplified(NOTHING), indices[simplified(UNKNOWN)])
    unknown = [name for name in names if simplified(name) not in indices]
    if not unknown:
        found = [indices[simplified(name)] for name in names]
    elif all(re.match("[0-9]{1,9}$", name) for name in names):
        found = [[int(name)] for name in names]
    elif len(names) == classifier.classes and len(unknown) == len(names):
        found = [[index] for index in range(len(names))]
    else:
        raise UserError(
            f"{folder}: {len(names)} folders for a model of {classifier.classes} "
            f"classes, and {unknown[0]!r} is none of its labels; name the folders by "
            "labels, or by class numbers from 0"
        )
    for name, classes in zip(names, found):
        if len(classes) > 1 or classes[0] >= classifier.classes:
            raise UserError(
                f"{os.path.join(folder, name)}: expected one of {classifier.classes} "
                f"classes, received {' and '.join(map(str, classes))}; name the "
                "folders by class numbers from 0"
            )
    return [(name, classes[0]) for name, classes in zip(names, found)]


def simplified(label):
    """Reduces a label to what the name of a folder can hold of it."""
    return re.sub(r"[\W_]+", " ", label.casefold()).strip()


def evaluate(classifier, folder, messages, state):
    """Measures the accuracy on a folder with one subfolder per class.

    A bad image is reported, counted and left out.

    Returns:
        dict of the JSON output, as the help describes it.
    """
    if classifier.threshold is not None:
        raise UserError(
            f"{classifier.path}: an image may have several labels, and --evaluate "
            "measures one class an image; use training/evaluate.py with a csv file"
        )
    classes = find_classes(folder, classifier)
    expected = {
        path: index
        for name, index in classes
        for path in find_images([os.path.join(folder, name)], messages)
    }
    folder_names = {index: name for name, index in classes}
    names = dict(enumerate(classifier.labels or ())) or folder_names
    ranks, mistakes, failures = [], [], []
    confusion = collections.defaultdict(collections.Counter)
    start = time.perf_counter()
    for path, result in run_all(expected, classifier, state):
        if isinstance(result, UserError):
            messages.error(result)
            failures.append({"file": path, "error": str(result)})
        else:
            index, best = expected[path], int(result.answer.argmax())
            ranks.append(rank_of(index, result.answer))
            confusion[index][best] += 1
            if best != index:
                score = float(result.answer[best])
                mistakes.append(
                    {"file": path, "expected": index, "index": best, "score": score}
                )
        messages.progress(len(ranks) + len(failures), len(expected), start)
    if not ranks:
        raise UserError(f"{folder}: none of the images can be read")
    known = known_share_of(confusion, classifier.labels or [])
    top5 = sum(rank < 5 for rank in ranks) / len(ranks)
    return {
        "model": classifier.path,
        "images": len(ranks),
        "failed": len(failures),
        "top1": ranks.count(0) / len(ranks),
        "top5": top5 if classifier.classes > 5 else None,
        "known": known,
        "classes": worst_first(confusion, names),
        "mistakes": mistakes,
        "failures": failures,
    }


def known_share_of(confusion, labels):
    """Returns the share of the images of classes that are not taken for `unknown`.

    Args:
        confusion: {class: Counter of the classes it was taken for}.
        labels: list of str.

    Returns:
        float, or None where no label is `unknown` or all images are of it.
    """
    if UNKNOWN not in labels:
        return None
    unknown = labels.index(UNKNOWN)
    own = [counts for index, counts in confusion.items() if index != unknown]
    images = sum(sum(counts.values()) for counts in own)
    return 1 - sum(counts[unknown] for counts in own) / images if images else None


def rank_of(index, scores):
    """Counts the classes that rank before this one; see `Classifier.top_k` for ties."""
    higher = (scores > scores[index]).sum()
    return int(higher + (scores[:index] == scores[index]).sum())


def worst_first(confusion, names):
    """Lists the accuracy of each class, and the class it is most often taken for.

    Args:
        confusion: {class: Counter of the classes it was taken for}.
        names: {class: str}.
    """

    def named(index, **more):
        return dict({"index": index, "label": names.get(index)}, **more)

    classes = []
    for index, counts in sorted(confusion.items()):
        images, wrong = sum(counts.values()), collections.Counter(counts)
        share = wrong.pop(index, 0) / images
        other = min(wrong, key=lambda i: (-wrong[i], i)) if wrong else None  # noqa: B023
        taken_for = named(other, images=wrong[other]) if wrong else None
        classes.append(named(index, images=images, top1=share, taken_for=taken_for))
    return sorted(classes, key=lambda found: found["top1"])


def print_evaluation(report):
    """Prints an evaluation for people: the shares, and the worst classes."""
    for name in ("images", "failed"):
        print(f"{name:8}{report[name]:9d}")
    for name in ("top1", "top5", "known"):
        if report[name] is not None:
            print(f"{name:8}{report[name]:9.2%}")

    def name_of(found):
        return printable(found["index"] if found["label"] is None else found["label"])

    for found in report["classes"][:WORST_CLASSES]:
        other = found["taken_for"]
        if other:
            print(
                f"{name_of(found)}: {found['top1']:.2%} of {found['images']}, "
                f"{other['images']} taken for {name_of(other)}"
            )


# --- Annotation files beside pictures: Pascal VOC's XML, and PNG masks of classes -----

XML_FOLDERS = ("Annotations", "annotations", "labels")
MASK_FOLDERS = ("masks", "SegmentationClass", "SegmentationClassPNG")
MASK_ENDINGS = ("_mask.png", ".png")
NAME_FILES = ("labelmap.txt", "_classes.csv", "classes.txt", "class_names.txt")
NO_CLASS = -1  # in a label map, of a colour that it does not list
MAX_XML_BYTES = 16 << 20

# `size` is the (width, height) that a file states, or None. `objects` are tuples (name
# of the class, (top, left, bottom, right) in pixels, whether it is "difficult").
VocFile = collections.namedtuple("VocFile", "size objects")
# `names` of the classes; `lookup`, an array of the class for each value of a pixel;
# whether pixels are colours instead of indices.
MaskClasses = collections.namedtuple("MaskClasses", "names lookup is_colour")


def companion(picture, endings, folders):
    """Returns the file that belongs to a picture, or None.

    It has the name of the picture with another ending, and lies beside it or in one of
    some folders beside that of the picture.

    Args:
        picture: path.
        endings: what may follow the name without its suffix.
        folders: names of folders.
    """
    parent, name = os.path.split(picture)
    stem = os.path.splitext(name)[0]
    beside = [os.path.join(os.path.dirname(parent), name) for name in folders]
    for folder in (parent, *beside):
        for ending in endings:
            path = os.path.join(folder, stem + ending)
            if os.path.isfile(path) and path != picture:
                return path
    return None


def read_voc(path):
    """Reads an XML file of Pascal VOC.

    Returns:
        `VocFile`.

    Raises:
        UserError: it is damaged or has a DOCTYPE, or an object lacks its name or a
            corner.
    """
    with open_file(path) as file, user_errors(path, OSError, ValueError):
        root = parse_xml(read_at_most(file, MAX_XML_BYTES))
        return VocFile(_stated_size(root), list(map(_voc_object, root.iter("object"))))


def parse_xml(data):
    """Returns the root of an XML document that declares nothing.

    Entities can grow to gigabytes and name other files. Only a DOCTYPE can declare
    them, and no tool writes one here.

    Raises:
        ValueError: it is damaged, or has a DOCTYPE.
    """
    import xml.etree.ElementTree
    import xml.parsers.expat

    def refuse(*_):
        raise ValueError("it has a DOCTYPE, which annotations do not need: remove it")

    builder = xml.etree.ElementTree.TreeBuilder()
    parser = xml.parsers.expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (xml.parsers.expat.ExpatError, LookupError) as error:  # or its encoding
        raise ValueError(f"no valid XML: {error}") from error
    return builder.close()


def _stated_size(root):
    """Returns the (width, height) that a document states; some tools write 0."""
    sides = [root.findtext(f"size/{side}") for side in ("width", "height")]
    if None in sides:
        return None
    try:
        size = tuple(int(float(side)) for side in sides)
    except OverflowError as error:
        raise ValueError(f"no size of a picture: {sides}") from error
    return size if all(size) else None


def _voc_object(found):
    name = (found.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    corners = [
        found.findtext(f"bndbox/{side}") for side in ("ymin", "xmin", "ymax", "xmax")
    ]
    if None in corners:
        raise ValueError(f"an object {name!r} lacks a corner of its box")
    is_difficult = (found.findtext("difficult") or "0").strip() not in ("", "0")
    return name, tuple(map(float, corners)), is_difficult


def mask_classes(root):
    """Returns the `MaskClasses` of a folder by the file in it that names them.

    Raises:
        UserError: there is none, or it is damaged.
    """
    import csv

    import numpy as np

    folders = (str(root), os.path.join(str(root), "train"))
    places = [os.path.join(folder, name) for folder in folders for name in NAME_FILES]
    file = next(filter(os.path.isfile, places), None)
    if file is None:
        raise UserError(
            f"{root}: nothing names the classes. Write their names into {root}"
            "/classes.txt, one a line, in the order of the mask's indices from 0"
        )
    with user_errors(file, OSError, ValueError, IndexError):
        with open(file, encoding="utf-8-sig") as opened:
            text = opened.read()
        name = os.path.basename(file)
        if name == "labelmap.txt":
            found = _colours(text)
        elif name == "_classes.csv":
            rows = csv.reader(text.splitlines()[1:], skipinitialspace=True)
            found = {int(row[0]): row[1].strip() for row in rows if row}
        else:
            lines = enumerate(text.splitlines())
            found = {index: line.strip() for index, line in lines if line.strip()}
        if not found or min(found) < 0 or max(found) >= 1 << 24:
            raise ValueError("no classes in it, or indices out of range")
    names, values = [], {}
    for value, name in found.items():
        if name.lower() in ("ignore", "void", "unlabeled", "__ignore__"):
            values[value] = IGNORED
            continue
        if name not in names:
            names.append(name)
        values[value] = names.index(name)
    is_colour = os.path.basename(file) == "labelmap.txt"
    if not is_colour and values.get(IGNORED, IGNORED) != IGNORED:
        raise UserError(
            f"{file}: the index {IGNORED} of a mask means that a pixel is ignored, and "
            f"here it is the class {found[IGNORED]!r}: give it another index, or write "
            "colours into labelmap.txt"
        )
    lookup = np.full(max(*values, 255) + 1, NO_CLASS, np.int16)
    lookup[list(values)] = list(values.values())
    if not is_colour:
        lookup[IGNORED] = IGNORED
    return MaskClasses(names, lookup, is_colour)


def _colours(text):
    """Returns {colour as one number: name} of CVAT's labelmap.txt."""
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = re.match(r"(.+?):\s*(\d+),\s*(\d+),\s*(\d+)", line)
        if not match or max(map(int, match.groups()[1:])) > 255:
            raise ValueError(f"expected name:red,green,blue::, received {line!r:.80}")
        red, green, blue = map(int, match.groups()[1:])
        found[red << 16 | green << 8 | blue] = match[1].strip()
    return found


def read_mask(file, classes):
    """Returns a mask, uint8 (height, width): the places in the names, or `IGNORED`.

    Args:
        file: path of a PNG.
        classes: `MaskClasses`.

    Raises:
        UserError: it is damaged, has colours where it needs indices, or has an index or
            a colour that is none of the classes.
    """
    import numpy as np
    from PIL import Image

    lookup = classes.lookup
    with user_errors(file, Exception), Image.open(file) as image:
        if classes.is_colour:
            parts = np.asarray(image.convert("RGB"), np.int32)
            values = parts @ (1 << 16, 1 << 8, 1)
        elif image.mode in ("1", "L", "P", "I", "I;16"):
            values = np.asarray(image).astype(np.int64)
        else:
            raise ValueError(
                f"a mask of class indices has one number a pixel, not {image.mode}; "
                "for colours, write labelmap.txt with lines name:red,green,blue::"
            )
        found = lookup[values.clip(0, len(lookup) - 1)]
        wrong = values[(found == NO_CLASS) | (values >= len(lookup))]
        if len(wrong):
            red, rest = divmod(int(wrong[0]), 1 << 16)
            colour = f"colour {red},{rest >> 8},{rest & 255}"
            what = colour if classes.is_colour else f"index {wrong[0]}"
            raise ValueError(f"{what} is none of the classes ({len(wrong)} pixels)")
        return found.astype(np.uint8)


# --- --evaluate: the average precision of boxes, and the mean IoU of masks ------------

SHOWN_CLASSES = 5


class BoxesMeasured:
    """The average precision of a `Detector`; XML files of Pascal VOC say what is there.

    It is measured in the model's input, as in training.
    """

    def __init__(self, detector, folder):
        """Takes the `Detector`; the folder is not needed."""
        self._detector = detector
        self._labels = needed_labels(detector)
        self._precision = AveragePrecision(len(self._labels))

    def source_of(self, picture):
        """Returns the path of the annotation of a picture, or None."""
        return companion(picture, (".xml",), XML_FOLDERS)

    def read(self, source, messages):
        """Returns the size and the objects that an annotation states."""
        found = read_voc(source)
        kept = []
        for name, box, is_difficult in found.objects:
            top, left, bottom, right = box
            if not (top < bottom and left < right):  # nor is NaN
                messages.warning(
                    f"{source}: a box of {name} has no area "
                    f"({left:g}, {top:g}, {right:g}, {bottom:g}): left out"
                )
            elif name not in self._labels:
                raise UserError(
                    f"{source}: an object of class {name!r}, which is none of the "
                    f"{len(self._labels)} labels of the model"
                )
            else:
                kept.append((box, self._labels.index(name), is_difficult))
        return found.size, kept

    def add(self, target, result, source, messages):
        """Adds a picture."""
        import numpy as np

        stated, kept = target
        width, height = size = result.decoded.size
        if stated not in (None, size):
            raise UserError(
                f"{source}: is for {stated[0]} x {stated[1]} pixels, and the picture "
                f"has {width} x {height}, upright as its EXIF says"
            )
        corners = np.array([box for box, _, _ in kept], float).reshape(-1, 4)
        shares = (corners / (height, width, height, width)).clip(0, 1)
        inside = (shares[:, :2] < shares[:, 2:]).all(axis=1)
        if not inside.all():
            messages.warning(
                f"{source}: {(~inside).sum()} boxes lie outside of the picture of "
                f"{width} x {height} pixels: left out"
            )
        boxes = boxes_to_input(shares, size, geometry_of(self._detector))
        classes = np.array([index for _, index, _ in kept], int)
        ignored = np.array([is_difficult for _, _, is_difficult in kept], bool)
        crowd = np.zeros(len(kept), bool)
        objects = Objects(*(x[inside] for x in (boxes, classes, ignored, crowd)))
        self._precision.add(objects, result.answer)

    def report(self):
        """Returns the precisions: a dict, the worst class first."""
        return named(self._precision.result(), self._labels, "ap")


class MasksMeasured:
    """The mean IoU of a `Segmenter`; PNG files of classes say what is there.

    It is measured at the resolution of the model's input, as in training.
    """

    def __init__(self, segmenter, folder):
        """Takes the `Segmenter`, and the folder whose names of classes are read."""
        import numpy as np

        self._segmenter = segmenter
        self._labels = needed_labels(segmenter)
        self._classes = mask_classes(folder)
        unknown = [name for name in self._classes.names if name not in self._labels]
        if unknown:
            raise UserError(
                f"{folder}: names a class {unknown[0]!r}, which is none of the "
                f"{len(self._labels)} labels of the model"
            )
        places = [self._labels.index(name) for name in self._classes.names]
        self._places = np.full(256, IGNORED, np.uint8)
        self._places[: len(places)] = places
        self._confusion = np.zeros((len(self._labels),) * 2, int)

    def source_of(self, picture):
        """Returns the path of the mask of a picture, or None."""
        return companion(picture, MASK_ENDINGS, MASK_FOLDERS)

    def read(self, source, messages):
        """Returns the mask, uint8 (height, width) of the model's classes."""
        return self._places[read_mask(source, self._classes)]

    def add(self, target, result, source, messages):
        """Adds a picture."""
        width, height = result.decoded.size
        if target.shape != (height, width):
            raise UserError(
                f"{source}: is for {target.shape[1]} x {target.shape[0]} pixels, and "
                f"the picture has {width} x {height}, upright as its EXIF says"
            )
        how = geometry_of(self._segmenter)
        expected = mask_to_input(target, how)
        rows, columns = (
            nearest_rows(length, (0, 1), source_length)[0]
            for length, source_length in zip(how.input_size, result.answer.shape)
        )
        found = result.answer[rows][:, columns]
        if found.max() >= len(self._labels):
            raise UserError(f"the model found class {found.max()}, which has no label")
        self._confusion += confusion_matrix(expected, found, len(self._labels))

    def report(self):
        """Returns the mean IoU: a dict, the worst class first."""
        return named(mean_iou(self._confusion), self._labels, "iou")


MEASURED = {"detect": BoxesMeasured, "segment": MasksMeasured}


def needed_labels(model):
    """Returns the labels of a model; raises `UserError` if it has none."""
    if not model.labels:
        raise UserError(
            f"{model.path}: has no labels, by which annotations name classes; give "
            "--labels"
        )
    return model.labels


def named(result, labels, key):
    """Adds the labels to the classes of a result, and sorts them by a value."""
    classes = [
        dict({"index": index, "label": labels[index]}, **one)
        for index, one in enumerate(result["classes"])
    ]
    known = [one for one in classes if one[key] is not None]
    unknown = [one for one in classes if one[key] is None]
    ordered = sorted(known, key=lambda one: one[key]) + unknown
    return dict(result, classes=ordered)


def evaluate_scenes(model, folder, messages, state):
    """Measures a detector or a segmenter on a folder of annotated pictures.

    Pictures without an annotation are left out. What is wrong with a picture or its
    annotation is reported, and the picture is counted and left out.

    Returns:
        dict of the JSON output, as the help describes it.
    """
    measured = MEASURED[model.task](model, folder)
    sources = {
        path: measured.source_of(path)
        for path in find_images_below(folder, messages)
        if os.path.basename(os.path.dirname(path)) not in MASK_FOLDERS
    }
    # Masks may lie among the pictures, and have none.
    pictures = {path: source for path, source in sources.items() if source}
    failures, images, start = [], 0, time.perf_counter()
    if not pictures:
        raise UserError(
            f"{folder}: no picture with an annotation beside it or in a folder "
            f"{' or '.join(XML_FOLDERS if model.task == 'detect' else MASK_FOLDERS)}"
        )

    def add(path, result):
        target = measured.read(pictures[path], messages)
        measured.add(target, result, pictures[path], messages)

    for path, result in run_all(pictures, model, state):
        error = result
        if not isinstance(result, UserError):
            error = result_or_error(add, path, result)
        if isinstance(error, UserError):
            messages.error(error)
            failures.append({"file": path, "error": str(error)})
        else:
            images += 1
        messages.progress(images + len(failures), len(pictures), start)
    if not images:
        raise UserError(f"{folder}: none of the pictures can be used")
    return dict(
        {"model": model.path, "images": images, "failed": len(failures)},
        **measured.report(),
        failures=failures,
    )


def print_scene_evaluation(report):
    """Prints an evaluation for people: the means, and the worst classes."""
    for name in ("images", "failed"):
        print(f"{name:8}{report[name]:9d}")
    names = [name for name, _ in PRECISIONS] if "ap" in report else ["miou"]
    for name in names:
        value = report[name]
        print(f"{name:8}" + ("     none" if value is None else f"{value:9.2%}"))
    key = "ap50" if "ap" in report else "iou"
    for one in report["classes"][:SHOWN_CLASSES]:
        if one[key] is not None:
            print(f"{printable(one['label'])}: {key} {one[key]:.2%}")


# --- The modes: classify images, benchmark, evaluate, compare, show versions ----------

VERSION = "1.0"
# Which tasks flags are for, where they are not for all.
FLAG_TASKS = {
    "top_k": ("classify",),
    "learn": ("classify",),
    "classes": ("classify",),
    "compare": ("classify",),
    "masks": ("segment",),
}


def build_model(options, model=None, delegate=None):
    """Builds the model of the flags, or one with this path and delegate."""
    normalization = None
    if options.mean or options.std:
        normalization = (options.mean or (0.0,), options.std or (1.0,))
    start = time.perf_counter()
    file = read_model(model or options.model)
    read_milliseconds = milliseconds_since(start)
    task = task_of(file)
    check_task(options, task)
    more = {}
    if options.classes is not None and options.learn is None:  # which replaces it
        more["classes"] = options.classes
    built = MODELS[task](
        file,
        options.labels,
        options.threads,
        delegate or options.delegate,
        {} if delegate else dict(options.delegate_options),
        normalization,
        options.bgr,
        **more,
    )
    built.load_milliseconds = round(built.load_milliseconds + read_milliseconds, 3)
    return built


def check_task(options, task):
    """Raises UserError for flags that are not for what a model does."""
    for flag, tasks in FLAG_TASKS.items():
        if getattr(options, flag) not in (None, False) and task not in tasks:
            raise UserError(
                f"--{flag} is for a model that gives {TASKS[tasks[0]][0]}, and "
                f"{options.model} gives {TASKS[task][0]}; leave it out"
            )


def print_versions():
    """Prints the version of everything that affects the result."""
    import numpy
    import PIL

    print(f"run_tflite.py {VERSION}, Python {sys.version.split()[0]}")
    print(f"numpy {numpy.__version__}, Pillow {PIL.__version__}")
    runtime = load_runtime()[1]
    print(f"runtime: {runtime}, {default_threads()} threads")
    for good, text in check_edgetpu(runtime):
        print(f"Edge TPU, {'ok' if good else 'missing'}: {printable(text)}")


def run_benchmark(classifier, options, messages, state):
    """Times a model and prints the times."""
    paths = find_images(options.images, messages)
    if options.images and not paths:  # find_images said why
        return
    state.begin(f"{options.model}: timing it")
    report = benchmark(classifier, paths, messages)
    print(json.dumps(report)) if options.json else print_benchmark(report)


def run_learning(classifier, options, messages, state):
    """Learns classes from folders of photographs, and prints what they are worth."""
    share = KNOWN_SHARE if options.known_share is None else options.known_share
    report = learn_classes(
        classifier, options.learn, options.classes, share, messages, state
    )
    print(json.dumps(report)) if options.json else print_learned(report)


def run_evaluation(model, options, messages, state):
    """Evaluates a model on a folder and prints its accuracy."""
    measure, show = evaluate, print_evaluation
    if model.task != "classify":
        measure, show = evaluate_scenes, print_scene_evaluation
    report = measure(model, options.evaluate, messages, state)
    print(json.dumps(report)) if options.json else show(report)


def run_comparison(delegate, options, messages, state):
    """Runs images on the CPU and on a delegate, and prints the differences."""
    if delegate.delegate == "none":
        raise UserError("--compare needs --delegate=LIBRARY, or a compiled model")
    model = options.model
    if delegate.delegate.startswith("edgetpu"):  # Google's compiler adds _edgetpu
        model = re.sub(r"_edgetpu(\.tflite)$", r"\1", model)
    cpu = build_model(options, model, "none")
    if (cpu.input_shape, cpu.classes) != (delegate.input_shape, delegate.classes):
        raise UserError(
            f"{model} and {options.model} differ in input or classes; --compare needs "
            "one network"
        )
    for path in find_images(options.images, messages):
        state.begin(f"{path}: comparing on it")
        report = result_or_error(compare, path, cpu, delegate, options.top_k or TOP_K)
        if isinstance(report, UserError):
            messages.error(report)
            continue
        print(json.dumps(report)) if options.json else print_comparison(report)


def compare(path, cpu, delegate, k):
    """Runs one image on two classifiers; returns the dict of the JSON output."""
    import numpy as np

    pixels = load_pixels(path, cpu)[0]
    results = [invoke(classifier, pixels, {}) for classifier in (cpu, delegate)]
    one, other = (result.answer for result in results)
    report = {
        "file": path,
        "same_top": bool(one.argmax() == other.argmax()),
        "max_difference": float(np.abs(one - other).max()),
    }
    for name, result in zip(("cpu", "delegate"), results):
        top = [one._asdict() for one in cpu.top_k(result.answer, k)]
        report[name] = {"top": top, "invoke": result.times["invoke"]}
    return report


def print_comparison(report):
    """Prints the result of `compare` for people."""
    same = "the same" if report["same_top"] else "ANOTHER"
    print(
        f"{printable(report['file'])}  ({same} top class, scores differ by at most "
        f"{report['max_difference']:.4f})"
    )
    for name in ("cpu", "delegate"):
        print(f"  {name} ({report[name]['invoke']:.1f} ms)")
        top = [Prediction(**found) for found in report[name]["top"]]
        print("\n".join(table_lines(top)), flush=True)


def find_results(model, options, messages, state):
    """Yields (name, `Result` or UserError) of each image of the command line."""
    keep = bool(options.annotate)
    if options.camera is not None:
        for name, image, decode_milliseconds in camera_frames(options.camera):
            state.begin(f"{name}: running {options.model} on it")
            start = time.perf_counter()
            decoded = DecodedImage(image, (0, 0, *image.size), 1)
            pixels = prepare(image, model)
            times = {"decode": decode_milliseconds, "resize": milliseconds_since(start)}
            yield name, invoke(model, pixels, times, decoded)
    elif options.watch is not None:
        for path in watch(options.watch):
            yield from run_all([path], model, state, keep)
    else:
        # After a crash, the errors of the folders were printed already.
        folder_messages = Messages(quiet=True) if state.one_by_one else messages
        paths = find_images(options.images, folder_messages)
        state.resumable = True
        start = time.perf_counter()
        for pair in run_all(paths[state.done :], model, state, keep):
            yield pair
            if len(paths) > 1 and not sys.stdout.isatty():
                messages.progress(state.done + 1, len(paths), start)


def run_images(model, options, messages, state):
    """Runs a model on images and prints the results."""
    show = SHOWS[model.task](model, options)
    if options.csv and not state.one_by_one:
        print_csv_header(show.columns, show.stages)
    for folder in (options.annotate, options.masks):
        if folder:
            with user_errors(folder, OSError):
                os.makedirs(folder, exist_ok=True)
    results = find_results(model, options, messages, state)
    for number, (path, result) in enumerate(results, state.done + 1):
        if isinstance(result, UserError):
            messages.error(result)
            continue
        shown = result_or_error(show.select, result)
        if isinstance(shown, UserError):
            messages.error(f"{path}: {shown}")
            continue
        # The line comes last: if the process ends before it, it is not printed twice.
        for save, folder, suffix in (
            (save_annotated, options.annotate, ".jpg"),
            (save_mask_of, options.masks, ".png"),
        ):
            if folder:
                target = output_path(folder, number, path, suffix)
                error = result_or_error(save, show, result, shown, target)
                if error:
                    messages.error(error)
        if options.json:
            print_json(path, show.record(shown), result.times)
        elif options.csv:
            rows = show.rows(shown)
            print_csv(path, rows, show.columns, result.times, show.stages)
        else:
            print_table(path, show.lines(shown), result.times)


def save_annotated(show, result, shown, path):
    """Writes an image as JPEG, with what was found in it drawn on it."""
    save_image(show.draw(result.decoded.image, shown), path, "JPEG", quality=90)


def save_mask_of(show, result, shown, path):
    """Writes the mask of an image as PNG."""
    save_mask(shown.mask, path)


# --- The command line -----------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all others here."""

    def error(self, message):
        """Raises instead of printing the usage."""
        raise UserError(f"{message}; see --help")


def whole_number(lowest, highest):
    """Makes an argument type: an int within bounds."""

    def parse(text):
        if not re.match("[0-9]{1,9}$", text) or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {lowest} to {highest}, received {text!r}"
            )
        return int(text)

    return parse


def share(text):
    """Argument type: a float from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 1, received {text!r}"
        )
    return value


def camera(text):
    """Argument type: a number of OpenCV's, or "picamera"."""
    if text == "picamera":
        return text
    if not re.match("[0-9]{1,2}$", text):
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 99 or picamera, received {text!r}"
        )
    return int(text)


def one_or_three(text):
    """Argument type: one number, or three separated by commas."""
    with contextlib.suppress(ValueError):
        return tuple(map(float, text.split(",")))
    raise argparse.ArgumentTypeError(
        f"expected a number, or three as 1,2,3; received {text!r}"
    )


def key_and_value(text):
    """Argument type: KEY=VALUE, as a pair."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text!r}")
    return key, value


def parse_arguments(argv, program):
    """Parses the command line; for an unknown flag, UserError names the nearest."""
    parser = Parser(
        prog=program,
        # argparse would show all flags in one line, and build it at every start.
        usage="%(prog)s --model=PATH [flags] IMAGE_OR_DIR...",
        description=__doc__.replace("python3 run_tflite.py", program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    number = {"metavar": "N", "type": whole_number(1, 10**6)}
    image = "image file, folder, pattern, or - for the standard input"
    add("images", nargs="*", metavar="IMAGE_OR_DIR", help=image)
    add("--model", metavar="PATH", help="the .tflite file")
    add("--top_k", help=f"show the N best classes (default: {TOP_K})", **number)
    lowest = {"metavar": "SCORE", "type": share}
    lowest["help"] = f"hide what has a lower score (default: 0, boxes {SHOWN_SCORE})"
    add("--threshold", **lowest)
    number["type"] = whole_number(1, 256)
    add("--threads", help="CPU threads (default: one per core, at most 4)", **number)
    add("--labels", metavar="FILE", help="labels, one per line or as `0  name`")
    add("--classes", metavar="FILE", help="what --learn writes, for a features model")
    known = f"share of photographs that --learn keeps known (default: {KNOWN_SHARE})"
    add("--known_share", metavar="SHARE", type=float, help=known)
    values = {"metavar": "X or X,Y,Z", "type": one_or_three}
    add("--mean", help="subtract X, or one per channel (default: 0)", **values)
    add("--std", help="then divide by X, or one per channel (default: 1)", **values)
    add("--bgr", action="store_true", help="the model expects blue first")
    add("--delegate", default="auto", help="auto, none, edgetpu[:DEVICE] or a library")
    option = {"action": "append", "default": [], "type": key_and_value}
    option["help"] = "pass an option to the delegate; may be repeated"
    add("--delegate_options", metavar="KEY=VALUE", **option)
    drawn = "write the images with labels, boxes or masks on them"
    add("--annotate", metavar="OUT_DIR", help=drawn)
    add("--masks", metavar="OUT_DIR", help="write masks as PNG of class numbers")
    add("--version", action="store_true", help="print the versions in use and exit")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--json", action="store_true", help="print JSON, one object per line")
    add("--csv", action="store_true", help="print CSV, one row per class or box")
    add = parser.add_mutually_exclusive_group().add_argument
    source = {"metavar": "N", "type": camera}
    source["help"] = "classify the frames of camera N (OpenCV), or of `picamera`"
    add("--camera", **source)
    add("--watch", metavar="DIR", help="classify each image that appears in DIR")
    add("--evaluate", metavar="DIR", help="measure accuracy on folders named by class")
    add("--learn", metavar="DIR", help="learn the folders of DIR as classes")
    add("--benchmark", action="store_true", help="measure the time of each stage")
    add("--compare", action="store_true", help="compare the delegate with the CPU")
    # argparse forgets what `--` meant when images and flags alternate.
    end = argv.index("--") if "--" in argv else len(argv)
    options, unknown = parser.parse_known_intermixed_args(argv[:end])
    options.images += argv[end + 1 :]
    if unknown:
        import difflib

        known = ["--help"] + [f"--{name}" for name in vars(options) if name != "images"]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {' '.join(known)}"
        raise UserError(f"unknown flag {unknown[0]}; {hint}")
    return options


def check_options(options):
    """Raises UserError for flags that do not go together."""
    if not options.model:
        raise UserError("no model given; add --model=PATH.tflite")
    flags = vars(options)
    given = {n for n, v in flags.items() if v is not None and v is not False}
    # Mostly unset variables of a shell.
    for name in ("labels", "annotate", "classes", "masks"):
        if flags[name] == "":
            raise UserError(f"--{name} is empty; give a path or leave it out")
    for mode in ("camera", "watch", "evaluate", "learn"):
        if mode in given and options.images:
            raise UserError(f"--{mode} takes no images; leave out {options.images[0]}")
    if "learn" in given and "classes" not in given:
        raise UserError("--learn needs --classes=FILE, the file to write")
    if "known_share" in given and "learn" not in given:
        raise UserError("--known_share needs --learn=DIR: the file has its own")
    modes = {"camera", "watch", "evaluate", "benchmark", "learn"}
    if not (options.images or modes & given):
        raise UserError("no image given; add image files or folders of them")
    for first, other in (("classes", "labels"), ("compare", "classes")):
        if {first, other} <= given:
            raise UserError(f"--{first} and --{other} do not go together; give one")
    for mode in ("evaluate", "benchmark", "compare", "learn"):
        for output in ("csv", "annotate", "masks"):
            if mode in given and output in given:
                raise UserError(f"--{mode} and --{output} do not go together; give one")
    if options.watch is not None and options.annotate:
        if os.path.realpath(options.watch) == os.path.realpath(options.annotate):
            raise UserError("--annotate and --watch need two folders, not one")


def run(options, messages, state):
    """Does what the flags ask for; UserError if nothing can be done at all."""
    gc.disable()  # at the start, it takes 3 ms of 60
    try:
        with user_errors("numpy and Pillow are needed (pip install)", ImportError):
            importlib.import_module("numpy")
            importlib.import_module("PIL.Image")
        if options.version:
            state.begin("--version: asking libedgetpu")
            print_versions()
            return
        check_options(options)
        state.begin(f"{options.model}: loading it (--delegate={options.delegate})")
        model = build_model(options)
    finally:
        gc.enable()
    if model.idle_delegate:
        messages.warning(
            f"{options.model}: delegate {model.delegate} runs no part of it; all "
            "of it runs on the CPU"
        )
    if options.learn is not None:
        run_learning(model, options, messages, state)
        return
    if model.task == "classify":
        model.check_classes()
    if options.benchmark:
        run_benchmark(model, options, messages, state)
    elif options.evaluate is not None:
        run_evaluation(model, options, messages, state)
    elif options.compare:
        run_comparison(model, options, messages, state)
    else:
        run_images(model, options, messages, state)


def run_command_line(argv, program, state):
    """Runs the command line in this process; returns the exit code."""
    messages = Messages()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # labels may exceed the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    # Pillow and the runtimes warn on stderr, which is kept for our error lines.
    warnings.simplefilter("ignore")
    try:
        try:
            if sys.stdout is None:  # the next file that is opened would take its place
                raise UserError("the standard output is closed: no result can be shown")
            run(parse_arguments(argv, program), messages, state)
        finally:
            print(end="", flush=True)
    except UserError as error:
        messages.error(error)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # Python flushes once more at its end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` just left
            messages.error(f"the results cannot be written: {error}")
    return 2 if messages.errors else 0


def main(argv=None, program=None):
    """Runs the command line under the supervisor.

    Args:
        argv: list of str, the arguments; None takes those of the process.
        program: str, what the user types to start it, for the help; None is the
            script that was started.

    Returns:
        the exit code.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    program = program or f"python3 {sys.argv[0]}"

    def work(state):
        return run_command_line(argv, program, state)

    return supervise(work) if hasattr(os, "fork") else work(SharedState())


if __name__ == "__main__":
    sys.exit(main())
