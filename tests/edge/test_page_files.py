"""Which files get a page, and what is said about those that do not."""

import html
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet import edge
from keras_resnet.edge.convert import metadata
from keras_resnet.edge.page import contents, runtime, samples, writer
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.preprocessing import FEATURES
from tests.helpers import runner
from tests.helpers.commands import ROOT, one_error, run_command, run_python

SHIPPED = ROOT / "models" / "resnet8.cifar10.int8.tflite"
SHAPE = [1, runner.HEIGHT, runner.WIDTH, 3]
LABELS = "\n".join(runner.LABELS) + "\n"


@pytest.fixture(scope="module")
def plain():
    """The bytes of a uint8 model without metadata, as others make them."""
    return runner.convert(runner.colour_of, SHAPE, io_type=tf.uint8)


@pytest.fixture(scope="module")
def float_model():
    return runner.convert(runner.colour_of, SHAPE)


@pytest.fixture
def write(tmp_path):
    def write(content, name="model.tflite"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def refusal(*arguments):
    with pytest.raises(UserError) as error:
        contents.describe(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_our_files_say_what_a_page_needs():
    found = contents.describe(SHIPPED)
    assert found["labels"] == edge.Classifier(SHIPPED).labels
    assert found["threshold"] is None
    assert found["input"] == {"dtype": "uint8", "mean": None, "std": None}
    (output,) = found["outputs"]
    assert (output["shape"], output["scale"], output["zeroPoint"]) == (
        [1, 10],
        1 / 256,
        0,
    )
    assert found["preprocessing"]["inputSize"] == (32, 32)


def test_a_file_without_labels_needs_a_label_file(plain, write, tmp_path):
    path, labels = write(plain), tmp_path / "labels.txt"
    assert "model.tflite: has no labels inside. Give a file" in refusal(path)
    labels.write_text(LABELS, encoding="utf-8")
    found = contents.describe(path, labels)
    assert found["labels"] == runner.LABELS
    # As the runner feeds what does not say how.
    assert found["preprocessing"] == contents.steps(
        Preprocessing(tuple(SHAPE[1:3]), interpolation="lanczos", resize="stretch")
    )


def test_float_pixels_need_a_normalization(float_model, write, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text(LABELS, encoding="utf-8")
    path = write(float_model)
    assert "does not say how they are normalized" in refusal(path, labels)
    told = runner.metadata([10, 20, 30], [2], [("labels.txt", 2, "")])
    path.write_bytes(runner.with_metadata(path, told, labels__txt=LABELS))
    found = contents.describe(path)
    assert found["labels"] == runner.LABELS
    assert found["input"] == {
        "dtype": "float32",
        "mean": (10, 20, 30),
        "std": (2, 2, 2),
    }


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_pixels_that_browsers_cannot_feed_are_refused(dtype, write):
    if dtype == "int8":
        content = runner.convert(runner.colour_of, SHAPE, io_type=tf.int8)
    else:
        content = runner.convert(runner.colour_of, SHAPE, "float16")
    path = write(runner.with_archive(content, labels__txt=LABELS))
    assert f"takes {dtype}, and LiteRT for browsers takes uint8, float32" in refusal(
        path
    )


def test_a_file_for_the_edge_tpu_is_refused(plain, write):
    content = runner.renamed_custom_op(plain, "edgetpu-custom-op")
    assert "is compiled for the Edge TPU" in refusal(write(content))


def test_features_are_refused(write):
    how = Preprocessing((32, 32))
    content = metadata.with_metadata(
        SHIPPED.read_bytes(), None, how, metadata.About("features"), gives=FEATURES
    )
    assert "gives features and no scores" in refusal(write(content))


def test_a_model_too_large_for_a_page_is_told_its_size(write):
    path = write(b"")
    with open(path, "r+b") as file:
        file.truncate(contents.MAX_MODEL_BYTES + 6_000_000)
    text = refusal(path)
    assert "has 70.0 MB, and a page holds models of at most 64 MB" in text


def test_what_is_no_model_is_refused(write):
    assert "not a TFLite model" in refusal(write(b"no model at all"))


def test_a_missing_runtime_is_asked_for_by_its_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        edge.write_page(SHIPPED, tmp_path / "page.html")
    command = f"npm install --prefix {tmp_path}/.cache/keras_resnet/litertjs-"
    assert command in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "page.html").exists()


def test_another_file_in_the_runtimes_place_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for path, _ in runtime.FILES.values():
        path = runtime.folder() / "node_modules" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"another")
    with pytest.raises(UserError, match="index.js: not the file of @litertjs/core@"):
        runtime.read()


@pytest.fixture
def installed():
    try:
        runtime.read()
    except UserError as error:
        pytest.skip(str(error))


def test_equal_models_make_equal_pages(installed, tmp_path):
    first = edge.write_page(SHIPPED, tmp_path / "first.html").read_bytes()
    assert first == edge.write_page(SHIPPED, tmp_path / "second.html").read_bytes()


def test_labels_cannot_leave_their_place_in_the_page(installed, plain, write):
    bad = ["</script><script>alert(1)</script>", "a&b", '"']
    path = write(runner.with_archive(plain, labels__txt="\n".join(bad) + "\n"))
    text = writer.html(path, name="<i>")
    assert "alert(1)</script>" not in text and "<i>" not in text
    config = re.search(r'<script id="config"[^>]*>(.*?)</script>', text).group(1)
    assert json.loads(config)["labels"] == bad


def test_the_runtimes_licence_is_inside(installed):
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (writer.FOLDER / "runtime.LICENSE").read_text(encoding="utf-8") == licence
    assert "Apache License\n" in licence
    text = html.unescape(writer.html(SHIPPED))
    assert licence.strip() in text


def test_samples_lose_what_their_files_tell_beside_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}  # where it was taken
    exif[0x0112] = 6
    image = Image.new("RGB", (900, 300), (200, 10, 10))
    image.save(tmp_path / "a.jpg", exif=exif)
    (found,) = samples.of_files([tmp_path / "a.jpg"])
    (tmp_path / "b.jpg").write_bytes(samples.base64.b64decode(found["content"]))
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.size == (213, 640) and not written.getexif()
    assert found["name"] == "a"


