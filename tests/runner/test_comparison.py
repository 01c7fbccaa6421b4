"""--compare measures how a delegate differs from the CPU."""

import json
import shutil

import numpy as np

from keras_resnet.runner import Classifier
from keras_resnet.runner.modes import compare
from tests.helpers.runner import assert_one_error, classify, run_alone, run_main


class Fixed:
    """A classifier that answers the same to every picture."""

    task = "classify"

    def __init__(self, scores):
        self._scores = np.array(scores, np.float32)

    def outputs(self, pixels):
        return self._scores

    def interpret(self, outputs):
        return outputs


def test_compare_measures_the_difference(models, pictures):
    cpu = Classifier(models["full"])
    path = str(pictures / "g.png")
    scores = classify(path, cpu).answer
    other = scores + np.float32([0, -0.25, 0.125])
    report = compare(path, cpu, Fixed(other), 3)
    assert (report["file"], report["same_top"]) == (path, True)
    assert report["max_difference"] == 0.25
    for name, expected in (("cpu", scores), ("delegate", other)):
        top = report[name]["top"]
        assert [one["index"] for one in top] == (-expected).argsort(
            kind="stable"
        ).tolist()
        assert [one["score"] for one in top] == sorted(expected.tolist(), reverse=True)
        assert report[name]["invoke"] > 0
    assert not compare(path, cpu, Fixed([1, 0, 0]), 3)["same_top"]


def test_compare_prints_each_picture(models, library, capfd, pictures):
    argv = ["--model", models["full"], f"--delegate={library}", "--compare", pictures]
    (pictures / "text.jpg").write_text("no picture")
    code, out, errors = run_main(capfd, *argv, "--json")
    assert (code, len(errors)) == (2, 1) and "text.jpg" in errors[0]
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["file"] for r in records] == [str(pictures / f"{n}.png") for n in "bgr"]
    assert [r["cpu"]["top"][0]["index"] for r in records] == [2, 1, 0]
    text = run_main(capfd, *argv)[1]
    assert "scores differ by at most" in text and "  delegate (" in text


def test_compare_of_an_idle_delegate_finds_no_difference(
    models, library, capfd, pictures
):
    argv = ["--model", models["full"], f"--delegate={library}", "--compare", "--json"]
    argv.append("--delegate_options=mode=idle")
    out = run_main(capfd, *argv, pictures / "b.png")[1]
    record = json.loads(out)
    assert (record["same_top"], record["max_difference"]) == (True, 0.0)


def test_compare_needs_a_delegate(models, capfd, pictures):
    argv = ["--model", models["full"], "--compare", pictures / "b.png"]
    assert_one_error(capfd, argv, "--compare needs --delegate")


def test_compare_runs_the_uncompiled_file_on_the_cpu(library, compiled, tmp_path):
    shutil.copy(library, tmp_path / "libedgetpu.so.1")
    model, image, index = compiled
    argv = [f"--model={model}", image, "--compare", "--json"]
    result = run_alone(*argv, LD_LIBRARY_PATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    record = json.loads(result.stdout)
    assert record["cpu"]["top"][0]["index"] == index
