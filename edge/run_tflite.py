#!/usr/bin/env python3
"""Classify pictures with a TensorFlow Lite model: one file, for the device.

    python3 run_tflite.py --model=resnet20.tflite photo.jpg
    python3 run_tflite.py --model=resnet20.tflite --top_k=1 --json photos/ a.png
    python3 run_tflite.py --model=mobilenet.tflite --labels=labels.txt photo.jpg
    python3 run_tflite.py --model=resnet20.tflite --benchmark --threads=2

Needs Python >= 3.7, numpy, Pillow and one of ai-edge-litert, tflite-runtime or
tensorflow. Copy this file and the model; nothing else of the project is needed.

What the model is fed
    Raw RGB pixels: 0..255 to a uint8 or float input, pixel - 128 to an int8 input.
    Normalization belongs to the model. Scores are dequantized by the model's own
    scale and zero point, never by flags.
How a picture becomes the input
    A model that carries `preprocessing.json` (in a ZIP archive behind its own bytes;
    edge/export.py writes it) says how: the shorter side is resized to `resize_size`,
    then the centre is cropped, as torchvision and timm evaluate. For any other model
    the picture is stretched to the input size, as pycoral's classify_image.py does.
    EXIF orientation is applied, alpha dropped, 16-bit grey cut to its high byte, and
    of an animation the first frame is taken.
Labels
    From --labels, else from the archive inside the model, else class numbers alone.
--json
    One object per line and picture, in the order given, times in milliseconds:
    {"file": str, "top": [{"index": int, "label": str or null, "score": float}, ...],
     "milliseconds": {"decode": float, "resize": float, "invoke": float}}
    With --benchmark one object in all; without pictures random pixels are fed and
    there is no "decode", "resize" and "total":
    {"model": str, "runtime": str, "threads": int, "images": int, "invokes": int,
     "model_load": float, "first_inference": float,
     "decode" | "resize" | "invoke" | "total": {"median": float, "p90": float}}
Exit codes
    0 done; 2 something that you can mend, told in one line `error: ...` on stderr
    (a bad picture does not stop the others); 1 a bug of ours; 130 Ctrl-C.
"""

import argparse
import collections
import contextlib
import importlib
import io
import json
import os
import re
import struct
import sys
import time
import warnings
import zipfile

# numpy, Pillow and the runtime are imported where they are used: --help stays quick.

VERSION = "1.0"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
# Nothing else that Pillow knows: EPS, for one, is a program that it would run.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
MAX_PIXELS = 89478485  # where Pillow begins to warn of a bomb: 256 MiB of RGB
MAX_LABEL_BYTES = 4 << 20
MAX_PREPROCESSING_BYTES = 64 << 10
BENCHMARK_INVOKES = 50
WARM_UP_INVOKES = 5


class UserError(Exception):
    """Something that the user can mend; its text is shown as one line."""


@contextlib.contextmanager
def blamed_on(subject, *types):
    """Turn exceptions of these types into a UserError that names the culprit."""
    try:
        yield
    except types as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{subject}: {reason}") from error


