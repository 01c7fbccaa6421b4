"""What a model is fed, and the scores and labels that it gives."""

import contextlib
import json
import pathlib
import types

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from keras_resnet.runner import Classifier, UserError
from keras_resnet.runner.images import prepare
from tests.helpers.runner import (
    HEIGHT,
    LABELS,
    PEERS,
    WIDTH,
    assert_one_error,
    encoded,
    metadata,
    noise,
    run_main,
    with_metadata,
)


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


def test_classify_takes_a_path_an_image_or_pixels(models, tmp_path):
    classifier = Classifier(pathlib.Path(models["full"]))
    pixels = noise(90, 31)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    expected = classifier.scores(prepare(image, classifier))
    order = (-expected).argsort(kind="stable")
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), image, pixels):
        best = classifier.classify(given)
        assert [one.index for one in best] == list(order)
        assert [one.score for one in best] == expected[order].tolist()
        assert [one.label for one in best] == [LABELS[index] for index in order]
        assert classifier.classify(given, top_k=2) == best[:2]


def test_classify_turns_an_opened_photograph_as_it_turns_its_file(models, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(noise(30, 40)), "JPEG", exif=exif))
    classifier = Classifier(models["float32"])
    with Image.open(path) as image:
        assert classifier.classify(image) == classifier.classify(path)


@pytest.mark.parametrize(
    "image, words",
    [
        ("missing.png", "missing.png.*No such file"),
        (np.zeros((4, 4, 3)), r"uint8 array.*received ndarray \(4, 4, 3\) of float64"),
        (np.zeros((4, 4), np.uint8), r"received ndarray \(4, 4\) of uint8"),
        (np.zeros((0, 4, 3), np.uint8), "expected pixels, received 4 x 0"),
        (Image.new("RGB", (4, 0)), "expected pixels, received 4 x 0"),
        (None, "a path, a PIL image or a uint8 array.*received NoneType"),
        (Image.new("L", (500000, 1)), "500000 x 1"),
        (Image.new("F", (4, 4)), "32-bit"),
    ],
)
def test_classify_refuses_what_is_no_image(models, image, words):
    with pytest.raises(UserError, match=words) as raised:
        Classifier(models["full"]).classify(image)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("top_k", [0, -1, 1.0, True, "3"])
def test_classify_refuses_a_wrong_top_k(models, pictures, top_k):
    with pytest.raises(UserError, match="top_k: expected .* received "):
        Classifier(models["full"]).classify(pictures / "r.png", top_k=top_k)


def fed_by(classifier, pixels):
    """What the interpreter receives."""
    fed = []
    interpreter = classifier._interpreter
    classifier._interpreter = types.SimpleNamespace(
        set_tensor=lambda index, values: fed.append(values),
        invoke=interpreter.invoke,
        get_tensor=interpreter.get_tensor,
    )
    with contextlib.suppress(UserError):
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
    for flag in ("--mean=a", "--std=", "--std=1;2;3"):
        assert_one_error(capfd, [*argv, flag], flag.split("=")[0], "expected a number")
    for flag in ("--mean=1,2", "--std=nan", "--mean=inf"):
        word = f"{flag.split('=')[0][2:]}: expected 1 or 3 finite numbers"
        assert_one_error(capfd, [*argv, flag], word)
    assert_one_error(capfd, [*argv, "--std=0"], "std: expected numbers above 0")
    path = tmp_path / "m.tflite"
    contents = {
        "above 0": metadata([1], [0]),
        "1 or 3 finite numbers": metadata([1, 2], [1, 2]),
        "nan": metadata([float("nan")], [1]),
        "M001": b"\x10\0\0\0NOPE" + bytes(20),
        "is needed": metadata([1], [1])[:-20],
    }
    for word, content in contents.items():
        path.write_bytes(with_metadata(models["float32"], content))
        words = ("metadata is damaged", word)
        assert_one_error(capfd, ["--model", path, pictures / "r.png"], path, *words)


@pytest.mark.parametrize("name", ["made", "MLPerf's"])
def test_an_int8_input_is_fed_pixel_minus_128(models, name):
    peer = PEERS / "mlperf_tiny_resnet8_int8.tflite"
    if name != "made" and not peer.exists():
        pytest.skip("development data absent")
    path = models["int8"] if name == "made" else str(peer)
    interpreter = Interpreter(model_path=path)
    interpreter.allocate_tensors()
    height, width = interpreter.get_input_details()[0]["shape"][1:3]
    pixels = noise(height, width)
    fed = (pixels.astype(np.int16) - 128).astype(np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], fed[None])
    interpreter.invoke()
    raw = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    expected = (raw.astype(np.float32) + 128) / 256
    np.testing.assert_array_equal(Classifier(path).scores(pixels), expected)
