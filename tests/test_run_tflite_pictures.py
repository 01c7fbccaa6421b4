"""edge/run_tflite.py: where pictures come from, what they become, where results go."""

import contextlib
import csv
import io
import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import threading
import time
import types
import zipfile

import flatbuffers
import numpy as np
import pytest
import run_tflite
from ai_edge_litert import schema_py_generated as schema
from PIL import Image
from run_tflite import Classifier
from run_tflite_fixtures import (
    HEIGHT,
    LABELS,
    PEERS,
    PHOTOS,
    RUNNER,
    WIDTH,
    assert_one_error,
    encoded,
    noise,
    run_alone,
    run_main,
)

pytest_plugins = ["run_tflite_fixtures"]


# --- Pixels ---------------------------------------------------------------------------


@pytest.mark.skipif(not PHOTOS.exists(), reason="development data absent")
@pytest.mark.parametrize("size, resize_size", [(224, 256), (128, 146), (32, 36)])
def test_pixels_and_labels_are_those_of_trainings_evaluation(size, resize_size):
    import decoding
    import tensorflow as tf

    from keras_resnet.preprocessing import Preprocessing

    def decode_exactly(data):
        # TensorFlow's default DCT is a fast one: 1.2 of 255 away from all the others.
        if data[:2] != b"\xff\xd8":
            return decoding.decode(data)
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.convert_to_tensor(decoding.upright(image.numpy(), data))

    steps = Preprocessing((size, size), crop_fraction=size / resize_size)
    assert steps.resize_size == resize_size
    names = {128: "mobilenet_v1_0.25_128_quant", 32: "mlperf_tiny_resnet8_int8"}
    classifier = Classifier(str(PEERS / f"{names.get(size, names[128])}.tflite"))
    classifier.input_shape = (1, size, size, 3)
    classifier.preprocessing = run_tflite.Preprocessing(
        1, [size, size], resize_size, size / resize_size, "bilinear"
    )
    differences, leads = [], []
    for path in sorted(PHOTOS.glob("*/*")):
        data = path.read_bytes()
        actual = run_tflite.load_pixels(str(path), classifier)[0]
        exact = decoding.resize_and_crop(decode_exactly(data), steps).numpy()
        differences.append(np.abs(actual.astype(int) - exact).mean())
        if size == 128:
            scores, other = classifier.scores(actual), classifier.scores(exact)
            leads.append(scores.max() - scores[other.argmax()])
    assert len(differences) == 100 and np.mean(differences) < 0.02
    # A pixel of some hundred rounds otherwise. This small network, the largest
    # trained one here, then wavers between classes a few steps of 1/256 apart.
    assert sum(lead == 0 for lead in leads) >= 95 or size != 128
    assert max(leads, default=0) < 10 / 256


@pytest.mark.skipif(not PHOTOS.exists(), reason="development data absent")
@pytest.mark.parametrize(
    "name, size",
    [("mobilenet_v1_0.25_128_quant", 128), ("mlperf_tiny_resnet8_int8", 32)],
)
def test_photographs_decoded_smaller_keep_their_labels(name, size):
    classifier = Classifier(str(PEERS / f"{name}.tflite"))
    classifier.preprocessing = run_tflite.Preprocessing(
        1, [size, size], size * 8 // 7, 7 / 8, "bilinear"
    )
    same = smaller = 0
    for path in map(str, sorted(PHOTOS.glob("*/*"))):
        picture = run_tflite.read_picture(path, classifier)
        whole = run_tflite.read_image(path)
        smaller += picture.image.size != whole.size
        fed = run_tflite.prepare(picture.image, classifier, picture.box)
        expected = run_tflite.prepare(whole, classifier)
        best = [classifier.scores(pixels).argmax() for pixels in (fed, expected)]
        same += best[0] == best[1]
    assert same >= 99
    assert smaller > 3 or size != 32


