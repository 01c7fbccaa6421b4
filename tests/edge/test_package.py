"""`keras_resnet.edge` says what it needs, and needs little on a device."""

import inspect

import PIL.Image
import pytest

from keras_resnet import edge
from tests.helpers.commands import ROOT, run_code

MODEL = ROOT / "models" / "resnet8.cifar10.int8.tflite"
WITHOUT = """
import sys
for name in {missing}:
    sys.modules[name] = None
from keras_resnet import edge
"""


def test_the_classifier_needs_neither_keras_nor_tensorflow(tmp_path):
    PIL.Image.new("RGB", (40, 30), "blue").save(tmp_path / "photo.png")
    code = WITHOUT.format(missing=["keras", "tensorflow", "flatbuffers", "jinja2"])
    code += f"for each in edge.Classifier({str(MODEL)!r}).classify('photo.png', 2):\n"
    code += "    print(each.label, each.score)"
    done = run_code(code, cwd=tmp_path)
    expected = edge.Classifier(MODEL).classify(tmp_path / "photo.png", top_k=2)
    assert done.stdout == "".join(f"{x.label} {x.score}\n" for x in expected)
    assert done.stderr == "" and len(expected) == 2


@pytest.mark.parametrize("missing", ["tensorflow", "ai_edge_litert", "jinja2"])
def test_export_without_its_extra_names_the_extra(missing, tmp_path):
    code = WITHOUT.format(missing=[missing])
    code += """
try:
    edge.export
except ValueError as error:
    print(error)
"""
    done = run_code(code, cwd=tmp_path)
    (line,) = done.stdout.splitlines()
    assert missing in line and done.stderr == ""
    assert 'pip install "keras-resnet-zoo[train,edge]"' in line


def test_export_shows_its_arguments_and_explains_each():
    signature = inspect.signature(edge.export)
    assert list(signature.parameters)[:3] == ["model", "output", "quantize"]
    for name in signature.parameters:
        assert f"    {name}: " in edge.export.__doc__
    assert {"Classifier", "export"} <= set(dir(edge))
    with pytest.raises(AttributeError, match="exprot"):
        edge.exprot  # noqa: B018
