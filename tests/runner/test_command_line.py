"""The command line: streams, exit codes, help, wrong flags, signals."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from PIL import Image

from keras_resnet.runner import command_line
from tests.helpers.commands import one_error, run_python
from tests.helpers.runner import (
    PEERS,
    RUNNER,
    SHIPPED,
    assert_one_error,
    encoded,
    noise,
    run_alone,
    run_main,
)


def test_truncated_jpeg_is_refused_and_the_others_are_classified(
    models, capfd, pictures
):
    photo = encoded(Image.fromarray(noise(60, 80)), "JPEG")
    (pictures / "d.jpg").write_bytes(photo[: len(photo) // 2])
    argv = ["--model", models["full"], "--json", pictures]
    code, out, errors = run_main(capfd, *argv)
    assert code == 2
    assert [line.split(":")[1] for line in errors] == [f" {pictures / 'd.jpg'}"]
    assert "truncated" in errors[0]
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["file"] for r in records] == [str(pictures / f"{n}.png") for n in "bgr"]
    labels = [record["top"][0]["label"] for record in records]
    assert labels == ["blue", "grün", "red"]


def test_streams_and_exit_code_of_a_mixed_batch(models, pictures):
    (pictures / "text.jpg").write_text("no picture")
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "none").mkdir()
    os.mkfifo(pictures / "pipe.png")
    (pictures / "line\nbreak.png").write_bytes(b"\0" * 20)
    palette = Image.new("P", (9, 9))
    palette.save(pictures / "p.png", transparency=b"\1\2")  # Pillow warns of it
    given = ["r.png", "text.jpg", "empty.png", "missing.png", "none", "pipe.png"]
    given += ["line\nbreak.png", "p.png"]
    result = subprocess.run(
        [sys.executable, RUNNER, "--model", models["full"], *given[:4], "--json"]
        + ["--top_k=2", *given[4:]],
        cwd=pictures,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["file"], second["file"]) == ("r.png", "p.png")
    assert set(first) == {"file", "top", "milliseconds"}
    assert set(first["milliseconds"]) == {"decode", "resize", "invoke"}
    assert all(value > 0 for value in first["milliseconds"].values())
    assert [set(top) for top in first["top"]] == [{"index", "label", "score"}] * 2
    assert (first["top"][0]["index"], first["top"][0]["label"]) == (0, "red")
    errors = result.stderr.splitlines()  # and no chatter of the native runtime
    assert len(errors) == 6
    named = ["none", *given[1:4], "pipe.png", "line\\nbreak.png"]
    for name, line in zip(named, errors, strict=True):
        assert line.startswith(f"error: {name}: ")
    assert "empty, expected" in errors[2]


def test_text_output_is_an_aligned_table(models, capfd, pictures):
    code, out, errors = run_main(
        capfd, "--model", models["full"], pictures / "g.png", "--top_k=2"
    )
    assert (code, errors) == (0, [])
    header, first, second = out.splitlines()
    assert header.startswith(f"{pictures / 'g.png'}  (decode ")
    score, index, label = first.split()
    assert (int(index), label) == (1, "grün") and float(score) > 0.9
    assert len(first[: first.index("grün")]) == len(second[: second.index("red")])


def test_without_labels_the_indices_are_printed(models, capfd, pictures):
    argv = ["--model", models["plain"], pictures / "b.png", "--top_k=1"]
    assert run_main(capfd, *argv)[1].splitlines()[1].split()[1:] == ["2"]
    top = json.loads(run_main(capfd, "--json", *argv)[1])["top"]
    assert (top[0]["index"], top[0]["label"]) == (2, None)


def test_labels_cannot_write_control_characters(models, capfd, tmp_path, pictures):
    (tmp_path / "l.txt").write_text("a\x1b[2Jb\nc\nd")
    argv = ["--model", models["plain"], "--labels", tmp_path / "l.txt"]
    out = run_main(capfd, *argv, pictures / "r.png")[1]
    assert "\x1b" not in out and "a\\x1b[2Jb" in out


def test_a_folder_means_its_pictures_at_all_levels_once(models, capfd, pictures):
    deep = pictures / "a" / "b"
    deep.mkdir(parents=True)
    (pictures / "r.png").rename(deep / "R.PNG")
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "._g.png").write_bytes(b"macOS")
    (deep / "loop").symlink_to(pictures)
    code, out, errors = run_main(capfd, "--model", models["full"], "--json", pictures)
    assert (code, errors) == (0, [])
    files = [json.loads(line)["file"] for line in out.splitlines()]
    expected = [deep / "R.PNG", pictures / "b.png", pictures / "g.png"]
    assert files == list(map(str, expected))


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--topk=3"], ["--topk=3", "did you mean --top_k?"]),
        (["--top=3"], ["--top=3", "did you mean --top_k?"]),
        (["--frobnicate"], ["--frobnicate", "--benchmark"]),
        (["--model=m", "--top_k=0"], ["--top_k", "1 to 1000000", "'0'"]),
        (["--model=m", "--threads=many"], ["--threads", "1 to 256", "'many'"]),
        (["--model"], ["--model"]),
        (["photo.jpg"], ["--model"]),
        (["--model=m"], ["no image given"]),
    ],
)
def test_a_wrong_command_line_is_one_line(capfd, argv, words):
    assert_one_error(capfd, argv, *words)


def test_flags_and_images_may_alternate():
    options = command_line.parse_arguments(
        ["a", "--json", "b", "--model=m", "--", "-c"], "run"
    )
    assert (options.model, options.json) == ("m", True)
    assert options.images == ["a", "b", "-c"]


def test_version_names_all_that_decides_the_result(capfd):
    code, out, errors = run_main(capfd, "--version")
    assert (code, errors) == (0, [])
    for name in ("run_tflite.py 1", "Python 3", "numpy ", "Pillow ", "ai-edge-litert "):
        assert name in out


def test_help_is_quick_and_shows_examples_as_the_user_types_them():
    script = """
