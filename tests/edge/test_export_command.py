"""`export.py` and `keras-resnet export`: the report on stdout, errors in one line."""

import pytest

from keras_resnet import edge
from tests.helpers import metadata_reader
from tests.helpers.commands import one_error, run_command, run_python


def test_the_command_prints_the_report_and_nothing_else(tmp_path):
    path = tmp_path / "resnet8.tflite"
    done = run_command(
        "edge/export.py",
        *("--model=resnet8", "--weights=cifar10", "--quantize=none"),
        *(f"--output={path}", "--author=Us & Co", "--license=Apache-2.0"),
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == str(path)
    found = dict(line.strip().split(maxsplit=1) for line in lines)
    assert found["model"] == "resnet8, quantize=none"
    assert found["size"] == f"{path.stat().st_size:,} bytes"
    about = metadata_reader.read(path.read_bytes()).about
    assert (about.author, about.license) == ("Us & Co", "Apache-2.0")
    assert edge.Classifier(path).labels[0] == "airplane"


@pytest.mark.parametrize(
    "flags, reason",
    [
        ((), "give either --model_dir"),
        (("--model_dir=a", "--model=b"), "Received: --model_dir=a --model=b"),
        (("--model_dir=none",), "none/config.json is missing"),
        (("--model=resnet8", "--quantize=int4"), "--quantize"),
        (("--model=resnet8", "--output=x.tflite", "--max_drop=nan"), "--max_drop"),
    ],
)
def test_an_error_is_one_line(flags, reason, tmp_path):
    done = run_python("-m", "keras_resnet", "export", *flags, cwd=tmp_path)
    assert reason in one_error(done)
    assert not list(tmp_path.iterdir())


def test_help_shows_the_command_as_it_was_called(tmp_path):
    done = run_python("-m", "keras_resnet", "export", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "keras-resnet export --model_dir=" in done.stdout
    done = run_command("edge/export.py", "--help", cwd=tmp_path)
    assert "python edge/export.py --model_dir=" in done.stdout
    for flag in ("--target", "--calibration_examples", "--license"):
        assert flag in done.stdout
