"""TFLM's real interpreter on our files: it tells what a microcontroller computes."""

import base64
import json
import subprocess
import sys

import numpy as np
import pytest

from keras_resnet import edge, model_metadata
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.targets import checks, tflite_micro
from keras_resnet.runner.errors import UserError
from tests.conftest import SMALL
from tests.helpers import graphs
from tests.helpers.commands import ROOT, one_error, run_command
from tests.helpers.graphs import Operator, Tensor
from tests.helpers.networks import small_classifier

PUBLISHED = ROOT / "models/resnet8.cifar10.int8.tflite"
INT8 = Tensor((1, 4, 4, 4), "int8")
SETTINGS = dict(
    dataset="digits",
    calibration_examples=20,
    report_examples=20,
    target="tflite_micro",
)

needs_tflm = pytest.mark.skipif(
    not tflite_micro.is_installed(), reason="needs the extra micro"
)

# Prints which of some models have an operator that the interpreter does not have. A
# custom operator behind each one ends the preparation before kernels see the tensors.
RESOLVE = """
import base64, json, sys
from tflite_micro import runtime

for name, content in json.load(sys.stdin).items():
    print("<", name, file=sys.stderr, flush=True)
    try:
        runtime.Interpreter.from_bytes(base64.b64decode(content), arena_size=100000)
    except RuntimeError:
        pass
"""


@needs_tflm
@pytest.mark.parametrize("quantize", ["qat", "int8"])
def test_exports_compute_the_same_in_tflm(files, held_out, quantize):
    content = files[quantize].read_bytes()
    found = tflite_micro.interpret(content, held_out[0][:40])
    assert found["images"] == 40
    # Dense layers round a tie the other way: a step of a logit, some of a score.
    assert found["with_reference"]["equal_images"] >= 38
    assert found["with_reference"]["top1_agreement"] == 1
    assert found["with_default"]["top1_agreement"] >= 0.95
    assert 50_000 < found["arena_bytes"] < 60_000
    assert found["scratch_bytes"] == 2 * 2 * 3 * 3 * 64


@needs_tflm
@pytest.mark.slow
def test_the_published_network_is_within_one_step_on_a_thousand_images(shared_data):
    from keras_resnet.training.data import batching, sources

    split = sources.load("cifar10", shared_data / "tfds").held_out
    images = np.stack([x for x, _ in batching.images(split, SMALL).take(1000)])
    content = PUBLISHED.read_bytes()
    scores, arena_bytes = tflite_micro.run(content, images)
    expected = tflite_micro.litert_scores(content, images, reference=True)
    assert tflite_micro.compare(scores, expected)["max_steps"] <= 1
    assert arena_bytes < 60_000


@needs_tflm
def test_the_arena_that_is_reported_is_what_the_interpreter_needs(monkeypatch):
    content, image = PUBLISHED.read_bytes(), np.zeros((1, 32, 32, 3), np.uint8)
    arena_bytes = tflite_micro.run(content, image)[1]
    monkeypatch.setattr(tflite_micro, "ARENA_LIMIT_BYTES", arena_bytes)
    assert tflite_micro.run(content, image)[1] == arena_bytes
    monkeypatch.setattr(tflite_micro, "ARENA_LIMIT_BYTES", arena_bytes - 64)
    with pytest.raises(UserError, match="cannot run the file .*[Ff]ailed to"):
        tflite_micro.run(content, image)


@needs_tflm
def test_large_networks_are_checked_on_fewer_images(monkeypatch):
    content, images = PUBLISHED.read_bytes(), np.zeros((4, 32, 32, 3), np.uint8)
    work = 12_501_632  # multiply-adds of ResNet-8
    for limit, expected in ((3 * work, 3), (3 * work - 1, 2), (work - 1, 1)):
        monkeypatch.setattr(tflite_micro, "CHECKED_MULTIPLY_ADDS", limit)
        assert tflite_micro.interpret(content, images)["images"] == expected


@needs_tflm
def test_a_type_that_a_kernel_lacks_is_refused_in_the_words_of_tflm():
    content = graphs.build(
        [Tensor((1, 8, 8, 3)), Tensor((1, 8, 8, 3))], [Operator("LOGISTIC", (0,), (1,))]
    )
    assert checks.check(content, "tflite_micro").problems == ()
    with pytest.raises(UserError, match="cannot run the file .*LOGISTIC") as caught:
        tflite_micro.run(content, np.zeros((1, 8, 8, 3), np.uint8))
    assert "\n" not in str(caught.value)


@needs_tflm
def test_damaged_files_are_one_line():
    whole, image = PUBLISHED.read_bytes(), np.zeros((1, 32, 32, 3), np.uint8)
    for content in (b"", b"TFL3" * 50, whole[:60000]):
        with pytest.raises(UserError, match="cannot run the file") as caught:
            tflite_micro.run(content, image)
        assert "\n" not in str(caught.value)