def photograph(width, height, orientation=1):
    """A JPEG of smooth shapes with some fine structure."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 37 + y / 53), np.cos(x / 91), np.sin(x * y / 9e4)]
    pixels = np.stack(waves, -1) * 90 + 128 + noise(height, width) / 16
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels.astype(np.uint8))
    return encoded(image, "JPEG", quality=92, exif=exif)


@pytest.mark.parametrize("name, factor", [("full", 2), ("plain", 4)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_that_is_decoded_smaller_gives_nearly_the_same_pixels(
    models, tmp_path, name, factor, orientation
):
    path = tmp_path / "photo.jpg"
    path.write_bytes(photograph(801, 603, orientation))  # both leave a rest
    classifier = Classifier(models[name])
    picture = run_tflite.read_picture(str(path), classifier)
    whole = run_tflite.read_image(str(path))
    assert whole.size == ((801, 603) if orientation < 5 else (603, 801))
    assert sorted(picture.image.size) == [603 // factor + 1, 801 // factor + 1]
    left, top, right, bottom = picture.box
    assert ((right - left) * factor, (bottom - top) * factor) == whole.size
    pixels = run_tflite.prepare(picture.image, classifier, picture.box)
    expected = run_tflite.prepare(whole, classifier)
    assert np.abs(pixels.astype(int) - expected).mean() < 0.5


@pytest.mark.skipif(not PHOTOS.exists(), reason="development data absent")
@pytest.mark.parametrize("name", ["full", "plain"])
def test_photographs_decoded_smaller_give_nearly_the_same_pixels(models, name):
    # 12 x 16 pixels of photographs: nearly all of them are decoded smaller.
    classifier, differences, smaller = Classifier(models[name]), [], 0
    for path in map(str, sorted(PHOTOS.glob("*/*"))):
        picture = run_tflite.read_picture(path, classifier)
        whole = run_tflite.read_image(path)
        smaller += picture.image.size != whole.size
        pixels = run_tflite.prepare(picture.image, classifier, picture.box)
        expected = run_tflite.prepare(whole, classifier)
        differences.append(np.abs(pixels.astype(int) - expected).mean())
    assert smaller > 80 and np.mean(differences) < 0.5


def test_nearest_is_never_decoded_smaller(models, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photograph(801, 603))
    classifier = Classifier(models["full"])
    how = classifier.preprocessing._replace(interpolation="nearest")
    classifier.preprocessing = how
    picture = run_tflite.read_picture(str(tmp_path / "photo.jpg"), classifier)
    assert (picture.image.size, picture.box) == ((801, 603), (0, 0, 801, 603))


# --- Normalization and metadata -------------------------------------------------------


def vector(builder, items):
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return builder.EndVector()


def table(builder, count, **slots):
    """A table of so many fields: offsets, or ("byte", value)."""
    builder.StartObject(count)
    for slot, value in slots.items():
        if isinstance(value, tuple):
            builder.PrependUint8Slot(int(slot[1:]), value[1], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(int(slot[1:]), value, 0)
    return builder.EndObject()


def metadata(mean, std, files=()):
    """TFLite's ModelMetadata: mean, std and [(label file, type, locale)]."""
    builder = flatbuffers.Builder()
    mean = builder.CreateNumpyVector(np.array(mean, np.float32))
    std = builder.CreateNumpyVector(np.array(std, np.float32))
    options = table(builder, 2, _0=mean, _1=std)
    step = table(builder, 2, _0=("byte", 1), _1=options)
    image = table(builder, 7, _4=vector(builder, [step]))
    made = []
    for name, kind, locale in files:
        name, locale = builder.CreateString(name), builder.CreateString(locale)
        slots = {"_0": name, "_2": ("byte", kind)}
        made.append(table(builder, 5, **slots, **({"_3": locale} if locale else {})))
    scores = table(builder, 7, _6=vector(builder, made))
    graph = table(builder, 4, _2=vector(builder, [image]), _3=vector(builder, [scores]))
    name = builder.CreateString("model")
    builder.Finish(table(builder, 8, _0=name, _3=vector(builder, [graph])), b"M001")
    return bytes(builder.Output())


def with_metadata(path, content, **files):
    """Put metadata and its files into a model, as TFLite's own writers do."""
    data = pathlib.Path(path).read_bytes()
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(content, np.uint8)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(tree.buffers)
    tree.buffers.append(buffer)
    tree.metadata = [*(tree.metadata or []), entry]
    builder = flatbuffers.Builder()
    builder.Finish(tree.Pack(builder), b"TFL3")
    file = io.BytesIO(bytes(builder.Output()))
    file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "."), text)
    return file.getvalue()


