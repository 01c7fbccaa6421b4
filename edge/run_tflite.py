#!/usr/bin/env python3
"""Classify pictures with a TensorFlow Lite model: one file, for the device.

    python3 run_tflite.py --model=resnet20.tflite photo.jpg
    python3 run_tflite.py --model=resnet20.tflite --top_k=1 --json photos/ a.png
    python3 run_tflite.py --model=mobilenet.tflite --labels=labels.txt photo.jpg
    python3 run_tflite.py --model=mobilenet_edgetpu.tflite photo.jpg
    python3 run_tflite.py --model=float.tflite --mean=127.5 --std=127.5 photo.jpg
    python3 run_tflite.py --model=resnet20.tflite --evaluate=photos/
    python3 run_tflite.py --model=resnet20.tflite --benchmark --threads=2
    python3 run_tflite.py --model=resnet20.tflite --camera=0 --top_k=1

Needs Python >= 3.7, numpy, Pillow and one of ai-edge-litert, tflite-runtime or
tensorflow. Copy this file and the model; nothing else of the project is needed.

What the model is fed
    Raw RGB pixels: 0..255 to a uint8 or float input, pixel - 128 to an int8 input.
    Normalization belongs to the model: a float model's TFLite metadata may ask for
    (pixel - mean) / std. For a model that lacks it, --mean and --std are given in
    pixels, one number or three, and for a quantized input the result is quantized
    by the model's own scale and zero point, as scores are dequantized.
How a picture becomes the input
    A model that carries `preprocessing.json` (in a ZIP archive behind its own bytes;
    edge/export.py writes it) says how: the shorter side is resized to `resize_size`,
    then the centre is cropped, as torchvision and timm evaluate. For any other model
    the picture is stretched to the input size, as pycoral's classify_image.py does.
    EXIF orientation is applied, alpha dropped, 16-bit grey cut to its high byte, and
    of an animation the first frame is taken. A JPEG that is far larger than needed is
    decoded at a half, quarter or eighth of its size, but for --annotate.
Labels
    From --labels, else from the archive inside the model, else class numbers alone.
--delegate
    auto, the default, is the Edge TPU for a model that is compiled for it and the CPU
    for any other; `none` the CPU; `edgetpu`, or with a device `edgetpu:usb`,
    `edgetpu:pci`, `edgetpu:usb:0`; or the path of an external delegate.
--evaluate
    The folders of DIR are classes: named as labels, or by class numbers, or, if there
    are as many as classes, in the order of their names, as training sorts them.
--json
    One object per line and picture, in the order given, times in milliseconds:
    {"file": str, "top": [{"index": int, "label": str or null, "score": float}, ...],
     "milliseconds": {"decode": float, "resize": float, "invoke": float}}
    A picture that is no good has a line on stderr instead.
    With --compare:
    {"file": str, "same_top": bool, "max_difference": float,
     "cpu" | "delegate": {"top": [...], "invoke": float}}
    With --evaluate one object in all, shares from 0 to 1, worst class first:
    {"model": str, "images": int, "failed": int, "top1": float, "top5": float or null,
     "classes": [{"index": int, "label": str or null, "images": int, "top1": float,
       "taken_for": {"index": int, "label": str or null, "images": int} or null}, ...],
     "mistakes": [{"file": str, "expected": int, "index": int, "score": float}, ...],
     "failures": [{"file": str, "error": str}, ...]}
    With --benchmark one object in all; without pictures random pixels are fed and
    there is no "decode", "resize" and "total"; memory is the process's peak:
    {"model": str, "runtime": str, "delegate": str, "threads": int, "images": int,
     "invokes": int, "peak_memory_mib": float or null, "model_load": float,
     "first_inference": float,
     "decode" | "resize" | "invoke" | "total":
       {"median": float, "p90": float, "p99": float}}
Exit codes
    0 done; 2 something that you can mend, told in one line `error: ...` on stderr
    (a bad picture does not stop the others); 1 a bug of ours; 130 Ctrl-C. Native
    code that crashes is such a line too: the work is done in a child process.
"""

import argparse
import collections
import contextlib
import gc
import importlib
import io
import itertools
import json
import math
import mmap
import os
import re
import signal
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
# Of a JPEG, each of which costs as much as a picture: progressive ones have some ten.
MAX_SCANS = 100
MAX_MODEL_BYTES = (2 << 30) - 1  # offsets in a flatbuffer are signed
MAX_LABEL_BYTES = 4 << 20
MAX_PREPROCESSING_BYTES = 64 << 10
BENCHMARK_INVOKES = 50
WARM_UP_INVOKES = 5
# A JPEG is decoded at a fraction of its size if that is still so many times the size
# that is needed: then 100 photographs kept their labels (with 6 and less some lost it).
REDUCED = 8
MAX_PICTURE_BYTES = 256 << 20
WATCH_SECONDS = 0.5
WORST_CLASSES = 5
STAGES = ("decode", "resize", "invoke")
MAX_CRASHES = 3
CRASH_HINT = (
    "the file may be damaged, or the delegate built for another version of the runtime"
)
SYSTEM = ""  # the root of /sys and /dev


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

