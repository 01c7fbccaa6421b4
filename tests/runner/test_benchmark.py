"""--benchmark times every stage after a warm-up."""

import collections
import json

from keras_resnet.runner import Classifier, benchmark, pipeline
from tests.helpers.runner import run_main


def test_benchmark_reports_every_stage(models, capfd, pictures):
    (pictures / "text.jpg").write_text("no picture")
    argv = ["--model", models["full"], "--benchmark", "--threads=1", pictures]
    code, out, errors = run_main(capfd, "--json", *argv)
    assert code == 2 and len(errors) == 1 and "text.jpg" in errors[0]
    report = json.loads(out)
    assert (report["images"], report["invokes"], report["threads"]) == (3, 50, 1)
    assert report["model"] == models["full"]
    assert report["runtime"] == Classifier(models["full"]).runtime
    assert report["model_load"] > 0 and report["first_inference"] > 0
    stages = ("decode", "resize", "invoke", "total")
    for stage in stages:
        assert 0 < report[stage]["median"] <= report[stage]["p90"]
        assert report[stage]["p90"] <= report[stage]["p99"]
    assert report["delegate"] == "none" and 10 < report["peak_memory_mib"] < 10000
    assert report["total"]["median"] > report["decode"]["median"]
    code, out, _ = run_main(capfd, *argv)
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert table["milliseconds"] == ["median", "p90", "p99"]
    assert all(len(table[stage]) == 3 for stage in stages)
    assert table["first"][0] == "inference"


def test_benchmark_without_pictures_times_the_model_alone(models, capfd):
    argv = ["--model", models["full"], "--benchmark", "--json"]
    code, out, errors = run_main(capfd, *argv)
    report = json.loads(out)
    assert (code, errors, report["images"], report["invokes"]) == (0, [], 0, 50)
    assert "invoke" in report and not {"decode", "resize", "total"} & set(report)


def test_every_picture_is_timed_after_the_warm_up(models, monkeypatch):
    seen = collections.Counter()

    def load_pixels(path, classifier):
        seen[path] += 1
        return None, {"decode": 1.0, "resize": 2.0}, None

    def invoke(classifier, pixels, times, image):
        number = sum(seen.values())
        times["invoke"] = 3.0 if number > 20 else 1001.0 - number
        return pipeline.Result(None, times, image)

    monkeypatch.setattr(benchmark, "load_pixels", load_pixels)
    monkeypatch.setattr(benchmark, "invoke", invoke)
    monkeypatch.setattr(benchmark, "WARM_UP_INVOKES", 20)
    paths = [f"{number}.png" for number in range(70)]
    report = benchmark.benchmark(Classifier(models["plain"]), paths, None)
    assert report["invokes"] == 70 and len(seen) == 70
    # Nothing of the warm-up:
    assert report["total"] == {"median": 6.0, "p90": 6.0, "p99": 6.0}
    assert report["first_inference"] == 1000.0


def test_benchmark_of_bad_pictures_alone_ends_with_2(models, capfd, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    argv = ["--model", models["full"], "--benchmark", tmp_path / "text.jpg"]
    code, out, errors = run_main(capfd, *argv)
    assert (code, out, len(errors)) == (2, "", 2)
