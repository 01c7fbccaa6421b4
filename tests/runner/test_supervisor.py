"""A crash of native code is one line, and the other images are classified."""

import csv
import io
import pathlib
import shutil
import subprocess
import sys
import time

from tests.helpers.runner import RUNNER, assert_reported, run_beside_the_file

CRASHING = """
import os, sys, run_tflite
crashes, read = sys.argv.pop(1), run_tflite.read_image
def read_or_crash(source, classifier):
    if crashes in str(source):
        os.write(2, b"native chatter")
        os.abort()
    return read(source, classifier)
run_tflite.read_image = read_or_crash
sys.exit(run_tflite.main())
"""


def test_a_crash_names_its_picture_and_the_others_are_classified(models, pictures):
    for number in range(20):
        shutil.copy(pictures / "b.png", pictures / f"more{number:02d}.png")
    (pictures / "text.jpg").write_text("no picture")
    (pictures / "none").mkdir()
    argv = [f"--model={models['full']}", "--csv", pictures, pictures / "none"]
    result = run_beside_the_file(CRASHING, "more07", *argv)
    errors = assert_reported(result)
    assert len(errors) == 3 and len([e for e in errors if "more07.png" in e]) == 1
    assert sum("native code crashed (SIGABRT)" in line for line in errors) == 1
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    best = [row["file"] for row in rows if row["rank"] == "1"]
    expected = sorted(set(map(str, pictures.glob("*.png"))))
    assert list(dict.fromkeys(best)) == [p for p in expected if "more07" not in p]
    assert len(best) - len(set(best)) <= 1  # what the crash met while it was printed


def test_a_crash_in_an_evaluation_names_its_picture(models, pictures):
    for name, number in (("r", 0), ("g", 1), ("b", 2)):
        (pictures / str(number)).mkdir()
        shutil.move(pictures / f"{name}.png", pictures / str(number))
    argv = [f"--model={models['full']}", f"--evaluate={pictures}", "--json"]
    result = run_beside_the_file(CRASHING, "g.png", *argv)
    assert len(assert_reported(result)) == 1 and result.stdout == ""
    assert "g.png: reading it: native code crashed (SIGABRT)" in result.stderr


def test_a_child_that_is_killed_for_memory_is_told(models, pictures):
    script = CRASHING.replace("os.abort()", "os.kill(os.getpid(), 9)")
    argv = ["r.png", f"--model={models['full']}", pictures / "r.png"]
    result = run_beside_the_file(script, *argv)
    assert len(assert_reported(result)) == 1 and "out of memory?" in result.stderr


def test_no_child_outlives_its_parent(models, pictures):
    process = subprocess.Popen(
        [sys.executable, RUNNER, f"--model={models['full']}", f"--watch={pictures}"],
        stdout=subprocess.PIPE,
    )
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 20
    while not children.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children.read_text()
    time.sleep(1)
    process.kill()
    # The pipe ends when nobody holds it any more.
    assert process.communicate(timeout=20)[0] == b""
