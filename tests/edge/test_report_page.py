"""The report as a page: whole, harmless, and with the numbers of the report."""

import html.parser
import re

from keras_resnet.edge.report import page as report_page

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
    "multiply_adds": 12_500_000,
    "edgetpu_operators": 9,
    "edgetpu_likely": 2,
    "on_chip_bytes_low": 3 << 20,
    "on_chip_bytes_high": 4 << 20,
    "compared": None,
    "layers": [
        {"layer": "a<b", "operator": "ADD", "own_snr_db": 20.0, "snr_db": 10.0},
        {"layer": "twice", "operator": "ADD", "own_snr_db": None, "snr_db": 40.0},
        {"layer": "wrong", "operator": "ADD", "own_snr_db": -3.0, "snr_db": -5.0},
    ],
}


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
