"""The model file: a flatbuffer, and behind it a ZIP archive."""

import collections
import io
import mmap
import os
import re
import struct
import zipfile

from keras_resnet.runner.errors import UserError, open_file, read_at_most, user_errors

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
