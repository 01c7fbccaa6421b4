"""The report of an export as one HTML page, without scripts and external files."""

import pathlib

from keras_resnet import page_template
from keras_resnet.edge.report import summary


def html(report):
    """Returns the page of a report, the content of `report.json`, as text."""
    layers = report.get("layers") or []
    ratios = [row[key] or 0.0 for row in layers for key in ("snr_db", "own_snr_db")]
    sizes = [row["constant_bytes"] for row in report["operators"]]
    return page_template.render(
        pathlib.Path(__file__).parent,
        report=report,
        rows=summary.rows(report),
        layers=layers,
        percent=_percent,
        largest_ratio=max(ratios, default=0.0),
        largest_size=max(sizes, default=0),
    )


def _percent(value, largest):
    """Returns the length of a bar in percent of the largest; 0 for what is below 0."""
    return max(0.0, 100 * value / largest) if largest > 0 else 0.0
