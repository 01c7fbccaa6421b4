"""TFLite's standard metadata in a .tflite: what the model is and what it was fed.

Two parts travel in the file. The `ModelMetadata` table (identifier M001, in the
buffer named TFLITE_METADATA) tells other programs, MediaPipe's ImageClassifier for
one, that the model takes raw RGB pixels and which class is which. A ZIP archive
behind the model holds the two files that the table or our runner name: `labels.txt`
and `preprocessing.json` (resize, crop, interpolation, which the standard cannot say).
"""

import dataclasses
import io
import json
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from flatbuffers.table import Table

from keras_resnet.edge.convert import tflite_file
from keras_resnet.runner.files import read_at_most
from keras_resnet.runner.model_file import FlatbufferWalk

BUFFER_NAME = b"TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS = "labels.txt"
PREPROCESSING = "preprocessing.json"
RUN_HASH = "TRAINING_RUN_SHA256"  # among the custom metadata, 32 bytes

# What is read of a file from elsewhere.
MAX_TABLES = 10_000
MAX_TEXT_BYTES = 1 << 20
MAX_FILES = 16
MAX_FILE_BYTES = 4 << 20

# The tables of metadata_schema.fbs 1.5.0 that a classifier needs: field:type, in the
# order of their slots. "<A|B>" is a union, whose type lies in the slot before it; "-"
# is not used here.
_SCHEMA = {
    "ModelMetadata": (
        "name:text description:text version:text subgraph_metadata:[SubGraphMetadata] "
        "author:text license:text associated_files:[AssociatedFile] "
        "min_parser_version:text"
    ),
    "SubGraphMetadata": (
        "name:text description:text input_tensor_metadata:[TensorMetadata] "
        "output_tensor_metadata:[TensorMetadata] associated_files:[AssociatedFile] "
        "input_process_units:- output_process_units:- input_tensor_groups:- "
        "output_tensor_groups:- custom_metadata:[CustomMetadata]"
    ),
    "TensorMetadata": (
        "name:text description:text dimension_names:- content:Content "
        "process_units:[ProcessUnit] stats:Stats associated_files:[AssociatedFile]"
    ),
    "Content": (
        "content_properties_type:byte "
        "content_properties:<FeatureProperties|ImageProperties> range:-"
    ),
    "FeatureProperties": "",
    "ImageProperties": "color_space:byte default_size:ImageSize",
    "ImageSize": "width:uint height:uint",
    "ProcessUnit": "options_type:byte options:<NormalizationOptions>",
    "NormalizationOptions": "mean:floats std:floats",
    "Stats": "max:floats min:floats",
    "AssociatedFile": ("name:text description:text type:byte locale:text version:text"),
    "CustomMetadata": "name:text data:bytes",
}
_FIELDS = {
    table: [field.split(":") for field in fields.split()]
    for table, fields in _SCHEMA.items()
}
_NUMBERS = {"byte": number_types.Uint8Flags, "uint": number_types.Uint32Flags}

# Enumerations of the schema.
_FEATURE, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions
_RGB = 1  # ColorSpaceType
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType


