"""edge/run_tflite.py on real ARM Python and runtimes, emulated by qemu."""

import json
import pathlib
import subprocess
import sys

import pytest
from tests.run_tflite_fixtures import python_environment

ROOT = pathlib.Path(__file__).parents[2]
SYSTEMS = ROOT / "build" / "arm"
SETUP = pathlib.Path(__file__).parent / "setup.sh"
# The processors of the Raspberry Pi 4 and 2. With all that qemu 7.2 can do (its `max`),
# ai-edge-litert 2.1.6 takes other kernels and answers wrongly.
MACHINES = {
    "aarch64": ("qemu-aarch64-static -cpu cortex-a72", "aarch64-linux-gnu"),
    "armv7l": ("qemu-arm-static -cpu cortex-a7", "arm-linux-gnueabihf"),
}
MODELS = ["mobilenet_v1_0.25_128_quant.tflite", "mlperf_tiny_resnet8_int8.tflite"]
STEP = 1 / 256  # of the scores of both

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def systems():
    """The folder that setup.sh fills."""
    done = subprocess.run([SETUP, SYSTEMS], capture_output=True, text=True)
    if done.returncode:  # no network, or no root to install qemu
        pytest.skip(f"no ARM system here: {done.stderr.strip()[-200:]}")
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


# tflite-runtime's own kernels, without XNNPACK, round otherwise on ARM than on x86. On
# these photographs, which are none of CIFAR's classes, the ResNet-8 is so undecided
# that other classes come first: it is left to XNNPACK.
@pytest.mark.parametrize(
    "machine, runtime, model",
    [
        ("aarch64", "tflite_runtime", MODELS[0]),
        ("aarch64", "ai_edge_litert", MODELS[0]),
        ("aarch64", "ai_edge_litert", MODELS[1]),
        ("armv7l", "tflite_runtime", MODELS[0]),
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
    allowed = STEP * 1.001
    assert len(pictures) > 8
    for picture, scores in expected.items():
        best, best_on_arm = next(iter(scores)), next(iter(actual[picture]))
        # Where two classes are as near as that, either may come first.
        assert scores[best] - scores[best_on_arm] <= 2 * allowed
        for index, score in scores.items():
            assert abs(score - actual[picture][index]) <= allowed, picture


PIXELS = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import run_tflite
classifier = run_tflite.Classifier(sys.argv[2])
for path in sys.argv[3:]:
    pixels = run_tflite.load_pixels(path, classifier)[0]
    print(hashlib.sha256(pixels.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("machine", MACHINES)
def test_arm_feeds_the_same_pixels(systems, shared_data, machine):
    model = shared_data / "peers" / MODELS[0]
    photographs = sorted((shared_data / "imagenet_sample" / "val").glob("*/*"))[::8]
    argv = ["-c", PIXELS, ROOT / "edge", model, *photographs]
    hashes = []
    for command in ([sys.executable], arm_command(systems, machine, "tflite_runtime")):
        done = subprocess.run(
            [*map(str, command + argv)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        hashes.append(done.stdout.split())
    assert len(set(hashes[0])) == len(photographs) > 10
    same = sum(here == there for here, there in zip(*hashes, strict=True))
    # Debian's Pillow is older, and decodes one of these JPEGs otherwise.
    assert same >= len(photographs) - 1


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