def printable(text):
    """Escape line breaks and control characters: labels and names are not ours."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)
    )


def open_file(path):
    """Open a file in binary; UserError if that fails.

    Only regular files: a FIFO or a device would block or never end.
    """
    with blamed_on(path, OSError, ValueError):
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "a directory" if os.path.isdir(path) else "a device or pipe"
            raise ValueError(f"expected a file, received {kind}")
        try:
            return open(path, "rb")
        except OSError as error:
            raise ValueError(f"cannot be opened: {error.strerror}") from error


# --- The model file: a flatbuffer, and behind it a ZIP archive -----------------------

# TFLite's schema: the fields of each table in order, up to the last that holds an
# offset. "-" is a plain value, a number a vector of items of so many bytes, "[X]" a
# vector of tables X, "X" one table.
SCHEMA = {
    "Model": "- [OperatorCode] [SubGraph] string [Buffer] 4 [Metadata] [SignatureDef]",
    "OperatorCode": "- string",
    "SubGraph": "[Tensor] 4 4 [Operator] string",
    "Buffer": "1",
    "Metadata": "string",
    "SignatureDef": "[TensorMap] [TensorMap] string",
    "TensorMap": "string",
    "Tensor": "4 - - string Quantization - - 4",
    "Quantization": "4 4 4 8",
    "Operator": "- 4 4 - Options 1 - 1 4",
    "Options": "",
    "ShapeOptions": "4",
}
OPTIONS_WITH_SHAPE = (17, 30)  # BuiltinOptions of RESHAPE and SQUEEZE


class FlatbufferWalk:
    """Checks that every table and vector of a TFLite flatbuffer lies inside it.

    tflite-runtime trusts the file and crashes on a damaged one; ai-edge-litert
    verifies it, but does not say what is wrong.

    Attributes:
      end: first byte behind everything that was reached.
      custom_ops: set of names of custom operators.
    """

    def __init__(self, data):
        """Walk through bytes; raise ValueError where they are damaged."""
        self.data = data
        self.end = 0
        self.custom_ops = set()
        self._seen = set()
        self._table("Model", self._number("<I", 0))

    def _span(self, start, size):
        """Require the bytes start..start+size to exist."""
        if start < 0 or start + size > len(self.data):
            raise ValueError(f"byte {start + size} of {len(self.data)} is needed")
        self.end = max(self.end, start + size)

    def _number(self, code, position):
        self._span(position, struct.calcsize(code))
        return struct.unpack_from(code, self.data, position)[0]

    def _table(self, kind, position):
        if (kind, position) in self._seen:
            return
        self._seen.add((kind, position))
        vtable = position - self._number("<i", position)
        vtable_size = self._number("<H", vtable)
        table_size = self._number("<H", vtable + 2)
        self._span(vtable, vtable_size)
        self._span(position, table_size)
        count = vtable_size // 2 - 2
        if count < 0 or vtable_size % 2 or table_size < 4:
            raise ValueError(f"bad vtable at byte {vtable}")
        fields = struct.unpack_from(f"<{count}H", self.data, vtable + 4)
        if any(offset >= table_size for offset in fields):
            raise ValueError(f"bad field in the vtable at byte {vtable}")
        for what, offset in zip(SCHEMA[kind].split(), fields):
            if offset and what != "-":
                if what == "Options" and fields[3]:
                    if self.data[position + fields[3]] in OPTIONS_WITH_SHAPE:
                        what = "ShapeOptions"
                text = self._field(what, position + offset)
                if kind == "OperatorCode":
                    self.custom_ops.add(text)

    def _field(self, what, position):
        """Follow the offset at `position`; returns the text where it is a string."""
        target = position + self._number("<I", position)
        if target % 4:
            raise ValueError(f"misaligned offset at byte {position}")
        if what in SCHEMA:
            return self._table(what, target)
        count = self._number("<I", target)
        start = target + 4
        if what == "string":
            if self._number("<B", start + count):  # native code reads up to a zero
                raise ValueError(f"unterminated text at byte {start}")
            return self.data[start : start + count].decode("utf-8", "replace")
        self._span(start, count * int(what if what.isdigit() else 4))
        if what.startswith("["):
            for item in range(start, start + count * 4, 4):
                self._table(what[1:-1], item + self._number("<I", item))
        return None


def read_model(path):
    """Read a `.tflite` file and refuse one that a runtime could not bear.

    Returns:
      (bytes of the file, first byte behind the flatbuffer).

    Raises:
      UserError: not a TFLite model, truncated, damaged, or compiled for the Edge TPU.
    """
    with open_file(path) as file, blamed_on(path, OSError):
        data = file.read()
    if data[4:8] != b"TFL3":
        raise UserError(
            f"{path}: not a TFLite model: bytes 4 to 8 are {data[4:8]!r}, expected "
            f"b'TFL3' ({len(data)} bytes in all); give a .tflite file"
        )
    try:
        walk = FlatbufferWalk(data)
        tail = data[walk.end :]
        if b"PK\3\4" in tail[:16] and not zipfile.is_zipfile(io.BytesIO(tail)):
            raise ValueError("the archive with its labels has no end")
    except ValueError as error:
        raise UserError(
            f"{path}: truncated or damaged model ({error}); copy or export it again"
        ) from error
    if "edgetpu-custom-op" in walk.custom_ops:
        raise UserError(
            f"{path}: compiled for the Edge TPU, and this runs on the CPU; give the "
            "uncompiled file (the one without _edgetpu in its name)"
        )
    return data, walk.end


def read_archive(data, end):
    """Read the files that travel inside a model, without trusting their sizes.

    Args:
      data: bytes of the whole file.
      end: first byte behind the flatbuffer, where the archive begins.

    Returns:
      (labels, preprocessing.json): bytes, or None for what is not there. Labels are
      `labels.txt`, else the only .txt file (Coral's `imagenet_labels.txt`).

    Raises:
      Exception: of many types, as zipfile does on damaged archives.
    """
    if not zipfile.is_zipfile(io.BytesIO(data[end:])):
        return None, None
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        texts = [name for name in names if name.endswith(".txt")]
        limits = {
            texts[0] if len(texts) == 1 else "labels.txt": MAX_LABEL_BYTES,
            "preprocessing.json": MAX_PREPROCESSING_BYTES,
        }
        found = []
        for name, limit in limits.items():
            if name in names:
                with archive.open(name) as file:
                    found.append(bounded(file, limit))
            else:
                found.append(None)
    return tuple(found)


def bounded(file, limit):
    """Read a whole file; ValueError if that is more than `limit` bytes."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{file.name} is larger than {limit} bytes")
    return data


