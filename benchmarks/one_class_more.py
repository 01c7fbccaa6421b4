r"""Goes on from a run with one class more, beside starting anew: time and accuracy.

    python -m benchmarks.one_class_more --data_dir=DIR

DIR holds {train,val}/CLASS/IMAGE. Each class in turn, at most --rounds of them, is what
comes later: a run learns the others, a second one goes on from it with all classes, and
a third one learns all of them from the beginning. The commands are those of a user,
timed from their start to their end. "old" is the number of held-out pictures of the
other classes that are right.
"""

import pathlib
import statistics
import sys
import tempfile

from absl import flags

from benchmarks.finetune import command, linked, machine
from keras_resnet import files
from keras_resnet.commands import app
from keras_resnet.runner.sources import class_folders

FLAGS = flags.FLAGS
REQUIRED = ("data_dir",)


def define_flags():
    """Defines the flags of the command."""
    text = "A folder of {train,val}/CLASS/IMAGE."
    flags.DEFINE_string("data_dir", None, text)
    flags.DEFINE_integer("rounds", 3, "How many classes come later.", lower_bound=1)


def train(data_dir, run, *arguments):
    """Trains a run; returns (its metrics, seconds)."""
    data = ("--dataset=folder", f"--data_dir={data_dir}")
    script = "training/train.py"
    _, seconds = command(script, *data, f"--model_dir={run}", *arguments)
    return files.read_json(run / "metrics.json"), seconds


def old_right(metrics, late):
    """Returns how many held-out pictures of the other classes are right."""
    counts = metrics["by_class"]
    return sum(each["right"] for name, each in counts.items() if name != late)


def one(data_dir, late, folder):
    """Prints a line of one class; returns the quotient of the times."""
    earlier = linked(data_dir, folder / "data", left_out=late)
    before, _ = train(earlier, folder / "before")
    weights = f"--weights={folder / 'before'}"
    after, seconds = train(data_dir, folder / "after", weights)
    anew, seconds_anew = train(data_dir, folder / "anew")
    old = [old_right(metrics, late) for metrics in (before, after, anew)]
    new = [metrics["by_class"][late]["right"] for metrics in (after, anew)]
    print(
        f"{late}: going on {seconds:.0f} s, anew {seconds_anew:.0f} s; old {old[0]} "
        f"before, {old[1]} after, {old[2]} anew; of the new class {new[0]} after, "
        f"{new[1]} anew; top-1 {after['top1']:.2%} after, {anew['top1']:.2%} anew",
        flush=True,
    )
    return seconds / seconds_anew


def main():
    """Measures as the flags say."""
    print(machine(), flush=True)
    data_dir = pathlib.Path(FLAGS.data_dir)
    quotients = []
    for late in class_folders(data_dir / "train")[: FLAGS.rounds]:
        with tempfile.TemporaryDirectory() as folder:
            quotients.append(one(data_dir, late, pathlib.Path(folder)))
    print(f"going on takes {statistics.median(quotients):.2f} times as long, median")


if __name__ == "__main__":
    app.run(sys.modules[__name__])
