"""Writes files whole or not at all."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

# Pattern of what `replacing` leaves behind where the process is killed.
UNFINISHED = ".writing-*"


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path beside `path`; renames it to `path` at the end.

    A reader sees the old file or the new one, never a part, whatever happens in
    between. The temporary name ends like `path`, as Keras and matplotlib choose their
    format by it. An `OSError`, as on a full disk, has the path as its `filename`.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=UNFINISHED[:-1]) as folder:
        temporary = os.path.join(folder, path.name)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:  # a full disk gives no name
            error.filename = error.filename or str(path)
            raise


def remove_unfinished(folder):
    """Removes what killed processes left in a folder that nobody writes to now."""
    for path in pathlib.Path(folder).glob(UNFINISHED):
        shutil.rmtree(path, ignore_errors=True)


def write_text(path, text):
    """Writes a UTF-8 text file."""
    with replacing(path) as temporary:
        pathlib.Path(temporary).write_text(text, encoding="utf-8")


def write_json(path, value):
    """Writes a JSON file, indented."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def sha256(path):
    """Returns the SHA-256 of a file, in hexadecimal.

    That of a folder is that of its files' paths and hashes, as sha256sum prints them.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [
            f"{sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in inside
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_json(path):
    """Returns what a JSON file holds, or None where there is no such file."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
