"""edge/run_tflite.py with real external delegates, built against TFLite's C ABI."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import run_tflite
from run_tflite import Classifier, UserError
from run_tflite_fixtures import PEERS, assert_one_error, run_alone, run_main

pytest_plugins = ["run_tflite_fixtures"]
COMPILED = PEERS / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
CAT = PEERS / "cat.bmp"
needs_peers = pytest.mark.skipif(not PEERS.exists(), reason="development data absent")

# The structures are those of tensorflow/lite/core/c/common.h, which no wheel brings;
# fields that are not needed are pointers without a type.
SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[]; } Ints;
typedef struct Context Context;
typedef struct Delegate Delegate;
typedef struct {
  void *init, *free;
  int (*prepare)(Context*, void*);
  int (*invoke)(Context*, void*);
  void* profiling_string;
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void *external, *async_kernel;
  uint64_t inplace_operator;
} Registration;
struct Context {
  size_t tensors_size;
  int (*plan)(Context*, Ints**);
  void *tensors, *impl, *resize;
  void (*report)(Context*, const char*, ...);
  void *add_tensors, *get_node;
  int (*replace)(Context*, Registration, const Ints*, Delegate*);
};
struct Delegate {
  void* data;
  int (*prepare)(Context*, Delegate*);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void* opaque_builder;
  char mode[32];
};

static int succeed(Context* context, void* node) { return 0; }
static int fail(Context* context, void* node) {
  context->report(context, "the chip is\ntoo hot");
  return 1;
}
static int crash(Context* context, void* node) { abort(); }

static int prepare(Context* context, Delegate* delegate) {
  Ints* plan;
  if (!strcmp(delegate->mode, "idle")) return 0;
  if (context->plan(context, &plan)) return 1;
  Registration kernel = {0};
  kernel.prepare = succeed;
  kernel.invoke = !strcmp(delegate->mode, "fail") ? fail
                  : !strcmp(delegate->mode, "crash") ? crash : succeed;
  kernel.builtin_code = 51; /* BuiltinOperator_DELEGATE */
  kernel.custom_name = "TestDelegate";
  kernel.version = 1;
  size_t size = sizeof(int) * (plan->size + 1);
  Ints* nodes = memcpy(malloc(size), plan, size);
  int status = context->replace(context, kernel, nodes, delegate);
  free(nodes);
  return status;
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                        void (*report)(const char*)) {
  Delegate* delegate = calloc(1, sizeof *delegate);
  delegate->prepare = prepare;
  delegate->flags = 1; /* or the runtime prepares the operators before */
  for (size_t i = 0; i < count; i++) {
    if (!strcmp(keys[i], "mode") || !strcmp(keys[i], "device"))
      strncpy(delegate->mode, values[i], 31);
  }
  if (!strcmp(delegate->mode, "refuse")) {
    report("no chip\nof ours is here");
    free(delegate);
    return 0;
  }
  if (!strcmp(delegate->mode, "segfault")) *(volatile int*)0 = 1;
  return delegate;
}
void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
const char* edgetpu_version(void) { return "BuildLabel(TEST), RuntimeVersion(14)"; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A delegate whose option `mode` tells what it does wrong; by default it takes
    the whole model and computes nothing."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("delegate")
    (folder / "delegate.c").write_text(SOURCE)
    path = folder / "libdelegate.so"
    command = [compiler, "-w", "-shared", "-fPIC", "-o", path, folder / "delegate.c"]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def system(tmp_path, monkeypatch):
    """An empty /sys and /dev."""
    monkeypatch.setattr(run_tflite, "SYSTEM", str(tmp_path / "system"))
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
    assert result.stderr.count("\n") == run_tflite.MAX_CRASHES


class Fixed:
    """A classifier that answers the same to every picture."""

    def __init__(self, scores):
        self._scores = np.array(scores, np.float32)

    def scores(self, pixels):
        return self._scores


def test_compare_measures_the_difference(models, pictures):
    cpu = Classifier(models["full"])
    path = str(pictures / "g.png")
    scores = run_tflite.classify(path, cpu).scores
    other = scores + np.float32([0, -0.25, 0.125])
    report = run_tflite.compare(path, cpu, Fixed(other), 3)
    assert (report["file"], report["same_top"]) == (path, True)
    assert report["max_difference"] == 0.25
    for name, expected in (("cpu", scores), ("delegate", other)):
        top = report[name]["top"]
        assert [one["index"] for one in top] == (-expected).argsort(
            kind="stable"
        ).tolist()
        assert [one["score"] for one in top] == sorted(expected.tolist(), reverse=True)
        assert report[name]["invoke"] > 0
    assert not run_tflite.compare(path, cpu, Fixed([1, 0, 0]), 3)["same_top"]


def test_compare_prints_each_picture(models, library, capfd, pictures):
    argv = ["--model", models["full"], f"--delegate={library}", "--compare", pictures]
    (pictures / "text.jpg").write_text("no picture")
    code, out, errors = run_main(capfd, *argv, "--json")
    assert (code, len(errors)) == (2, 1) and "text.jpg" in errors[0]
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["file"] for r in records] == [str(pictures / f"{n}.png") for n in "bgr"]
    assert [r["cpu"]["top"][0]["index"] for r in records] == [2, 1, 0]
    text = run_main(capfd, *argv)[1]
    assert "scores differ by at most" in text and "  delegate (" in text


def test_compare_of_an_idle_delegate_finds_no_difference(
    models, library, capfd, pictures
):
    argv = ["--model", models["full"], f"--delegate={library}", "--compare", "--json"]
    argv.append("--delegate_options=mode=idle")
    out = run_main(capfd, *argv, pictures / "b.png")[1]
    record = json.loads(out)
    assert (record["same_top"], record["max_difference"]) == (True, 0.0)


def test_compare_needs_a_delegate(models, capfd, pictures):
    argv = ["--model", models["full"], "--compare", pictures / "b.png"]
    assert_one_error(capfd, argv, "--compare needs --delegate")


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
    delegate = run_tflite.choose_delegate(text, {"a": "b"}, compiled=True)
    expected = {"a": "b", "device": device} if device else {"a": "b"}
    assert delegate.options == expected
    assert delegate.library == run_tflite.EDGETPU_LIBRARIES[sys.platform]


def test_auto_is_the_cpu_for_other_models():
    assert run_tflite.choose_delegate("auto", {}, compiled=False) is None
    assert run_tflite.choose_delegate("none", {}, compiled=False) is None


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
        return run_tflite.check_edgetpu("tflite-runtime 2.11.0")[1:]

    assert [good for good, _ in devices()] == [False]
    node = make_usb(system, "18d1:9302")
    assert devices() == [(True, f"USB accelerator at {node}")]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    ((good, text),) = devices()
    assert not good and "plugdev" in text and "udev" in text
    monkeypatch.undo()
    monkeypatch.setattr(run_tflite, "SYSTEM", str(system))
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
        good for good, _ in run_tflite.check_edgetpu("tflite-runtime 2.11.0")[1:]
    ] == [False]


def test_the_librarys_version_is_shown(library, monkeypatch, capfd, system):
    monkeypatch.setitem(run_tflite.EDGETPU_LIBRARIES, sys.platform, str(library))
    make_usb(system, "1a6e:089a")
    code, out, errors = run_main(capfd, "--version")
    assert (code, errors) == (0, [])
    lines = [line for line in out.splitlines() if line.startswith("Edge TPU, ")]
    assert len(lines) == 2 and all("Edge TPU, ok" in line for line in lines)
    assert "RuntimeVersion(14)" in lines[0] and "USB accelerator" in lines[1]
    assert "needs a community build" in lines[0]  # ai-edge-litert
    for runtime, newer in (("tflite-runtime 2.11.0", False), ("tensorflow 2.12", True)):
        ((good, text), _) = run_tflite.check_edgetpu(runtime)
        assert good and f"beside {runtime}" in text
        assert ("community build" in text) == newer


@needs_peers
def test_a_compiled_model_goes_to_the_edge_tpus_library(library, tmp_path):
    # Stands in for libedgetpu: it takes the custom operator, as the real one does.
    shutil.copy(library, tmp_path / "libedgetpu.so.1")
    found = {"LD_LIBRARY_PATH": str(tmp_path)}
    report = run_alone(f"--model={COMPILED}", CAT, "--benchmark", "--json", **found)
    assert (report.returncode, report.stderr) == (0, "")
    assert json.loads(report.stdout)["delegate"] == "edgetpu"
    refused = run_alone(f"--model={COMPILED}", CAT, "--delegate=edgetpu:refuse")
    assert refused.returncode == 2
    argv = [f"--model={COMPILED}", CAT, "--delegate_options=mode=refuse"]
    refused = run_alone(*argv, **found)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "ok: library libedgetpu.so.1 BuildLabel(TEST)" in refused.stderr
    assert "none answers (Failed to load delegate" in refused.stderr
    argv[-1] = "--delegate_options=mode=segfault"
    crashed = run_alone(*argv, **found)
    assert crashed.returncode == 2 and crashed.stderr.count("\n") == 1
    assert "SIGSEGV" in crashed.stderr


@needs_peers
def test_compare_runs_the_uncompiled_file_on_the_cpu(library, tmp_path):
    shutil.copy(library, tmp_path / "libedgetpu.so.1")
    argv = [f"--model={COMPILED}", CAT, "--compare", "--json"]
    result = run_alone(*argv, LD_LIBRARY_PATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    record = json.loads(result.stdout)
    assert record["cpu"]["top"][0]["index"] == 283


def test_a_failed_delegate_leaves_nothing_behind_in_the_api(models, library):
    with pytest.raises(UserError, match="no chip"):
        Classifier(
            models["full"], delegate=str(library), delegate_options={"mode": "refuse"}
        )
    assert Classifier(models["full"]).delegate == "none"
