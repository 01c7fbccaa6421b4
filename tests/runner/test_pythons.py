"""edge/run_tflite.py under other Pythons and runtimes, as devices have them."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner import Classifier
from tests.helpers.runner import (
    ENVIRONMENTS,
    classify,
    noise,
    python_environment,
    run_alone,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def python(request):
    return python_environment(request.param)


@pytest.fixture
def folder(pictures):
    """The pictures, some noise and two that are bad, in folders of classes."""
    Image.fromarray(noise(60, 90)).save(pictures / "noise.png")
    for name, number in (("r", 0), ("g", 1), ("b", 2), ("noise", 1)):
        (pictures / "classes" / str(number)).mkdir(parents=True, exist_ok=True)
        shutil.move(pictures / f"{name}.png", pictures / "classes" / str(number))
    (pictures / "classes" / "2" / "empty.png").write_bytes(b"")
    (pictures / "classes" / "2" / "text.jpg").write_text("no picture")
    return pictures / "classes"


@pytest.mark.parametrize("name", ["full", "plain", "int8", "float32", "float16"])
def test_every_python_answers_the_same(python, models, folder, name):
    model = f"--model={models[name]}"
    result = run_alone(model, "--json", "--top_k=3", folder, python=python)
    assert result.returncode == 2
    errors = result.stderr.splitlines()
    if "Didn't find op" in result.stderr:  # TFLite 2.7 lacks the newest float16 casts
        assert (name, len(errors), result.stdout) == ("float16", 1, "")
        return
    assert len(errors) == 2 and "empty.png" in errors[0] and "text.jpg" in errors[1]
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == 4
    classifier = Classifier(models[name])
    for record in records:
        scores = {top["index"]: top["score"] for top in record["top"]}
        actual = [scores[index] for index in range(3)]
        expected = classify(record["file"], classifier).answer
        np.testing.assert_allclose(actual, expected, atol=1.001 / 256)
        assert np.argmax(actual) == np.argmax(expected)


def test_every_python_has_all_the_modes(python, models, folder, tmp_path):
    model = f"--model={models['full']}"
    evaluated = run_alone(model, f"--evaluate={folder}", "--json", python=python)
    report = json.loads(evaluated.stdout)
    assert (evaluated.returncode, report["images"], report["failed"]) == (2, 4, 2)
    assert report["top1"] >= 0.75
    out = tmp_path / "annotated"
    annotated = run_alone(
        model, "--csv", f"--annotate={out}", folder / "1", python=python
    )
    assert (annotated.returncode, annotated.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(annotated.stdout)))
    assert len(rows) == 6 and rows[0]["label"] == "grün"
    assert len(list(out.glob("*.jpg"))) == 2
    timed = run_alone(model, "--benchmark", "--json", python=python)
    assert json.loads(timed.stdout)["invokes"] == 50
    versions = run_alone("--version", python=python)
    assert versions.returncode == 0 and "runtime: " in versions.stdout
    refused = run_alone(f"--model={models['edgetpu']}", folder, python=python)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "compiled for the Edge TPU" in refused.stderr
