"""Every kind of export gives the same scores on runtimes of five years."""

import numpy as np
import pytest

from keras_resnet.edge.convert import tflite_file
from tests.conftest import QUANTIZATIONS
from tests.helpers import environments

# TFLite has two sets of kernels for int8, which round differently: its own and
# XNNPACK's. (Environment, the set that it takes by default.)
RUNTIMES = [
    ("tflite-runtime", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"),
    pytest.param(("oldest-runtime", "AUTO"), marks=pytest.mark.slow),
]
# Runs on CPython 3.7 too.
SCRIPT = """
import importlib, sys
import numpy as np

runtime, kernels, pixels, result, *models = sys.argv[1:]
runtime = importlib.import_module(runtime + ".interpreter")
kernels = getattr(runtime.OpResolverType, kernels)
levels = []
for model in models:
    interpreter = runtime.Interpreter(
        model, num_threads=1, experimental_op_resolver_type=kernels
    )
    interpreter.allocate_tensors()
    levels.append([])
    for image in np.load(pixels):
        index = interpreter.get_input_details()[0]["index"]
        interpreter.set_tensor(index, image[None])
        interpreter.invoke()
        index = interpreter.get_output_details()[0]["index"]
        levels[-1].append(interpreter.get_tensor(index)[0])
np.save(result, np.array(levels))
"""


@pytest.fixture(scope="module")
def pixels(held_out):
    """Some digits, and noise, which no class fits."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    return np.concatenate([held_out[0][:64], noise])


@pytest.fixture(scope="module")
def levels_of(files, pixels, tmp_path_factory):
    """Returns a function: environment, kernels -> {quantize: (images, classes)}."""
    folder = tmp_path_factory.mktemp("levels")
    np.save(folder / "pixels.npy", pixels)

    def run(name, kernels="AUTO"):
        result = folder / f"{name}-{kernels}.npy"
        if not result.exists():
            runtime = "ai_edge_litert" if name == "here" else "tflite_runtime"
            arguments = [runtime, kernels, folder / "pixels.npy", result]
            environments.run(name, SCRIPT, *arguments, *files.values())
        return dict(zip(files, np.load(result), strict=True))

    return run


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_scores_are_those_of_the_newest_runtime(
    levels_of, files, held_out, runtime, quantize
):
    name, kernels = runtime
    new, old = levels_of("here", kernels)[quantize], levels_of(name)[quantize]
    assert old.dtype == new.dtype == np.uint8 and old.shape == new.shape == (80, 10)
    # The oldest XNNPACK has fewer int8 operators: the rest are TFLite's own.
    mixed = kernels == "AUTO" and quantize in ("qat", "int8")
    limit = step_of_the_logits(files[quantize]) + 1 if mixed else 1
    assert np.abs(old.astype(int) - new).max() <= limit
    # TFLite 2.5 to 2.9 returned the same scores for every image where
    # FULLY_CONNECTED has a scale for each channel.
    assert np.mean(old[:64].argmax(-1) == held_out[1][:64]) > 0.9


def step_of_the_logits(path):
    """Returns by how many levels the scores move with one step of the logits."""
    graph = tflite_file.parse(path.read_bytes()).subgraphs[0]
    (logits,) = (t for t in graph.tensors if b"BiasAdd" in t.name and len(t.shape) == 2)
    # The slope of a softmax is at most 1/4, and two logits may move apart.
    return 2 * logits.quantization.scale[0] / 4 * 256


@pytest.mark.parametrize("quantize", ["qat", "int8"])
def test_the_two_sets_of_kernels_differ_by_one_step_of_the_logits(
    levels_of, files, quantize
):
    own, xnnpack = (
        levels_of("here", kernels)[quantize].astype(int)
        for kernels in ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", "AUTO")
    )
    assert np.abs(own - xnnpack).max() <= step_of_the_logits(files[quantize]) + 1
    assert np.mean(own.argmax(-1) == xnnpack.argmax(-1)) >= 0.975
