"""Boxes and masks: how good the default recipes are, and how long they take.

    python -m benchmarks.scenes digits --seeds=3
    python -m benchmarks.scenes boxes --data_dir=DIR

"digits" trains both tasks on the embedded scenes, "boxes" a detector on a folder of
pictures with Pascal VOC annotations. Each is then exported to int8 without and with
quantization-aware training. Every command runs in a process of its own, so that the
time of the training is that of the command; its CPU time is what the processes took.
One line for each seed, then the mean and the spread.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

# The first decides; of the files, it alone is printed.
MEASURES = {"detect": ("ap50", "ap"), "segment": ("miou",)}


def call(script, *flags):
    """Runs a command; returns the seconds that passed and those of the CPUs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [sys.executable, script, *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu


def one(task, flags):
    """Returns {name: number} of one training and its files."""
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder, "run")
        seconds, cpu = call(
            "training/train.py",
            *(f"--task={task}", *flags, f"--model_dir={run}"),
            "--evaluation_epochs=1000",
        )
        metrics = json.loads((run / "metrics.json").read_text())
        found = {"seconds": seconds, "CPU seconds": cpu}
        found |= {name: metrics[name] for name in MEASURES[task]}
        main_measure = MEASURES[task][0]
        call("training/qat.py", f"--model_dir={run}")
        for quantize in ("int8", "qat"):
            file = run / f"{quantize}.tflite"
            call(
                "edge/export.py",
                *(f"--model_dir={run}", f"--quantize={quantize}"),
                *(f"--output={file}", "--max_drop=100"),
            )
            report = json.loads(file.with_suffix(".report.json").read_text())
            found[f"{quantize} {main_measure}"] = report["compared"][main_measure]
    return found


def measure(task, flags, seeds):
    """Trains with several seeds and prints what each is worth."""
    found = []
    for seed in range(seeds):
        found.append(one(task, [*flags, f"--seed={seed}"]))
        print(_line(task, f"seed {seed}", found[-1]), flush=True)
    columns = {name: [each[name] for each in found] for name in found[0]}
    means = {name: statistics.mean(column) for name, column in columns.items()}
    print(_line(task, "mean", means))
    ranges = {name: max(column) - min(column) for name, column in columns.items()}
    print(_line(task, "range", ranges))


def _line(task, what, found):
    texts = (
        f"{name} {value:.0f}" if "seconds" in name else f"{name} {value:.3f}"
        for name, value in found.items()
    )
    return f"{task} {what}: {', '.join(texts)}"


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
