"""A reader of TFLite's metadata that the writer and the runner must agree with."""

import dataclasses
import io
import zipfile

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table

from keras_resnet.edge.convert.metadata import (
    _FIELDS,
    _NUMBERS,
    BUFFER_NAME,
    IDENTIFIER,
    RUN_HASH,
    About,
)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What `read` finds in a file.

    Attributes:
        about: `About`, or None if the file has no metadata table.
        table: the `ModelMetadata` table as nested dicts, without its empty fields.
        files: {name: bytes} of the archive.
    """

    about: About | None
    table: dict
    files: dict


def read(content):
    """Reads the metadata of a .tflite.

    Args:
        content: bytes of a file whose flatbuffer is sound; see `inspect.graph.read`.

    Returns:
        `Metadata`.

    Raises:
        ValueError: the metadata table or the archive is damaged. The text is one line.
    """
    table = _read_table(content)
    return Metadata(_about(table), table, _read_archive(content))


def _read_table(content):
    """Returns the `ModelMetadata` table as nested dicts; {} if there is none."""
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
        root = Table(data, int.from_bytes(data[:4], "little"))
        return _read("ModelMetadata", root)
    except Exception as error:  # flatbuffers lets exceptions of many types out
        reason = " ".join(str(error).split())
        raise ValueError(f"the metadata are damaged ({reason:.200})") from error


def _read(kind, table):
    """Returns {field: value} of the fields that a flatbuffers `Table` has."""
    found = {}
    for slot, (name, field_kind) in enumerate(_FIELDS[kind]):
        offset = table.Offset(4 + 2 * slot)
        if field_kind.startswith("<"):
            field_kind = _member(field_kind, found.get(f"{name}_type", 0))
        if offset and field_kind != "-":
            found[name] = _read_field(field_kind, table, offset)
    return found


def _member(union, number):
    """Returns the table that a union holds, or "-" if it is none of `_FIELDS`."""
    members = ["-", *union[1:-1].split("|")]
    return members[number] if number < len(members) else "-"


def _read_field(kind, table, offset):
    place = table.Pos + offset
    if kind in _NUMBERS:
        return table.Get(_NUMBERS[kind], place)
    if kind in _FIELDS:
        return _read(kind, Table(table.Bytes, table.Indirect(place)))
    start, count = table.Vector(offset), table.VectorLen(offset)
    if kind == "floats":
        return np.frombuffer(table.Bytes, "<f4", count, start).tolist()
    if kind.startswith("["):
        places = range(start, start + 4 * count, 4)
        items = [Table(table.Bytes, table.Indirect(item)) for item in places]
        return [_read(kind[1:-1], item) for item in items]
    value = np.frombuffer(table.Bytes, np.uint8, count, start).tobytes()
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


def _read_archive(content):
    """Returns {name: bytes} of the archive behind the model; {} without one."""
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        return {}
    try:
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except Exception as error:  # zipfile raises many types on a damaged archive
        raise ValueError(f"the archive is damaged ({error})") from error