def parse_labels(data, numbered):
    """Split a label file into labels.

    Args:
      data: bytes, UTF-8, one label per line; empty lines at the end do not count.
      numbered: accept Coral's `0  name` form too. It is taken for that only if the
        numbers are exactly 0..n-1, so that labels such as `7 up` stay whole.

    Raises:
      ValueError: it is not UTF-8.
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


Preprocessing = collections.namedtuple(
    "Preprocessing", "version input_size resize_size crop_fraction interpolation"
)


def parse_preprocessing(data, input_size):
    """Check preprocessing.json field by field; others than the known are ignored.

    Args:
      data: bytes of the file.
      input_size: [height, width] in pixels of the model, which the file must repeat.

    Returns:
      `Preprocessing`, sizes in pixels.

    Raises:
      ValueError: naming the field, what was expected and what was received.
    """
    found = json.loads(data.decode("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")
    least = max(input_size)
    sizes = f"a whole number from {least} to 16384"
    # Types are compared because true == 1 and 224.0 == 224.
    checks = {
        "version": ("1", lambda v: type(v) is int and v == 1),
        "input_size": (input_size, lambda v: v == input_size),
        "resize_size": (sizes, lambda v: type(v) is int and least <= v <= 16384),
        "crop_fraction": (
            "a number above 0 and at most 1",
            lambda v: type(v) in (int, float) and 0 < v <= 1,
        ),
        "interpolation": (
            " or ".join(INTERPOLATIONS),
            lambda v: type(v) is str and v in INTERPOLATIONS,
        ),
    }
    for name, (expected, valid) in checks.items():
        value = found.get(name)
        if not valid(value):
            raise ValueError(
                f"{name}: expected {expected}, received {value!r:.40}; export again"
            )
    return Preprocessing(*(found[name] for name in Preprocessing._fields))


# --- The runtime ----------------------------------------------------------------------


@contextlib.contextmanager
def silenced_stderr():
    """Send file descriptor 2 to the null device: native code prints there directly."""
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
    """Import the first TFLite runtime that works here.

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
    """Raise ImportError where tflite-runtime, built for numpy 1, would fail later."""
    import numpy as np

    numpy_major = int(np.__version__.split(".")[0])
    if numpy_major > 1 and tuple(map(int, version.split(".")[:2])) < (2, 18):
        raise ImportError(f"{version} needs numpy < 2, found {np.__version__}")


