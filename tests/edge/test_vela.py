"""Arm's real compiler on our files: it tells what an NPU takes."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import edge, model_metadata
from keras_resnet.edge.convert import converter
from keras_resnet.edge.targets import ethos_u as vela
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from tests.conftest import SMALL
from tests.helpers import graphs
from tests.helpers.graphs import Operator, Tensor
from tests.helpers.networks import randomize, small_classifier

QUICK = ("resnet8",)  # the others take minutes together
TOO_DEEP = ("resnet1202",)  # its conversion takes hours

needs_vela = pytest.mark.skipif(
    vela.find_vela() is None, reason="needs Vela: pip install ethos-u-vela"
)


def int8_export(name, width=1):
    model = randomize(keras_resnet.create_model(name, weights=None, width=width))
    preprocessing = Preprocessing(model.input_shape[1:3])
    shape = (2, *preprocessing.input_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    # As after training: with any statistics the values of a deep network explode,
    # and Vela leaves operators with scales of a million to the CPU.
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(preprocessing.normalize(pixels), training=True)
    return converter.from_keras(model, preprocessing, "int8", pixels)


@needs_vela
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in keras_resnet.list_models()
        if name not in TOO_DEEP
    ],
)
def test_every_model_of_the_zoo_runs_on_the_npu_whole(name):
    content = int8_export(name)
    summary, compiled = vela.compile_model(content, "ethos-u55-128")
    assert summary.reasons == () and summary.cpu_operators == 0
    assert summary.npu_operators >= sum(graphs.counts(content).values()) - 2
    assert set(graphs.counts(compiled)) == {"CUSTOM"}


@needs_vela
def test_a_narrow_network_runs_on_the_npu_whole_and_needs_less_flash():
    found = [
        vela.compile_model(int8_export("resnet8", width), "ethos-u55-128")[0]
        for width in (0.25, 1)
    ]
    assert all(summary.cpu_operators == 0 for summary in found)
    assert found[0].off_chip_kib < found[1].off_chip_kib / 5


@needs_vela
@pytest.mark.parametrize("quantize", ["qat", "int8"])
@pytest.mark.parametrize("accelerator", vela.ACCELERATORS)
def test_exports_with_their_archive_are_compiled(files, quantize, accelerator):
    content = files[quantize].read_bytes()
    summary, compiled = vela.compile_model(content, accelerator)
    assert (summary.accelerator, summary.cpu_operators) == (accelerator, 0)
    assert graphs.counts(compiled) == {"CUSTOM": 1}
    assert set(summary.text.split()) >= {f"{accelerator}:", "ms", "KiB", "NPU,"}
    # 78,000 weights, one byte each; Vela packs them.
    assert 20 < summary.off_chip_kib < 120
    assert 10 < summary.sram_kib < 512
    assert 0.01 < summary.milliseconds < 10


@needs_vela
def test_larger_npus_are_faster(files):
    content = files["int8"].read_bytes()
    times = [
        vela.compile_model(content, f"ethos-u55-{macs}")[0].milliseconds
        for macs in (32, 64, 128, 256)
    ]
    assert times == sorted(times, reverse=True)


@needs_vela
def test_what_stays_on_the_cpu_is_named():
    content = graphs.build(
        [
            Tensor((1, 8, 8, 3), "float32"),
            Tensor((1, 8, 8, 3), "float32"),
            Tensor((1, 8, 8, 3), "int8"),
        ],
        [Operator("SIN", (0,), (1,)), Operator("QUANTIZE", (1,), (2,))],
    )
    summary, _ = vela.compile_model(content, "ethos-u55-256")
    assert (summary.cpu_operators, summary.npu_operators) == (2, 0)
    sin = [reason for reason in summary.reasons if reason.startswith("SIN")]
    assert sin == ["SIN (tensor1): Unsupported opType"]
    assert any("Float32" in reason for reason in summary.reasons)


@needs_vela
def test_damaged_files_are_one_line(files):
    """Vela itself ends with a segmentation fault, a traceback or code 0."""
    whole = files["int8"].read_bytes()
    for content in (b"", b"TFL3" * 50, whole[:60000], whole[: len(whole) // 2]):
        with pytest.raises(UserError, match="Vela cannot compile this file") as caught:
            vela.compile_model(content, "ethos-u55-128")
        assert "\n" not in str(caught.value)


@needs_vela
def test_the_export_leaves_the_compiled_file_beside(tmp_path):
    model = model_metadata.attach(small_classifier(), SMALL)
    settings = dict(dataset="digits", calibration_examples=20, report_examples=20)
    path = tmp_path / "small.tflite"
    report = edge.export(model, path, target="ethos-u55-128", **settings)
    assert report.paths["compiled"] == tmp_path / "small_vela.tflite"
    compiled = report.paths["compiled"].read_bytes()
    assert graphs.counts(compiled) == {"CUSTOM": 1}
    assert compiled == vela.compile_model(path.read_bytes(), "ethos-u55-128")[1]
    assert "ms estimated" in report["npu"]


@needs_vela
def test_an_export_that_leaves_operators_to_the_cpu_is_refused():
    content = graphs.build(
        [Tensor((1, 8, 8, 3), "float32"), Tensor((1, 8, 8, 3), "int8")],
        [Operator("QUANTIZE", (0,), (1,))],
    )
    compile_whole = vela.TARGETS["ethos-u55-128"].compile
    with pytest.raises(UserError, match="leaves . operators to the CPU: QUANTIZE"):
        compile_whole(content)


def test_without_vela_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(vela, "find_vela", lambda: None)
    with pytest.raises(UserError, match="pip install ethos-u-vela"):
        vela.compile_model(b"", "ethos-u55-128")


@needs_vela
def test_a_compiler_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(vela, "TIMEOUT_SECONDS", 0.01)
    with pytest.raises(UserError, match="took longer"):
        vela.compile_model(graphs.mean_colour(), "ethos-u55-128")
