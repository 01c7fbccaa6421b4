"""What a training run shows: history.csv, curves.png and TensorBoard's scalars."""

import contextlib
import csv
import io

import tensorflow as tf

from keras_resnet import files
from keras_resnet.runner.errors import UserError


def write_history(directory, history, columns):
    """Writes one row for each epoch; an evaluation's values may be missing."""
    text = io.StringIO()
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


def _error(share):
    return 100 * (1 - share)


def _percent(share):
    return 100 * share


# What is drawn of a history: the column, the title, and what is shown of a value.
_MEASURED = (
    ("top1", "top-1 error, %", _error),
    ("label_accuracy", "wrong labels, %", _error),
    ("ap50", "mAP50, %", _percent),
    ("miou", "mean IoU, %", _percent),
)


def measured(history):
    """Returns which of `_MEASURED` the rows of a history have.

    The steps of a training measure neither boxes nor masks: these are in the columns of
    the held-out split alone.
    """
    known = set().union(*history)
    return next(each for each in _MEASURED if {each[0], f"val_{each[0]}"} & known)


def draw_curves(directory, history):
    """Draws error and loss of training and held-out split over the epochs.

    Of boxes and masks, what is measured is drawn instead of an error.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    of_measure, loss = figure.subplots(1, 2)
    for axes, (name, title, shown) in (
        (of_measure, measured(history)),
        (loss, ("loss", "loss", lambda value: value)),
    ):
        for split, label in (("", "training"), ("val_", "held out")):
            rows = [row for row in history if row.get(split + name) is not None]
            if not rows:  # the steps do not measure boxes and masks
                continue
            axes.plot(
                [row["epoch"] for row in rows],
                [shown(row[split + name]) for row in rows],
                label=label,
                marker="." if len(rows) < 30 else "",
            )
        axes.set(title=title, xlabel="epoch", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    with files.replacing(directory / "curves.png") as temporary:
        figure.savefig(temporary, dpi=120)