def build_interpreter(interpreter_class, model, threads):
    """Make a ready interpreter; the one place that does, so delegates belong here.

    Args:
      interpreter_class: from `load_runtime`.
      model: bytes of the file, the very ones that were checked.
      threads: int, CPU threads.
    """
    with silenced_stderr():
        interpreter = interpreter_class(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


def default_threads():
    """Count the CPUs that this process may use, at most 4."""
    if hasattr(os, "sched_getaffinity"):
        return min(4, len(os.sched_getaffinity(0)))
    return min(4, os.cpu_count() or 1)


# --- The classifier -------------------------------------------------------------------

Prediction = collections.namedtuple("Prediction", "index label score")


class Classifier:
    """A TFLite picture classifier, ready to run.

    Attributes:
      labels: list of str, one per class, or None.
      input_shape: (1, height, width, 3).
      preprocessing: `Preprocessing`, or None where the model carries none.
      runtime: name and version of the TFLite runtime.
      threads: int, CPU threads.
      load_milliseconds: reading, checking and building, without Python imports.
    """

    def __init__(self, model_path, labels_path=None, threads=None):
        """Load a model.

        Args:
          model_path: a `.tflite` file.
          labels_path: a label file, one per line or Coral's `0  name` form; None
            takes the labels inside the model.
          threads: int, CPU threads; None chooses.

        Raises:
          UserError: a file or the runtime is missing or does not fit.
        """
        interpreter_class, self.runtime = load_runtime()
        self.threads = threads or default_threads()
        self.path = model_path
        start = time.perf_counter()
        data, end = read_model(model_path)
        with blamed_on(f"{model_path}: {self.runtime}", RuntimeError, ValueError):
            self._interpreter = build_interpreter(interpreter_class, data, self.threads)
        with blamed_on(model_path, ValueError):
            self._check_tensors()
        with blamed_on(f"{model_path}: the archive inside is damaged", Exception):
            labels, preprocessing = read_archive(data, end)
        self.preprocessing = None
        if preprocessing is not None:
            where = f"{model_path}: preprocessing.json inside"
            with blamed_on(where, ValueError, RecursionError):
                self.preprocessing = parse_preprocessing(
                    preprocessing, list(self.input_shape[1:3])
                )
        self.labels = self._read_labels(labels, labels_path)
        self.load_milliseconds = milliseconds_since(start)

    def _check_tensors(self):
        """Raise ValueError for a model that is not a classifier of RGB pictures."""
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if (len(inputs), len(outputs)) != (1, 1):
            raise ValueError(
                f"has {len(inputs)} inputs and {len(outputs)} outputs; only models "
                "with one of each are run"
            )
        self._input, self._output = inputs[0], outputs[0]
        self.input_shape = tuple(self._input["shape"].tolist())
        # A dynamic size shows as 1 in `shape`; only `shape_signature` tells.
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
        output_shape = self._output["shape"].tolist()
        if len(output_shape) != 2 or output_shape[0] != 1:
            raise ValueError(f"expected output [1, classes], received {output_shape}")

    def _read_labels(self, data, path):
        """Parse the labels of the model, or of the file at `path` if one is given."""
        where = path or f"{self.path}: labels inside"
        with blamed_on(where, ValueError, OSError):
            if path:
                with open_file(path) as file:
                    data = bounded(file, MAX_LABEL_BYTES)
            if data is None:
                return None
            labels = parse_labels(data, numbered=bool(path))
            classes = int(self._output["shape"][1])
            if len(labels) != classes:
                raise ValueError(
                    f"{len(labels)} labels for a model of {classes} classes; give the "
                    "fitting file with --labels"
                )
        return labels

    def scores(self, pixels):
        """Run the model on one prepared picture.

        Args:
          pixels: uint8 array (height, width, 3) of the input size, RGB.

        Returns:
          float32 array (classes,), dequantized; the caller's own.

        Raises:
          ValueError: the array has another shape or dtype.
          UserError: the runtime failed, or a score is not a finite number.
        """
        import numpy as np

        if pixels.shape != self.input_shape[1:] or pixels.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 {self.input_shape[1:]}, received {pixels.dtype} "
                f"{pixels.shape}"
            )
        if self._input["dtype"] == np.int8:
            fed = (pixels ^ 128).view(np.int8)  # pixel - 128 in two's complement
        else:
            fed = pixels.astype(self._input["dtype"])
        self._interpreter.set_tensor(self._input["index"], fed[np.newaxis])
        with blamed_on(f"{self.path}: {self.runtime}", RuntimeError, ValueError):
            self._interpreter.invoke()
        scores = self._interpreter.get_tensor(self._output["index"])[0]
        scores = scores.astype(np.float32)
        scale, zero_point = self._output["quantization"]
        if scale:  # 0 where the output is not quantized
            scores = (scores - np.float32(zero_point)) * np.float32(scale)
        if not np.isfinite(scores).all():
            raise UserError(f"{self.path}: gave scores that are not finite numbers")
        return scores

    def top_k(self, scores, k):
        """Rank classes: highest score first, of equal scores the lowest index first.

        Args:
          scores: float array (classes,). uint8 scores tie often, hence the rule.
          k: int >= 1; more than there are classes gives all of them.

        Returns:
          list of `Prediction`; label is None for a model without labels.
        """
        order = (-scores).argsort(kind="stable")[:k].tolist()
        labels = self.labels or [None] * len(scores)
        return [Prediction(i, labels[i], float(scores[i])) for i in order]