import sys
from keras_resnet.runner import command_line, supervisor
try: command_line.run_command_line(["--help"], sys.argv[1], supervisor.SharedState())
finally: assert not {"numpy", "PIL", "ai_edge_litert"} & set(sys.modules)
"""
    result = run_python("-c", script, "keras-resnet run")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: keras-resnet run --model=PATH [flags] ")
    assert "    keras-resnet run --model=resnet20.tflite photo.jpg" in result.stdout
    assert "run_tflite.py" not in result.stdout
    result = run_alone("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"    python3 {RUNNER} --model=resnet20.tflite photo.jpg" in result.stdout


def test_the_installed_command_answers_as_the_file_does(pictures):
    argv = [f"--model={SHIPPED}", pictures / "g.png", "--json"]
    done = run_python("-m", "keras_resnet", "run", *argv)
    file = run_alone(*argv)
    assert (done.returncode, done.stderr) == (file.returncode, file.stderr) == (0, "")
    tops = [json.loads(each.stdout)["top"] for each in (done, file)]
    assert tops[0] == tops[1] and len(tops[0]) == 5
    refused = run_python("-m", "keras_resnet", "run", "--frobnicate")
    assert one_error(refused).startswith("error: unknown flag --frobnicate; known: ")


def test_a_closed_or_full_output_is_no_traceback(models, pictures):
    command = [sys.executable, RUNNER, "--model", models["full"], pictures]
    options = {"stderr": subprocess.PIPE, "env": dict(os.environ)}
    options["env"].pop("PYTHONUNBUFFERED", None)  # it hides what is left to flush
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe, open("/dev/full", "wb") as full:
        closed = subprocess.Popen(command, stdout=pipe, **options)
        filled = subprocess.Popen(command, stdout=full, **options)
    assert (closed.communicate(timeout=60)[1], closed.returncode) == (b"", 0)
    error = filled.communicate(timeout=60)[1]
    assert filled.returncode == 2
    assert error.count(b"\n") == 1 and b"No space left" in error


def run_with_closed(descriptor, *argv):
    command = " ".join(f"'{word}'" for word in (sys.executable, RUNNER, *argv))
    return subprocess.run(
        ["sh", "-c", f"exec {command} {descriptor}"], capture_output=True, text=True
    )


def test_a_closed_stdout_or_stdin_is_one_line(models, pictures):
    model = f"--model={models['full']}"
    for descriptor, argument, words in (
        (">&-", pictures / "g.png", "standard output is closed"),
        ("<&-", "-", "standard input: it is closed"),
    ):
        result = run_with_closed(descriptor, model, argument)
        assert result.returncode == 2 and words in result.stderr
        assert result.stderr.count("\n") == 1 and result.stdout == ""


def test_a_model_s_name_may_be_any_bytes(models, pictures, tmp_path):
    name = tmp_path / os.fsdecode(b"latin-\xe9.tflite")
    shutil.copy(models["full"], name)
    result = run_alone(f"--model={name}", pictures / "g.png")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_closed_stderr_leaves_stdout_clean(models, pictures):
    command = "exec '{}' '{}' --model='{}' no.png g.png 2>&-"
    result = subprocess.run(
        ["sh", "-c", command.format(sys.executable, RUNNER, models["full"])],
        cwd=pictures,
        env=dict(os.environ, PYTHONIOENCODING="ascii"),  # has no u-umlaut
        stdout=subprocess.PIPE,
        text=True,
    )
    assert result.returncode == 2
    assert "error" not in result.stdout and len(result.stdout.splitlines()) == 4
    assert "gr\\xfcn" in result.stdout


def test_ctrl_c_ends_with_130(models, pictures):
    command = [sys.executable, RUNNER, "--model", models["full"], "--json"]
    process = subprocess.Popen(
        command + [str(pictures / "r.png")] * 5000,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 130


def test_ctrl_c_does_not_wait_for_the_standard_input(models, pictures):
    command = [sys.executable, RUNNER, "--model", models["full"], "--json"]
    process = subprocess.Popen(
        [*command, pictures / "r.png", "-", pictures / "g.png"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == b""
    process.communicate()


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--json", "--csv", "a.png"], ["--csv: not allowed with argument --json"]),
        (["--camera=0", "a.png"], ["--camera takes no images; leave out a.png"]),
        (["--evaluate=d", "--watch=d"], ["--watch: not allowed with", "--evaluate"]),
        (["--evaluate=d", "--benchmark"], ["--benchmark: not allowed", "--evaluate"]),
        (["--camera=0", "--compare"], ["--compare: not allowed with", "--camera"]),
        (["--evaluate=d", "--csv"], ["--evaluate and --csv"]),
        (["--compare", "a.png", "--annotate=d"], ["--compare and --annotate"]),
        (["--compare"], ["no image given"]),
        (["--labels=", "a.png"], ["--labels is empty"]),
        (["--annotate=", "a.png"], ["--annotate is empty"]),
        (["--watch=d", "--annotate=d/../d/"], ["--annotate and --watch"]),
        (["--camera=x"], ["--camera", "0 to 99", "'x'"]),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(capfd, argv, words):
    assert_one_error(capfd, ["--model=m.tflite", *argv], *words)


@pytest.mark.skipif(not PEERS.exists(), reason="development data absent")
def test_corals_cat_is_a_tiger_cat(capfd):
    model = PEERS / "mobilenet_v1_0.25_128_quant.tflite"
    for labels in ([], ["--labels", PEERS / "imagenet_labels.txt"]):
        argv = ["--model", model, PEERS / "cat.bmp", "--json", "--top_k=1", *labels]
        code, out, errors = run_main(capfd, *argv)
        assert (code, errors) == (0, [])
        top = json.loads(out)["top"][0]
        assert (top["index"], top["label"]) == (283, "tiger cat")
        assert top["score"] > 0.2
    edgetpu = PEERS / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    assert_one_error(capfd, ["--model", edgetpu, PEERS / "cat.bmp"], "uncompiled file")
