"""The device's file beside what a person writes by hand: start-up, images, folders.

    python -m benchmarks.device_runner --model=resnet50.tflite --photos=FOLDER

Both sides run in turn, so that other work on the machine hits both; medians. The model
must carry its preprocessing.json (edge/export.py); the photographs are those of FOLDER
that are 500x375.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from PIL import Image

RUNNER = pathlib.Path(__file__).resolve().parents[1] / "edge" / "run_tflite.py"
REPEATS = 15

# The least that gives the same answer: one thread count, no checks, no options.
BARE = """
import sys, time
import numpy as np
from PIL import Image
from ai_edge_litert.interpreter import Interpreter
model, threads, resize, *paths = sys.argv[1:]
interpreter = Interpreter(model_path=model, num_threads=int(threads))
interpreter.allocate_tensors()
given, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
side = given["shape"][1]
start = time.perf_counter()
spent = 0
for path in paths:
    before = time.perf_counter()
    image = Image.open(path).convert("RGB")
    spent += time.perf_counter() - before
    scale = int(resize) / min(image.size)
    size = [int(length * scale) for length in image.size]
    image = image.resize(size, Image.BILINEAR)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    pixels = np.asarray(image.crop((left, top, left + side, top + side)))
    interpreter.set_tensor(given["index"], pixels[None])
    before = time.perf_counter()
    interpreter.invoke()
    spent += time.perf_counter() - before
    scores = interpreter.get_tensor(answer["index"])[0]
    for index in (-scores.astype(int)).argsort(kind="stable")[:5]:
        print(index, scores[index] / 256)
print(time.perf_counter() - start, spent, file=sys.stderr)
"""


def run(argv):
    """Runs a command; returns (seconds, of the processor, peak MiB)."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        text = errors.read().decode()
    assert process.returncode == 0, text
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def medians(*commands):
    """Runs commands in turn; returns the median result of `run` of each."""
    samples = [[run(command) for command in commands] for _ in range(REPEATS)]
    return [
        tuple(statistics.median(values) for values in zip(*column, strict=True))
        for column in zip(*samples, strict=True)
    ]


def start_up(model, photo, resize):
    """Prints the time from process start to the end after one picture."""
    ours, bare = medians(
        [sys.executable, RUNNER, f"--model={model}", photo],
        [sys.executable, "-c", BARE, model, str(os.cpu_count()), resize, photo],
    )
    print(f"one picture, start to end: {ours[0]:.3f} s, bare script {bare[0]:.3f} s")
    ratios = [f"{mine / theirs:.2f}" for mine, theirs in zip(ours, bare, strict=True)]
    print(f"  ratios: time {ratios[0]}, processor {ratios[1]}, peak memory {ratios[2]}")


def single_pictures(model, photos):
    """Prints the share of decoding and running in the time of a picture."""
    argv = [sys.executable, RUNNER, f"--model={model}", "--benchmark", "--json"]
    done = subprocess.run(
        [*argv, "--threads=1", *photos], capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout)
    stages = {name: report[name]["median"] for name in ("decode", "resize", "invoke")}
    ratio = report["total"]["median"] / (stages["decode"] + stages["invoke"])
    print(f"one thread, milliseconds: {stages}, total / (decode + invoke) {ratio:.3f}")


def folder(model, photos, resize):
    """Prints the throughput of a folder beside a sequential loop."""
    with tempfile.TemporaryDirectory() as name:
        paths = [pathlib.Path(name) / f"{number:04d}.jpg" for number in range(120)]
        for number, path in enumerate(paths):
            shutil.copy(photos[number % len(photos)], path)
        runs = {
            "ours": [sys.executable, RUNNER, f"--model={model}", name],
            "loop, one thread": [
                sys.executable,
                "-c",
                BARE,
                model,
                "1",
                resize,
                *paths,
            ],
            "loop, two threads": [
                sys.executable,
                "-c",
                BARE,
                model,
                "2",
                resize,
                *paths,
            ],
        }
        samples = {side: [] for side in runs}
        for _ in range(3):
            for side, argv in runs.items():
                samples[side].append(run(argv)[0])
    seconds = {side: statistics.median(values) for side, values in samples.items()}
    for side, value in seconds.items():
        print(f"folder, {side}: {len(paths) / value:.1f} pictures a second")
        if side != "ours":
            print(f"  ours is {value / seconds['ours']:.2f} times as fast")


def main():
    """Prints all figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--resize_size", default="256")
    options = parser.parse_args()
    photos = [
        str(path)
        for path in sorted(pathlib.Path(options.photos).rglob("*.JPEG"))
        if Image.open(path).size == (500, 375)
    ]
    start_up(options.model, photos[0], options.resize_size)
    single_pictures(options.model, photos)
    folder(options.model, photos, options.resize_size)


if __name__ == "__main__":
    main()
