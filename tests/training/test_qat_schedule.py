"""Schedules of fine-tuning side by side: the table, and one real run of it."""

import json
import shutil

import pytest

from benchmarks import qat_schedule
from tests.helpers.commands import one_error, run_command


def test_the_table_has_every_schedule_beside_the_float_model():
    def report(top1):
        compared = {"images": 5000, "keras_top1": 0.9, "top1": top1, "agreement": 0.98}
        plain = {"top1": 0.896}
        return {"model": "resnet8", "compared": compared, "post_training": plain}

    text = qat_schedule.table(
        {("2", "0.001", ""): report(0.899), ("5", "0.01", "ranges"): report(0.85)}
    )
    assert text.splitlines() == [
        "resnet8, 5000 held-out images: float 90.00% +- 0.42, int8 without fine-tuning "
        "89.60%",
        "",
        "| epochs | learning rate | frozen | int8, QAT | same class as float |",
        "|---|---|---|---|---|",
        "| 2 | 0.001 | nothing | 89.90% | 98.00% |",
        "| 5 | 0.01 | ranges | 85.00% | 98.00% |",
    ]


def test_a_folder_without_a_run_is_refused(tmp_path):
    done = run_command("benchmarks.qat_schedule", f"--model_dir={tmp_path}")
    assert "no ended run" in one_error(done)


@pytest.mark.slow
def test_a_schedule_is_measured_once(digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run, ignore=shutil.ignore_patterns("qat", "*.tflite"))
    flags = [f"--model_dir={run}", "--learning_rates=0.001", "--epochs=1"]
    flags.append("--freeze=batch_norm")
    first = run_command("benchmarks.qat_schedule", *flags)
    assert first.returncode == 0, first.stderr
    (path,) = run.glob("qat_schedule/*/model-qat.report.json")
    top1 = json.loads(path.read_text())["compared"]["top1"]
    last = first.stdout.splitlines()[-1]
    assert last.startswith(f"| 1 | 0.001 | batch_norm | {top1:.2%} |")
    again = run_command("benchmarks.qat_schedule", *flags)
    assert again.stdout.splitlines()[-1] == last and "Epoch" not in again.stdout
