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

from benchmarks import turns

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


def medians(commands, repeats):
    """Runs {name: command} in turns; returns the median result of `run` of each."""
    return {
        name: [statistics.median(values) for values in zip(*results, strict=True)]
        for name, results in turns.in_turns(run, commands, repeats).items()
    }


def start_up(ours, bare, photo, resize):
    """Prints the time from process start to the end after one picture."""
    commands = {
        "ours": [*ours, photo],
        "bare": [*bare, str(os.cpu_count()), resize, photo],
    }
    found = medians(commands, REPEATS)
    print(
        f"one picture, start to end: {found['ours'][0]:.3f} s, bare script "
        f"{found['bare'][0]:.3f} s"
    )
    pairs = zip(found["ours"], found["bare"], strict=True)
    ratios = [f"{mine / theirs:.2f}" for mine, theirs in pairs]
    print(f"  ratios: time {ratios[0]}, processor {ratios[1]}, peak memory {ratios[2]}")


def single_pictures(ours, photos):
    """Prints the share of decoding and running in the time of a picture."""
    argv = [*ours, "--benchmark", "--json", "--threads=1", *photos]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    stages = {name: report[name]["median"] for name in ("decode", "resize", "invoke")}
    ratio = report["total"]["median"] / (stages["decode"] + stages["invoke"])
    print(f"one thread, milliseconds: {stages}, total / (decode + invoke) {ratio:.3f}")


def folder(ours, bare, photos, resize):
    """Prints the throughput of a folder beside a sequential loop."""
    with tempfile.TemporaryDirectory() as name:
        paths = [pathlib.Path(name) / f"{number:04d}.jpg" for number in range(120)]
        for number, path in enumerate(paths):
            shutil.copy(photos[number % len(photos)], path)
        commands = {
            "ours": [*ours, name],
            "loop, one thread": [*bare, "1", resize, *paths],
            "loop, two threads": [*bare, "2", resize, *paths],
        }
        found = medians(commands, 3)
    for side, (seconds, *_) in found.items():
        print(f"folder, {side}: {len(paths) / seconds:.1f} pictures a second")
        if side != "ours":
            print(f"  ours is {seconds / found['ours'][0]:.2f} times as fast")


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
    ours = [sys.executable, RUNNER, f"--model={options.model}"]
    bare = [sys.executable, "-c", BARE, options.model]
    start_up(ours, bare, photos[0], options.resize_size)
    single_pictures(ours, photos)
    folder(ours, bare, photos, options.resize_size)


if __name__ == "__main__":
    main()
