import ast
import collections
import io
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import types
import zipfile

import numpy as np
import pytest
import run_tflite
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from run_tflite import Classifier, UserError, prepare, read_image
from run_tflite_fixtures import (
    HEIGHT,
    LABELS,
    PEERS,
    PHOTOS,
    PREPROCESSING,
    RUNNER,
    WIDTH,
    assert_one_error,
    encoded,
    noise,
    run_alone,
    run_main,
    with_archive,
)

pytest_plugins = ["run_tflite_fixtures"]


def decoded(data):
    return np.array(read_image(io.BytesIO(data)))


# --- The classifier -------------------------------------------------------------------


def test_scores_equal_a_direct_interpreter_call(models):
    pixels = noise(HEIGHT, WIDTH)
    interpreter = Interpreter(model_path=models["full"])
    interpreter.allocate_tensors()
    details = interpreter.get_output_details()[0]
    assert details["dtype"] == np.uint8 and details["quantization"] == (1 / 256, 0)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
    interpreter.invoke()
    expected = interpreter.get_tensor(details["index"])[0] / np.float32(256)
    classifier = Classifier(models["full"])
    scores = classifier.scores(pixels)
    np.testing.assert_array_equal(scores, expected)
    assert scores.dtype == np.float32 and scores.std() > 0
    assert classifier.input_shape == (1, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["plain", "int8", "float32", "float16"])
