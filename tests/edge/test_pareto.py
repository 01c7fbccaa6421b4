"""The table of the networks: its counts, its accuracies, its latencies."""

import json

import numpy as np
import pytest

from benchmarks import pareto
from keras_resnet import files
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import sources
from tests.conftest import SMALL
from tests.helpers.commands import one_error, run_command
from tests.helpers.runner import convert
from tests.zoo.test_pretrained import copy_project, in_the_place_of_ours

LABELLED = {"top1": 0.875, "top5": 1.0, "images": 5000, "standard_error": 0.0047}


@pytest.fixture(scope="module")
def content():
    """A network of 1 convolution and 1 dense layer, for the mean of the pixels."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    dense = rng.normal(size=(4, 10)).astype(np.float32)

    def network(pixels):
        x = tf.nn.conv2d(tf.cast(pixels, tf.float32), kernel, 2, "SAME")
        x = tf.reduce_mean(tf.nn.relu(x + 1.0), [1, 2]) / 255
        return tf.nn.softmax(tf.matmul(x, dense) + 0.5)

    return convert(network, [1, 32, 32, 3], io_type=tf.uint8)


@pytest.fixture
def model(content, tmp_path):
    path = tmp_path / "tiny.int8.tflite"
    path.write_bytes(content)
    return path


def test_parameters_and_multiply_adds_are_those_of_the_network(model):
    found = pareto.describe(model)
    assert found["parameters"] == 3 * 3 * 3 * 4 + 4 + 4 * 10 + 10
    assert found["multiply_adds"] == 16 * 16 * 4 * 27 + 40
    assert found["bytes"] == model.stat().st_size
    assert found["float"] is found["int8"] is None


def test_mlperfs_resnet8_is_as_large_as_ours(shared_data):
    path = shared_data / "peers" / "mlperf_tiny_resnet8_int8.tflite"
    found = pareto.describe(path)
    # 78,042 of ours less two for each of 336 normalized channels, one a bias again.
    assert (found["parameters"], found["multiply_adds"]) == (77_706, 12_501_632)
    assert pareto.parameters(tflite_graph.read(path.read_bytes())) == 78_042 - 336


def test_a_card_counts_for_its_own_file_only(model, tmp_path):
    with in_the_place_of_ours(copy_project(tmp_path)) as package:
        card = {
            kind: {"sha256": files.sha256(model), "accuracy": LABELLED | {"of": kind}}
            for kind in ("float", "int8")
        }
        (package / "pretrained").mkdir()
        (package / "pretrained" / "tiny.json").write_text(json.dumps(card))
        found = pareto.describe(model)
        assert (found["float"]["of"], found["int8"]["of"]) == ("float", "int8")
        model.write_bytes(model.read_bytes() + b"\0")
        assert pareto.describe(model)["int8"] is None


def test_accuracies_are_measured_with_the_device_s_runner(model, monkeypatch):
    digits = sources.load("digits")
    monkeypatch.setattr(sources, "load", lambda *arguments: digits)
    found = pareto.describe(model)
    pareto.measure_accuracies([found], "anywhere")
    images, labels = pareto.ship.arrays(digits.held_out, SMALL)
    scores = pareto.ship.int8_scores(model, images)
    assert found["int8"]["top1"] == np.mean(scores.argmax(-1) == labels)
    assert found["int8"]["images"] == 360


def test_the_table_is_sorted_by_latency_and_tells_what_is_missing():
    def row(name, milliseconds, **more):
        size = {"parameters": 77_706, "multiply_adds": 12_501_632, "bytes": 98_000}
        found = {"float": None, "int8": None} | more
        times = {1: milliseconds, 2: milliseconds / 2}
        return {"name": name, "milliseconds": times} | size | found

    rows = [row("slow", 0.5), row("fast", 0.25, int8=LABELLED, float=LABELLED)]
    top1 = "87.50 ± 0.47"
    assert pareto.table(rows).splitlines()[2:] == [
        f"| fast | 77,706 | 12.5 | {top1} | {top1} | 98,000 | 0.250 | 0.125 |",
        "| slow | 77,706 | 12.5 | - | - | 98,000 | 0.500 | 0.250 |",
    ]
    (axes,) = pareto.picture(rows).axes
    assert [text.get_text() for text in axes.get_legend().texts] == ["fast"]
    assert axes.containers[0].lines[0].get_xydata().tolist() == [[0.25, 87.5]]


def test_the_command_measures_what_there_is(model, tmp_path):
    picture = tmp_path / "new" / "pareto.png"
    done = run_command(
        "benchmarks.pareto",
        f"--others={model}",
        "--rounds=3",
        f"--picture={picture}",
    )
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert head == "| " + " | ".join(pareto.HEADER) + " |"
    (row,) = [row for row in rows if row.startswith("| tiny.int8 |")]
    for milliseconds in row.strip("| ").split(" | ")[-2:]:
        assert 0 < float(milliseconds) < 1000
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_other_files_are_refused(shared_data, tmp_path):
    path = shared_data / "peers" / "mobilenet_v1_0.25_128_quant.tflite"
    with pytest.raises(UserError, match=r"10 classes.*Received: \(128, 128\), 1001"):
        pareto.describe(path)
    done = run_command("benchmarks.pareto", f"--others={tmp_path}/none.tflite")
    assert "none.tflite" in one_error(done)