def fed_by(classifier, pixels):
    """What the interpreter receives."""
    fed = []
    interpreter = classifier._interpreter
    classifier._interpreter = types.SimpleNamespace(
        set_tensor=lambda index, values: fed.append(values),
        invoke=interpreter.invoke,
        get_tensor=interpreter.get_tensor,
    )
    with contextlib.suppress(run_tflite.UserError):
        classifier.scores(pixels)
    return fed[0][0]


@pytest.mark.parametrize("mean, std", [([127.5], [127.5]), ([1, 20, 30], [2, 50, 60])])
def test_metadata_normalizes_for_a_float_input_alone(models, tmp_path, mean, std):
    pixels = noise(HEIGHT, WIDTH)
    path = tmp_path / "m.tflite"
    for name in ("float32", "float16", "plain", "int8"):
        path.write_bytes(with_metadata(models[name], metadata(mean, std)))
        fed = fed_by(Classifier(str(path)), pixels)
        if name.startswith("float"):
            expected = ((pixels - np.array(mean)) / np.array(std)).astype(name)
        else:
            expected = pixels if name == "plain" else pixels.astype(int) - 128
        np.testing.assert_array_equal(fed, expected)
        assert fed.dtype == np.dtype("uint8" if name == "plain" else name)


def test_mean_and_std_are_over_the_metadatas(models, tmp_path, capfd, pictures):
    pixels = noise(HEIGHT, WIDTH)
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(models["float32"], metadata([9], [9])))
    classifier = Classifier(str(path), normalization=((1, 2, 3), (4,)))
    expected = ((pixels - np.array([1, 2, 3])) / 4).astype(np.float32)
    np.testing.assert_array_equal(fed_by(classifier, pixels), expected)
    argv = [f"--model={models['float32']}", pictures, "--json"]
    plain = json.loads(run_main(capfd, *argv)[1].splitlines()[0])
    code, out, errors = run_main(capfd, *argv, "--mean=0", "--std=1,1,1.0")
    assert (code, errors) == (0, [])
    assert json.loads(out.splitlines()[0])["top"] == plain["top"]
    code, out, errors = run_main(capfd, *argv, "--mean=127.5", "--std=127.5")
    assert json.loads(out.splitlines()[0])["top"] != plain["top"]


def test_a_quantized_input_quantizes_what_is_normalized(models):
    pixels = noise(HEIGHT, WIDTH)
    for name in ("plain", "int8"):
        classifier = Classifier(models[name], normalization=((10,), (0.5,)))
        details = input_details(models[name])
        scale, zero_point = details["quantization"]
        limits = np.iinfo(details["dtype"])
        real = (pixels - 10.0) / 0.5
        expected = np.rint(real / scale) + zero_point
        expected = expected.clip(limits.min, limits.max)
        np.testing.assert_array_equal(fed_by(classifier, pixels), expected)
        # (pixel - 0) / 1 is what raw pixels are.
        raw = fed_by(Classifier(models[name]), pixels).astype(int)
        same = Classifier(models[name], normalization=((0,), (1,)))
        assert np.abs(fed_by(same, pixels) - raw).max() <= 1


def input_details(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=path).get_input_details()[0]


def test_bgr_swaps_the_channels_of_the_model_alone(models):
    pixels = noise(HEIGHT, WIDTH)
    for name in ("plain", "int8", "float32"):
        expected = fed_by(Classifier(models[name]), pixels)[..., ::-1]
        actual = fed_by(Classifier(models[name], bgr=True), pixels)
        np.testing.assert_array_equal(actual, expected)
    caffe = ((103.939, 116.779, 123.68), (1,))
    actual = fed_by(
        Classifier(models["float32"], normalization=caffe, bgr=True), pixels
    )
    expected = (pixels[..., ::-1] - np.array(caffe[0])).astype(np.float32)
    np.testing.assert_array_equal(actual, expected)


