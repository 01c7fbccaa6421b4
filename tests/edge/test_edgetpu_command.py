"""The command edgetpu, and Google's compiler, which a program of that name plays."""

import json
import os
import stat

import numpy as np
import pytest

from keras_resnet.edge.convert import converter
from keras_resnet.edge.targets import edgetpu, edgetpu_compiler, edgetpu_remedies
from keras_resnet.runner.errors import UserError
from tests.conftest import SMALL
from tests.helpers.commands import one_error, run_command
from tests.helpers.edgetpu_graphs import chain, graph_of, image
from tests.helpers.graphs import Operator, build
from tests.helpers.networks import small_classifier

SCRIPT = "edge/edgetpu.py"
PRINTED = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 231 ms.

Input model: model.tflite
Input size: 94.65KiB
Output model: model_edgetpu.tflite
Output size: 296.85KiB
On-chip memory used for caching model parameters: 10.50KiB
On-chip memory remaining for caching model parameters: 7.72MiB
Off-chip memory used for streaming uncached model parameters: 1.25MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 5
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A
Number of operations that will run on Edge TPU: 3
Number of operations that will run on CPU: 2

Operator                       Count      Status

DEPTHWISE_CONV_2D              3          Mapped to Edge TPU
QUANTIZE                       1          Operation is otherwise supported, but not \
mapped due to some unspecified limitation
edgetpu-custom-op              1          More than one subgraph is not supported
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def test_the_compilers_log_is_read():
    found = edgetpu_compiler.read_log(PRINTED)
    assert found.version == "16.0.384591198"
    assert (found.mapped, found.milliseconds) == (3, 231)
    assert found.on_chip_bytes == 10752 and found.streamed_bytes == 1.25 * 2**20
    assert found.operators[1][2].endswith("unspecified limitation")
    assert [row[:2] for row in found.operators] == [
        ("DEPTHWISE_CONV_2D", 3),
        ("QUANTIZE", 1),
        ("edgetpu-custom-op", 1),
    ]
    table = PRINTED[PRINTED.index("Operator  ") :]  # all that the log file has
    assert edgetpu_compiler.read_log(table).mapped == 3
    assert edgetpu_compiler.read_log(table).on_chip_bytes is None
    with pytest.raises(ValueError, match="no table"):
        edgetpu_compiler.read_log("Edge TPU Compiler version 16.0.384591198\n")