def test_every_input_type_receives_raw_pixels(models, name):
    pixels = noise(HEIGHT, WIDTH) // 2
    pixels[:, : WIDTH // 2, 1] += 30
    means = pixels[:, : WIDTH // 2].reshape(-1, 3).mean(0) / 32
    expected = np.exp(means) / np.exp(means).sum()
    scores = Classifier(models[name]).scores(pixels)
    tolerance = 1e-5 if name.startswith("float") else 0.02
    np.testing.assert_allclose(scores, expected, atol=tolerance)


def test_scores_are_the_callers_own(models):
    classifier = Classifier(models["float32"])
    first = classifier.scores(noise(HEIGHT, WIDTH))
    before = first.copy()
    classifier.scores(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    np.testing.assert_array_equal(first, before)


def test_scores_refuse_pixels_that_are_not_prepared(models):
    classifier = Classifier(models["plain"])
    with pytest.raises(ValueError, match="expected uint8"):
        classifier.scores(np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        classifier.scores(np.zeros((HEIGHT, WIDTH, 3), np.float32))


def test_ties_go_to_the_lowest_index(models):
    classifier = Classifier(models["plain"])
    scores = np.zeros(1000, np.float32)
    scores[[700, 30]] = 1 / 256
    top = classifier.top_k(scores, 4)
    assert [p.index for p in top] == [30, 700, 0, 1]
    assert [p.label for p in top] == [None] * 4
    assert len(classifier.top_k(scores[:3], 5)) == 3


def test_scores_that_are_not_numbers_are_refused(models, capfd, pictures):
    argv = ["--model", models["nan"], pictures / "r.png"]
    assert_one_error(capfd, argv, models["nan"], "not finite")


# --- Pictures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, resized, left_top",
    [
        ((101, 67), (30, 20), (7, 4)),
        ((67, 101), (20, 30), (2, 9)),
        ((62, 40), (31, 20), (8, 4)),  # 7.5 rounds to the even 8
        ((66, 40), (33, 20), (8, 4)),  # 8.5 as well
        ((40, 58), (20, 29), (2, 8)),
        ((20, 20), (20, 20), (2, 4)),
        ((1, 1), (20, 20), (2, 4)),
    ],
)
@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_prepare_resizes_the_shorter_side_and_crops_the_centre(
    models, size, resized, left_top, name
):
    classifier = Classifier(models["full"])
    classifier.preprocessing = classifier.preprocessing._replace(interpolation=name)
    image = Image.fromarray(noise(size[1], size[0]))
    pillows = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
    whole = np.asarray(image.resize(resized, pillows[name]))
    left, top = left_top
    expected = whole[top : top + HEIGHT, left : left + WIDTH]
    pixels = prepare(image, classifier)
    # Only the crop is computed, with positions in 32 bits: a pixel may round the other
    # way.
    difference = np.abs(pixels.astype(int) - expected)
    assert difference.max() <= (0 if name == "nearest" else 1)
    assert difference.mean() < 0.05
    assert pixels.shape == (HEIGHT, WIDTH, 3) and pixels.dtype == np.uint8


def test_prepare_stretches_for_a_model_without_preprocessing(models):
    classifier = Classifier(models["plain"])
    assert classifier.preprocessing is None
    image = Image.fromarray(noise(90, 31))
    expected = np.asarray(image.resize((WIDTH, HEIGHT), Image.LANCZOS))
    np.testing.assert_array_equal(prepare(image, classifier), expected)


def test_pixels_of_every_mode_are_those_of_training():
    import tensorflow as tf

    rgb = Image.fromarray(noise(9, 8))
    palette = rgb.quantize(16)
    palette.info["transparency"] = bytes(range(16))
    sixteen = noise(9, 8, 1).astype(np.uint16) * 256 + 77
    images = {
        "RGB": rgb,
        "grey": rgb.convert("L"),
        "grey and alpha": Image.fromarray(noise(9, 8, 2), "LA"),
        "RGBA": Image.fromarray(noise(9, 8, 4)),
        "palette": palette,
        "16 bits": Image.fromarray(sixteen),
        "1 bit": rgb.convert("1"),
        "1x1": Image.new("RGB", (1, 1), (1, 2, 3)),
    }
    for name, image in images.items():
        data = encoded(image, "PNG")
        expected = tf.io.decode_image(data, channels=3).numpy()
        np.testing.assert_array_equal(decoded(data), expected, name)


def test_cmyk_is_converted():
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    red = decoded(data)
    assert red.shape == (16, 16, 3)
    assert np.abs(red.astype(int) - (255, 0, 0)).max() <= 3


def test_sixteen_bits_keep_their_high_byte_in_tiff():
    grey = noise(9, 8, 1)
    image = Image.fromarray(grey.astype(np.uint16) * 256 + 200)
    expected = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(decoded(encoded(image, "TIFF")), expected)


def test_32_bit_pixels_are_refused():
    image = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    with pytest.raises(UserError, match="32-bit"):
        decoded(encoded(image, "TIFF"))


# What a camera stores for each EXIF orientation of a scene that is upright in memory.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, file_format):
    scene = noise(6, 9)
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        decoded(encoded(image, file_format, exif=exif)), scene
    )


def test_damaged_exif_leaves_the_picture_alone():
    scene = Image.fromarray(noise(6, 9))
    for exif in (b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0junk" * 9):
        assert decoded(encoded(scene, "JPEG", exif=exif)).shape == (6, 9, 3)


def test_a_truncated_picture_of_any_format_is_refused():
    image = Image.fromarray(noise(40, 30))
    for file_format in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"):
        data = encoded(image, file_format)
        decoded(data)
        for length in np.linspace(1, len(data) - 100, 20).astype(int):
            with pytest.raises(UserError):
                decoded(data[:length])


def test_a_jpeg_that_lacks_its_last_byte_is_refused():
    with pytest.raises(UserError, match="truncated"):
        decoded(encoded(Image.fromarray(noise(40, 30)), "JPEG")[:-1])


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    for side in (10000, 60000):  # Pillow warns of the first and refuses the second
        data = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zipfile.crc32(data[12:29]))
        with pytest.raises(UserError, match="pixels"):
            decoded(bytes(data))


def test_a_picture_too_elongated_for_the_crop_is_refused(models, capfd, tmp_path):
    Image.new("L", (300000, 1)).save(tmp_path / "line.png")
    argv = ["--model", models["full"], tmp_path / "line.png"]
    assert_one_error(capfd, argv, "line.png", "300000 x 1")


def test_programs_disguised_as_pictures_are_not_run():
    with pytest.raises(UserError, match="EPS"):
        decoded(encoded(Image.new("RGB", (8, 8)), "EPS"))


# --- Labels and preprocessing ---------------------------------------------------------


def test_the_model_carries_its_labels_and_preprocessing(models):
    classifier = Classifier(models["full"])
    assert classifier.labels == LABELS
    assert classifier.preprocessing._asdict() == PREPROCESSING


@pytest.mark.parametrize(
    "text, labels",
    [
        ("a\nb\nc", ["a", "b", "c"]),
        ("\ufeffa\r\nb c \r\nc\r\n\n\n", ["a", "b c", "c"]),
        ("0  a\n1  b, c\n2  d", ["a", "b, c", "d"]),
        ("2: c\n0: a\n1: b", ["a", "b", "c"]),
        ("7 up\n0 proof\n1 euro", ["7 up", "0 proof", "1 euro"]),
        ("0\n1\n2", ["0", "1", "2"]),
        ("a\n\nc", ["a", "", "c"]),
    ],
)
def test_labels_are_read_in_both_forms(models, tmp_path, text, labels):
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert Classifier(models["full"], str(tmp_path / "labels.txt")).labels == labels


def test_labels_that_do_not_fit_are_refused(models, capfd, tmp_path, pictures):
    file = tmp_path / "labels.txt"
    for text in (b"a\nb\n", b"a\nb\nc\nd", b""):
        file.write_bytes(text)
        argv = ["--model", models["full"], "--labels", file, pictures / "r.png"]
        count = len(text.split())
        assert_one_error(capfd, argv, file, f"{count} labels", "3 classes")
    for content, word in ((b"\xff\xfe\0", "utf-8"), (b"x" * 5000000, "larger")):
        file.write_bytes(content)
        assert_one_error(capfd, argv, file, word)
    argv[3] = tmp_path / "none.txt"
    assert_one_error(capfd, argv, "none.txt", "No such file")


def test_embedded_labels_that_do_not_fit_are_refused(models, tmp_path, pictures, capfd):
    plain = pathlib.Path(models["plain"]).read_bytes()
    path = tmp_path / "m.tflite"
    path.write_bytes(with_archive(plain, labels__txt="a\nb\n"))
    argv = ["--model", path, pictures / "r.png"]
    assert_one_error(capfd, argv, path, "2 labels", "3 classes")
    (tmp_path / "l.txt").write_text("a\nb\nc")  # mended from outside
    assert Classifier(str(path), str(tmp_path / "l.txt")).labels == ["a", "b", "c"]


@pytest.mark.parametrize(
    "field, value",
    [
        ("version", 2),
        ("version", True),
        ("version", None),
        ("input_size", [WIDTH, HEIGHT]),
        ("input_size", HEIGHT),
        ("resize_size", WIDTH - 1),
        ("resize_size", 20.0),
        ("resize_size", 10**9),
        ("crop_fraction", 0),
        ("crop_fraction", "0.8"),
        ("interpolation", "area"),
        ("interpolation", ["bilinear"]),
    ],
)
def test_a_wrong_preprocessing_field_is_named(field, value):
    data = json.dumps(dict(PREPROCESSING, **{field: value})).encode()
    with pytest.raises(ValueError, match=f"{field}: expected .*received"):
        run_tflite.parse_preprocessing(data, [HEIGHT, WIDTH])


def test_an_archive_is_not_trusted(models, tmp_path, capfd, pictures):
    plain = pathlib.Path(models["plain"]).read_bytes()
    path = tmp_path / "m.tflite"
    damaged = bytearray(with_archive(plain, labels__txt="red\n" * 50))
    damaged[len(plain) + 42] ^= 255
    hostile = {
        "larger": with_archive(plain, labels__txt=bytes(50000000)),
        "JSON object": with_archive(plain, preprocessing__json="[]"),
        "preprocessing.json": with_archive(plain, preprocessing__json="[" * 60000),
        "Expecting": with_archive(plain, preprocessing__json="{"),
        "utf-8": with_archive(plain, preprocessing__json=b"\xff"),
        "archive": bytes(damaged),
    }
    for word, content in hostile.items():
        path.write_bytes(content)
        assert_one_error(capfd, ["--model", path, pictures / "r.png"], path, word)


# --- Bad models -----------------------------------------------------------------------


def test_every_bad_model_is_one_line(models, capfd, tmp_path, pictures):
    contents = {"empty": b"", "text": b"hello, I am no model\n" * 9, "zip": b"PK\3\4"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    cases = {
        tmp_path / "missing.tflite": "No such file",
        tmp_path: "directory",
        "/dev/zero": "device",
        tmp_path / "empty": "0 bytes",
        tmp_path / "text": "not a TFLite model",
        tmp_path / "zip": "not a TFLite model",
        models["two_outputs"]: "1 inputs and 2 outputs",
        models["vector"]: "received [1, 3] of float32",
        models["dense"]: f"received [1, {HEIGHT}, {WIDTH}, 3]",
        models["grey"]: f"received [1, {HEIGHT}, {WIDTH}, 1] of float32",
        models["dynamic"]: "received [1, -1, -1, 3]",
        models["custom"]: "OurOwnOp",
        models["edgetpu"]: "compiled for the Edge TPU",
    }
    for path, word in cases.items():
        assert_one_error(capfd, ["--model", path, pictures / "r.png"], path, word)


def test_a_model_truncated_anywhere_is_refused_before_any_runtime_sees_it(models):
    # tflite-runtime 2.14 dies of a segmentation fault on nearly all of these.
    data = pathlib.Path(models["full"]).read_bytes()
    flatbuffer = len(pathlib.Path(models["plain"]).read_bytes())
    path = pathlib.Path(models["full"]).with_name("cut.tflite")
    lengths = set(range(0, len(data), 7)) | set(range(len(data) - 30, len(data)))
    # A cut right between model and archive leaves a whole model without archive.
    for length in lengths - set(range(flatbuffer, flatbuffer + 4)):
        path.write_bytes(data[:length])
        with pytest.raises(UserError):
            run_tflite.read_model(str(path))


def test_a_flatbuffer_that_points_outside_itself_is_refused(models):
    data = pathlib.Path(models["plain"]).read_bytes()
    root = struct.unpack_from("<I", data)[0]
    vtable = root - struct.unpack_from("<i", data, root)[0]
    subgraphs = root + struct.unpack_from("<H", data, vtable + 8)[0]
    target = struct.unpack_from("<I", data, subgraphs)[0]
    changes = {
        (0, "<I", len(data)): "is needed",
        (0, "<I", 2**32 - 4): "is needed",
        (root, "<i", 2**31 - 4): "is needed",
        (vtable, "<H", 3): "bad vtable",
        (vtable, "<H", 0): "bad vtable",
        (vtable + 2, "<H", 2): "bad vtable",
        (vtable + 8, "<H", 60000): "bad field",
        (subgraphs, "<I", target + 1): "misaligned",
        (subgraphs, "<I", 2**31): "is needed",
        (subgraphs + target, "<I", 2**30): "is needed",
    }
    run_tflite.FlatbufferWalk(data)
    for (position, code, value), message in changes.items():
        damaged = bytearray(data)
        struct.pack_into(code, damaged, position, value)
        with pytest.raises(ValueError, match=message):
            run_tflite.FlatbufferWalk(bytes(damaged))


def test_damaged_models_never_crash_the_process(models, tmp_path):
    script = """
        import random, sys
        sys.path.insert(0, sys.argv[1])
        from run_tflite import Classifier, UserError
        source, refused = open(sys.argv[2], "rb").read(), 0
        for seed in range(150):
            rng, data = random.Random(seed), bytearray(source)
            for _ in range(4):
                data[rng.randrange(len(data))] = rng.randrange(256)
            open(sys.argv[3], "wb").write(data)
            try:
                Classifier(sys.argv[3], threads=1)
            except UserError as error:
                assert "\\n" not in str(error)
                refused += 1
        print(refused)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(RUNNER.parent)]
        + [models["full"], str(tmp_path / "m.tflite")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert 10 < int(result.stdout) < 150


def test_a_runtime_that_cannot_work_is_named_before_it_crashes(monkeypatch):
    old = types.ModuleType("tflite_runtime")
    old.__version__ = "2.14.0"
    monkeypatch.setattr(np, "__version__", "2.4.6")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", old)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"2.14.0 needs numpy < 2, found 2.4.6") as info:
        run_tflite.load_runtime()
    for package in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
        assert f"{package}: " in str(info.value)


def test_runtimes_are_tried_in_order(monkeypatch, models):
    class Fake:
        pass

    runtime = types.ModuleType("tflite_runtime")
    runtime.__version__ = "2.14.0"
    interpreter = types.ModuleType("tflite_runtime.interpreter")
    interpreter.Interpreter = Fake
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setitem(sys.modules, "tflite_runtime", runtime)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    assert run_tflite.load_runtime()[1].startswith("ai-edge-litert ")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert run_tflite.load_runtime() == (Fake, "tflite-runtime 2.14.0")
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    classifier = Classifier(models["full"])
    assert classifier.runtime.startswith("tensorflow ")
    assert classifier.scores(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).shape == (3,)


# --- The command line -----------------------------------------------------------------


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
        (["--model=m"], ["no picture given"]),
    ],
)
def test_a_wrong_command_line_is_one_line(capfd, argv, words):
    assert_one_error(capfd, argv, *words)


def test_flags_and_pictures_may_alternate():
    options = run_tflite.parse_arguments(["a", "--json", "b", "--model=m", "--", "-c"])
    assert (options.model, options.json) == ("m", True)
    assert options.images == ["a", "b", "-c"]


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

    def classify(path, classifier):
        invoke = 3.0 if sum(seen.values()) >= 20 else 1000.0 - sum(seen.values())
        seen[path] += 1
        times = {"decode": 1.0, "resize": 2.0, "invoke": invoke}
        return run_tflite.Result(None, times, None)

    monkeypatch.setattr(run_tflite, "classify", classify)
    monkeypatch.setattr(run_tflite, "WARM_UP_INVOKES", 20)
    paths = [f"{number}.png" for number in range(70)]
    report = run_tflite.benchmark(Classifier(models["plain"]), paths, None)
    assert report["invokes"] == 70 and len(seen) == 70
    assert report["total"] == {
        "median": 6.0,
        "p90": 6.0,
        "p99": 6.0,
    }  # nothing of the warm-up
    assert report["first_inference"] == 1000.0


def test_benchmark_of_bad_pictures_alone_ends_with_2(models, capfd, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    argv = ["--model", models["full"], "--benchmark", tmp_path / "text.jpg"]
    code, out, errors = run_main(capfd, *argv)
    assert (code, out, len(errors)) == (2, "", 2)


def test_version_names_all_that_decides_the_result(capfd):
    code, out, errors = run_main(capfd, "--version")
    assert (code, errors) == (0, [])
    for name in ("run_tflite.py 1", "Python 3", "numpy ", "Pillow ", "ai-edge-litert "):
        assert name in out


def test_help_is_quick_and_shows_examples():
    script = "import sys, run_tflite\ntry: run_tflite.main(['--help'])\nfinally: "
    script += "assert not {'numpy', 'PIL', 'ai_edge_litert'} & set(sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=dict(os.environ, PYTHONPATH=str(RUNNER.parent)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "--model=resnet20.tflite photo.jpg" in result.stdout


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


def test_the_file_is_self_contained_python_3_7():
    source = RUNNER.read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - {"numpy", "PIL"} <= set(sys.stdlib_module_names)


# --- Other people's models and real photographs ---------------------------------------


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


@pytest.mark.skipif(not PEERS.exists(), reason="development data absent")
def test_mlperfs_int8_resnet_is_fed_pixel_minus_128():
    path = str(PEERS / "mlperf_tiny_resnet8_int8.tflite")
    interpreter = Interpreter(model_path=path)
    interpreter.allocate_tensors()
    pixels = noise(32, 32)
    fed = (pixels.astype(np.int16) - 128).astype(np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], fed[None])
    interpreter.invoke()
    raw = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    expected = (raw.astype(np.float32) + 128) / 256
    np.testing.assert_array_equal(Classifier(path).scores(pixels), expected)


@pytest.mark.skipif(not PHOTOS.exists(), reason="development data absent")
def test_real_photographs_decode_as_pillow_decodes_them():
    paths = sorted(PHOTOS.glob("*/*"))[::10]
    for path in paths:
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        pixels = np.asarray(read_image(str(path)))
        assert pixels.shape in (expected.shape, expected.swapaxes(0, 1).shape)
        if pixels.shape == expected.shape:
            np.testing.assert_array_equal(pixels, expected)
    assert len(paths) == 10
