"""edge/run_tflite.py on real ARM Python and runtimes, emulated by qemu."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from run_tflite_fixtures import python_environment

ROOT = pathlib.Path(__file__).parents[2]
SYSTEMS = ROOT / "build" / "arm"
SETUP = pathlib.Path(__file__).parent / "setup.sh"
# The processors of the Raspberry Pi 4 and 2. With all that qemu 7.2 can do (its `max`),
# ai-edge-litert 2.1.6 takes other kernels and answers wrongly.
MACHINES = {
    "aarch64": ("qemu-aarch64-static -cpu cortex-a72", "aarch64-linux-gnu"),
    "armv7l": ("qemu-arm-static -cpu cortex-a7", "arm-linux-gnueabihf"),
}
MODELS = {
    "mobilenet_v1_0.25_128_quant.tflite": 1 / 256,
    "mlperf_tiny_resnet8_int8.tflite": 1 / 256,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def systems():
    """The folder that setup.sh fills."""
    done = subprocess.run([SETUP, SYSTEMS], capture_output=True, text=True)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"no ARM system here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return SYSTEMS


def arm_command(systems, machine, runtime):
    """The command of an ARM Python with this runtime."""
    emulator, triple = MACHINES[machine]
    system = systems / machine
    libraries = system / "usr" / "lib" / triple  # Debian's numpy needs these two
    packages = (
        f"{systems / f'{machine}-{runtime}'}:{system}/usr/lib/python3/dist-packages"
    )
    return [
        *[*emulator.split(), "-L", system],
        *["-E", f"LD_LIBRARY_PATH={libraries}/blas:{libraries}/lapack"],
        *["-E", f"PYTHONPATH={packages}"],
        *[system / "usr/bin/python3.11", "-S"],
    ]


def classify(command, model, pictures):
    """Run the file; returns {picture: {class: score}}, best class first."""
    argv = [
        ROOT / "edge" / "run_tflite.py",
        f"--model={model}",
        "--json",
        "--top_k=9999",
    ]
    done = subprocess.run(
        [*map(str, command + argv), *map(str, pictures)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["file"] for record in records] == [str(p) for p in pictures]
    return {
        record["file"]: {top["index"]: top["score"] for top in record["top"]}
        for record in records
    }


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "machine, runtime",
    [
        ("aarch64", "tflite_runtime"),
        ("aarch64", "ai_edge_litert"),
        ("armv7l", "tflite_runtime"),
    ],
)
def test_arm_answers_as_this_machine_does(
    systems, shared_data, machine, runtime, model
):
    path = shared_data / "peers" / model
    photographs = sorted((shared_data / "imagenet_sample" / "val").glob("*/*"))[::12]
    pictures = [shared_data / "peers" / "cat.bmp", *photographs]
    here = sys.executable
    if runtime == "tflite_runtime":  # its kernels round otherwise: compare like to like
        here = python_environment("3.11")
    expected = classify([here], path, pictures)
    actual = classify(arm_command(systems, machine, runtime), path, pictures)
    step = MODELS[model]
    assert len(pictures) > 8
    for picture, scores in expected.items():
        best, best_on_arm = next(iter(scores)), next(iter(actual[picture]))
        # Where two classes are a step apart, either may come first.
        assert scores[best] - scores[best_on_arm] <= 2 * step
        for index, score in scores.items():
            assert abs(score - actual[picture][index]) <= step * 1.001, picture


def test_arm_says_what_is_wrong_in_one_line(systems, tmp_path):
    (tmp_path / "model.tflite").write_text("no model")
    command = arm_command(systems, "armv7l", "tflite_runtime")
    argv = [
        ROOT / "edge" / "run_tflite.py",
        f"--model={tmp_path}/model.tflite",
        "a.jpg",
    ]
    done = subprocess.run(
        [*map(str, command + argv)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "not a TFLite model" in done.stderr