@pytest.fixture
def fake_compiler(tmp_path, monkeypatch):
    """Puts a program of that name on PATH; returns the function that writes it."""

    def write(output, status=0):
        text = tmp_path / "printed"
        text.write_text(output)
        program = tmp_path / "bin" / "edgetpu_compiler"
        program.parent.mkdir(exist_ok=True)
        made = 'printf compiled > "$3/model_edgetpu.tflite"' if not status else ""
        program.write_text(
            f'#!/bin/sh\ntest "$1" = -s && test -s "$4" || exit 9\n'
            f"cat {text}\n{made}\nexit {status}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return write


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "-model.tflite"
    path.write_bytes(chain("RELU", "FLOOR", "RELU"))
    return path


def log(*rows):
    """Returns what the compiler prints, with another table."""
    head, _, tail = PRINTED.partition("DEPTHWISE")
    table = [f"{name:<30} {count:<10} {status}" for name, count, status in rows]
    return head + "\n".join(table) + tail[tail.index("\nCompilation child") :]


MAPPED = "Mapped to Edge TPU"
BEHIND = "More than one subgraph is not supported"
CONFIRMING = log(
    ("RELU", 1, MAPPED), ("FLOOR", 1, "Operation not supported"), ("RELU", 1, BEHIND)
)
CORRECTING = log(("RELU", 2, MAPPED), ("FLOOR", 1, "Operation not supported"))


def test_every_output_is_an_estimate_without_the_compiler(model):
    done = run_command(SCRIPT, model)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines() == [
        str(model),
        "  edge tpu       estimate: 1 of 3 operators map",
        "  stays on cpu   1 x FLOOR: the Edge TPU has no such operator",
        "  stays on cpu   1 x others: an operator before them stays on the CPU",
    ]
    result = json.loads(run_command(SCRIPT, model, "--json").stdout)
    assert result["estimate"] is True and "compilation" not in result
    assert (result["operators"], result["mapped"], result["likely"]) == (3, 1, 0)
    assert {"on_chip_bytes_low", "on_chip_bytes_high", "fits"} <= result.keys()
    kinds = [verdict["kind"] for verdict in result["verdicts"]]
    assert kinds == [None, "operator", "partition"]


def test_the_compiler_confirms_an_estimate(fake_compiler, model):
    fake_compiler(CONFIRMING)
    output = model.with_name("-model_edgetpu.tflite")
    done = run_command(SCRIPT, f"--model={model}", "--compile")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines() == [
        str(model),
        "  edge tpu       confirmed by edgetpu_compiler 16.0.384591198: "
        "1 of 3 operators map",
        "  parameters     0.01 MiB on chip, 1.25 MiB streamed",
        "  stays on cpu   1 x FLOOR: Operation not supported",
        f"  stays on cpu   1 x RELU: {BEHIND}",
        f"  written        {output}",
    ]
    assert output.read_text() == "compiled"
    result = json.loads(run_command(SCRIPT, model, "--compile", "--json").stdout)
    assert result["estimate"] is False and result["compilation"]["confirms_estimate"]
    assert result["compilation"]["mapped"] == result["mapped"] == 1


def test_the_compiler_corrects_an_estimate(fake_compiler, model):
    fake_compiler(CORRECTING)
    lines = run_command(SCRIPT, model, "--compile").stdout.splitlines()
    assert "  edge tpu       estimate: 1 of 3 operators map" in lines
    corrected = "corrected by edgetpu_compiler 16.0.384591198: 2 of 3 operators map"
    assert f"  edge tpu       {corrected}" in lines
    result = json.loads(run_command(SCRIPT, model, "--compile", "--json").stdout)
    assert result["estimate"] is True
    assert not result["compilation"]["confirms_estimate"]
    assert (result["mapped"], result["compilation"]["mapped"]) == (1, 2)


def test_a_refusing_compiler_is_one_line_and_writes_nothing(fake_compiler, model):
    fake_compiler(
        "Edge TPU Compiler version 16\nInvalid model: m\nModel not quantized\n", 1
    )
    error = one_error(run_command(SCRIPT, model, "--compile"))
    assert "Invalid model: m; Model not quantized" in error
    fake_compiler("Edge TPU Compiler version 16\n")
    assert "no table" in one_error(run_command(SCRIPT, model, "--compile"))
    assert not model.with_name("-model_edgetpu.tflite").exists()


def test_without_the_compiler_it_says_how_to_get_it(model, monkeypatch):
    monkeypatch.setattr(edgetpu_compiler.shutil, "which", lambda name: None)
    for machine, words in (("x86_64", "not installed"), ("aarch64", "another machine")):
        monkeypatch.setattr(
            edgetpu_compiler.platform, "machine", lambda name=machine: name
        )
        with pytest.raises(UserError, match=words) as error:
            edgetpu_compiler.compile_model(model)
        assert "apt-get install edgetpu-compiler" in str(error.value)


def test_a_compiled_file_is_not_compiled_again(tmp_path):
    path = tmp_path / "model_edgetpu.tflite"
    custom = Operator("CUSTOM", (0,), (1,), custom=edgetpu.COMPILED)
    path.write_bytes(build([image(1, 8), image(1, 8)], [custom]))
    assert "compiled, with 0 operators on the CPU" in run_command(SCRIPT, path).stdout
    assert "compiled already" in one_error(run_command(SCRIPT, path, "--compile"))


def test_bad_files_are_one_line(tmp_path):
    text = tmp_path / "text.tflite"
    text.write_text("no model")
    half = tmp_path / "half.tflite"
    half.write_bytes(graph_of("CONV_2D")[:300])
    assert "expected b'TFL3'" in one_error(run_command(SCRIPT, text))
    assert "damaged" in one_error(run_command(SCRIPT, half))
    assert "No such file" in one_error(run_command(SCRIPT, tmp_path / "none.tflite"))
    assert "MODEL.tflite" in one_error(run_command(SCRIPT))


@pytest.mark.parametrize("quantize", ["none", "dynamic", "int16x8"])
def test_where_nothing_maps_the_last_line_names_the_remedy(quantize, tmp_path):
    path = tmp_path / "model.tflite"
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    path.write_bytes(converter.from_keras(small_classifier(), SMALL, quantize, images))
    done = run_command(SCRIPT, path)
    assert done.returncode == 2
    assert "estimate: 0 of " in done.stdout and "fits" not in done.stdout
    assert done.stderr == (
        f"error: no operator of {path} maps to the Edge TPU: quantize the model to "
        "int8 with export.py --quantize=int8\n"
    )
    done = run_command(SCRIPT, path, "--json")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    result = json.loads(done.stdout)
    assert (result["mapped"], result["fits"]) == (0, False)
    assert all("int8" in verdict["remedy"] for verdict in result["verdicts"])


FLOAT = {"dtype": "float32", "quantized": None}


@pytest.mark.parametrize(
    "tensors, operators, remedy",
    [
        ([image(4, 8, 8, 3)] * 2, ["RELU"], edgetpu_remedies.BATCH),
        ([image(1, 8, signature=(-1, 8))] * 2, ["RELU"], edgetpu_remedies.SIZES),
        ([image(1, 2, 8, 8, 3)] * 2, ["GELU"], edgetpu_remedies.DIMENSIONS),
        ([image(1, 8)] * 2, ["HARD_SWISH"], edgetpu_remedies.RELU),
        ([image(1, 8)] * 2, ["SQUARE"], edgetpu_remedies.NORMALIZE),
        ([image(1, 8)] * 2, ["FLOOR"], None),
        ([image(1, 8, **FLOAT)] * 2, ["RELU"], edgetpu_remedies.QUANTIZE),
        (
            [image(1, 8, **FLOAT), image(1, 8), image(1, 8)],
            ["QUANTIZE", "RELU"],
            edgetpu_remedies.INTERFACE,
        ),
    ],
)
def test_reasons_have_their_remedy(tensors, operators, remedy):
    nodes = [Operator(name, (n,), (n + 1,)) for n, name in enumerate(operators)]
    report = edgetpu.check(build(tensors, nodes))
    assert report.verdicts[0].remedy == remedy and not report.verdicts[0].maps
    assert report.problems[0].endswith(remedy or report.verdicts[0].reason)