# The fields of each table in order, up to the last that is needed: "-" is skipped, a
# code of `struct` is a plain value, a number a vector of items of so many bytes, "[X]"
# a vector of tables X, "X" one table. Those with a name are kept.
SCHEMA = {
    # https://github.com/tensorflow/tensorflow tensorflow/lite/schema/schema.fbs
    "Model": "- codes=[OperatorCode] graphs=[SubGraph] string buffers=[Buffer] 4 "
    "metadata=[Metadata] [SignatureDef]",
    "OperatorCode": "- custom=string",
    "SubGraph": "[Tensor] 4 4 operators=[Operator] string",
    "Buffer": "data=1",
    "Metadata": "name=string buffer=I",
    "SignatureDef": "[TensorMap] [TensorMap] string",
    "TensorMap": "string",
    "Tensor": "4 - - string Quantization - - 4",
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
# Unions: which field holds the type, and the tables of the types that are needed.
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
      root: the tables, as dicts of the fields that SCHEMA names; absent fields are
        absent, tables in vectors are lists, other vectors `slice`s of the bytes.
    """

    def __init__(self, data, kind="Model"):
        """Walk through bytes; raise ValueError where they are damaged."""
        self.data = data
        self.end = 0
        self._seen = {}
        # Vectors of a sound file do not overlap; without a bound those of a hostile
        # one could be read forever.
        self._budget = 2 * len(data) + 64
        self.root = self._table(kind, self._number("<I", 0))

    def _span(self, start, size):
        """Require the bytes start..start+size to exist."""
        if start < 0 or start + size > len(self.data):
            raise ValueError(f"byte {start + size} of {len(self.data)} is needed")
        self.end = max(self.end, start + size)

    def _number(self, code, position):
        self._span(position, struct.calcsize(code))
        return struct.unpack_from(code, self.data, position)[0]

    def _table(self, kind, position):
        """Walk through a table once; returns its named fields."""
        if (kind, position) in self._seen:
            return self._seen[kind, position]
        found = self._seen[kind, position] = {}
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
        """Read the plain value, or what the offset, at `position`."""
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
        self._span(start, size)
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


def read_model(path):
    """Look through a `.tflite` file and refuse one that a runtime could not bear.

    Returns:
      (the file's bytes as an `mmap`: what is not needed is not read, and the runtime
      maps the same; `FlatbufferWalk` through them).

    Raises:
      UserError: not a TFLite model, truncated or damaged.
    """
    with open_file(path) as file, blamed_on(path, OSError):
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
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        walk = FlatbufferWalk(data)
        tail = data[walk.end :]
        if b"PK\3\4" in tail[:16] and not zipfile.is_zipfile(io.BytesIO(tail)):
            raise ValueError("the archive with its labels has no end")
    except ValueError as error:
        raise UserError(
            f"{path}: truncated or damaged model ({error}); copy or export it again"
        ) from error
    return data, walk


Metadata = collections.namedtuple("Metadata", "mean std labels_name")


def read_metadata(data, model):
    """Read TFLite's standard metadata, as far as it matters here.

    Args:
      data: all of the file, bytes or an `mmap`.
      model: the `FlatbufferWalk` through it.

    Returns:
      `Metadata`: mean and std in pixels, tuples of floats, and the name of the label
      file in the archive; each None where the metadata does not tell.

    Raises:
      ValueError: it is damaged.
    """
    content = b""
    for entry in model.root.get("metadata", ()):
        if entry.get("name") == "TFLITE_METADATA":
            buffers, index = model.root.get("buffers", ()), entry.get("buffer", 0)
            if index >= len(buffers):
                raise ValueError(f"is buffer {index} of {len(buffers)}")
            content = data[buffers[index].get("data", slice(0))]
    if not content:
        return Metadata(None, None, None)
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
            check_normalization(mean, std)
    for file in reversed((tensors.get("outputs") or [{}])[0].get("files", ())):
        if file.get("type") in LABEL_FILE_TYPES and not file.get("locale"):
            labels_name = file.get("name")
    return Metadata(mean, std, labels_name)


def check_normalization(mean, std):
    """Raise ValueError unless these are one or three sensible numbers each."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
            raise ValueError(f"{name}: expected 1 or 3 numbers, received {values}")
    if min(std) <= 0:
        raise ValueError(f"std: expected numbers above 0, received {std}")


def read_archive(path, data, end, labels_name=None):
    """Read the files that travel inside a model, without trusting their sizes.

    Args:
      path: of the model.
      data: all of the file, bytes or an `mmap`.
      end: first byte behind the flatbuffer, where the archive begins.
      labels_name: the label file according to the metadata, or None.

    Returns:
      (labels, preprocessing.json): bytes, or None for what is not there. Labels are
      the file of the metadata, else `labels.txt`, else the only .txt file (Coral's
      `imagenet_labels.txt`).

    Raises:
      Exception: of many types, as zipfile does on damaged archives.
    """
    if not zipfile.is_zipfile(io.BytesIO(data[end:])):
        return None, None
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        texts = [name for name in names if name.endswith(".txt")]
        if labels_name not in names:
            labels_name = texts[0] if len(texts) == 1 else "labels.txt"
        found = []
        for name, limit in (
            (labels_name, MAX_LABEL_BYTES),
            ("preprocessing.json", MAX_PREPROCESSING_BYTES),
        ):
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
        raise ImportError(
            f"{version} needs numpy < 2, found {np.__version__}: pip install 'numpy<2'"
        )


def build_interpreter(interpreter_class, path, threads, delegate=None):
    """Make an interpreter, still without memory for its tensors.

    Args:
      interpreter_class: from `load_runtime`.
      path: of the model, as it was checked.
      threads: int, CPU threads.
      delegate: from `load_delegate`, or None for the CPU.
    """
    options = {"experimental_delegates": [delegate]} if delegate else {}
    if path.isascii():
        options["model_path"] = path
    else:  # not all runtimes open it
        with open_file(path) as file:
            options["model_content"] = file.read()
    with silenced_stderr():
        return interpreter_class(num_threads=threads, **options)


def default_threads():
    """Count the physical cores that this process may use, at most 4.

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
        except OSError:  # no Linux
            cores.add(cpu)
    return min(4, len(cores))


# --- Delegates ------------------------------------------------------------------------

EDGETPU_LIBRARIES = {
    "linux": "libedgetpu.so.1",
    "darwin": "libedgetpu.1.dylib",
    "win32": "edgetpu.dll",
}
# Vendor and product on USB before the first use and after it, and on PCIe.
EDGETPU_USB = ("1a6e:089a", "18d1:9302")
EDGETPU_PCI = "0x1ac1:0x089a"

Delegate = collections.namedtuple("Delegate", "name library options")


def choose_delegate(text, options, compiled):
    """Tell what --delegate stands for.

    Args:
      text: auto, none, edgetpu, edgetpu:DEVICE, or the path of a library.
      options: dict of str, for the delegate.
      compiled: whether the model is compiled for the Edge TPU.

    Returns:
      `Delegate`, or None for the CPU.

    Raises:
      ValueError: it does not fit the model, or is none of these.
    """
    if text == "auto":
        text = "edgetpu" if compiled else "none"
    if text == "none":
        if compiled:
            raise ValueError(
                "compiled for the Edge TPU, and --delegate=none is the CPU; give the "
                "uncompiled file (the one without _edgetpu in its name)"
            )
        if options:
            raise ValueError("--delegate_options needs a --delegate to go to")
        return None
    match = re.match(r"edgetpu(?::((?:usb|pci)?(?::[0-9]+)?))?$", text)
    if match:
        if not compiled:
            raise ValueError(
                "not compiled for the Edge TPU, which would leave it all to the CPU; "
                "run edgetpu_compiler on it, or leave --delegate out"
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
    """Load a delegate's library and let it open its device.

    Args:
      delegate: `Delegate`.
      interpreter_class: from `load_runtime`, for which the delegate is.
      runtime: likewise.

    Raises:
      ValueError: it cannot be loaded, with what is missing.
    """
    import ctypes

    try:
        # Asked first, because the runtime's own attempt prints a stray exception.
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
            f"compiled for the Edge TPU, and none answers ({reason}); {checks}; or "
            "give the uncompiled file (the one without _edgetpu in its name)"
        ) from error


def check_edgetpu(runtime):
    """Check all that an Edge TPU needs.

    Args:
      runtime: name and version of the TFLite runtime.

    Returns:
      list of (whether it is there, what was found or how to mend it).
    """
    checks = [check_edgetpu_library(runtime)]
    usb, pci = find_edgetpu_usb(), find_edgetpu_pci()
    for node in usb:
        cure = "install the udev rule of libedgetpu1-std, join its group with "
        cure += "`sudo usermod -aG plugdev $USER`, log in again, replug"
        checks.append(check_access("USB accelerator", node, cure))
    for node in pci:
        cure = "install gasket-dkms, then give /dev/apex_0 to your group by a udev rule"
        checks.append(check_access("PCIe accelerator", node, cure))
    if not usb + pci:
        checks.append(
            (
                False,
                f"device (no {' or '.join(EDGETPU_USB)} on USB, no {EDGETPU_PCI} on "
                "PCIe): plug it in, into USB 3, with enough power",
            )
        )
    return checks


def check_edgetpu_library(runtime):
    """Check that libedgetpu loads, and name its version beside the runtime's."""
    import ctypes

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


def check_access(what, node, cure):
    """Check that a device's node exists and may be written to."""
    if not os.path.exists(node):
        return False, f"{what} is there, but its node {node} is not: {cure}"
    if not os.access(node, os.R_OK | os.W_OK):
        return False, f"right to use the {what} at {node}: {cure}"
    return True, f"{what} at {node}"


def read_text(*path):
    """Read a short file of the kernel; "" if there is none."""
    try:
        with open(os.path.join(*path)) as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return ""


def find_edgetpu_usb():
    """List the device nodes of Edge TPUs on USB."""
    folder = f"{SYSTEM}/sys/bus/usb/devices"
    nodes = []
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else ()):
        ids = [read_text(folder, name, file) for file in ("idVendor", "idProduct")]
        if ":".join(ids) in EDGETPU_USB:
            bus, device = (
                read_text(folder, name, file).zfill(3) for file in ("busnum", "devnum")
            )
            nodes.append(f"{SYSTEM}/dev/bus/usb/{bus}/{device}")
    return nodes