# --- Pictures -------------------------------------------------------------------------

# EXIF orientation -> what turns the picture upright.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def read_image(source):
    """Decode a picture, whole or not at all.

    Args:
      source: path, or a binary file that can seek.

    Returns:
      PIL image of mode RGB, upright.

    Raises:
      UserError: missing, empty, not a picture, truncated, or larger than MAX_PIXELS.
    """
    if not hasattr(source, "read"):
        with open_file(source) as file:
            return read_image(file)
    # Pillow's decoders let exceptions of many types out on damaged files.
    with blamed_on(getattr(source, "name", "picture"), Exception):
        image = decode(source)
        return to_rgb(upright(image), image.format)


def decode(file):
    """Read all pixels of a picture file; whatever is wrong with it is raised."""
    from PIL import Image

    start = file.read(16)
    file.seek(0)
    if not start:
        raise ValueError("empty, expected a picture")
    try:
        image = Image.open(file)
    except OSError as error:
        raise ValueError(f"not a picture, or damaged; it begins {start!r}") from error
    if image.format not in FORMATS:
        raise ValueError(f"expected one of {', '.join(FORMATS)}, got {image.format}")
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
        )
    image.load()
    return image


def upright(image):
    """Apply the EXIF orientation; damaged EXIF leaves the picture as it is."""
    from PIL import Image

    # Pillow 5 (Mendel Linux) has `_getexif`, for JPEG only.
    read_exif = getattr(image, "getexif", None) or getattr(image, "_getexif", dict)
    try:
        orientation = (read_exif() or {}).get(0x0112)
    except Exception:  # whatever is wrong with it, the pixels are whole
        return image
    if orientation not in UPRIGHT:
        return image
    return image.transpose(getattr(Image, UPRIGHT[orientation]))


def to_rgb(image, file_format):
    """Convert a picture of any mode to RGB, as training's tf.io.decode_image does.

    Alpha is dropped, and 16-bit grey keeps its high byte (Pillow alone would clip it).
    """
    import numpy as np
    from PIL import Image

    # Older Pillow gives 16-bit grey PNG the mode of 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known range; save it with 8 or 16 bits")
    return image.convert("RGB")


def prepare(image, classifier):
    """Resize a picture to the model's input, as the model says.

    Args:
      image: PIL image of mode RGB.
      classifier: `Classifier`.

    Returns:
      uint8 array (height, width, 3).

    Raises:
      UserError: the picture is too elongated to be resized within MAX_PIXELS.
    """
    import numpy as np
    from PIL import Image

    height, width = classifier.input_shape[1:3]
    how = classifier.preprocessing
    if how is None:
        return np.array(image.resize((width, height), Image.LANCZOS))
    shorter, longer = sorted(image.size)
    new_longer = int(how.resize_size * longer / shorter)
    if new_longer * how.resize_size > MAX_PIXELS:
        raise UserError(
            f"{image.width} x {image.height} pixels: too elongated to be resized"
        )
    size = (how.resize_size, new_longer)
    if image.width > image.height:
        size = size[::-1]
    image = image.resize(size, getattr(Image, how.interpolation.upper()))
    left = int(round((image.width - width) / 2))
    top = int(round((image.height - height) / 2))
    return np.array(image.crop((left, top, left + width, top + height)))


