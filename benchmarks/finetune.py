r"""Fine-tunes on folders of photographs as a user would, seed by seed: one table each.

    python -m benchmarks.finetune --data_dir=DIR
    python -m benchmarks.finetune --data_dir=DIR --freeze=backbone --torch
    python -m benchmarks.finetune --data_dir=DIR --uneven

DIR holds {train,val}/CLASS/IMAGE; several are separated by commas. A run is a process
of training/train.py with its defaults, timed from its start to its end, and one of
edge/export.py --quantize=int8. "float top-1" is of the classes alone. In the next two
columns, a wrong `unknown` is a mistake, as on the device. "lost" is the number of
held-out pictures that int8 has right less than float32 there; the last columns are our
estimate for the Edge TPU.

--torch runs the recipe of PyTorch's tutorial on the same weights with as many threads;
see finetune_torch.py. Its seconds leave out the import of PyTorch, ours include that of
TensorFlow. Run it on an idle machine: the threads of PyTorch spin while they wait for
each other, so other work slows it down several times.

--uneven keeps 12 training pictures of one class, each class in turn, and trains the
classifier alone with and without --balance.

A run is kept in --results when it is done, and is not repeated when the command runs
again: choose another folder for another version. One that was interrupted starts anew,
because its time counts.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
from absl import flags

from keras_resnet import files
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.sources import class_folders
from keras_resnet.weights import registry

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAGS = flags.FLAGS
REQUIRED = ("data_dir",)

KEPT = 12  # training pictures of the class that --uneven makes small
GOAL = 0.935  # top-1, whose time --torch tells: the best of the tutorial's recipe
# The networks that share the file of weights; the tutorial's recipe gets it too.
FEATURES = "resnet20_224"
FREEZE = ("none", "backbone")
HEADER = (
    "network",
    "seed",
    "seconds",
    "epochs",
    "rate",
    "float top-1",
    "with unknown",
    "int8 top-1",
    "lost",
    "Edge TPU",
    "MiB on chip",
)


def define_flags():
    """Defines the flags of the command."""
    text = "Folders of {train,val}/CLASS/IMAGE."
    flags.DEFINE_list("data_dir", None, text)
    flags.DEFINE_integer("seeds", 5, "Runs of each network.", lower_bound=1)
    text = "Networks with published weights."
    flags.DEFINE_list("models", [FEATURES, "resnet16_224"], text)
    text = "backbone: the classifier alone learns."
    flags.DEFINE_enum("freeze", "none", FREEZE, text)
    flags.DEFINE_bool("torch", False, "Runs the tutorial's recipe too.")
    flags.DEFINE_bool("uneven", False, "One class is small; with --balance or not.")
    flags.DEFINE_string("results", "runs/finetune", "Folder of the runs.")


def main():
    """Measures as the flags say."""
    for name in FLAGS.data_dir:
        for part in ("train", "val"):
            if not (pathlib.Path(name) / part).is_dir():
                raise UserError(
                    "--data_dir needs folders of {train,val}/CLASS/IMAGE. Received: "
                    f"{name!r}, which has no folder {part!r}"
                )
    print(machine(), flush=True)
    for data_dir in map(pathlib.Path, FLAGS.data_dir):
        # The whole path: other sets may have the same name.
        results = pathlib.Path(FLAGS.results, "-".join(data_dir.resolve().parts[1:]))
        what = (results, data_dir, range(FLAGS.seeds))
        if FLAGS.uneven:
            shown = [uneven_table(uneven_runs(*what, FLAGS.models))]
        else:
            runs = plain_runs(*what, FLAGS.models, FLAGS.freeze)
            shown = [table(runs)]
            if FLAGS.torch:
                theirs = tutorial_runs(*what, FLAGS.freeze)
                shown.append(tutorial_table(theirs, runs))
        print("", data_dir, "\n\n".join(shown), sep="\n", flush=True)


def machine():
    """Returns as a line what the figures depend on."""
    model = platform.processor() or platform.machine()
    described = pathlib.Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    versions = [f"Python {platform.python_version()}"]
    for name in ("tensorflow", "keras", "ai-edge-litert", "torch"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass  # --torch alone needs torch
    return f"{model}, {os.cpu_count()} cores; {', '.join(versions)}"


# --- Runs ---------------------------------------------------------------------


def kept(folder, measure, *arguments):
    """Returns the result in a folder, or first measures it there."""
    path = folder / "result.json"
    result = files.read_json(path)
    if result is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        result = measure(folder, *arguments)
        files.write_json(path, result)
        print(folder, file=sys.stderr, flush=True)
    return result


def command(script, *arguments):
    """Runs a script of the checkout; returns its output and its seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{script} {' '.join(map(str, arguments))} failed: {last}")
    return done.stdout, seconds


