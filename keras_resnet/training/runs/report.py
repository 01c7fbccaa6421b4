"""What a training run shows: history.csv, curves.png and TensorBoard's scalars."""

import contextlib
import csv
import io

import tensorflow as tf

from keras_resnet import files
from keras_resnet.runner.errors import UserError

# Columns of history.csv, with one label for an image and with several.
HISTORY = (
    *("epoch", "loss", "top1", "val_loss", "val_top1", "val_top5"),
    *("learning_rate", "examples_per_second"),
)
MULTI_LABEL_HISTORY = (
    "epoch",
    "loss",
    "label_accuracy",
    "val_loss",
    "val_mean_average_precision",
    "val_label_accuracy",
    "learning_rate",
    "examples_per_second",
)


def write_history(directory, history):
    """Writes one row for each epoch; an evaluation's values may be missing."""
    text = io.StringIO()
    columns = HISTORY if "top1" in history[0] else MULTI_LABEL_HISTORY
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    files.write_text(directory / "history.csv", text.getvalue())


def open_board(directory):
    """Returns a writer for TensorBoard."""
    with _user_error_if_refused():
        return tf.summary.create_file_writer(str(directory / "tensorboard"))


def write_scalars(board, row):
    """Writes the values of one epoch, a row of the history, for TensorBoard."""
    with _user_error_if_refused():
        with board.as_default(step=row["epoch"]):
            for name in row.keys() - {"epoch"}:
                tf.summary.scalar(name, row[name])
        board.flush()


@contextlib.contextmanager
def _user_error_if_refused():
    try:
        yield
    except tf.errors.OpError as error:
        # The first line is "{{the operation}} path; what the system says".
        reason = error.message.splitlines()[0].rpartition("}} ")[2]
        raise UserError(f"TensorBoard's file cannot be written: {reason}") from error


def draw_curves(directory, history):
    """Draws error and loss of training and held-out split over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    error, loss = figure.subplots(1, 2)
    single = "top1" in history[0]
    error_name = "top-1 error, %" if single else "wrong labels, %"
    share = "top1" if single else "label_accuracy"
    for axes, title, of in (
        (error, error_name, lambda row, split: 100 * (1 - row[split + share])),
        (loss, "loss", lambda row, split: row[split + "loss"]),
    ):
        for split, label in (("", "training"), ("val_", "held out")):
            rows = [row for row in history if split + "loss" in row]
            axes.plot(
                [row["epoch"] for row in rows],
                [of(row, split) for row in rows],
                label=label,
                marker="." if len(rows) < 30 else "",
            )
        axes.set(title=title, xlabel="epoch", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    with files.replacing(directory / "curves.png") as temporary:
        figure.savefig(temporary, dpi=120)