def find_pictures(argument, errors):
    """List the picture files that one argument stands for.

    Args:
      argument: a file, taken as it is, or a directory: its files with a picture's
        suffix, sorted, from all levels below; links are followed, but none twice.
      errors: `ErrorLines`, for folders that cannot be read or hold no picture.
    """
    if not os.path.isdir(argument):
        return [argument]
    found, visited, before = [], set(), errors.count
    walk = os.walk(argument, onerror=errors.add, followlinks=True)
    for folder, subfolders, names in walk:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            del subfolders[:]
            continue
        visited.add((status.st_dev, status.st_ino))
        # Hidden files: macOS leaves a `._photo.jpg`, no picture, beside each photo.
        found += [
            os.path.join(folder, name)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not found and errors.count == before:
        errors.add(f"{argument}: no picture in this folder ({' '.join(SUFFIXES)})")
    return sorted(found)


# --- Running and reporting ------------------------------------------------------------


class ErrorLines:
    """Prints one line per error on stderr and counts them."""

    def __init__(self):
        """Start at none."""
        self.count = 0

    def add(self, error):
        """Print an error: an exception or text."""
        self.count += 1
        if sys.stderr:  # None when closed, and print would take stdout
            print(f"error: {printable(error)}", file=sys.stderr, flush=True)


def milliseconds_since(start):
    """Time since `start`, a `time.perf_counter()`, to the microsecond."""
    return round(1000 * (time.perf_counter() - start), 3)


def classify(path, classifier):
    """Read, prepare and run one picture.

    Returns:
      (float32 scores (classes,), {"decode" | "resize" | "invoke": milliseconds}).
    """
    start = time.perf_counter()
    image = read_image(path)
    times = {"decode": milliseconds_since(start)}
    start = time.perf_counter()
    with blamed_on(path, UserError, MemoryError):
        pixels = prepare(image, classifier)
    times["resize"] = milliseconds_since(start)
    start = time.perf_counter()
    scores = classifier.scores(pixels)
    times["invoke"] = milliseconds_since(start)
    return scores, times


def print_top(path, top, times, as_json):
    """Print the result for one picture."""
    if as_json:
        top = [prediction._asdict() for prediction in top]
        record = {"file": path, "top": top, "milliseconds": times}
        print(json.dumps(record), flush=True)
        return
    spent = ", ".join(f"{name} {value:.1f} ms" for name, value in times.items())
    lines = [f"{printable(path)}  ({spent})"]
    for index, label, score in top:
        lines.append(f"{score:10.4f}  {index:5d}  {printable(label or '')}".rstrip())
    print("\n".join(lines), flush=True)


def benchmark(classifier, paths, errors):
    """Time a model.

    Args:
      classifier: `Classifier`.
      paths: list of picture files, each timed at least once; empty for random pixels.
      errors: `ErrorLines`; a bad picture is told once and left out.

    Returns:
      dict as the module's docstring describes.

    Raises:
      UserError: no picture is left.
    """
    import numpy as np

    noise = np.random.RandomState(0).randint(0, 256, classifier.input_shape[1:])
    noise = noise.astype(np.uint8)

    def run(path):
        if path:
            times = classify(path, classifier)[1]
            return dict(times, total=sum(times.values()))
        start = time.perf_counter()
        classifier.scores(noise)
        return {"invoke": milliseconds_since(start)}

    queue, samples = collections.deque(paths or [None]), []
    while queue and len(samples) < WARM_UP_INVOKES + max(BENCHMARK_INVOKES, len(queue)):
        path = queue.popleft()
        try:
            samples.append(run(path))
            queue.append(path)
        except UserError as error:
            errors.add(error)
    if not queue:
        raise UserError("nothing to time: none of the pictures can be read")
    report = {
        "model": classifier.path,
        "runtime": classifier.runtime,
        "threads": classifier.threads,
        "images": len(queue) if paths else 0,
        "invokes": len(samples) - WARM_UP_INVOKES,
        "model_load": classifier.load_milliseconds,
        "first_inference": samples[0]["invoke"],
    }
    for stage in samples[0]:
        times = [sample[stage] for sample in samples[WARM_UP_INVOKES:]]
        median, p90 = np.percentile(times, (50, 90)).round(3).tolist()
        report[stage] = {"median": median, "p90": p90}
    return report


def print_benchmark(report):
    """Print a benchmark as a table."""
    stages = {name: value for name, value in report.items() if isinstance(value, dict)}
    for name in report:
        if name not in stages:
            unit = " ms" if isinstance(report[name], float) else ""
            print(f"{name.replace('_', ' '):16}  {printable(report[name])}{unit}")
    print(f"{'milliseconds':16}{'median':>12}{'p90':>12}")
    for name, values in stages.items():
        print(f"{name:16}{values['median']:12.3f}{values['p90']:12.3f}")


def print_versions():
    """Print the version of everything that has a part in the result."""
    import numpy
    import PIL

    print(f"run_tflite.py {VERSION}, Python {sys.version.split()[0]}")
    print(f"numpy {numpy.__version__}, Pillow {PIL.__version__}")
    print(f"runtime: {load_runtime()[1]}")


# --- The command line -----------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all others here."""

    def error(self, message):
        """Raise instead of printing the usage."""
        raise UserError(f"{message}; see --help")


def whole_number(lowest, highest):
    """Make an argument type: an int within bounds."""

    def parse(text):
        if not re.match("[0-9]{1,9}$", text) or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {lowest} to {highest}, received {text!r}"
            )
        return int(text)

    return parse


