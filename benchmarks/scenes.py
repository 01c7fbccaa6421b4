"""Boxes and masks: how good the default recipes are, and how long they take.

    python -m benchmarks.scenes digits --seeds=3
    python -m benchmarks.scenes boxes --data_dir=../shared/data/bccd

"digits" trains both tasks on the embedded scenes, "boxes" a detector on a folder of
pictures with Pascal VOC annotations. Every training runs in a process of its own, so
that its time is that of the command. One line for each, then the mean and the spread.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

MEASURES = {"detect": ("ap50", "ap"), "segment": ("miou",)}


def train(task, flags):
    """Returns (seconds, metrics) of one training."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "training/train.py", f"--task={task}", *flags]
            + [f"--model_dir={folder}/run", "--evaluation_epochs=1000"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - started
        metrics = json.loads(pathlib.Path(folder, "run/metrics.json").read_text())
    return seconds, metrics


def measure(task, flags, seeds):
    """Trains with several seeds and prints what each is worth."""
    found = []
    for seed in range(seeds):
        seconds, metrics = train(task, [*flags, f"--seed={seed}"])
        values = [metrics[name] for name in MEASURES[task]]
        found.append([seconds, *values])
        print(_line(task, f"seed {seed}", found[-1]), flush=True)
    columns = list(zip(*found, strict=True))
    print(_line(task, "mean", map(statistics.mean, columns)))
    print(_line(task, "range", (max(column) - min(column) for column in columns)))


def _line(task, what, values):
    seconds, *rest = values
    named = zip(MEASURES[task], rest, strict=True)
    return f"{task} {what}: {seconds:.0f} s, " + ", ".join(
        f"{name} {value:.3f}" for name, value in named
    )


def main():
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("digits", "boxes"))
    parser.add_argument("--data_dir")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "digits":
        for task in MEASURES:
            measure(task, [], arguments.seeds)
    else:
        flags = ["--dataset=voc_folder", f"--data_dir={arguments.data_dir}"]
        measure("detect", flags, arguments.seeds)


if __name__ == "__main__":
    main()