def find_edgetpu_pci():
    """List the device nodes of Edge TPUs on PCIe, as the driver numbers them."""
    folder = f"{SYSTEM}/sys/bus/pci/devices"
    found = [
        name
        for name in (os.listdir(folder) if os.path.isdir(folder) else ())
        if EDGETPU_PCI
        == ":".join(read_text(folder, name, file) for file in ("vendor", "device"))
    ]
    return [f"{SYSTEM}/dev/apex_{number}" for number in range(len(found))]


# --- The classifier -------------------------------------------------------------------

Prediction = collections.namedtuple("Prediction", "index label score")


class Classifier:
    """A TFLite picture classifier, ready to run.

    Attributes:
      labels: list of str, one per class, or None.
      classes: int, how many.
      input_shape: (1, height, width, 3).
      preprocessing: `Preprocessing`, or None where the model carries none.
      runtime: name and version of the TFLite runtime.
      delegate: "none", or what runs the model instead of the CPU.
      idle_delegate: whether the delegate took no part of the model.
      threads: int, CPU threads.
      load_milliseconds: reading, checking and building, without Python imports.
    """

    def __init__(
        self,
        model_path,
        labels_path=None,
        threads=None,
        delegate="auto",
        delegate_options=None,
        normalization=None,
        bgr=False,
    ):
        """Load a model.

        Args:
          model_path: a `.tflite` file.
          labels_path: a label file, one per line or Coral's `0  name` form; None
            takes the labels inside the model.
          threads: int, CPU threads; None chooses.
          delegate: as --delegate.
          delegate_options: dict of str, for the delegate.
          normalization: (mean, std) in pixels, tuples of one or three numbers; None
            takes that of the model.
          bgr: whether the model wants blue first.

        Raises:
          UserError: a file, the runtime or the delegate is missing or does not fit.
        """
        interpreter_class, self.runtime = load_runtime()
        self.threads = threads or default_threads()
        self.path = model_path
        self._bgr = bgr
        start = time.perf_counter()
        data, walk = read_model(model_path)
        self._build(interpreter_class, walk, delegate, delegate_options or {})
        with blamed_on(model_path, ValueError):
            self._check_tensors()
        with blamed_on(f"{model_path}: its metadata is damaged", ValueError):
            metadata = read_metadata(data, walk)
        with blamed_on(f"{model_path}: the archive inside is damaged", Exception):
            labels, preprocessing = read_archive(
                model_path, data, walk.end, metadata.labels_name
            )
        self.preprocessing = None
        if preprocessing is not None:
            where = f"{model_path}: preprocessing.json inside"
            with blamed_on(where, ValueError, RecursionError):
                self.preprocessing = parse_preprocessing(
                    preprocessing, list(self.input_shape[1:3])
                )
        # Metadata of quantized models repeats what scale and zero point say already.
        if metadata.mean and "float" in self._input["dtype"].__name__:
            normalization = normalization or (metadata.mean, metadata.std)
        with blamed_on(model_path, ValueError):
            self._lookup = normalization and self._quantized_pixels(*normalization)
        self.labels = self._read_labels(labels, labels_path)
        self.load_milliseconds = milliseconds_since(start)

    def _build(self, interpreter_class, walk, delegate, options):
        """Build the interpreter, with a delegate if there is one."""
        custom_ops = {code.get("custom") for code in walk.root.get("codes", ())}
        compiled = "edgetpu-custom-op" in custom_ops
        with blamed_on(self.path, ValueError):
            chosen = choose_delegate(delegate, options, compiled)
            loaded = chosen and load_delegate(chosen, interpreter_class, self.runtime)
        self.delegate = chosen.name if chosen else "none"
        who = self.runtime + (f" with delegate {chosen.name}" if chosen else "")
        self._who = f"{self.path}: {who}"
        with blamed_on(self._who, RuntimeError, ValueError):
            self._interpreter = build_interpreter(
                interpreter_class, self.path, self.threads, loaded
            )
            # Each part that a delegate takes becomes one more operator. XNNPACK, the
            # runtime's own, comes only when the tensors get their memory.
            graph = (walk.root.get("graphs") or [{}])[0]
            operators = len(graph.get("operators", ()))
            list_operators = getattr(self._interpreter, "_get_ops_details", None)
            self.idle_delegate = bool(
                chosen and list_operators and len(list_operators()) == operators
            )
            with silenced_stderr():
                self._interpreter.allocate_tensors()

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
        self.classes = output_shape[1]

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
            if len(labels) != self.classes:
                raise ValueError(
                    f"{len(labels)} labels for a model of {self.classes} classes; give "
                    "the fitting file with --labels"
                )
        return labels

    def _quantized_pixels(self, mean, std):
        """Make a table (256, 3) of what each value of a pixel is fed as.

        real = (pixel - mean) / std, and a quantized input holds real as
        scale * (fed - zero_point).
        """
        import numpy as np

        check_normalization(mean, std)
        dtype = self._input["dtype"]
        with np.errstate(all="ignore"):
            table = (np.arange(256.0)[:, np.newaxis] - mean) / std + np.zeros(3)
            fits = np.isfinite(table.astype(np.float32)).all()
        if not fits:
            raise ValueError(f"mean {mean} and std {std} leave the range of numbers")
        if not np.issubdtype(dtype, np.floating):
            scale, zero_point = self._input["quantization"]
            if not scale:
                raise ValueError("its input has no scale for --mean and --std")
            limits = np.iinfo(dtype)
            table = np.rint(table / scale) + zero_point
            table = table.clip(limits.min, limits.max)
        return table.astype(dtype)

    def _fed(self, pixels):
        """Turn pixels into what the input holds."""
        import numpy as np

        if self._bgr:
            pixels = pixels[..., ::-1]
        if self._lookup is not None:
            return self._lookup[pixels, np.arange(3)]
        if self._input["dtype"] == np.int8:
            return (pixels ^ 128).view(np.int8)  # pixel - 128 in two's complement
        return pixels.astype(self._input["dtype"])

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
        fed = self._fed(pixels)
        self._interpreter.set_tensor(self._input["index"], fed[np.newaxis])
        with blamed_on(self._who, RuntimeError, ValueError):
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


Picture = collections.namedtuple("Picture", "image box")