def parse_arguments(argv):
    """Parse the command line; a wrong flag is a UserError that names the nearest."""
    parser = Parser(
        prog="run_tflite.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    number = {"metavar": "N", "type": whole_number(1, 10**6)}
    add("images", nargs="*", metavar="IMAGE_OR_DIR", help="picture, or folder of them")
    add("--model", metavar="PATH", help="the .tflite file")
    add("--top_k", default=5, help="classes to show for each picture (5)", **number)
    number["type"] = whole_number(1, 256)
    add("--threads", help="CPU threads (one per CPU, at most 4)", **number)
    add("--labels", metavar="FILE", help="labels, one per line or as `0  name`")
    add("--json", action="store_true", help="print JSON, one object per line")
    add("--benchmark", action="store_true", help="print times instead of labels")
    add("--version", action="store_true", help="print all versions and leave")
    # argparse forgets what `--` meant when pictures and flags alternate.
    argv = list(sys.argv[1:] if argv is None else argv)
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


def run(options, errors):
    """Do what the command line asks.

    Args:
      options: from `parse_arguments`.
      errors: `ErrorLines`, for pictures that are left out.

    Raises:
      UserError: nothing can be done at all.
    """
    with blamed_on("numpy and Pillow are needed (pip install)", ImportError):
        importlib.import_module("numpy")
        importlib.import_module("PIL.Image")
    if options.version:
        print_versions()
        return
    if not options.model:
        raise UserError("no model given; add --model=PATH.tflite")
    if not options.images and not options.benchmark:
        raise UserError("no picture given; add picture files or folders of them")
    classifier = Classifier(options.model, options.labels, options.threads)
    paths = [p for given in options.images for p in find_pictures(given, errors)]
    if options.benchmark:
        if options.images and not paths:  # told by find_pictures
            return
        report = benchmark(classifier, paths, errors)
        if options.json:
            print(json.dumps(report))
        else:
            print_benchmark(report)
        return
    for path in paths:
        try:
            scores, times = classify(path, classifier)
        except UserError as error:
            errors.add(error)
            continue
        top = classifier.top_k(scores, options.top_k)
        print_top(path, top, times, options.json)


def main(argv=None):
    """Run the command line and return the exit code."""
    errors = ErrorLines()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # labels may exceed the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    # Pillow and the runtimes warn on stderr, where only our error lines belong.
    warnings.simplefilter("ignore")
    try:
        try:
            run(parse_arguments(argv), errors)
        finally:
            print(end="", flush=True)
    except UserError as error:
        errors.add(error)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # Python flushes once more at its end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` just left
            errors.add(f"the results cannot be written: {error}")
    return 2 if errors.count else 0


if __name__ == "__main__":
    sys.exit(main())
