"""The report: its numbers are those that were measured, its page is harmless."""

import html.parser
import re

import keras
import numpy as np
import pytest

from keras_resnet.edge.report import page as report_page
from keras_resnet.edge.report import summary
from tests.conftest import SMALL
from tests.helpers.device import scores

OPERATOR = {
    "name": "CONV_2D",
    "version": 3,
    "count": 9,
    "oldest_runtime": None,
    "multiply_adds": 12_500_000,
    "constant_bytes": 70_000,
}
REPORT = {
    "model": "<script>alert(1)</script>",
    "quantize": "int8",
    "target": "litert",
    "file_bytes": 97_614,
    "operators": [OPERATOR, OPERATOR | {"name": "A&B", "constant_bytes": 35_000}],
    "oldest_runtime": "2.3.0",
    "float_tensors": [],
    "float_operators": [],
    "multiply_adds": 12_500_000,
    "edgetpu_operators": 9,
    "edgetpu_likely": 2,
    "on_chip_bytes_low": 3 << 20,
    "on_chip_bytes_high": 4 << 20,
    "compared": None,
    "notes": [],
    "layers": [
        {"layer": "a<b", "operator": "ADD", "own_snr_db": 20.0, "snr_db": 10.0},
        {"layer": "twice", "operator": "ADD", "own_snr_db": None, "snr_db": 40.0},
        {"layer": "wrong", "operator": "ADD", "own_snr_db": -3.0, "snr_db": -5.0},
    ],
}


def test_the_report_has_what_was_measured(files, export, digits_run, held_out):
    images, labels = held_out
    model = keras.saving.load_model(digits_run / "model.keras")
    expected = model.predict(SMALL.normalize(images), verbose=0)
    actual = scores(files["qat"], images)
    plain = scores(files["int8"], images)
    difference = np.abs(actual - expected)
    compared = export["compared"]
    assert (compared["dataset"], compared["images"]) == ("digits", 360)
    assert compared["max_difference"] == pytest.approx(difference.max())
    assert compared["mean_difference"] == pytest.approx(difference.mean())
    agreement = np.mean(actual.argmax(-1) == expected.argmax(-1))
    assert compared["agreement"] == pytest.approx(agreement)
    for found, predicted in (
        (compared["top1"], actual),
        (compared["keras_top1"], expected),
        (export["post_training"]["top1"], plain),
    ):
        assert found == pytest.approx(np.mean(predicted.argmax(-1) == labels))
    assert compared["top1"] >= compared["keras_top1"] - 0.01
    assert export["file_bytes"] == files["qat"].stat().st_size
    assert not export["problems"] and not export["float_tensors"]
    assert len(export["layers"]) == 14  # 9 convolutions, 3 sums, the mean, the scores
    page = export.paths["html"].read_text()
    assert all(row["layer"] in page for row in export["layers"])


def test_the_text_has_the_numbers_of_the_report(export):
    compared = export["compared"]
    first, *lines = str(export).splitlines()
    assert first == str(export.paths["tflite"])
    for text in (
        f"size           {export['file_bytes']:,} bytes",
        "operators      CONV_2D 9, ADD 3",
        "multiply-adds  12,501,632",
        "float part     none",
        "or newer (tested from 2.7.0)",
        "Edge TPU       estimate: 19 of 19 operators map; on the chip 0.0",
        "images         360 held-out of digits",
        f"max {compared['max_difference']:.4f}, mean {compared['mean_difference']:.6f}",
        f"{compared['agreement']:.2%} top-1 with the Keras model",
        f"{compared['top1']:.2%}; Keras model {compared['keras_top1']:.2%}",
        f"worst layers   {export['layers'][0]['layer']} "
        f"{export['layers'][0]['own_snr_db']:.1f} dB",
        f"advice         {summary.advice(export)}",
    ):
        assert any(text in line for line in lines), text


def test_advice_says_which_is_better():
    for aware, plain, expected in (
        (0.92, 0.91, "keep QAT: int8 without it has 91.00%"),
        (0.91, 0.91, "--quantize=int8 is as good: 91.00% without QAT"),
        (0.90, 0.91, "--quantize=int8 is better: 91.00% without QAT"),
    ):
        report = {"compared": {"top1": aware}, "post_training": {"top1": plain}}
        assert summary.advice(report) == expected


# --- The page -----------------------------------------------------------------


class Reader(html.parser.HTMLParser):
    """Checks that every element is closed, and collects what is there."""

    def __init__(self, page):
        super().__init__()
        self.open, self.names, self.text = [], set(), ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_runs_nothing():
    page = report_page.html(REPORT)
    reader = Reader(page)
    assert reader.open == [] and "script" not in reader.names
    assert "http" not in page and "url(" not in page
    for part in (REPORT["model"], "97,614 bytes", "a<b", "A&B", "70,000", "unknown"):
        assert part in reader.text


def test_the_page_says_that_the_edge_tpu_is_estimated():
    text = Reader(report_page.html(REPORT)).text
    assert "estimate: 9 of 18 operators map, 2 of them likely" in text
    assert "3.00 to 4.00 of 8 MiB: fits" in text
    nothing = REPORT | {"edgetpu_operators": 0, "edgetpu_likely": 0}
    nothing |= {"on_chip_bytes_low": 0, "on_chip_bytes_high": 0}
    text = Reader(report_page.html(nothing)).text
    assert "estimate: 0 of 18 operators map" in text and "MiB" not in text


def test_bars_are_as_long_as_the_numbers():
    page = report_page.html(REPORT)
    bars = re.findall(
        r'class="(own|total)" (?:y="\d+" )?height="\d" width="(.*?)"', page
    )
    assert bars == [
        ("own", "50.00"),
        ("total", "25.00"),
        ("total", "100.00"),
        ("own", "0.00"),
        ("total", "0.00"),
        ("own", "100.00"),
        ("own", "50.00"),
    ]


def test_without_images_there_are_no_layers():
    page = report_page.html(REPORT | {"layers": []})
    assert "Error of each layer" not in page and "Operators" in page
