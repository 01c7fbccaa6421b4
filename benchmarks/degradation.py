r"""Draws the paper's figure 6: errors of plain networks and ResNets over the epochs.

    for model in plain20 plain32 plain44 resnet20 resnet32 resnet44; do
        python training/train.py --model=$model --dataset=cifar10 --recipe=paper_cifar
    done
    python -m benchmarks.degradation --picture=degradation.png \
        --runs=runs/plain20-cifar10,runs/plain44-cifar10,runs/resnet20-cifar10,...

Draws and prints whatever runs of training/train.py there are, ended or not: plain
networks on the left, residual ones on the right; dashed the error on the training
images as they were augmented, bold that on the held-out ones. Prints Markdown.
"""

import csv
import math
import pathlib
import re
import sys

from absl import flags

from benchmarks import ship
from keras_resnet import files
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS
REQUIRED = ("runs",)

KINDS = {"plain": "plain networks", "resnet": "residual networks"}


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_list("runs", None, "Folders of runs, by commas.")
    flags.DEFINE_string("picture", None, "A .png to draw.")


def main():
    """Draws as the flags say."""
    runs = sorted(map(read, FLAGS.runs), key=lambda run: (run["kind"], run["depth"]))
    refuse_other_recipes(runs)
    print(table(runs))
    if FLAGS.picture:
        with files.replacing(FLAGS.picture) as temporary:
            picture(runs).savefig(temporary, dpi=120)


def read(folder):
    """Reads the folder of a run of training/train.py into a dict.

    "train" and "test" are lists of (epoch, error in percent); "images", on which it was
    evaluated, is None before the end. If the folder holds no run of one of the
    networks, or none with an epoch yet, `UserError` is raised.
    """
    folder = pathlib.Path(folder)
    history = folder / "history.csv"
    try:
        config = files.read_json(folder / "config.json")
        if config is None:
            raise UserError(f"{folder} holds no run (no config.json)")
        if not history.exists():
            raise UserError(f"{folder} has no epoch yet")
        rows = list(csv.DictReader(history.read_text(encoding="utf-8").splitlines()))
        metrics = files.read_json(folder / "metrics.json")
        model = config["settings"]["model"]
        network = re.fullmatch(f"({'|'.join(KINDS)})([0-9]+)", model)
        if not network:
            raise UserError(f"{folder} is of {model}, no plain or residual network")
        return {
            "folder": folder,
            "kind": network[1],
            "depth": int(network[2]),
            "recipe": dict(config["recipe"]),
            "images": metrics and metrics["examples_evaluated"],
            "train": _errors(rows, "top1"),
            "test": _errors(rows, "val_top1"),
        }
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder} is damaged: {reason}") from error


def _errors(rows, column):
    """Returns (epoch, error in percent) of the epochs that have one."""
    known = [row for row in rows if row[column]]
    return [(int(row["epoch"]), 100 * (1 - float(row[column]))) for row in known]


def refuse_other_recipes(runs):
    """Raises `UserError` unless the depth and the shortcuts are all that differs."""
    first, *others = runs
    for run in others:
        differing = [k for k, v in run["recipe"].items() if first["recipe"].get(k) != v]
        if differing:
            raise UserError(
                "the runs must be of one recipe; these differ in "
                f"{', '.join(differing)}. Received: {first['folder']}, {run['folder']}"
            )


def table(runs):
    """Returns the last errors as a Markdown table."""
    rows = [("Network", "Epochs", "Training error (%)", "Test error (%)"), ["---"] * 4]
    for run in runs:
        epoch, training = run["train"][-1]
        planned = run["recipe"]["epochs"]
        epochs = f"{epoch}" if epoch == planned else f"{epoch} of {planned}"
        name = f"{run['kind']}-{run['depth']}"
        rows.append((name, epochs, f"{training:.2f}", _last_test(run)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _last_test(run):
    if not run["test"]:
        return "-"
    share = run["test"][-1][1] / 100
    text = f"{100 * share:.2f}"
    if run["images"]:
        text += f" ± {100 * ship.standard_error(share, run['images']):.2f}"
    return text


def picture(runs):
    """Returns a figure of plain networks beside residual ones, on one scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    depths = sorted({run["depth"] for run in runs})
    # The paper's scale, unless a run ends above it.
    highest = max(25, 1.2 * max(run["train"][-1][1] for run in runs))
    columns = dict(zip(KINDS, figure.subplots(1, 2, sharey=True), strict=True))
    for run in runs:
        axes, name = columns[run["kind"]], f"{run['kind']}-{run['depth']}"
        look = {"color": f"C{depths.index(run['depth'])}"}
        axes.plot(*zip(*run["train"], strict=True), "--", lw=1, **look)
        tested = run["test"] or [(math.nan, math.nan)]
        look["marker"] = "." if len(tested) < 30 else ""
        axes.plot(*zip(*tested, strict=True), lw=2, label=name, **look)
    for kind, axes in columns.items():
        axes.set(title=KINDS[kind], xlabel="epoch", ylim=(0, highest))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.axes[0].set_ylabel("top-1 error, %: training dashed, test bold")
    return figure


if __name__ == "__main__":
    app.run(sys.modules[__name__])