@dataclasses.dataclass(frozen=True)
class About:
    """What a file tells people about its model; None is left out.

    Attributes:
        name: of the model.
        description: one or two sentences.
        version: of the model, any text.
        author: person or organization.
        license: name or text of the licence.
        run_sha256: SHA-256 of the trained `model.keras`, or of the folder that qat.py
            made of it (see `files.sha256`), in hexadecimal.
    """

    name: str
    description: str | None = None
    version: str | None = None
    author: str | None = None
    license: str | None = None
    run_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What `read` finds in a file.

    Attributes:
        about: `About`, or None where the file has no metadata table.
        table: the `ModelMetadata` table as nested dicts, without empty fields.
        files: {name: bytes} of the archive.
    """

    about: About | None
    table: dict
    files: dict


def with_metadata(content, labels, preprocessing, about):
    """Writes the metadata table and the archive; both replace what was there.

    Args:
        content: bytes of a .tflite from one uint8 image to the scores of its classes.
        labels: names of the classes, or None: no labels.txt then.
        preprocessing: a `Preprocessing`.
        about: `About`.

    Returns:
        bytes that are a .tflite and a ZIP archive at once. Equal arguments give
        equal bytes.
    """
    model = tflite_file.parse(content)
    table = _model_metadata(labels, preprocessing, about)
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, "ModelMetadata", table), IDENTIFIER)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(bytes(builder.Output()), np.uint8)
    entry = schema.MetadataT()
    entry.name = BUFFER_NAME
    others = [old for old in model.metadata or [] if old.name != BUFFER_NAME]
    replaced = [old for old in model.metadata or [] if old.name == BUFFER_NAME]
    if replaced:
        entry.buffer = replaced[0].buffer
        model.buffers[entry.buffer] = buffer
    else:
        entry.buffer = len(model.buffers)
        model.buffers.append(buffer)
    model.metadata = [*others, entry]
    return _with_archive(tflite_file.pack(model), labels, preprocessing)


def read(content):
    """Reads the metadata of any .tflite, without trusting it.

    Args:
        content: bytes of the file.

    Returns:
        `Metadata`.

    Raises:
        ValueError: the model, its metadata or its archive is damaged, too large, or
            names a file outside of the archive.
    """
    walk = FlatbufferWalk(content)
    table = _read_table(content)
    return Metadata(_about(table), table, _read_archive(content, walk.end))


def _model_metadata(labels, preprocessing, about):
    """Returns the `ModelMetadata` table as nested dicts."""
    height, width = preprocessing.input_size
    image = {
        "name": "image",
        "description": "RGB image, raw pixels 0 to 255.",
        "content": {
            "content_properties_type": _IMAGE,
            "content_properties": {
                "color_space": _RGB,
                "default_size": {"width": width, "height": height},
            },
        },
        # The file normalizes by itself: readers must feed the pixels as they are.
        "process_units": [
            {
                "options_type": _NORMALIZATION,
                "options": {"mean": [0.0], "std": [1.0]},
            }
        ],
        "stats": {"max": [255.0], "min": [0.0]},
    }
    scores = {
        "name": "probability",
        "description": "Score of each class, 1/256 a step.",
        "content": {"content_properties_type": _FEATURE, "content_properties": {}},
        "stats": {"max": [255.0], "min": [0.0]},
    }
    if labels is not None:
        scores["associated_files"] = [
            {
                "name": LABELS,
                "description": "Names of the classes, one a line.",
                "type": _TENSOR_AXIS_LABELS,
            }
        ]
    graph = {"input_tensor_metadata": [image], "output_tensor_metadata": [scores]}
    if about.run_sha256:
        graph["custom_metadata"] = [
            {"name": RUN_HASH, "data": bytes.fromhex(about.run_sha256)}
        ]
    texts = dataclasses.asdict(about)
    del texts["run_sha256"]
    return {
        **{field: text for field, text in texts.items() if text is not None},
        "subgraph_metadata": [graph],
        "associated_files": [
            {
                "name": PREPROCESSING,
                "description": "How to resize and crop a photograph: JSON.",
            }
        ],
        "min_parser_version": "1.5.0",  # has custom_metadata
    }


def _write(builder, kind, value):
    """Writes a value, what it points to first; returns where it lies.

    Args:
        builder: `flatbuffers.Builder`.
        kind: a type as in `_SCHEMA`, no number.
        value: str, bytes, list of float, or dict of a table's fields.
    """
    if kind == "text":
        return builder.CreateString(value)
    if kind == "bytes":
        return builder.CreateByteVector(value)
    if kind == "floats":
        return builder.CreateNumpyVector(np.array(value, np.float32))
    if kind.startswith("["):
        items = [_write(builder, kind[1:-1], item) for item in value]
        builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            builder.PrependUOffsetTRelative(item)
        return builder.EndVector()
    offsets = {}
    for name, field_kind in _FIELDS[kind]:
        if name in value and field_kind not in _NUMBERS:
            if field_kind.startswith("<"):
                field_kind = _member(field_kind, value[f"{name}_type"])
            offsets[name] = _write(builder, field_kind, value[name])
    builder.StartObject(len(_FIELDS[kind]))
    for slot, (name, field_kind) in enumerate(_FIELDS[kind]):
        if name in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
        elif name in value:
            builder.PrependSlot(_NUMBERS[field_kind], slot, value[name], 0)
    return builder.EndObject()


def _member(union, number):
    """Returns the table that a union holds, or "-" for one that is unknown here."""
    members = ["-", *union[1:-1].split("|")]
    return members[number] if number < len(members) else "-"


def _with_archive(content, labels, preprocessing):
    steps = {
        "version": 1,
        "input_size": preprocessing.input_size,
        "resize_size": preprocessing.resize_size,
        "crop_fraction": preprocessing.crop_fraction,
        "interpolation": preprocessing.interpolation,
    }
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        # A fixed date: equal models make equal files.
        if labels is not None:
            archive.writestr(zipfile.ZipInfo(LABELS), "\n".join(labels) + "\n")
        archive.writestr(zipfile.ZipInfo(PREPROCESSING), json.dumps(steps))
    return file.getvalue()


def _read_table(content):
    """Returns the `ModelMetadata` table as nested dicts; {} where there is none."""
    model = schema.Model.GetRootAs(content)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() == BUFFER_NAME:
            break
    else:
        return {}
    if entry.Buffer() >= model.BuffersLength():
        raise ValueError(f"{BUFFER_NAME.decode()} names no buffer of the model")
    buffer = model.Buffers(entry.Buffer())
    data = b"" if buffer.DataIsNone() else buffer.DataAsNumpy().tobytes()
    if data[4:8] != IDENTIFIER:
        raise ValueError(f"the metadata begin {data[:8]!r}, expected {IDENTIFIER!r}")
    try:
        return _Reader(data).table("ModelMetadata", int.from_bytes(data[:4], "little"))
    except (ValueError, TypeError, ArithmeticError, LookupError, OSError) as error:
        raise ValueError(f"the metadata are damaged ({error})") from error
    except Exception as error:  # struct.error, by whatever name flatbuffers uses it
        raise ValueError("the metadata are damaged: truncated") from error


class _Reader:
    """Reads tables, and gives up where a damaged file has too many of them."""

    def __init__(self, data):
        self.data = data
        self.tables_left = MAX_TABLES

    def table(self, kind, position):
        """Returns {field: value} of the fields that are there."""
        self.tables_left -= 1
        if self.tables_left < 0:
            raise ValueError(f"more than {MAX_TABLES} tables")
        table, found = Table(self.data, position), {}
        for slot, (name, field_kind) in enumerate(_FIELDS[kind]):
            offset = table.Offset(4 + 2 * slot)
            if field_kind.startswith("<"):
                field_kind = _member(field_kind, found.get(f"{name}_type", 0))
            if offset and field_kind != "-":
                found[name] = self._field(table, field_kind, offset)
        return found

    def _field(self, table, kind, offset):
        place = table.Pos + offset
        if kind in _NUMBERS:
            return table.Get(_NUMBERS[kind], place)
        if kind in _FIELDS:
            return self.table(kind, table.Indirect(place))
        start, count = table.Vector(offset), table.VectorLen(offset)
        size = {"text": 1, "bytes": 1}.get(kind, 4) * count
        if size > MAX_TEXT_BYTES or start + size > len(self.data):
            raise ValueError(f"a field of {size} bytes")
        if kind == "floats":
            return np.frombuffer(self.data, "<f4", count, start).tolist()
        if kind.startswith("["):
            places = range(start, start + size, 4)
            return [self.table(kind[1:-1], table.Indirect(item)) for item in places]
        value = self.data[start : start + size]
        return value.decode() if kind == "text" else value


def _about(table):
    if not table:
        return None
    texts = {field.name: table.get(field.name) for field in dataclasses.fields(About)}
    texts["name"] = texts["name"] or ""
    graphs = table.get("subgraph_metadata") or [{}]
    for custom in graphs[0].get("custom_metadata", []):
        if custom.get("name") == RUN_HASH:
            texts["run_sha256"] = custom.get("data", b"").hex()
    return About(**texts)


def _read_archive(content, end):
    """Returns {name: bytes} of the archive behind the model; {} without one."""
    if not zipfile.is_zipfile(io.BytesIO(content[end:])):
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if len(names) > MAX_FILES or len(set(names)) < len(names):
                raise ValueError(f"{len(names)} files, or two of the same name")
            files = {}
            for name in names:
                if name in ("", ".", "..") or not set(name).isdisjoint("/\\:\0"):
                    raise ValueError(f"a file named {name!r:.80}")
                with archive.open(name) as file:
                    files[name] = read_at_most(file, MAX_FILE_BYTES)
            return files
    except Exception as error:  # zipfile raises many types on damaged archives
        raise ValueError(f"the archive is damaged ({error})") from error