def trained(folder, data_dir, model, seed, freeze, *more):
    """Trains into FOLDER/run; returns the result, a dict that JSON can hold."""
    if freeze != "none":
        more = (f"--freeze={freeze}", *more)
    _, seconds = command(
        "training/train.py",
        "--dataset=folder",
        f"--data_dir={data_dir}",
        f"--model={model}",
        f"--seed={seed}",
        f"--model_dir={folder / 'run'}",
        *more,
    )
    metrics = files.read_json(folder / "run" / "metrics.json")
    recipe = files.read_json(folder / "run" / "config.json")["recipe"]
    return {
        "seconds": seconds,
        "rate": recipe["learning_rate"],
        **{
            key: metrics[key]
            for key in ("epochs", "examples_evaluated", "top1", "balanced_accuracy")
            if key in metrics
        },
    }


def with_int8(folder, data_dir, model, seed, freeze):
    """Trains and converts; returns the result."""
    result = trained(folder, data_dir, model, seed, freeze)
    command(
        "edge/export.py",
        f"--model_dir={folder / 'run'}",
        "--quantize=int8",
        f"--report_examples={result['examples_evaluated']}",
        "--max_drop=100",  # it is measured here, however large
    )
    report = files.read_json(folder / "run" / "model-int8.report.json")
    return result | {
        "with_unknown": report["compared"]["keras_top1"],
        "int8": report["compared"]["top1"],
        "operators": sum(row["count"] for row in report["operators"]),
        "edgetpu": report["edgetpu_operators"],
        "on_chip": [report[f"on_chip_bytes_{end}"] for end in ("low", "high")],
    }


def tutorial(folder, data_dir, seed, freeze):
    """Runs the tutorial's recipe; returns its epochs."""
    entry = registry.shipped(FEATURES)
    output, _ = command(
        "benchmarks/finetune_torch.py",
        f"--data_dir={data_dir}",
        f"--weights={registry.PACKAGE / entry.source}",
        f"--freeze={freeze}",
        f"--threads={os.cpu_count()}",
        f"--seed={seed}",
    )
    return [json.loads(line) for line in output.splitlines()]


def plain_runs(results, data_dir, seeds, models, freeze):
    """Returns {network: result of each seed}."""
    return {
        model: [
            kept(
                results / f"{model}-freeze={freeze}" / f"seed{seed}",
                with_int8,
                *(data_dir, model, seed, freeze),
            )
            for seed in seeds
        ]
        for model in models
    }


def tutorial_runs(results, data_dir, seeds, freeze):
    """Returns the epochs of each seed."""
    folder = results / f"torch-freeze={freeze}"
    return [
        kept(folder / f"seed{seed}", tutorial, data_dir, seed, freeze) for seed in seeds
    ]


def linked(data_dir, folder, left_out=None):
    """Links a folder of data, but for one class, into another folder."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for name in class_folders(data_dir / split):
            if name != left_out:
                (folder / split / name).symlink_to((data_dir / split / name).resolve())
    return folder


def make_uneven(data_dir, small, seed, destination):
    """Makes a copy of a set, of links, that has `KEPT` training pictures of a class."""
    source = data_dir.resolve()
    for folder in sorted(
        path for path in (source / "train").iterdir() if path.is_dir()
    ):
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        if folder.name == small:
            if len(paths) < KEPT:
                raise UserError(
                    f"--uneven keeps {KEPT} pictures of a class. Received: "
                    f"{len(paths)} in {folder}"
                )
            rng = np.random.default_rng(seed)
            paths = [paths[place] for place in rng.permutation(len(paths))[:KEPT]]
        for path in paths:
            link = destination / "train" / path.relative_to(source / "train")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    (destination / "val").symlink_to(source / "val")


def uneven(folder, data_dir, model, small, seed, *more):
    """Trains a classifier with one small class; returns the result."""
    make_uneven(data_dir, small, seed, folder / "pictures")
    return trained(folder, folder / "pictures", model, seed, "backbone", *more)


def uneven_runs(results, data_dir, seeds, models):
    """Returns {(network, small class, seed): balanced accuracies without and with}."""
    classes = sorted(p.name for p in (data_dir / "train").iterdir() if p.is_dir())
    return {
        (model, small, seed): [
            kept(
                results / f"{model}-uneven{flag}" / small / f"seed{seed}",
                uneven,
                *(data_dir, model, small, seed, *filter(None, [flag])),
            )["balanced_accuracy"]
            for flag in ("", "--balance")
        ]
        for model in models
        for small in classes
        for seed in seeds
    }


# --- Tables -------------------------------------------------------------------


def columns(rows):
    """Returns rows of text in columns, flush right but for the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _percent(share):
    return f"{100 * share:.2f}"


