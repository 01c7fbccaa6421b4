"""Real external delegates, built against the C interface of TFLite."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

from keras_resnet.runner import Classifier, UserError, delegates, supervisor
from tests.helpers.runner import assert_one_error, run_alone, run_main


@pytest.fixture
def system(tmp_path, monkeypatch):
    """An empty /sys and /dev."""
    monkeypatch.setattr(delegates, "SYSTEM", str(tmp_path / "system"))
    return tmp_path / "system"


# --- External delegates ---------------------------------------------------------------


def test_a_delegate_that_takes_nothing_is_told_and_the_cpu_answers(
    models, library, capfd, pictures
):
    argv = ["--model", models["full"], pictures / "g.png", "--json", "--top_k=3"]
    delegate = [f"--delegate={library}", "--delegate_options=mode=idle"]
    code, out, errors = run_main(capfd, *argv, *delegate)
    assert (code, len(errors)) == (0, 1)
    assert errors[0].startswith("warning: ")
    assert str(library) in errors[0] and "no part" in errors[0]
    plain = json.loads(run_main(capfd, *argv)[1])
    assert json.loads(out)["top"] == plain["top"]


def test_a_delegate_that_takes_the_model_runs_it(models, library):
    # Of uint8 scores: what is not computed may be anything, but it is a number.
    classifier = Classifier(models["full"], delegate=str(library))
    assert not classifier.idle_delegate
    assert classifier.delegate == str(library)
    # This one writes nothing, so its memory keeps what is there whatever is fed.
    shape = classifier.input_shape[1:]
    first = classifier.scores(np.zeros(shape, np.uint8))
    second = classifier.scores(np.full(shape, 200, np.uint8))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "mode, words",
    [
        ("refuse", ["cannot be loaded", "no chip of ours is here"]),
        ("fail", ["with delegate", "the chip is too hot"]),
    ],
)
def test_a_delegate_that_fails_is_one_line(
    models, library, capfd, pictures, mode, words
):
    argv = ["--model", models["full"], pictures / "g.png", f"--delegate={library}"]
    assert_one_error(capfd, [*argv, f"--delegate_options=mode={mode}"], library, *words)


def test_a_library_that_is_no_delegate_is_one_line(models, capfd, pictures, tmp_path):
    (tmp_path / "text.so").write_text("no library")
    argv = ["--model", models["full"], pictures / "g.png"]
    cases = {
        tmp_path / "text.so": "cannot be loaded",
        tmp_path / "missing.so": "library that exists",
        tmp_path: "library that exists",
        "gpu": "expected auto, none, edgetpu",
        "edgetpu:serial": "expected auto, none, edgetpu",
        "edgetpu": "not compiled for the Edge TPU",
    }
    for delegate, word in cases.items():
        assert_one_error(capfd, [*argv, f"--delegate={delegate}"], word)
    argv.append("--delegate_options=mode=idle")
    assert_one_error(capfd, argv, "--delegate_options needs")
    assert_one_error(capfd, [*argv, "--delegate_options=x"], "KEY=VALUE", "'x'")


@pytest.mark.parametrize(
    "mode, signal, what",
    [("crash", "SIGABRT", "g.png"), ("segfault", "SIGSEGV", "loading it")],
)
def test_a_delegate_that_crashes_is_one_line(
    models, library, pictures, mode, signal, what
):
    result = run_alone(
        f"--model={models['full']}",
        f"--delegate={library}",
        f"--delegate_options=mode={mode}",
        pictures / "g.png",
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    assert signal in result.stderr and what in result.stderr
    assert "another version of the runtime" in result.stderr


def test_a_crash_on_every_picture_ends_after_a_few(models, library, pictures):
    argv = [f"--model={models['full']}", f"--delegate={library}"]
    argv += ["--delegate_options=mode=crash", *[pictures / "g.png"] * 9]
    result = run_alone(*argv)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == supervisor.MAX_CRASHES


# --- The Edge TPU ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, device",
    [
        ("auto", None),
        ("edgetpu", None),
        ("edgetpu:usb", "usb"),
        ("edgetpu:pci", "pci"),
        ("edgetpu:usb:0", "usb:0"),
        ("edgetpu::1", ":1"),
    ],
)
def test_devices_are_named_as_pycoral_names_them(text, device):
    delegate = delegates.choose_delegate(text, {"a": "b"}, compiled=True)
    expected = {"a": "b", "device": device} if device else {"a": "b"}
    assert delegate.options == expected
    assert delegate.library == delegates.EDGETPU_LIBRARIES[sys.platform]


def test_auto_is_the_cpu_for_other_models():
    assert delegates.choose_delegate("auto", {}, compiled=False) is None
    assert delegates.choose_delegate("none", {}, compiled=False) is None


def test_a_compiled_model_without_edge_tpu_is_one_line(models, capfd, system, pictures):
    argv = ["--model", models["edgetpu"], pictures / "g.png"]
    words = ["compiled for the Edge TPU", "MISSING: library libedgetpu", "apt install"]
    assert_one_error(capfd, argv, *words, "MISSING: device", "uncompiled file")
    assert_one_error(capfd, [*argv, "--delegate=none"], "--delegate=none")


def make_usb(system, product, readable=True):
    """Fake what the kernel shows of an accelerator on USB."""
    device = system / "sys/bus/usb/devices/2-1"
    device.mkdir(parents=True)
    vendor, product = product.split(":")
    for name, text in (
        ("idVendor", vendor),
        ("idProduct", product),
        ("busnum", "2"),
        ("devnum", "7"),
    ):
        (device / name).write_text(text + "\n")
    node = system / "dev/bus/usb/002/007"
    node.parent.mkdir(parents=True)
    node.write_bytes(b"")
    return node


def test_the_checklist_finds_what_is_there_and_what_is_missing(system, monkeypatch):
    def devices():
        return delegates.check_edgetpu("tflite-runtime 2.11.0")[1:]

    assert [good for good, _ in devices()] == [False]
    node = make_usb(system, "18d1:9302")
    assert devices() == [(True, f"USB accelerator at {node}")]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    ((good, text),) = devices()
    assert not good and "plugdev" in text and "udev" in text
    monkeypatch.undo()
    monkeypatch.setattr(delegates, "SYSTEM", str(system))
    shutil.rmtree(system / "sys/bus/usb")
    pci = system / "sys/bus/pci/devices/0000:01:00.0"
    pci.mkdir(parents=True)
    (pci / "vendor").write_text("0x1ac1\n")
    (pci / "device").write_text("0x089a\n")
    ((good, text),) = devices()
    assert not good and "/dev/apex_0" in text and "gasket-dkms" in text
    (system / "dev/apex_0").write_bytes(b"")
    assert devices() == [(True, f"PCIe accelerator at {system}/dev/apex_0")]


def test_other_devices_are_no_edge_tpu(system):
    make_usb(system, "046d:c31c")
    assert [
        good for good, _ in delegates.check_edgetpu("tflite-runtime 2.11.0")[1:]
    ] == [False]


def test_the_librarys_version_is_shown(library, monkeypatch, capfd, system):
    monkeypatch.setitem(delegates.EDGETPU_LIBRARIES, sys.platform, str(library))
    make_usb(system, "1a6e:089a")
    code, out, errors = run_main(capfd, "--version")
    assert (code, errors) == (0, [])
    lines = [line for line in out.splitlines() if line.startswith("Edge TPU, ")]
    assert len(lines) == 2 and all("Edge TPU, ok" in line for line in lines)
    assert "RuntimeVersion(14)" in lines[0] and "USB accelerator" in lines[1]
    assert "needs a community build" in lines[0]  # ai-edge-litert
    for runtime, newer in (("tflite-runtime 2.11.0", False), ("tensorflow 2.12", True)):
        ((good, text), _) = delegates.check_edgetpu(runtime)
        assert good and f"beside {runtime}" in text
        assert ("community build" in text) == newer


def test_a_compiled_model_goes_to_the_edge_tpus_library(library, compiled, tmp_path):
    # Stands in for libedgetpu: it takes the custom operator, as the real one does.
    shutil.copy(library, tmp_path / "libedgetpu.so.1")
    found = {"LD_LIBRARY_PATH": str(tmp_path)}
    model, image, _ = compiled
    report = run_alone(f"--model={model}", image, "--benchmark", "--json", **found)
    assert (report.returncode, report.stderr) == (0, "")
    assert json.loads(report.stdout)["delegate"] == "edgetpu"
    refused = run_alone(f"--model={model}", image, "--delegate=edgetpu:refuse")
    assert refused.returncode == 2
    argv = [f"--model={model}", image, "--delegate_options=mode=refuse"]
    refused = run_alone(*argv, **found)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "ok: library libedgetpu.so.1 BuildLabel(TEST)" in refused.stderr
    assert "no Edge TPU answers (Failed to load delegate" in refused.stderr
    argv[-1] = "--delegate_options=mode=segfault"
    crashed = run_alone(*argv, **found)
    assert crashed.returncode == 2 and crashed.stderr.count("\n") == 1
    assert "SIGSEGV" in crashed.stderr


def test_a_failed_delegate_leaves_nothing_behind_in_the_api(models, library):
    with pytest.raises(UserError, match="no chip"):
        Classifier(
            models["full"], delegate=str(library), delegate_options={"mode": "refuse"}
        )
    assert Classifier(models["full"]).delegate == "none"
