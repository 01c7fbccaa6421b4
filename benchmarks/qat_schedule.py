r"""Which schedule of quantization-aware training keeps most accuracy.

    python training/train.py --model=resnet8 --dataset=cifar10 --hold_out=5000 \
        --model_dir=runs/resnet8-45k
    python -m benchmarks.qat_schedule --model_dir=runs/resnet8-45k \
        --learning_rates=0.0003,0.001,0.003 --epochs=2,5 --freeze=,batch_norm,ranges

Fine-tunes one run of training/train.py with every choice of values, converts each, and
measures the int8 files on the run's held-out images: those of the training split where
it was trained with --hold_out, so that the choice sees no test image. Prints Markdown;
resumable, in MODEL_DIR/qat_schedule.
"""

import pathlib
import shutil
import subprocess
import sys

from absl import flags

from benchmarks import ship
from keras_resnet import files
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]

FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("model_dir", None, "The run of train.py.", required=True)
    flags.DEFINE_list("learning_rates", ["0.0003", "0.001", "0.003"], "Highest rates.")
    flags.DEFINE_list("epochs", ["2", "5"], "Numbers of epochs.")
    flags.DEFINE_list(
        "freeze", [""], "Parts, as of qat.py: batch_norm, ranges, batch_norm+ranges."
    )


def main():
    """Measures as the flags say."""
    run = pathlib.Path(FLAGS.model_dir)
    if not (run / "metrics.json").is_file():
        raise UserError(f"{run} is no ended run of training/train.py")
    reports = {}
    for epochs in FLAGS.epochs:
        for rate in FLAGS.learning_rates:
            for parts in FLAGS.freeze:
                reports[epochs, rate, parts] = measure(run, epochs, rate, parts)
    print(table(reports))


def measure(run, epochs, rate, parts):
    """Fine-tunes and converts a copy of a run; returns the report of the export."""
    copy = run / "qat_schedule" / f"{epochs}-{rate}-{parts}"
    report = copy / "model-qat.report.json"
    if not report.is_file():
        copy.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "model.keras", "metrics.json"):
            shutil.copy(run / name, copy)
        for command in (
            (
                "training/qat.py",
                f"--epochs={epochs}",
                f"--learning_rate={rate}",
                f"--freeze={parts.replace('+', ',')}",
            ),
            ("edge/export.py", "--report_examples=100000", "--max_drop=100"),
        ):
            script, *arguments = command
            done = subprocess.run(
                [sys.executable, ROOT / script, *arguments, f"--model_dir={copy}"]
            )
            if done.returncode:  # it has said why
                sys.exit(done.returncode)
    return files.read_json(report)


def table(reports):
    """Returns the results as Markdown.

    Args:
        reports: {(epochs, learning rate, frozen parts): report of edge/export.py}.
    """
    first = next(iter(reports.values()))
    compared = first["compared"]
    error = 100 * ship.standard_error(compared["keras_top1"], compared["images"])
    lines = [
        f"{first['model']}, {compared['images']} held-out images: float "
        f"{compared['keras_top1']:.2%} +- {error:.2f}, int8 without fine-tuning "
        f"{first['post_training']['top1']:.2%}",
        "",
        "| epochs | learning rate | frozen | int8, QAT | same class as float |",
        "|---|---|---|---|---|",
    ]
    for (epochs, rate, parts), report in reports.items():
        found = report["compared"]
        lines.append(
            f"| {epochs} | {rate} | {parts or 'nothing'} | {found['top1']:.2%} | "
            f"{found['agreement']:.2%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(sys.modules[__name__])
