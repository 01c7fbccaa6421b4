"""A model file has two readers on purpose; here they are held to each other.

The runner's reader is for untrusted files and needs Python 3.7 alone. The desktop reads
through LiteRT's verifier and the classes that LiteRT generates from the schema.
"""

import collections
import json
import re

import numpy as np
import pytest

from keras_resnet.edge import Classifier
from keras_resnet.edge.convert import metadata
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner import UserError, model_file
from keras_resnet.runner.errors import printable
from tests.conftest import QUANTIZATIONS
from tests.helpers import graphs, metadata_reader
from tests.helpers.commands import ROOT
from tests.helpers.graphs import Operator, Tensor

SHIPPED = sorted((ROOT / "models").glob("*.tflite"))
LABELS = ["one", "two ü", "three"]

# What one reader alone refuses in a damaged file: {its error: why the other need not}.
ONLY_RUNNER = {
    "bad (vtable|field)|byte -?[0-9]+ of|misaligned|unterminated": (
        "sizes, alignment and final zeros, which native code relies on"
    ),
    "the archive with its labels has no end": (
        "the desktop takes the file for one without an archive"
    ),
}
ONLY_DESKTOP = {
    "no valid flatbuffer": "parts of the file that the device does not read",
    "codec can't decode": "the device replaces what is no UTF-8",
    "no (tensor|buffer|operator code)|a tensor of|computed|version": (
        "the device leaves the graph to its runtime"
    ),
    "the metadata": "fields of the metadata that the device does not read",
    "the archive is damaged": "files of the archive that the device does not read",
}


def by_runner(path):
    """What the device finds in a file."""
    found = model_file.read_model(str(path))
    return {
        "operators": found.operators,
        "custom": {printable(name) for name in found.custom_operators - {None}},
        "mean, std": (found.mean, found.std),
        "labels": found.labels,
        "preprocessing": found.preprocessing,
    }


def by_desktop(path):
    """What the desktop finds in a file."""

    def first(table, field):
        return (table.get(field) or [{}])[0]

    content = path.read_bytes()
    graph, about = tflite_graph.read(content), metadata_reader.read(content)
    tensors = first(about.table, "subgraph_metadata")
    mean = std = labels = None
    for unit in first(tensors, "input_tensor_metadata").get("process_units", ()):
        options = unit.get("options", {})
        if unit.get("options_type") == 1 and {"mean", "std"} <= set(options):
            mean, std = tuple(options["mean"]), tuple(options["std"])
    for file in first(tensors, "output_tensor_metadata").get("associated_files", ()):
        if file.get("type") == 2 and labels is None:
            labels = about.files.get(file.get("name"))
    return {
        "operators": len(graph.operators),
        "custom": {operator.custom for operator in graph.operators} - {""},
        "mean, std": (mean, std),
        "labels": labels or about.files.get("labels.txt"),
        "preprocessing": about.files.get("preprocessing.json"),
    }


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A small file with labels, a normalization and custom operators."""
    content = graphs.build(
        [Tensor((1, 8, 8, 3)), Tensor((1, 8, 8, 3)), Tensor((1, 3))],
        [
            Operator("CUSTOM", (0,), (1,), custom="MyOwn"),
            Operator("CUSTOM", (1,), (2,), custom="Another"),
        ],
    )
    about, preprocessing = metadata.About("described"), Preprocessing((8, 8))
    content = metadata.with_metadata(content, LABELS, preprocessing, about)
    path = tmp_path_factory.mktemp("described") / "described.tflite"
    path.write_bytes(content)
    return path


def test_both_find_what_was_written(described):
    found = by_runner(described)
    assert found == by_desktop(described)
    assert found["custom"] == {"MyOwn", "Another"} and found["operators"] == 2
    assert found["mean, std"] == ((0.0,), (1.0,))
    assert model_file.parse_labels(found["labels"], numbered=False) == LABELS
    assert json.loads(found["preprocessing"])["input_size"] == [8, 8]


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_both_find_the_same_in_every_kind_of_export(files, quantize):
    same_interface(files[quantize])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_both_find_the_same_in_the_files_that_ship(path):
    same_interface(path)


def test_both_find_the_same_in_files_of_other_people(shared_data):
    paths = sorted((shared_data / "peers").glob("mobilenet*.tflite"))
    assert len(paths) == 4
    for path in paths:
        assert by_runner(path) == by_desktop(path)


def same_interface(path):
    assert by_runner(path) == by_desktop(path)
    graph = tflite_graph.read(path.read_bytes())
    classifier = Classifier(path)
    assert [tensor.shape for tensor in graph.inputs] == [classifier.input_shape]
    assert [tensor.shape for tensor in graph.outputs] == [(1, classifier.classes)]


def damaged_copies(content, count, changes):
    """Yields copies that are cut off, or have up to so many bytes changed."""
    rng = np.random.default_rng(0)
    for number in range(count):
        copy = bytearray(content)
        if number % 5 == 0:
            del copy[rng.integers(8, len(copy)) :]
        else:
            for place in rng.integers(0, len(copy), rng.integers(1, changes)):
                copy[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        yield bytes(copy)


def test_what_only_one_of_them_refuses_in_damaged_files_is_listed(described, tmp_path):
    path, seen = tmp_path / "damaged.tflite", collections.Counter()

    def found_or_error(reader):
        try:
            return reader(path), None
        except (UserError, ValueError) as error:
            assert "\n" not in str(error)
            return None, str(error).replace(str(path), "")

    def listed(error, reasons):
        fitting = [text for text in reasons if re.search(text, error)]
        assert fitting, error
        seen.update(fitting)

    copies = [
        *damaged_copies(described.read_bytes(), 1200, changes=4),
        *damaged_copies(SHIPPED[0].read_bytes(), 100, changes=30),
    ]
    for copy in copies:
        path.write_bytes(copy)
        on_device, refused_by_device = found_or_error(by_runner)
        on_desktop, refused_by_desktop = found_or_error(by_desktop)
        if refused_by_device and refused_by_desktop:
            seen["both"] += 1
        elif refused_by_device:
            listed(refused_by_device, ONLY_RUNNER)
        elif refused_by_desktop:
            listed(refused_by_desktop, ONLY_DESKTOP)
        else:
            # The desktop names the operators of the graph, the device all that the
            # file lists.
            assert on_desktop.pop("custom") <= on_device.pop("custom")
            assert on_desktop == on_device
            seen["neither"] += 1
    assert seen.keys() == {"both", "neither", *ONLY_RUNNER, *ONLY_DESKTOP}
    assert seen["both"] + seen["neither"] > 0.8 * len(copies)