def read_image(source):
    """Decode a picture, whole or not at all.

    Args:
      source: path, or a binary file that can seek.

    Returns:
      PIL image of mode RGB, upright.

    Raises:
      UserError: missing, empty, not a picture, truncated, or larger than MAX_PIXELS.
    """
    return read_picture(source, None).image


def read_picture(source, classifier):
    """Decode a picture, in as many pixels as a classifier needs.

    Args:
      source: path, or a binary file that can seek; "-" is the standard input.
      classifier: `Classifier`; None decodes all pixels.

    Returns:
      `Picture`: the PIL image, of mode RGB and upright, and the box (left, top, right,
      bottom) of it that the picture fills: less than all where an odd number of pixels
      was halved.

    Raises:
      UserError: as `read_image`.
    """
    if source == "-":
        source = read_stdin()
    if not hasattr(source, "read"):
        with open_file(source) as file:
            return read_picture(file, classifier)
    # Pillow's decoders let exceptions of many types out on damaged files.
    with blamed_on(getattr(source, "name", "picture"), Exception):
        image, size = decode(source, classifier)
        file_format = image.format
        image, box = upright(image, size)
        return Picture(to_rgb(image, file_format), box)


def read_stdin():
    """Read a picture from the standard input, into memory: it cannot seek."""
    if sys.stdin is None:
        raise UserError("standard input: it is closed")
    file = io.BytesIO(sys.stdin.buffer.read(MAX_PICTURE_BYTES + 1))
    file.name = "standard input"
    if len(file.getbuffer()) > MAX_PICTURE_BYTES:
        raise UserError(f"{file.name}: more than {MAX_PICTURE_BYTES} bytes")
    return file


def decode(file, classifier):
    """Read the pixels of a picture file; whatever is wrong with it is raised.

    Returns:
      (PIL image of any mode, perhaps still to be turned; (width, height) in its pixels
      of what the picture fills, from the left upper corner).
    """
    from PIL import Image

    start = file.read(16)
    file.seek(0)
    if not start:
        raise ValueError("empty, expected a picture")
    is_jpeg = start[:3] == b"\xff\xd8\xff"
    try:
        image = (is_jpeg and open_jpeg(file)) or Image.open(file)
    except OSError as error:
        raise ValueError(f"not a picture, or damaged; it begins {start!r}") from error
    if image.format not in FORMATS:
        raise ValueError(f"expected one of {', '.join(FORMATS)}, got {image.format}")
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
        )
    if is_jpeg:
        # Their headers are 8 to 14 bytes long; a phone's film may follow the picture.
        file.seek(0)
        data = file.read(MAX_PICTURE_BYTES)
        scans = len(re.findall(b"\xff\xda\0[\x08\x0a\x0c\x0e]", data))
        if scans > MAX_SCANS:
            raise ValueError(f"{scans} scans, expected at most {MAX_SCANS}")
    scale, (width, height) = 1, image.size
    if classifier and image.format == "JPEG":
        least = [REDUCED * pixels for pixels in needed_size(image.size, classifier)]
        image.draft(image.mode, least)
        while scale < 8 and image.width < width // scale:
            scale *= 2
    image.load()
    return image, (width / scale, height / scale)


def open_jpeg(file):
    """Open a JPEG, or return None: `Image.open` imports more formats, 3 ms long."""
    from PIL import JpegImagePlugin

    try:
        return JpegImagePlugin.jpeg_factory(file, "")
    except Exception:  # of many types; whoever comes next tells
        file.seek(0)
        return None


def needed_size(size, classifier):
    """Tell to what (width, height) a picture of this size is resized, before a crop."""
    how, (height, width) = classifier.preprocessing, classifier.input_shape[1:3]
    if how is None:
        return max(width, height), max(width, height)  # EXIF may still turn it
    if how.interpolation == "nearest":  # it picks pixels: they must be the real ones
        return size
    return [math.ceil(how.resize_size * pixels / min(size)) for pixels in size]


def upright(image, size):
    """Apply the EXIF orientation; damaged EXIF leaves the picture as it is.

    Args:
      image: PIL image.
      size: (width, height) that the picture fills, from the left upper corner.

    Returns:
      (PIL image, box): as `Picture`, but of any mode.
    """
    from PIL import Image

    # Pillow 5 (Mendel Linux) has `_getexif`, for JPEG only.
    read_exif = getattr(image, "getexif", None) or getattr(image, "_getexif", dict)
    try:
        orientation = (read_exif() or {}).get(0x0112)
    except Exception:  # whatever is wrong with it, the pixels are whole
        orientation = None
    if orientation in UPRIGHT:
        image = image.transpose(getattr(Image, UPRIGHT[orientation]))
    else:
        orientation = 1
    width, height = size[::-1] if orientation > 4 else size
    left = image.width - width if orientation in (2, 3, 6, 7) else 0
    top = image.height - height if orientation in (3, 4, 7, 8) else 0
    return image, (left, top, left + width, top + height)


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
    return image if image.mode == "RGB" else image.convert("RGB")


def prepare(image, classifier, box=None):
    """Resize a picture to the model's input, as the model says.

    Args:
      image: PIL image of mode RGB.
      classifier: `Classifier`.
      box: as in `Picture`; None is all of the image.

    Returns:
      uint8 array (height, width, 3).

    Raises:
      UserError: the picture is too elongated to be resized within MAX_PIXELS.
    """
    import numpy as np
    from PIL import Image

    box = box or (0, 0) + image.size
    height, width = classifier.input_shape[1:3]
    how = classifier.preprocessing
    if how is None:
        return np.array(image.resize((width, height), Image.LANCZOS, box))
    size = (box[2] - box[0], box[3] - box[1])
    shorter, longer = sorted(size)
    new_longer = int(how.resize_size * longer / shorter)
    if new_longer * how.resize_size > MAX_PIXELS:
        raise UserError(
            f"{image.width} x {image.height} pixels: too elongated to be resized"
        )
    new_size = (how.resize_size, new_longer)
    if size[0] > size[1]:
        new_size = new_size[::-1]
    left = int(round((new_size[0] - width) / 2))
    top = int(round((new_size[1] - height) / 2))
    crop = (left, top, left + width, top + height)
    if how.interpolation == "nearest":
        return np.array(image.resize(new_size, Image.NEAREST).crop(crop))
    # Resizing and cropping at once: what is cropped need not be computed.
    across, down = size[0] / new_size[0], size[1] / new_size[1]
    part = (
        box[0] + crop[0] * across,
        box[1] + crop[1] * down,
        box[0] + crop[2] * across,
        box[1] + crop[3] * down,
    )
    method = getattr(Image, how.interpolation.upper())
    return np.array(image.resize((width, height), method, part))


# --- Sources of pictures --------------------------------------------------------------


