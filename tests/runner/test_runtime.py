"""Which runtime is taken, and how many threads."""

import os
import sys
import types

import numpy as np
import pytest

from keras_resnet.runner import Classifier, UserError, runtime
from tests.helpers.runner import HEIGHT, WIDTH


def test_a_runtime_that_cannot_work_is_named_before_it_crashes(monkeypatch):
    old = types.ModuleType("tflite_runtime")
    old.__version__ = "2.14.0"
    monkeypatch.setattr(np, "__version__", "2.4.6")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", old)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"2.14.0 needs numpy < 2, found 2.4.6") as info:
        runtime.load_runtime()
    for package in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
        assert f"{package}: " in str(info.value)


def test_runtimes_are_tried_in_order(monkeypatch, models):
    class Fake:
        pass

    package = types.ModuleType("tflite_runtime")
    package.__version__ = "2.14.0"
    interpreter = types.ModuleType("tflite_runtime.interpreter")
    interpreter.Interpreter = Fake
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setitem(sys.modules, "tflite_runtime", package)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    assert runtime.load_runtime()[1].startswith("ai-edge-litert ")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert runtime.load_runtime() == (Fake, "tflite-runtime 2.14.0")
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    classifier = Classifier(models["full"])
    assert classifier.runtime.startswith("tensorflow ")
    assert classifier.scores(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).shape == (3,)


def test_threads_are_the_physical_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "SYSTEM", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5})
    assert runtime.default_threads() == 4  # nothing is known
    for cpu, siblings in ((0, "03"), (1, "03"), (2, "0c"), (5, "30")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings").write_text(siblings + "\n")
    assert runtime.default_threads() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert runtime.default_threads() == 1