def test_wrong_normalization_is_one_line(models, capfd, tmp_path, pictures):
    argv = ["--model", models["float32"], pictures / "r.png"]
    for flag in ("--mean=a", "--mean=1,2", "--std=", "--std=nan", "--mean=inf"):
        assert_one_error(capfd, [*argv, flag], flag.split("=")[0], "expected a number")
    assert_one_error(capfd, [*argv, "--std=0"], "std: expected numbers above 0")
    path = tmp_path / "m.tflite"
    contents = {
        "above 0": metadata([1], [0]),
        "1 or 3 numbers": metadata([1, 2], [1, 2]),
        "nan": metadata([float("nan")], [1]),
        "M001": b"\x10\0\0\0NOPE" + bytes(20),
        "is needed": metadata([1], [1])[:-20],
    }
    for word, content in contents.items():
        path.write_bytes(with_metadata(models["float32"], content))
        words = ("metadata is damaged", word)
        assert_one_error(capfd, ["--model", path, pictures / "r.png"], path, *words)


def test_labels_are_the_file_that_the_metadata_names(models, tmp_path, capfd, pictures):
    path, text = tmp_path / "m.tflite", "\n".join(LABELS)
    files = [("other.txt", 1, ""), ("de.txt", 2, "de"), ("mine.txt", 2, "")]
    content = metadata([0], [1], files)
    archive = {"other__txt": "x", "de__txt": "a\nb\nc", "mine__txt": text}
    path.write_bytes(
        with_metadata(models["plain"], content, labels__txt="q\nr\ns", **archive)
    )
    assert Classifier(str(path)).labels == LABELS
    archive["mine__txt"] = "a\nb\n"
    path.write_bytes(with_metadata(models["plain"], content, **archive))
    argv = ["--model", path, pictures / "r.png"]
    assert_one_error(capfd, argv, "2 labels for a model of 3 classes")


# --- Sources --------------------------------------------------------------------------


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
    assert_one_error(capfd, [*argv, "--camera=0"], "pip install opencv-python")


# --- Output ---------------------------------------------------------------------------


def test_csv_has_a_row_per_class(models, capfd, pictures):
    (pictures / 'a,"b".png').write_bytes((pictures / "g.png").read_bytes())
    argv = ["--model", models["full"], "--csv", "--top_k=2", pictures]
    code, out, errors = run_main(capfd, *argv)
    assert (code, errors) == (0, [])
    rows = list(csv.DictReader(io.StringIO(out)))
    names = "file rank index label score decode_ms resize_ms invoke_ms".split()
    assert list(rows[0]) == names
    assert [row["rank"] for row in rows] == ["1", "2"] * 4
    assert rows[0]["file"] == str(pictures / 'a,"b".png')
    assert [row["label"] for row in rows[::2]] == ["grün", "blue", "grün", "red"]
    assert all(float(row["invoke_ms"]) > 0 and 0 <= float(row["score"]) for row in rows)


def test_scores_below_the_threshold_are_left_out(models, capfd, pictures):
    argv = ["--model", models["full"], "--json", pictures / "g.png"]
    top = json.loads(run_main(capfd, *argv, "--threshold=0.5")[1])["top"]
    assert [one["label"] for one in top] == ["grün"]
    assert json.loads(run_main(capfd, *argv, "--threshold=1.01")[1])["top"] == []
    assert_one_error(capfd, [*argv, "--threshold=high"], "--threshold", "'high'")


def test_annotated_pictures_show_the_labels_and_keep_the_rest(
    models, capfd, pictures, tmp_path
):
    out = tmp_path / "out" / "deep"
    Image.new("RGB", (400, 300), (9, 250, 5)).save(pictures / "g.png")
    (pictures / "bad.png").write_bytes(b"")
    os.makedirs(pictures / "same")
    (pictures / "r.png").rename(pictures / "same" / "g.png")
    argv = ["--model", models["full"], f"--annotate={out}", "--top_k=1"]
    code, _, errors = run_main(capfd, *argv, pictures / "g.png", pictures / "bad.png")
    assert code == 2 and len(errors) == 1
    assert run_main(capfd, *argv, pictures / "same")[0] == 0
    assert sorted(os.listdir(out)) == ["00001_g.jpg"]  # of the second run
    assert run_main(capfd, *argv, pictures / "g.png", pictures / "same")[0] == 0
    assert sorted(os.listdir(out)) == ["00001_g.jpg", "00002_g.jpg"]
    with Image.open(out / "00001_g.jpg") as image:
        pixels = np.asarray(image).astype(int)
    assert pixels.shape == (300, 400, 3)
    drawn = np.abs(pixels - (9, 250, 5)).max(-1) > 60
    assert 30 < drawn[:40].sum() < 6000 and drawn[60:].sum() == 0


