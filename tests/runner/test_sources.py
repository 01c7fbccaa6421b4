"""Where images come from: patterns, standard input, a folder, a camera."""

import json
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
from PIL import Image

from tests.helpers.runner import RUNNER, assert_one_error, encoded, run_alone, run_main


def files_of(out):
    return [json.loads(line)["file"] for line in out.splitlines()]


def test_patterns_that_no_shell_expanded_are_expanded(models, capfd, pictures):
    (pictures / "deep").mkdir()
    (pictures / "r.png").rename(pictures / "deep" / "r.png")
    argv = ["--model", models["full"], "--json"]
    code, out, errors = run_main(capfd, *argv, f"{pictures}/[bg].p?g")
    assert (code, errors) == (0, [])
    assert files_of(out) == [str(pictures / "b.png"), str(pictures / "g.png")]
    out = run_main(capfd, *argv, f"{pictures}/**/r.png")[1]
    assert files_of(out) == [str(pictures / "deep" / "r.png")]
    assert_one_error(capfd, [*argv, f"{pictures}/*.bmp"], "no file matches")


def test_a_file_whose_name_is_a_pattern_is_itself(models, capfd, pictures):
    (pictures / "b.png").rename(pictures / "[bg].png")
    out = run_main(capfd, "--model", models["full"], "--json", pictures / "[bg].png")[1]
    assert files_of(out) == [str(pictures / "[bg].png")]


def test_a_dash_is_the_standard_input(models, pictures):
    with open(pictures / "g.png", "rb") as stdin:
        result = run_alone(f"--model={models['full']}", "--json", "-", stdin=stdin)
    assert (result.returncode, result.stderr) == (0, "")
    record = json.loads(result.stdout)
    assert (record["file"], record["top"][0]["label"]) == ("-", "grün")


def test_watch_classifies_what_appears_whole(models, pictures):
    command = [RUNNER, f"--model={models['full']}", "--json", f"--watch={pictures}"]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(60, process.kill)
    timer.start()
    time.sleep(2)  # until it watches
    data = encoded(Image.new("RGB", (400, 300), (5, 9, 250)), "PNG")
    (pictures / "notes.txt").write_text("no picture")
    with open(pictures / "new.png", "wb") as file:
        for start in range(0, len(data), len(data) // 5):  # as a camera writes
            file.write(data[start : start + len(data) // 5])
            file.flush()
            time.sleep(0.2)
    first = json.loads(process.stdout.readline())
    assert (first["file"], first["top"][0]["label"]) == (
        str(pictures / "new.png"),
        "blue",
    )
    (pictures / "again.png").write_bytes((pictures / "g.png").read_bytes())
    assert json.loads(process.stdout.readline())["top"][0]["label"] == "grün"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130
    timer.cancel()


def test_watching_nothing_is_one_line(models, capfd, tmp_path):
    argv = ["--model", models["full"], f"--watch={tmp_path}/none"]
    assert_one_error(capfd, argv, f"{tmp_path}/none", "No such file")


class FakeCapture:
    """Stands in for OpenCV's camera: three frames, blue first."""

    released = False

    def __init__(self, number):
        self.frames = 3 if number == 1 else 0

    def read(self):
        self.frames -= 1
        frame = np.zeros((30, 40, 3), np.uint8)
        frame[..., 2] = 250  # red
        return self.frames >= 0, frame if self.frames >= 0 else None

    def release(self):
        FakeCapture.released = True


def test_a_cameras_frames_are_classified_until_it_stops(models, capfd, monkeypatch):
    cv2 = types.ModuleType("cv2")
    cv2.VideoCapture = FakeCapture
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    argv = ["--model", models["full"], "--json"]
    code, out, errors = run_main(capfd, *argv, "--camera=1")
    assert code == 2 and "camera 1: stopped" in errors[0] and FakeCapture.released
    records = [json.loads(line) for line in out.splitlines()]
    assert files_of(out) == [f"camera 1 frame {number}" for number in range(3)]
    assert [record["top"][0]["label"] for record in records] == ["red"] * 3
    assert set(records[0]["milliseconds"]) == {"decode", "resize", "invoke"}
    assert_one_error(capfd, [*argv, "--camera=0"], "camera 0: cannot be opened")
    monkeypatch.setitem(sys.modules, "cv2", None)
    words = "--camera=0 needs OpenCV (pip install opencv-python)", "--camera=picamera"
    assert_one_error(capfd, [*argv, "--camera=0"], *words)


class FakePicamera2:
    """Stands in for picamera2's camera: two frames in the format that was asked for."""

    closed = False
    there = True

    def __init__(self):
        if not self.there:
            raise IndexError("list index out of range")
        self.started, self.frames = False, 2

    def create_preview_configuration(self, main):
        return {"main": main}

    def configure(self, configuration):
        self.main = configuration["main"]

    def start(self):
        self.started = True

    def capture_array(self):
        assert self.started
        if not self.frames:
            raise RuntimeError("Camera frontend has timed out")
        self.frames -= 1
        width, height = self.main["size"]
        frame = np.zeros((height, width, 3), np.uint8)
        # The names of libcamera's formats begin with the last byte.
        frame[..., {"BGR888": 0, "RGB888": 2}[self.main["format"]]] = 250  # red
        return frame

    def close(self):
        FakePicamera2.closed = True


def test_the_camera_of_a_pi_is_read_by_picamera2(models, capfd, monkeypatch):
    picamera2 = types.ModuleType("picamera2")
    picamera2.Picamera2 = FakePicamera2
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    argv = ["--model", models["full"], "--json", "--camera=picamera"]
    code, out, errors = run_main(capfd, *argv)
    assert code == 2 and FakePicamera2.closed and len(errors) == 1
    assert "camera picamera: stopped: Camera frontend has timed out" in errors[0]
    assert files_of(out) == [f"camera picamera frame {number}" for number in range(2)]
    labels = [json.loads(line)["top"][0]["label"] for line in out.splitlines()]
    assert labels == ["red"] * 2
    monkeypatch.setattr(FakePicamera2, "there", False)
    assert_one_error(capfd, argv, "camera picamera: cannot be opened", "out of range")
    monkeypatch.setitem(sys.modules, "picamera2", None)
    assert_one_error(capfd, argv, "sudo apt install python3-picamera2")
    argv[-1] = "--camera=pi"
    assert_one_error(capfd, argv, "--camera", "or picamera, received 'pi'")