def table(runs):
    """Returns the runs of each network and their medians, for {network: results}."""
    rows = [HEADER]
    for model, results in runs.items():
        cells = []
        for seed, result in enumerate(results):
            images = result["examples_evaluated"]
            low, high = (f"{size / 2**20:.1f}" for size in result["on_chip"])
            measured = (
                result["seconds"],
                result["top1"],
                result["with_unknown"],
                result["int8"],
                round((result["with_unknown"] - result["int8"]) * images),
            )
            cells.append(measured)
            rows.append(
                (
                    model,
                    str(seed),
                    *_row(measured, str(result["epochs"]), f"{result['rate']:g}"),
                    f"{result['edgetpu']} of {result['operators']}",
                    f"{low} to {high}",
                )
            )
        medians = map(statistics.median, zip(*cells, strict=True))
        rows.append((model, "median", *_row(medians, "", ""), "", ""))
    return columns(rows)


def _row(measured, epochs, rate):
    seconds, *shares, lost = measured
    return f"{seconds:.1f}", epochs, rate, *map(_percent, shares), f"{lost:g}"


def seconds_to(epochs, top1):
    """Returns the seconds after which the epochs of a run reached it, or None."""
    return next((e["seconds"] for e in epochs if e["top1"] >= top1), None)


def tutorial_table(theirs, ours):
    """Returns what the tutorial's recipe reached when, and how much longer that is.

    Args:
        theirs: for each seed, the list of what its epochs printed.
        ours: {network: results}, as `table` has them.
    """
    # After each epoch the medians of all seeds, as if they were a run.
    middle = [
        {key: statistics.median(e[key] for e in at) for key in ("top1", "seconds")}
        for at in zip(*theirs, strict=True)
    ]
    runs = [*theirs, middle]
    bests = [max(epoch["top1"] for epoch in epochs) for epochs in runs]
    seeds = [f"seed {seed}" for seed in range(len(theirs))]
    rows = [("tutorial, after epoch", *seeds, "median")]
    for number, at in enumerate(zip(*runs, strict=True), 1):
        rows.append((str(number), *(_percent(epoch["top1"]) for epoch in at)))
    to_best = list(map(seconds_to, runs, bests))
    to_goal = [seconds_to(epochs, GOAL) for epochs in runs]
    rows += [
        ("best", *map(_percent, bests)),
        ("seconds", *(f"{epochs[-1]['seconds']:.1f}" for epochs in runs)),
        ("seconds to best", *(f"{seconds:.1f}" for seconds in to_best)),
        (
            f"seconds to {_percent(GOAL)}",
            *("never" if seconds is None else f"{seconds:.1f}" for seconds in to_goal),
        ),
    ]
    lines = [columns(rows)]
    for model, results in ours.items():
        top1, seconds = (
            statistics.median(result[key] for result in results)
            for key in ("top1", "seconds")
        )
        lines.append(
            f"{model}: {_percent(top1)} in {seconds:.1f} s; the tutorial takes "
            f"{to_best[-1] / seconds:.1f}x as long to its best median, "
            f"{_percent(bests[-1])}"
        )
    return "\n".join(lines)


def uneven_table(runs):
    """Returns the balanced accuracies of `uneven_runs`, and each network's medians."""
    rows = [("network", "small class", "seed", "without", "--balance", "points")]
    found = {}
    for (model, small, seed), (without, balanced) in runs.items():
        measured = (without, balanced, balanced - without)
        found.setdefault(model, []).append(measured)
        rows.append((model, small, str(seed), *map(_percent, measured)))
    for model, measured in found.items():
        medians = map(statistics.median, zip(*measured, strict=True))
        rows.append((model, "all", "median", *map(_percent, medians)))
    return columns(rows)


if __name__ == "__main__":
    app.run(sys.modules[__name__])
