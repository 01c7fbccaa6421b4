import errno
import json
import pathlib

import pytest

from keras_resnet import files
from tests.helpers.commands import run_code


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write_text(path, "one")
    files.write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        pathlib.Path(temporary).write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    code = (
        "import os, signal\n"
        "from keras_resnet import files\n"
        "with files.replacing('file.txt') as path:\n"
        "    open(path, 'w').write('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run_code(code, tmp_path)
    (left,) = tmp_path.iterdir()
    assert [p.name for p in left.iterdir()] == ["file.txt"]
    files.write_text(tmp_path / "file.txt", "whole")
    files.remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    files.remove_unfinished(tmp_path / "none")


def test_json_comes_back_and_a_missing_file_is_none(tmp_path):
    files.write_json(tmp_path / "a.json", {"top1": 0.5})
    assert files.read_json(tmp_path / "a.json") == {"top1": 0.5}
    assert json.loads((tmp_path / "a.json").read_text()) == {"top1": 0.5}
    assert files.read_json(tmp_path / "none.json") is None


def test_a_write_that_the_disk_refuses_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, files.replacing(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.iterdir())