def test_annotated_pictures_keep_their_size_unless_too_small_to_read(
    models, capfd, tmp_path
):
    for name, size in (
        ("large", (1600, 1200)),
        ("small", (32, 24)),
        ("line", (4096, 1)),
    ):
        Image.new("RGB", size).save(tmp_path / f"{name}.jpg")
        argv = [f"--model={models['full']}", f"--annotate={tmp_path / name}"]
        assert run_main(capfd, *argv, tmp_path / f"{name}.jpg")[0] == 0
        with Image.open(tmp_path / name / f"00001_{name}.jpg") as image:
            assert image.size == ((320, 240) if name == "small" else size)


def test_pictures_are_kept_only_to_be_annotated(models, tmp_path):
    classifier = run_tflite.Classifier(models["full"])
    Image.new("RGB", (1600, 1200)).save(tmp_path / "a.jpg")
    assert run_tflite.load_pixels(tmp_path / "a.jpg", classifier)[2] is None
    kept = run_tflite.load_pixels(tmp_path / "a.jpg", classifier, keep=True)[2]
    assert kept.size == (1600, 1200)


def test_annotations_that_cannot_be_written_are_told(models, capfd, pictures):
    (pictures / "file").write_text("")
    argv = ["--model", models["full"], pictures / "g.png"]
    assert_one_error(capfd, [*argv, f"--annotate={pictures}/file/x"], "file/x")


def test_labels_of_any_script_can_be_drawn(tmp_path, monkeypatch):
    image = Image.new("RGB", (200, 100))
    top = [run_tflite.Prediction(3, "猫 \x1b grün", 0.5)]
    run_tflite.annotate(image, top, str(tmp_path / "a.jpg"))
    from PIL import ImageFont

    def nothing(*_):
        raise OSError("no such font")

    monkeypatch.setattr(ImageFont, "truetype", nothing)
    monkeypatch.setattr(ImageFont, "load_default", ImageFont.load_default_imagefont)
    run_tflite.annotate(image, top, str(tmp_path / "b.jpg"))
    for name in "ab":
        with Image.open(tmp_path / f"{name}.jpg") as drawn:
            assert np.asarray(drawn).max() > 200


def test_progress_is_shown_on_a_terminal_alone(models, pictures):
    argv = [sys.executable, RUNNER, f"--model={models['full']}", pictures]
    ours, theirs = pty.openpty()
    result = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=theirs, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10000).decode()
    os.close(ours)
    assert result.returncode == 0 and "3 of 3 pictures" in shown
    assert run_alone(f"--model={models['full']}", pictures).stderr == ""


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--json", "--csv", "a.png"], ["--json and --csv"]),
        (["--camera=0", "a.png"], ["pictures and --camera"]),
        (["--evaluate=d", "--watch=d"], ["--watch and --evaluate"]),
        (["--evaluate=d", "--benchmark"], ["--evaluate and --benchmark"]),
        (["--evaluate=d", "--csv"], ["--csv and --evaluate"]),
        (["--compare", "a.png", "--annotate=d"], ["--annotate and --compare"]),
        (["--watch=d", "--annotate=d/../d/"], ["--annotate and --watch"]),
        (["--camera=x"], ["--camera", "0 to 99", "'x'"]),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(capfd, argv, words):
    assert_one_error(capfd, ["--model=m.tflite", *argv], *words)


def test_threads_are_the_physical_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tflite, "SYSTEM", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5})
    assert run_tflite.default_threads() == 4  # nothing is known
    for cpu, siblings in ((0, "03"), (1, "03"), (2, "0c"), (5, "30")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings").write_text(siblings + "\n")
    assert run_tflite.default_threads() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert run_tflite.default_threads() == 1