def test_small_samples_keep_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    found = samples.of_image(Image.fromarray(pixels), "noise")
    path = tmp_path / "a.png"
    path.write_bytes(samples.base64.b64decode(found["content"]))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)


def test_the_command_writes_a_page(installed, tmp_path):
    shutil.copy(SHIPPED, tmp_path / "model.tflite")
    done = run_python("-m", "keras_resnet", "page", "model.tflite", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    size = (tmp_path / "model.html").stat().st_size
    assert done.stdout == f"model.html: {size / 1e6:.2f} MB\n"


@pytest.mark.parametrize(
    "flags, reason",
    [
        ((), "no model is given"),
        (("none.tflite",), "none.tflite"),
        ((SHIPPED, "--output=page.txt"), "--output must end in .html"),
        ((SHIPPED, "--output=page.html", "--samples=none.jpg"), "none.jpg"),
    ],
)
def test_an_error_of_the_command_is_one_line(flags, reason, tmp_path):
    done = run_python("-m", "keras_resnet", "page", *flags, cwd=tmp_path)
    assert reason in one_error(done)
    assert not list(tmp_path.iterdir())


def test_the_command_needs_no_tensorflow(tmp_path):
    code = (
        "import sys; from keras_resnet.edge.page import writer; "
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    assert run_python("-c", code, cwd=tmp_path).stdout == "set()\n"


def test_export_writes_a_page_with_held_out_pictures(installed, digits_run, tmp_path):
    report = edge.export(
        digits_run, tmp_path / "digits.tflite", quantize="none", page=True
    )
    assert report.paths["page"] == tmp_path / "digits.html"
    text = report.paths["page"].read_text(encoding="utf-8")
    config = re.search(r'<script id="config"[^>]*>(.*?)</script>', text).group(1)
    found = json.loads(config)
    assert found["labels"] == [str(digit) for digit in range(10)]
    assert {sample["name"] for sample in found["samples"]} <= set(found["labels"])
    assert len(found["samples"]) == 6
    assert "<h1>digits</h1>" in text


def test_features_and_a_page_do_not_go_together(tmp_path):
    done = run_command(
        "edge/export.py",
        *("--model=resnet8", "--weights=cifar10", "--features", "--page"),
        "--output=x.tflite",
        cwd=tmp_path,
    )
    assert "leave it out. Received: --page=True" in one_error(done)
