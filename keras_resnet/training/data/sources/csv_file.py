"""Photographs that a csv file lists, with one label each, or with any number."""

import collections
import csv
import dataclasses
import os
import pathlib

import numpy as np

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.datasets import Dataset
from keras_resnet.training.data.sources import pictures

COLUMNS = ("image", "label", "split")
FORMAT = (
    "the first line must be image,label or image,label,split; several labels of a "
    "picture are separated by ;"
)


@dataclasses.dataclass(frozen=True)
class _Row:
    """One line of the file: `name` and `labels` as written, `path` of the picture."""

    line: int
    name: str
    path: str
    labels: tuple[str, ...]
    split: str | None


def load(data_dir):
    """Opens a csv file with the columns "image", "label" and, if you like, "split".

    Paths of images are relative to the file, or absolute. Labels of one picture are
    separated by ";". If a picture has several, or none, the dataset is `multi_label`.
    The column "split" holds "train" and one of "val", "validation", "valid" and "test".
    Without it, a fifth of the pictures of each class is held out, the same ones as of a
    folder; of a multi-label file, a fifth of all, but none that alone have a label.

    Args:
        data_dir: path of the file.

    Raises:
        UserError: the file is missing or malformed, a picture is missing or listed
            twice, or a class or the held-out part has no pictures.
    """
    if not data_dir:
        raise UserError("--dataset=csv needs --data_dir=FILE.csv")
    path = pathlib.Path(data_dir)
    if not path.is_file():
        kind = "no such file" if not path.exists() else "no file"
        raise UserError(f"--dataset=csv needs --data_dir=FILE.csv: {kind}: {path}")
    left_out = pictures.LeftOut()
    rows = _rows(path, left_out)
    multi_label = any(len(row.labels) != 1 for row in rows)
    rows = [row for row in rows if pictures.is_readable(row.path, left_out)]
    train, held_out, name = _split_rows(path, rows, multi_label, left_out)
    labels = tuple(sorted({label for row in train + held_out for label in row.labels}))
    _check_labels(path, labels, train, held_out, multi_label)

    def split(name, rows):
        index = {label: number for number, label in enumerate(labels)}
        if multi_label:
            targets = np.zeros((len(rows), len(labels)), np.float32)
            for target, row in zip(targets, rows, strict=True):
                target[[index[label] for label in row.labels]] = 1
        else:
            targets = [np.int64(index[label]) for row in rows for label in row.labels]
        return pictures.split(
            name, zip([row.path for row in rows], targets, strict=True)
        )

    note = pictures.note(left_out, _counts(train + held_out))
    if multi_label:
        without = sum(not row.labels for row in train + held_out)
        several = f"any number of labels for a picture, {without} have none"
        note = f"{several}; {note}" if note else several
    entries = [
        (row.name, os.path.getsize(row.path), row.labels, part)
        for part, rows in ((0, train), (1, held_out))
        for row in rows
    ]
    return Dataset(
        "csv",
        labels,
        split("train", train),
        split(name, held_out),
        pictures.fingerprint(entries),
        note,
        multi_label,
    )