@needs_tflm
def test_other_scores_than_those_of_litert_are_refused(monkeypatch):
    monkeypatch.setattr(
        tflite_micro, "litert_scores", lambda *_, **__: np.full((2, 10), 255, np.uint8)
    )
    with pytest.raises(UserError, match="does not compute what LiteRT does"):
        tflite_micro.interpret(
            PUBLISHED.read_bytes(), np.zeros((2, 32, 32, 3), np.uint8)
        )


@needs_tflm
def test_an_interpreter_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(tflite_micro, "TIMEOUT_SECONDS", 0.01)
    with pytest.raises(UserError, match="took longer"):
        tflite_micro.run(graphs.mean_colour(), np.zeros((1, 8, 8, 3), np.uint8))


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(tflite_micro, "is_installed", lambda: False)
    with pytest.raises(UserError, match=r"pip install \"keras-resnet-zoo\[micro\]\"$"):
        tflite_micro.run(b"", np.zeros((1, 8, 8, 3), np.uint8))


def test_operators_that_tflm_lacks_are_named():
    content = graphs.build([INT8, INT8], [Operator("GELU", (0,), (1,))])
    assert checks.check(content, "tflite_micro").problems == (
        "1 x GELU version 1: not among the target's operators",
    )
    floating = Tensor((1, 4), "float32")
    content = graphs.build([floating, floating], [Operator("RELU", (0,), (1,))])
    (problem,) = checks.check(content, "tflite_micro").problems
    assert "the target computes in integers only" in problem


@needs_tflm
def test_the_table_of_operators_is_that_of_the_interpreter():
    end = Operator("CUSTOM", (1,), (2,), custom="NotThere")
    # The only operator whose options the interpreter reads before.
    options = {"VAR_HANDLE": ("VarHandleOptions", {"sharedName": "name"})}
    models = {
        name: graphs.build(
            [INT8] * 3, [Operator(name, (0,), (1,), options.get(name, ())), end]
        )
        for name in operators.version_table()
    }
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE],
        input=json.dumps({k: base64.b64encode(v).decode() for k, v in models.items()}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-500:]
    said = dict(part.split("\n", 1) for part in done.stderr.split("< ")[1:])
    assert set(said) == set(models)
    has = {name for name, lines in said.items() if f"'{name}'" not in lines}
    assert has == set(tflite_micro.OPERATORS)


def test_scores_are_compared_in_steps_and_by_class():
    ours = np.array([[0, 200, 56], [10, 20, 226]], np.uint8)
    theirs = np.array([[0, 200, 56], [226, 20, 10]], np.uint8)
    assert tflite_micro.compare(ours, theirs) == {
        "max_steps": 216,
        "mean_steps": 72.0,
        "equal_images": 1,
        "top1_agreement": 0.5,
    }


@needs_tflm
def test_the_export_leaves_a_sketch_beside_and_reports_the_arena(tmp_path):
    model = model_metadata.attach(small_classifier(), SMALL)
    report = edge.export(model, tmp_path / "my model.tflite", **SETTINGS)
    folder = tmp_path / "my_model_sketch"
    assert report.paths["sketch"] == folder / "my_model_sketch.ino"
    names = {"my_model_sketch.ino", "model_data.h", "model_data.cpp"}
    assert {file.name for file in folder.iterdir()} == names
    arena = report["micro"]["arena_bytes"]
    assert f"({arena} + " in (folder / "model_data.h").read_text()
    assert report["micro"] == json.loads(report.paths["json"].read_text())["micro"]
    text = str(report)
    assert f"{arena:,} bytes" in text and "of 20 images" in text


@needs_tflm
def test_an_arena_that_is_too_small_is_refused_and_nothing_is_written(tmp_path):
    model = model_metadata.attach(small_classifier(), SMALL)
    with pytest.raises(
        UserError, match=r"arena of [\d,]+ bytes .*, --arena_bytes allows 500"
    ):
        edge.export(model, tmp_path / "a.tflite", **SETTINGS, arena_bytes=500)
    assert not list(tmp_path.iterdir())


def test_settings_of_another_target_are_refused(tmp_path):
    model = model_metadata.attach(small_classifier(), SMALL)
    path = tmp_path / "a.tflite"
    for settings, reason in (
        (dict(target="litert", arena_bytes=5000), "--arena_bytes is for"),
        (dict(target="tflite_micro", arena_bytes=0), "--arena_bytes must be"),
        (dict(target="tflite_micro", features=True), "--features are for"),
    ):
        with pytest.raises(UserError, match=reason):
            edge.export(model, path, dataset="digits", **settings)
    assert not list(tmp_path.iterdir())


def test_the_command_without_the_package_is_one_line(tmp_path):
    if tflite_micro.is_installed():
        pytest.skip("tflite-micro is installed")
    done = run_command(
        "edge/export.py",
        *("--model=resnet8", "--weights=cifar10", "--dataset=digits"),
        *("--target=tflite_micro", f"--output={tmp_path / 'a.tflite'}"),
    )
    assert "keras-resnet-zoo[micro]" in one_error(done)
    assert not list(tmp_path.iterdir())
