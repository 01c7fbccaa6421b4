"""Errors of the user end in one line on stderr and exit code 2."""

import os
import re

import pytest

from keras_resnet import console, errors
from keras_resnet.runner.errors import UserError
from tests.helpers.commands import ROOT, one_error, run_command, run_python

SCRIPTS = ("training/train.py", "training/qat.py", "edge/export.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_examples_and_every_flag(script):
    done = run_command(script, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert f"python {script}" in done.stdout
    name = script.split("/")[1]
    code = (ROOT / "keras_resnet/commands" / name).read_text()
    shared = (ROOT / "keras_resnet/commands/app.py").read_text()
    for function in re.findall(r"app\.(define_\w+_flags)\(", code):
        code += re.search(rf"^def {function}\(.*?(?=^def )", shared, re.M | re.S)[0]
    flags = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', code)
    assert len(flags) >= 5
    for flag in flags:
        assert f"--{flag}" in done.stdout or f"--[no]{flag}" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_flag_is_one_line_with_the_nearest(script):
    done = run_command(script, "--model_dri=x")
    assert "model_dir" in one_error(done)


@pytest.mark.parametrize(
    "flag, hint",
    [
        ("--strategy=miror", "did you mean mirrored?"),
        ("--epochs=ten", "ten"),
        ("--learning_rate=nan", "finite"),
        ("positional", "positional"),
    ],
)
def test_wrong_flag_value_is_one_line(flag, hint):
    assert hint in one_error(run_command("training/train.py", flag))


@pytest.mark.parametrize(
    "command, flags, expected",
    [
        (
            ("-m", "keras_resnet", "push"),
            ["--model=runs/x"],
            "--repo must be given, for example: keras-resnet push --model=runs/resnet20"
            "-digits --repo=user/digits --license=mit",
        ),
        (
            (ROOT / "training" / "adopt.py",),
            ["--dataset=folder"],
            "--model and --model_dir must be given, for example: python training/adopt"
            ".py --model=my.keras --dataset=folder --data_dir=photos "
            "--model_dir=runs/my",
        ),
        (
            ("-m", "keras_resnet", "evaluate"),
            [],
            "--model must be given, for example: keras-resnet evaluate --model=runs/"
            "resnet20-cifar10/model.keras",
        ),
    ],
)
def test_a_flag_that_is_missing_is_named_with_an_example(command, flags, expected):
    assert one_error(run_python(*command, *flags)) == f"error: {expected}"


def test_errors_after_tensorflow_has_started_are_one_line_too(tmp_path):
    done = run_command("training/train.py", "--model=resnet51", cwd=tmp_path)
    assert "resnet50" in one_error(done)
    assert os.listdir(tmp_path) == []
    done = run_command(
        "training/train.py",
        *("--strategy=mirrored", "--cpu_replicas=2", "--batch_size=65"),
        cwd=tmp_path,
    )
    assert "try 64" in one_error(done) and "65" in done.stderr
    assert os.listdir(tmp_path) == []


def test_unknown_name_suggests_the_nearest():
    error = errors.unknown("model", "resnet5", ["resnet50", "resnet56", "x"])
    assert "resnet50" in str(error) and "Received: 'resnet5'" in str(error)
    assert "one of a, b" in str(errors.unknown("thing", "zzz", ["b", "a"]))


def test_hidden_output_hides_unless_the_block_fails(capfd):
    with console.hidden_output(1, 2):
        os.write(1, b"noise")
        os.write(2, b"noise")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RuntimeError), console.hidden_output(1, 2):
        os.write(1, b"the reason")
        raise RuntimeError
    assert "the reason" in "".join(capfd.readouterr())
    with pytest.raises(UserError), console.hidden_output(1):
        os.write(1, b"noise")
        raise UserError
    assert capfd.readouterr() == ("", "")