def find_pictures(argument, messages):
    """List the picture files that one argument stands for.

    Args:
      argument: a file, taken as it is; "-", the standard input; a pattern as a shell
        knows it, where no shell expanded it; or a directory: its files with a
        picture's suffix, sorted, from all levels below; links are followed, but none
        twice.
      messages: `Messages`, for folders that cannot be read or hold no picture.
    """
    if re.search(r"[*?\[]", argument) and not os.path.lexists(argument):
        import glob

        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            messages.error(f"{argument}: no file matches")
        return [path for match in matches for path in find_pictures(match, messages)]
    if not os.path.isdir(argument):
        return [argument]
    found, visited, before = [], set(), messages.errors
    walk = os.walk(argument, onerror=messages.error, followlinks=True)
    for folder, subfolders, names in walk:
        try:
            status = os.stat(folder)
        except OSError as error:  # deleted in the meantime
            messages.error(error)
            continue
        if (status.st_dev, status.st_ino) in visited:
            del subfolders[:]
            continue
        visited.add((status.st_dev, status.st_ino))
        found += [os.path.join(folder, name) for name in names if is_picture(name)]
    if not found and messages.errors == before:
        suffixes = " ".join(SUFFIXES)
        messages.error(f"{argument}: no picture in this folder ({suffixes})")
    return sorted(found)


def is_picture(name):
    """Tell by its name whether a file in a folder is meant.

    Hidden files are not: macOS leaves a `._photo.jpg`, no picture, beside each photo.
    """
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def watch(folder):
    """Yield the pictures that appear in a folder, each once it is written whole.

    Args:
      folder: a directory; what lies in it already is not new.

    Raises:
      UserError: it cannot be read.
    """
    seen, growing = None, {}
    while True:
        now = {}
        with blamed_on(folder, OSError):
            for entry in os.scandir(folder):
                with contextlib.suppress(OSError):  # deleted in the meantime
                    if is_picture(entry.name):
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


def camera_frames(number):
    """Yield a camera's frames without end.

    Yields:
      ("camera N frame M", PIL image, milliseconds that it took).

    Raises:
      UserError: OpenCV or the camera is missing, or the camera stops.
    """
    from PIL import Image

    with blamed_on("--camera needs OpenCV (pip install opencv-python)", ImportError):
        cv2 = importlib.import_module("cv2")
    with silenced_stderr():
        capture = cv2.VideoCapture(number)
    try:
        for frame in itertools.count():
            start = time.perf_counter()
            there, pixels = capture.read()
            if not there:
                what = "stopped" if frame else "cannot be opened"
                raise UserError(
                    f"camera {number}: {what}; is it plugged in, and may you read "
                    f"/dev/video{number}?"
                )
            image = Image.fromarray(pixels[..., ::-1].copy())  # OpenCV's blue is first
            yield f"camera {number} frame {frame}", image, milliseconds_since(start)
    finally:
        capture.release()


# --- Running --------------------------------------------------------------------------

Result = collections.namedtuple("Result", "scores times image")


def milliseconds_since(start):
    """Time since `start`, a `time.perf_counter()`, to the microsecond."""
    return round(1000 * (time.perf_counter() - start), 3)


def load_pixels(path, classifier, keep=False):
    """Read and prepare one picture.

    Args:
      path: of the picture.
      classifier: `Classifier`.
      keep: whether to decode all of the picture and return it.

    Returns:
      (pixels for `Classifier.scores`, {"decode" | "resize": milliseconds}, PIL image
      or None).
    """
    start = time.perf_counter()
    picture = read_picture(path, None if keep else classifier)
    times = {"decode": milliseconds_since(start)}
    start = time.perf_counter()
    with blamed_on(path, UserError, MemoryError):
        pixels = prepare(picture.image, classifier, picture.box)
    times["resize"] = milliseconds_since(start)
    return pixels, times, picture.image if keep else None


def invoke(classifier, pixels, times, image=None):
    """Run a classifier on pixels; the time is added to the others.

    Returns:
      `Result`: float32 scores (classes,), {stage: milliseconds} and the image.
    """
    start = time.perf_counter()
    scores = classifier.scores(pixels)
    return Result(scores, dict(times, invoke=milliseconds_since(start)), image)


def classify(path, classifier):
    """Read, prepare and run one picture; returns a `Result`."""
    return invoke(classifier, *load_pixels(path, classifier))


def attempt(function, *arguments):
    """Return what a function returns, or the UserError that it raises."""
    try:
        return function(*arguments)
    except UserError as error:
        return error


def classify_all(paths, classifier, guard, keep=False):
    """Classify pictures in their order, decoding some while others are run.

    Args:
      paths: of the pictures.
      classifier: `Classifier`.
      guard: `Guard`.
      keep: as in `load_pixels`.

    Yields:
      (path, `Result` or the UserError that stopped it).
    """

    def load(path):
        return attempt(load_pixels, path, classifier, keep)

    for path, loaded in ahead(load, list(paths), guard):
        guard.doing(f"{path}: running {classifier.path} on it")
        if not isinstance(loaded, UserError):
            loaded = attempt(invoke, classifier, *loaded)
        yield path, loaded
        guard.done += 1


def ahead(function, paths, guard):
    """Yield (path, function(path)) in order, computed by threads some paths ahead."""
    if len(paths) < 2 or guard.careful:
        for path in paths:
            guard.doing(f"{path}: reading it")
            yield path, function(path)
        return
    from concurrent.futures import ThreadPoolExecutor

    guard.overlapping = True
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


# --- Reporting ------------------------------------------------------------------------


class Messages:
    """Prints on stderr: one line per error or warning, and the progress.

    Attributes:
      errors: how many there were.
    """

    def __init__(self, quiet=False):
        """Start at none; the quiet ones print nothing."""
        self.errors = 0
        self._quiet = quiet
        self._shown = None  # when the progress was shown last

    def error(self, error):
        """Print an error: an exception or text."""
        self.errors += 1
        self._print(f"error: {printable(error)}")

    def warning(self, text):
        """Print what a user should know, though the results are right."""
        self._print(f"warning: {printable(text)}")

    def progress(self, done, total, since):
        """Show on a terminal how far the pictures are.

        Args:
          done: how many are.
          total: of how many.
          since: `time.perf_counter()` of the start.
        """
        now = time.perf_counter()
        if not sys.stderr or not sys.stderr.isatty():
            return
        if done < total and now - (self._shown or since) < 0.2:
            return
        self._shown = now
        text = f"{done} of {total} pictures, {done / (now - since):.1f} a second"
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)

    def _print(self, line):
        # It is None when closed, and print would take stdout.
        if sys.stderr and not self._quiet:
            start = "\r\x1b[K" if self._shown else ""
            print(start + line, file=sys.stderr, flush=True)


def as_records(top):
    """Turn predictions into what JSON holds."""
    return [prediction._asdict() for prediction in top]


