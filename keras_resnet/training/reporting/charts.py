"""The curves of a training as the coordinates of small line charts."""

import csv
import dataclasses
import math

from keras_resnet.training.runs import report

WIDTH, HEIGHT = 420, 200
# Where the axes lie: left, top, right, bottom.
LEFT, TOP, RIGHT, BOTTOM = 40, 10, WIDTH - 10, HEIGHT - 24
SPLITS = (("training", ""), ("held", "val_"))  # class in the page, prefix of a column
TICKS = 4  # at most so many steps on an axis


@dataclasses.dataclass(frozen=True)
class Chart:
    """A line chart: ticks are (place, text), lines (name, [(x, y), ...])."""

    title: str
    x_ticks: list
    y_ticks: list
    lines: list


def read_history(directory):
    """Returns the rows of history.csv as {column: float}; none where it is missing."""
    path = directory / "history.csv"
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def of_history(rows):
    """Returns the `Chart`s of what is measured and of the loss over the epochs."""
    if not rows:
        return []
    return [
        _chart(*report.measured(rows), rows),
        _chart("loss", "loss", lambda value: value, rows),
    ]


def _chart(column, title, shown, rows):
    lines = []
    for name, prefix in SPLITS:
        points = [
            (row["epoch"], shown(row[prefix + column]))
            for row in rows
            if prefix + column in row
        ]
        if points:
            lines.append((name, points))
    first, last = rows[0]["epoch"], rows[-1]["epoch"]
    top = max((y for _, points in lines for _, y in points), default=0)
    y_step = _step(top)
    top = max(1, math.ceil(top / y_step - 1e-9)) * y_step
    x_step = max(1, _step(last - first))

    def x(epoch):
        share = (epoch - first) / (last - first) if last > first else 0.5
        return LEFT + share * (RIGHT - LEFT)

    def y(value):
        return BOTTOM - value / top * (BOTTOM - TOP)

    epochs = range(math.ceil(first / x_step), int(last / x_step) + 1)
    return Chart(
        title,
        [(x(i * x_step), f"{i * x_step:g}") for i in epochs],
        [(y(i * y_step), f"{i * y_step:g}") for i in range(round(top / y_step) + 1)],
        [(name, [(x(a), y(b)) for a, b in points]) for name, points in lines],
    )


def _step(span):
    """Returns the 1, 2 or 5 times a power of 10 that makes at most `TICKS` steps."""
    if span <= 0:
        return 1
    power = 10 ** math.floor(math.log10(span / TICKS))
    return next(m * power for m in (1, 2, 5, 10) if m * power * TICKS >= span)