def _rows(path, left_out):
    """Reads a file; returns a list of `_Row`."""

    def refuse(line, reason):
        return UserError(f"{path}, line {line}: {reason}")

    rows, lines = [], {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [column.strip() for column in next(reader, [])]
            _check_header(path, header)
            for column in header:
                if column not in COLUMNS:
                    left_out.mention(f"the column {column!r}")
            for fields in reader:
                line = reader.line_num
                if not any(field.strip() for field in fields):
                    continue
                if len(fields) != len(header):
                    raise refuse(
                        line,
                        f"{len(header)} columns expected, {len(fields)} received. A "
                        'name with a comma must stand in quotes: "a, b.jpg"',
                    )
                row = _row(path, line, dict(zip(header, fields, strict=True)), refuse)
                there = lines.setdefault(os.path.normpath(row.path), line)
                if there != line:
                    raise refuse(
                        line,
                        f"{row.name} is in line {there} already. Write all labels of "
                        "a picture in one line, separated by ;",
                    )
                rows.append(row)
        except csv.Error as error:
            raise refuse(reader.line_num, f"no valid csv: {error}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is no UTF-8 text: save it as CSV UTF-8") from error
    if not rows:
        raise UserError(f"{path} lists no pictures")
    return rows


def _check_header(path, header):
    """Raises `UserError` unless the first line names the columns that are needed."""
    if header.count("image") == header.count("label") == 1 >= header.count("split"):
        return
    first = ",".join(header)
    other = [
        name for char, name in ((";", "semicolons"), ("\t", "tabs")) if char in first
    ]
    reason = (
        f"the columns must be separated by commas, not {other[0]}" if other else FORMAT
    )
    raise UserError(f"{path}, line 1: {reason}. Received: {first[:80]!r}")


def _row(path, line, fields, refuse):
    """Returns the `_Row` of a dict of fields; raises what `refuse(line, ...)` makes."""
    name = fields["image"].strip()
    if not name:
        raise refuse(line, "the name of the picture is missing")
    picture = os.path.join(path.parent, name)
    if not os.path.isfile(picture):
        raise refuse(line, f"no such picture: {picture}")
    labels = (label.strip() for label in fields["label"].split(";"))
    split = fields.get("split")
    if split is not None:
        split = split.strip().lower()
        if split != "train" and split not in pictures.HELD_OUT:
            known = ", ".join(("train", *pictures.HELD_OUT))
            raise refuse(line, f"the split must be one of {known}. Received: {split!r}")
    labels = tuple(dict.fromkeys(label for label in labels if label))
    return _Row(line, name, picture, labels, split)


def _split_rows(path, rows, multi_label, left_out):
    """Returns (training rows, held-out rows, name of the held-out split)."""
    rows = sorted(rows, key=lambda row: (row.labels, row.path))
    if rows and rows[0].split is not None:
        there = {row.split for row in rows}
        names = [name for name in pictures.HELD_OUT if name in there]
        if "train" not in there or not names:
            raise UserError(
                f"{path}: the column 'split' must have 'train' and one of "
                f"{', '.join(map(repr, pictures.HELD_OUT))}. Received: "
                f"{', '.join(sorted(there))}"
            )
        for name in names[1:]:
            left_out.mention(f"the split {name!r}")
        parts = [[row for row in rows if row.split == x] for x in ("train", names[0])]
        return *parts, names[0]
    groups = collections.defaultdict(list)
    for row in rows:
        groups[None if multi_label else row.labels].append(row)
    train, held_out = [], []
    for group in groups.values():
        stays, goes = pictures.hold_out_a_fifth(group)
        train += stays
        held_out += goes
    # A rare label of a multi-label file may be held out altogether.
    known = _counts(train)
    rare = [row for row in held_out if not known.keys() >= set(row.labels)]
    held_out = [row for row in held_out if row not in rare]
    return train + rare, held_out, "held_out"


def _counts(rows):
    """Returns {label: number of its pictures}."""
    return collections.Counter(label for row in rows for label in row.labels)


def _check_labels(path, labels, train, held_out, multi_label):
    """Raises `UserError` where there is nothing to learn or nothing to measure."""
    least = 1 if multi_label else 2
    if len(labels) < least:
        raise UserError(
            f"{path} has too few labels: at least {least} expected, {len(labels)} "
            "received" + (f" ({labels[0]!r})" if labels else "")
        )
    trained_on = _counts(train)
    for label in labels:
        if label not in trained_on:
            raise UserError(
                f"{path}: no picture to train on has the label {label!r}: add some, or "
                "remove the label"
            )
    if not held_out or (multi_label and not _counts(held_out)):
        raise UserError(f"{path} has no held-out pictures with a label: add pictures")