def show(text):
    """Print whole lines at once: native code may end us between two writes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(path, top, times):
    """Print the result for one picture as a line of JSON."""
    record = {"file": path, "top": as_records(top), "milliseconds": times}
    show(json.dumps(record))


def csv_row(*fields):
    """Format one row; a field with commas, quotes or line breaks is quoted."""
    import csv

    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(fields)
    return row.getvalue()


def print_csv(path, top, times):
    """Print the result for one picture as rows of CSV, one per class."""
    spent = [times.get(stage, "") for stage in STAGES]
    rows = [
        csv_row(path, rank, index, label or "", score, *spent)
        for rank, (index, label, score) in enumerate(top, 1)
    ]
    if rows:
        show("\n".join(rows))


def print_table(path, top, times):
    """Print the result for one picture for people."""
    spent = ", ".join(f"{name} {value:.1f} ms" for name, value in times.items())
    show("\n".join([f"{printable(path)}  ({spent})"] + table_lines(top)))


def table_lines(top):
    """Format predictions, one per line."""
    return [
        f"{score:10.4f}  {index:5d}  {printable(label or '')}".rstrip()
        for index, label, score in top
    ]


def annotate(image, top, path):
    """Write a picture with its top labels drawn on it, whole or not at all.

    Args:
      image: PIL image of mode RGB.
      top: list of `Prediction`.
      path: of the JPEG.

    Raises:
      UserError: it cannot be written.
    """
    from PIL import Image, ImageDraw

    # Text on a thumbnail could not be read.
    times = min(256 // min(image.size), 4096 // max(image.size))
    if times > 1:
        image = image.resize([times * pixels for pixels in image.size], Image.NEAREST)
    else:
        image = image.copy()
    draw, height = ImageDraw.Draw(image), max(10, image.height // 24)
    font, limited = load_font(height)
    for line, (index, label, score) in enumerate(top):
        text = f"{score:.2f} {printable(index if label is None else label)}"
        if limited:
            text = text.encode("latin-1", "replace").decode("latin-1")
        left, upper = height // 2, height // 2 + line * height * 5 // 4
        draw.text((left + 1, upper + 1), text, fill="black", font=font)
        draw.text((left, upper), text, fill="white", font=font)
    part = f"{path}.part"
    with blamed_on(path, OSError, ValueError):
        image.save(part, "JPEG", quality=90)
        os.replace(part, path)


def load_font(height):
    """Find a font of about so many pixels.

    Returns:
      (font, whether it knows Latin-1 only: Pillow's own, where the system has none).
    """
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", height), False
    except (OSError, ImportError):
        return ImageFont.load_default(), True


def annotated_path(folder, number, path):
    """Name the annotated picture: the number keeps equal names apart."""
    name = os.path.splitext(os.path.basename(path))[0]
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:100]
    return os.path.join(folder, f"{number:05d}_{name}.jpg")


# --- Benchmark ------------------------------------------------------------------------


def peak_memory_mib():
    """Tell the most memory this process ever used; None where that is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def benchmark(classifier, paths, messages):
    """Time a model.

    Args:
      classifier: `Classifier`.
      paths: list of picture files, each timed at least once; empty for random pixels.
      messages: `Messages`; a bad picture is told once and left out.

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
            times = classify(path, classifier).times
            return dict(times, total=sum(times.values()))
        return invoke(classifier, noise, {}).times

    queue, samples = collections.deque(paths or [None]), []
    while queue and len(samples) < WARM_UP_INVOKES + max(BENCHMARK_INVOKES, len(queue)):
        path = queue.popleft()
        try:
            samples.append(run(path))
            queue.append(path)
        except UserError as error:
            messages.error(error)
    if not queue:
        raise UserError("nothing to time: none of the pictures can be read")
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
    """Print a benchmark as a table."""
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


# --- Evaluation -----------------------------------------------------------------------


def find_classes(folder, classifier):
    """Tell which class each folder of an evaluation set stands for.

    Args:
      folder: a directory of directories.
      classifier: `Classifier`.

    Returns:
      list of (name of the folder, class index), sorted by name.

    Raises:
      UserError: a folder stands for no class, or for several.
    """
    with blamed_on(folder, OSError):
        names = sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    if not names:
        raise UserError(f"{folder}: expected a folder for each class, found none")
    indices = collections.defaultdict(list)
    for index, label in enumerate(classifier.labels or ()):
        indices[plain(label)].append(index)
    strange = [name for name in names if plain(name) not in indices]
    if not strange:
        found = [indices[plain(name)] for name in names]
    elif all(re.match("[0-9]{1,9}$", name) for name in names):
        found = [[int(name)] for name in names]
    elif len(names) == classifier.classes and len(strange) == len(names):
        found = [[index] for index in range(len(names))]
    else:
        raise UserError(
            f"{folder}: {len(names)} folders for a model of {classifier.classes} "
            f"classes, and {strange[0]!r} is none of its labels; name them as labels, "
            "or by class numbers from 0"
        )
    for name, classes in zip(names, found):
        if len(classes) > 1 or classes[0] >= classifier.classes:
            raise UserError(
                f"{os.path.join(folder, name)}: expected one of {classifier.classes} "
                f"classes, received {' and '.join(map(str, classes))}; name the "
                "folders by class numbers from 0"
            )
    return [(name, classes[0]) for name, classes in zip(names, found)]


def plain(label):
    """Reduce a label to what a folder's name can hold of it."""
    return re.sub(r"[\W_]+", " ", label.casefold()).strip()


def evaluate(classifier, folder, messages, guard):
    """Measure accuracy on pictures in folders named by class.

    Args:
      classifier: `Classifier`.
      folder: a directory, see `find_classes`.
      messages: `Messages`; a bad picture is told, counted and left out.
      guard: `Guard`.

    Returns:
      dict as the module's docstring describes.

    Raises:
      UserError: the folders fit no classes, or no picture can be read.
    """
    classes = find_classes(folder, classifier)
    expected = {
        path: index
        for name, index in classes
        for path in find_pictures(os.path.join(folder, name), messages)
    }
    labels = dict(enumerate(classifier.labels)) if classifier.labels else {}
    names = labels or {index: name for name, index in classes}
    ranks, mistakes, failures = [], [], []
    confusion = collections.defaultdict(collections.Counter)
    start = time.perf_counter()
    for path, result in classify_all(expected, classifier, guard):
        if isinstance(result, UserError):
            messages.error(result)
            failures.append({"file": path, "error": str(result)})
        else:
            index, best = expected[path], int(result.scores.argmax())
            ranks.append(rank_of(index, result.scores))
            confusion[index][best] += 1
            if best != index:
                score = float(result.scores[best])
                mistakes.append(
                    {"file": path, "expected": index, "index": best, "score": score}
                )
        messages.progress(len(ranks) + len(failures), len(expected), start)
    if not ranks:
        raise UserError(f"{folder}: none of the pictures can be read")
    top5 = sum(rank < 5 for rank in ranks) / len(ranks)
    return {
        "model": classifier.path,
        "images": len(ranks),
        "failed": len(failures),
        "top1": ranks.count(0) / len(ranks),
        "top5": top5 if classifier.classes > 5 else None,
        "classes": worst_first(confusion, names),
        "mistakes": mistakes,
        "failures": failures,
    }


def rank_of(index, scores):
    """Count the classes before this one, of equal scores the lowest index first."""
    higher = (scores > scores[index]).sum()
    return int(higher + (scores[:index] == scores[index]).sum())


def worst_first(confusion, names):
    """List the accuracy of each class and what it is mostly taken for.

    Args:
      confusion: {class: Counter of what it was taken for}.
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
    """Print an evaluation for people: the shares, and the worst classes."""
    for name in ("images", "failed"):
        print(f"{name:8}{report[name]:9d}")
    for name in ("top1", "top5"):
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


# --- Comparing a delegate with the CPU ------------------------------------------------


def compare(path, cpu, delegate, k):
    """Run one picture on both.

    Args:
      path: of the picture.
      cpu: `Classifier`.
      delegate: `Classifier` of the same network, with a delegate.
      k: how many classes to list.

    Returns:
      dict as the module's docstring describes.
    """
    import numpy as np

    pixels = load_pixels(path, cpu)[0]
    results = [invoke(classifier, pixels, {}) for classifier in (cpu, delegate)]
    one, other = (result.scores for result in results)
    report = {
        "file": path,
        "same_top": bool(one.argmax() == other.argmax()),
        "max_difference": float(np.abs(one - other).max()),
    }
    for name, result in zip(("cpu", "delegate"), results):
        top = as_records(cpu.top_k(result.scores, k))
        report[name] = {"top": top, "invoke": result.times["invoke"]}
    return report


def print_comparison(report):
    """Print the result of `compare` for people."""
    same = "the same" if report["same_top"] else "ANOTHER"
    print(
        f"{printable(report['file'])}  ({same} top class, scores differ by at most "
        f"{report['max_difference']:.4f})"
    )
    for name in ("cpu", "delegate"):
        print(f"  {name} ({report[name]['invoke']:.1f} ms)")
        top = [Prediction(**found) for found in report[name]["top"]]
        print("\n".join(table_lines(top)), flush=True)


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


def finite(text):
    """Argument type: one finite number."""
    with contextlib.suppress(ValueError):
        if math.isfinite(float(text)):
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number, received {text!r}")


def numbers(text):
    """Argument type: one finite number, or three separated by commas."""
    with contextlib.suppress(ValueError):
        values = tuple(map(float, text.split(",")))
        if len(values) in (1, 3) and all(map(math.isfinite, values)):
            return values
    raise argparse.ArgumentTypeError(
        f"expected a number, or three as 1,2,3; received {text!r}"
    )


def key_and_value(text):
    """Argument type: KEY=VALUE, as a pair."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text!r}")
    return key, value


