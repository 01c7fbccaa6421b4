"""edge/run_tflite.py on real ARM Python and runtimes, emulated by qemu."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tests.helpers import lessons
from tests.helpers.commands import ROOT
from tests.helpers.runner import (
    PEERS,
    PHOTOS,
    RUNNER,
    SHIPPED,
    python_environment,
    run_beside_the_file,
)

SYSTEMS = ROOT / "build" / "arm"
SETUP = pathlib.Path(__file__).parent / "setup.sh"
# The processors of the Raspberry Pi 4 and 2. With all that qemu 7.2 can do (its `max`),
# ai-edge-litert 2.1.6 takes other kernels and answers wrongly.
MACHINES = {
    "aarch64": ("qemu-aarch64-static -cpu cortex-a72", "aarch64-linux-gnu"),
    "armv7l": ("qemu-arm-static -cpu cortex-a7", "arm-linux-gnueabihf"),
}
STEP = 1 / 256  # of the scores of all models

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
    argv = [RUNNER, f"--model={model}", "--json", "--top_k=9999"]
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


# The kernels of tflite-runtime, without XNNPACK, round differently on ARM and on x86.
# On photographs, which show none of CIFAR's classes, the ResNets are so undecided that
# other classes come first: they are left to XNNPACK.
@pytest.mark.parametrize(
    "machine, runtime, model",
    [
        ("aarch64", "ai_edge_litert", SHIPPED),
        ("aarch64", "ai_edge_litert", PEERS / "mlperf_tiny_resnet8_int8.tflite"),
        ("aarch64", "ai_edge_litert", PEERS / "mobilenet_v1_0.25_128_quant.tflite"),
        ("aarch64", "tflite_runtime", PEERS / "mobilenet_v1_0.25_128_quant.tflite"),
        ("armv7l", "tflite_runtime", PEERS / "mobilenet_v1_0.25_128_quant.tflite"),
    ],
)
def test_arm_answers_as_this_machine_does(
    systems, photographs, machine, runtime, model
):
    pictures = photographs[::4]
    if model != SHIPPED:
        if not PEERS.exists():
            pytest.skip("development data absent")
        pictures = [PEERS / "cat.bmp", *sorted(PHOTOS.glob("*/*"))[::12]]
    here = sys.executable
    if runtime == "tflite_runtime":  # its kernels round otherwise: compare like to like
        here = python_environment("3.11")
    expected = classify([here], model, pictures)
    actual = classify(arm_command(systems, machine, runtime), model, pictures)
    allowed = STEP * 1.001
    assert len(pictures) > 8
    for picture, scores in expected.items():
        best, best_on_arm = next(iter(scores)), next(iter(actual[picture]))
        # Where two classes are as near as that, either may come first.
        assert scores[best] - scores[best_on_arm] <= 2 * allowed
        for index, score in scores.items():
            assert abs(score - actual[picture][index]) <= allowed, picture


PIXELS = """
import hashlib, sys, run_tflite
classifier = run_tflite.Classifier(sys.argv[1])
for path in sys.argv[2:]:
    pixels = run_tflite.load_pixels(path, classifier)[0]
    print(hashlib.sha256(pixels.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_arm_feeds_the_same_pixels(
    systems, photographs, machine, file_format, tmp_path
):
    paths = photographs[::3]
    if file_format == "PNG":
        for number, path in enumerate(paths):
            paths[number] = tmp_path / f"{number}.png"
            with Image.open(path) as image:
                image.save(paths[number])
    hashes = []
    for command in ([sys.executable], arm_command(systems, machine, "tflite_runtime")):
        argv = [SHIPPED, *paths]
        done = run_beside_the_file(PIXELS, *argv, python=command, timeout=300)
        assert done.returncode == 0, done.stderr
        hashes.append(done.stdout.split())
    assert len(set(hashes[0])) == len(paths) > 12
    same = sum(here == there for here, there in zip(*hashes, strict=True))
    # Debian's Pillow is older and decodes one of these JPEGs differently.
    assert same >= len(paths) - (file_format == "JPEG")


@pytest.mark.parametrize(
    "machine, runtime",
    [
        ("aarch64", "ai_edge_litert"),
        ("aarch64", "tflite_runtime"),
        ("armv7l", "tflite_runtime"),
    ],
)
def test_a_new_user_learns_on_arm(systems, photographed, machine, runtime, tmp_path):
    folder = shutil.copytree(photographed, tmp_path / "home")
    command = arm_command(systems, machine, runtime)
    lessons.learn_as_a_new_user(command, folder, timeout=1800)


def test_arm_says_what_is_wrong_in_one_line(systems, tmp_path):
    (tmp_path / "model.tflite").write_text("no model")
    command = arm_command(systems, "armv7l", "tflite_runtime")
    argv = [RUNNER, f"--model={tmp_path}/model.tflite", "a.jpg"]
    done = subprocess.run(
        [*map(str, command + argv)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "not a TFLite model" in done.stderr