def parse_arguments(argv):
    """Parse the command line; a wrong flag is a UserError that names the nearest."""
    parser = Parser(
        prog="run_tflite.py",
        # argparse would make one of all flags, at every start.
        usage="%(prog)s --model=PATH [flags] IMAGE_OR_DIR...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    number = {"metavar": "N", "type": whole_number(1, 10**6)}
    pictures = "picture, folder, pattern, or - for the standard input"
    add("images", nargs="*", metavar="IMAGE_OR_DIR", help=pictures)
    add("--model", metavar="PATH", help="the .tflite file")
    add("--top_k", default=5, help="classes to show for each picture (5)", **number)
    add("--threshold", default=0.0, type=finite, help="least score to show (0)")
    number["type"] = whole_number(1, 256)
    add("--threads", help="CPU threads (one per core, at most 4)", **number)
    add("--labels", metavar="FILE", help="labels, one per line or as `0  name`")
    add("--mean", type=numbers, help="of pixels, one or three numbers (0)")
    add("--std", type=numbers, help="of pixels, one or three numbers (1)")
    add("--bgr", action="store_true", help="the model wants blue first")
    add("--delegate", default="auto", help="auto, none, edgetpu[:DEVICE] or a library")
    option = {"action": "append", "default": [], "type": key_and_value}
    option["help"] = "for the delegate; again for more"
    add("--delegate_options", metavar="KEY=VALUE", **option)
    add("--compare", action="store_true", help="run CPU and delegate, show both")
    number["type"] = whole_number(0, 99)
    add("--camera", help="classify the frames of camera N (OpenCV)", **number)
    add("--watch", metavar="DIR", help="classify the pictures that appear there")
    add("--evaluate", metavar="DIR", help="accuracy on folders named by class")
    add("--benchmark", action="store_true", help="print times instead of labels")
    add("--json", action="store_true", help="print JSON, one object per line")
    add("--csv", action="store_true", help="print CSV, one row per class")
    add("--annotate", metavar="OUT_DIR", help="write pictures with their labels there")
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


def check_options(options):
    """Raise UserError for flags that do not go together."""
    if not options.model:
        raise UserError("no model given; add --model=PATH.tflite")
    given = vars(options)
    sources = ["pictures"] if options.images else []
    for name in ("camera", "watch", "evaluate"):
        sources += [f"--{name}"] if given[name] is not None else []
    if not sources and not options.benchmark:
        raise UserError("no picture given; add picture files or folders of them")
    modes = [source for source in sources if source != "pictures"]
    modes += [f"--{name}" for name in ("benchmark", "compare") if given[name]]
    outputs = [f"--{name}" for name in ("json", "csv") if given[name]]
    for clash in (sources, modes, outputs):
        if len(clash) > 1:
            raise UserError(f"{' and '.join(clash)} do not go together; give one")
    for name in ("labels", "annotate"):  # an unset variable of a shell, mostly
        if given[name] == "":
            raise UserError(f"--{name} is empty; give a path or leave it out")
    lists = set(modes) <= {"--camera", "--watch"}
    if options.watch is not None and options.annotate:
        if os.path.realpath(options.watch) == os.path.realpath(options.annotate):
            raise UserError("--annotate and --watch need two folders, not one")
    for name in ("csv", "annotate"):
        if given[name] and not lists:
            raise UserError(f"--{name} and {modes[0]} do not go together; give one")


def build_classifier(options, model=None, delegate=None):
    """Build the classifier of the command line, or one with this model and delegate."""
    normalization = None
    if options.mean or options.std:
        normalization = (options.mean or (0.0,), options.std or (1.0,))
    return Classifier(
        model or options.model,
        options.labels,
        options.threads,
        delegate or options.delegate,
        {} if delegate else dict(options.delegate_options),
        normalization,
        options.bgr,
    )


@contextlib.contextmanager
def garbage_kept():
    """Look for no garbage inside the block: at the start that takes 3 ms of 60."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run(options, messages, guard):
    """Do what the command line asks.

    Args:
      options: from `parse_arguments`.
      messages: `Messages`, for pictures that are left out.
      guard: `Guard`.

    Raises:
      UserError: nothing can be done at all.
    """
    with garbage_kept():  # there is little until a model is loaded
        with blamed_on("numpy and Pillow are needed (pip install)", ImportError):
            importlib.import_module("numpy")
            importlib.import_module("PIL.Image")
        if options.version:
            guard.doing("--version: asking libedgetpu")
            print_versions()
            return
        check_options(options)
        guard.doing(f"{options.model}: loading it (--delegate={options.delegate})")
        classifier = build_classifier(options)
    if classifier.idle_delegate:
        messages.warning(
            f"{options.model}: delegate {classifier.delegate} took no part of it; all "
            "of it runs on the CPU"
        )
    if options.benchmark:
        run_benchmark(classifier, options, messages, guard)
    elif options.evaluate is not None:
        report = evaluate(classifier, options.evaluate, messages, guard)
        print(json.dumps(report)) if options.json else print_evaluation(report)
    elif options.compare:
        run_comparison(classifier, options, messages, guard)
    else:
        run_pictures(classifier, options, messages, guard)


def print_versions():
    """Print the version of everything that has a part in the result."""
    import numpy
    import PIL

    print(f"run_tflite.py {VERSION}, Python {sys.version.split()[0]}")
    print(f"numpy {numpy.__version__}, Pillow {PIL.__version__}")
    runtime = load_runtime()[1]
    print(f"runtime: {runtime}, {default_threads()} threads")
    for good, text in check_edgetpu(runtime):
        print(f"Edge TPU, {'ok' if good else 'missing'}: {printable(text)}")


def run_benchmark(classifier, options, messages, guard):
    """Time a model and print the times."""
    paths = [p for given in options.images for p in find_pictures(given, messages)]
    if options.images and not paths:  # told by find_pictures
        return
    guard.doing(f"{options.model}: timing it")
    report = benchmark(classifier, paths, messages)
    print(json.dumps(report)) if options.json else print_benchmark(report)


def run_comparison(delegate, options, messages, guard):
    """Run pictures on the CPU and on a delegate, and print the differences."""
    if delegate.delegate == "none":
        raise UserError("--compare needs --delegate=LIBRARY, or a compiled model")
    model = options.model
    if delegate.delegate.startswith("edgetpu"):  # Coral's naming of what it compiled
        model = re.sub(r"_edgetpu(\.tflite)$", r"\1", model)
    cpu = build_classifier(options, model, "none")
    if (cpu.input_shape, cpu.classes) != (delegate.input_shape, delegate.classes):
        raise UserError(f"{model} and {options.model} are not of one network")
    for path in [p for given in options.images for p in find_pictures(given, messages)]:
        guard.doing(f"{path}: comparing on it")
        report = attempt(compare, path, cpu, delegate, options.top_k)
        if isinstance(report, UserError):
            messages.error(report)
            continue
        print(json.dumps(report)) if options.json else print_comparison(report)


def find_results(classifier, options, messages, guard):
    """Yield (name, `Result` or UserError) for what the command line names."""
    keep = bool(options.annotate)
    if options.camera is not None:
        for name, image, decode_milliseconds in camera_frames(options.camera):
            guard.doing(f"{name}: running {options.model} on it")
            start = time.perf_counter()
            pixels = prepare(image, classifier)
            times = {"decode": decode_milliseconds, "resize": milliseconds_since(start)}
            yield name, invoke(classifier, pixels, times, image)
    elif options.watch is not None:
        for path in watch(options.watch):
            yield from classify_all([path], classifier, guard, keep)
    else:
        # After a crash, what is wrong with the folders was told already.
        told = Messages(quiet=True) if guard.careful else messages
        paths = [p for given in options.images for p in find_pictures(given, told)]
        guard.resumable = True
        start = time.perf_counter()
        for pair in classify_all(paths[guard.done :], classifier, guard, keep):
            yield pair
            if len(paths) > 1 and not sys.stdout.isatty():
                messages.progress(guard.done + 1, len(paths), start)


def run_pictures(classifier, options, messages, guard):
    """Classify pictures and print the results."""
    write = print_json if options.json else print_csv if options.csv else print_table
    if options.csv and not guard.careful:
        stages = [f"{stage}_ms" for stage in STAGES]
        show(csv_row("file", "rank", "index", "label", "score", *stages))
    if options.annotate:
        with blamed_on(options.annotate, OSError):
            os.makedirs(options.annotate, exist_ok=True)
    results = find_results(classifier, options, messages, guard)
    for number, (path, result) in enumerate(results, guard.done + 1):
        if isinstance(result, UserError):
            messages.error(result)
            continue
        top = classifier.top_k(result.scores, options.top_k)
        top = [one for one in top if one.score >= options.threshold]
        # The line comes last: should the process end here, it is not printed twice.
        if options.annotate:
            annotated = annotated_path(options.annotate, number, path)
            error = attempt(annotate, result.image, top, annotated)
            if error:
                messages.error(error)
        write(path, top, result.times)


def main(argv=None, guard=None):
    """Run the command line and return the exit code."""
    messages = Messages()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # labels may exceed the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    # Pillow and the runtimes warn on stderr, where only our error lines belong.
    warnings.simplefilter("ignore")
    try:
        try:
            if sys.stdout is None:  # a file that is opened would take its place
                raise UserError("the standard output is closed: no result can be shown")
            run(parse_arguments(argv), messages, guard or Guard())
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


# --- Watching over native code --------------------------------------------------------


FORWARDED = (signal.SIGINT, signal.SIGTERM)


def shared(code, offset):
    """Make an attribute that lies in an object's memory, packed as `struct` does."""

    def get(self):
        return struct.unpack_from(code, self.memory, offset)[0]

    def put(self, value):
        struct.pack_into(code, self.memory, offset, value)

    return property(get, put)


class Guard:
    """What a process tells the one that watches over it, in memory that both share.

    Attributes:
      done: how many pictures are finished.
      resumable: whether the work can go on behind them in another process.
      overlapping: whether several are in work at once.
      careful: whether none may be, because of a crash that left its culprit unknown.
    """

    done = shared("q", 0)
    resumable = shared("?", 8)
    overlapping = shared("?", 9)
    careful = shared("?", 10)
    _length = shared("H", 12)

    def __init__(self, memory=None):
        """Start with nothing done.

        Args:
          memory: 4096 zeros, writable; None where nobody watches.
        """
        self.memory = bytearray(4096) if memory is None else memory

    def doing(self, text):
        """Note what is begun."""
        data = text.encode("utf-8", "backslashreplace")[:4000]
        self.memory[14 : 14 + len(data)] = data
        self._length = len(data)

    def last(self):
        """Tell what was begun last."""
        return self.memory[14 : 14 + self._length].decode("utf-8", "replace")


def work(guard):
    """Run `main` in the child process; native code is not to write on its stderr."""
    with contextlib.suppress(Exception):  # Linux alone can end us with our parent
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # Ctrl-C reaches us through the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    with contextlib.suppress(OSError, AttributeError):  # a closed stderr
        own = os.dup(2)
        sys.stderr = open(own, "w", buffering=1, encoding=sys.stderr.encoding)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        code = main(None, guard)
    except SystemExit as leaving:  # --help
        code = leaving.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # the end of native libraries is where they crash most


def run_child(guard):
    """Run `work` in a child process.

    Returns:
      its exit code, or minus the signal that killed it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = os.fork()
    if not child:
        work(guard)
    received = []

    def forward(number, frame):
        received.append(number)
        # The first lets it end in peace, the second is for one that hangs.
        os.kill(child, signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    status = os.waitpid(child, 0)[1]
    if received:
        return 130
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def supervise():
    """Run `main` in child processes, so that a crash of native code is one line.

    After a crash with several pictures in work, the next child takes them one by one,
    to name the culprit and go on behind it. A result that was just being printed is
    printed again: rather twice than never.

    Returns:
      the exit code.
    """
    guard, messages, code = Guard(mmap.mmap(-1, 4096)), Messages(), -1
    while code < 0:
        last_code, code = code, run_child(guard)
        if code < 0 and (guard.careful or not guard.overlapping):
            why = signal.Signals(-code).name
            hint = "out of memory?" if -code == signal.SIGKILL else CRASH_HINT
            messages.error(f"{guard.last()}: native code crashed ({why}); {hint}")
            if messages.errors == MAX_CRASHES or not guard.resumable:
                return 2
            guard.done += 1
        guard.careful = code < 0 or guard.careful
    if guard.careful and not messages.errors:
        why = signal.Signals(-last_code).name
        messages.error(f"native code crashed ({why}), and did not when tried again")
    return 2 if messages.errors and code == 0 else code


if __name__ == "__main__":
    sys.exit(supervise() if hasattr(os, "fork") else main())
