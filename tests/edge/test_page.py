"""The web page of a model, in Chromium, opened from disk."""

import base64
import io

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from keras_resnet import edge
from keras_resnet.edge.convert import converter, metadata
from keras_resnet.edge.page import writer
from keras_resnet.preprocessing import Preprocessing
from tests.helpers import browser as browsers
from tests.helpers import environments, firefox
from tests.helpers.commands import ROOT
from tests.helpers.networks import small_classifier
from tests.helpers.runner import encoded

SHIPPED = ROOT / "models" / "resnet8.cifar10.int8.tflite"
LABELS = ["ant", "<b>bee</b>", "unknown"]
PHONE = {"viewport": {"width": 320, "height": 640}, "has_touch": True}
ANSWER = "#scores li >> nth=0"


@pytest.fixture(scope="module")
def photographs():
    """scikit-learn's photographs as PIL images."""
    return [Image.fromarray(x) for x in sklearn.datasets.load_sample_images().images]


@pytest.fixture(scope="module")
def start():
    with browsers.chromium() as start:
        yield start


@pytest.fixture(scope="module")
def chromium(start):
    return start(browsers.ALLOWED)


@pytest.fixture(scope="module")
def shipped_page(tmp_path_factory, photographs):
    """The page of a network of ours, with two samples."""
    browsers.program()
    folder = tmp_path_factory.mktemp("page")
    samples = [folder / "temple.jpg", folder / "flower.jpg"]
    for path, image in zip(samples, photographs, strict=True):
        image.save(path)
    return edge.write_page(SHIPPED, folder / "resnet8.html", samples=samples)


def small_model(folder, name, preprocessing, quantization="int8", threshold=None):
    """Writes a .tflite of three classes, of a random network."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    content = converter.from_keras(
        small_classifier(), preprocessing, quantization, noise
    )
    about = metadata.About(name)
    path = folder / f"{name}.tflite"
    path.write_bytes(
        metadata.with_metadata(content, LABELS, preprocessing, about, threshold)
    )
    return path


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """A model whose pictures are padded, and its page."""
    browsers.program()
    folder = tmp_path_factory.mktemp("padded")
    how = Preprocessing((32, 32), resize="pad", interpolation="lanczos")
    path = small_model(folder, "padded", how)
    return path, edge.write_page(path)


def png_files(photographs):
    """Twenty PNG files of many kinds and sizes."""
    random = np.random.default_rng(3)
    files = [encoded(image, "PNG") for image in photographs]
    files += [encoded(image.crop((9, 5, 300, 90)), "PNG") for image in photographs]
    for mode, channels in (("RGB", 3), ("L", 1), ("RGBA", 4), ("LA", 2)):
        for width, height in ((32, 32), (50, 40), (7, 90), (641, 519)):
            pixels = random.integers(0, 256, (height, width, channels), np.uint8)
            files.append(encoded(Image.fromarray(pixels.squeeze(), mode), "PNG"))
    return files


@pytest.mark.parametrize("name", ["shipped", "padded"])
def test_pixels_and_scores_equal_the_runners(
    name, chromium, shipped_page, padded, photographs
):
    model, page = (SHIPPED, shipped_page) if name == "shipped" else padded
    classifier = edge.Classifier(model)
    files = png_files(photographs)
    assert len(files) == 20
    with browsers.opened(chromium, page) as tab:
        for content in files:
            assert_equals_the_runner(tab, classifier, content)


def test_photographs_have_the_runners_answer(chromium, shipped_page, photographs):
    classifier = edge.Classifier(SHIPPED)
    with browsers.opened(chromium, shipped_page) as tab:
        for image in photographs:
            for orientation in (1, 6):  # 6: it lies on its side
                exif = Image.Exif()
                exif[0x0112] = orientation
                content = encoded(image, "JPEG", quality=95, exif=exif)
                found = browsers.ask(tab, content)
                size = image.size if orientation == 1 else image.size[::-1]
                assert found["size"] == list(size)
                pixels = browsers.expected(content, classifier)
                difference = np.abs(found["seen"].astype(int) - pixels)
                assert difference.max() <= 2
                scores = classifier.scores(pixels)
                assert found["outputs"][0].argmax() == scores.argmax()
                assert np.abs(found["outputs"][0] - scores).max() <= 0.05


def assert_equals_the_runner(tab, classifier, content):
    found = browsers.ask(tab, content)
    pixels = browsers.expected(content, classifier)
    np.testing.assert_array_equal(found["seen"], pixels)
    np.testing.assert_array_equal(found["outputs"][0], classifier.scores(pixels))


def test_firefox_gives_the_runners_answers(shipped_page, photographs, tmp_path):
    classifier = edge.Classifier(SHIPPED)
    with firefox.opened(shipped_page, tmp_path) as tab:
        for content in png_files(photographs):
            if Image.open(io.BytesIO(content)).mode.endswith("A"):
                continue  # these need WebGL, which Firefox lacks without a screen
            assert_equals_the_runner(tab, classifier, content)
        for image in photographs:
            content = encoded(image, "JPEG", quality=95)
            pixels = browsers.expected(content, classifier)
            found = browsers.ask(tab, content)["outputs"][0]
            assert found.argmax() == classifier.scores(pixels).argmax()


def bars(tab):
    """Waits for an answer and returns its bars, (label, share as text) each."""
    tab.locator("#status", has_text="%").wait_for()
    rows = tab.locator("#scores li")
    names, shares = rows.locator(".label"), rows.locator(".share")
    return list(zip(names.all_inner_texts(), shares.all_inner_texts(), strict=True))


def problem(tab):
    """Waits for an error and returns its text."""
    tab.locator("#problem:not(:empty)").wait_for()
    return tab.inner_text("#problem")


def as_bars(predictions):
    return [(label, f"{100 * score:.1f}%") for _, label, score in predictions]


def test_a_chosen_file_is_answered_as_the_runner_does(
    chromium, shipped_page, photographs, tmp_path
):
    path = tmp_path / "temple.png"
    photographs[0].save(path)
    expected = edge.Classifier(SHIPPED).classify(path)
    with browsers.opened(chromium, shipped_page) as tab:
        tab.set_input_files("#file", path)
        found = bars(tab)
        assert found == as_bars(expected)
        best = expected[0]
        assert tab.inner_text("#status") == f"{best.label}, {100 * best.score:.1f}%"
        assert "Network" in tab.inner_text("#times")
        assert tab.get_attribute("#picture", "alt") == "temple.png"
        seen = tab.evaluate(
            "Array.from(part('seen').getContext('2d').getImageData(0, 0, 32, 32).data)"
        )
    pixels = browsers.expected(path.read_bytes(), edge.Classifier(SHIPPED))
    seen = np.uint8(seen).reshape(32, 32, 4)
    np.testing.assert_array_equal(seen[..., :3], pixels)


TRANSFER = """([content, kind, type, target]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  if (type) data.items.add(new File([bytes], "given", { type }));
  else data.setData("text/plain", "a text");
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { ...options, clipboardData: data })
    : new DragEvent("drop", { ...options, dataTransfer: data });
  document.querySelector(target).dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(kind, chromium, shipped_page, photographs):
    content = encoded(photographs[1], "PNG")
    expected = edge.Classifier(SHIPPED).classify(photographs[1])
    with browsers.opened(chromium, shipped_page) as tab:
        text = base64.b64encode(content).decode()
        tab.evaluate(TRANSFER, [text, kind, "image/png", "h1"])
        assert bars(tab) == as_bars(expected)
        tab.evaluate(TRANSFER, ["", kind, "", "h1"])
        assert problem(tab) == "That is no picture: drop or paste an image file."


def test_samples_are_answered_by_keyboard(chromium, shipped_page):
    with browsers.opened(chromium, shipped_page) as tab:
        for name in ("temple", "flower"):
            tab.focus(f"#samples img[alt={name}] >> xpath=..")
            tab.keyboard.press("Enter")
            tab.locator(f"#picture[alt={name}]").wait_for()
        assert len(bars(tab)) == 5


def test_the_camera_answers_until_it_is_stopped(chromium, shipped_page):
    with browsers.opened(chromium, shipped_page) as tab:
        tab.click("#camera-start")
        tab.wait_for_selector(ANSWER)
        assert tab.evaluate("part('video').videoWidth") > 0
        tab.click("#camera-turn")
        tab.locator("#camera-stop:focus").wait_for()
        tab.click("#camera-stop")
        tab.locator("#camera-start:focus").wait_for()
        assert not tab.evaluate("camera.isOpen()")
        assert tab.inner_text("#problem") == ""


def test_a_refused_camera_is_said(start, shipped_page):
    with browsers.opened(start("--deny-permission-prompts"), shipped_page) as tab:
        tab.click("#camera-start")
        assert problem(tab).startswith("The camera was refused. Allow it")
        assert tab.is_visible("#camera-start")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "The file is empty"),
        (b"no picture", "The file is no picture that this browser can read"),
        (b"\x89PNG\r\n\x1a\n damaged", "The file is no picture"),
    ],
)
def test_a_file_that_is_no_picture_is_said(content, reason, chromium, shipped_page):
    with browsers.opened(chromium, shipped_page) as tab:
        file = {"name": "a.png", "mimeType": "image/png", "buffer": content}
        tab.set_input_files("#file", file)
        assert problem(tab).startswith(f"a.png: {reason}")


@pytest.mark.parametrize(
    "script, reason",
    [
        ("delete globalThis.WebAssembly", "This browser has no WebAssembly"),
        ("delete globalThis.DecompressionStream", "This browser is too old"),
    ],
)
def test_a_browser_that_cannot_run_it_is_told(script, reason, chromium, shipped_page):
    with browsers.opened(chromium, shipped_page, script) as tab:
        assert tab.get_attribute("html", "data-state") == "failed"
        assert problem(tab).startswith(reason)


def test_a_model_for_several_labels_shows_those_that_reach_its_threshold(
    chromium, tmp_path
):
    how = Preprocessing((32, 32))
    image = Image.new("RGB", (40, 40), (200, 90, 30))
    content = encoded(image, "PNG")
    scores = edge.Classifier(small_model(tmp_path, "all", how)).classify(image)
    for name, threshold in (("some", scores[0].score), ("none", 0.999)):
        path = small_model(tmp_path, name, how, threshold=threshold)
        expected = edge.Classifier(path).classify(image)
        assert len(expected) == (name == "some")
        with browsers.opened(chromium, edge.write_page(path)) as tab:
            file = {"name": "a.png", "mimeType": "image/png", "buffer": content}
            tab.set_input_files("#file", file)
            assert bars(tab) == as_bars(expected)
            if name == "none":
                assert tab.inner_text("#status") == "No label reaches 99.9%."


def test_labels_are_text_and_a_phone_shows_them(chromium, padded):
    _, page = padded
    with browsers.opened(chromium, page, **PHONE) as tab:
        image = encoded(Image.new("RGB", (500, 20)), "PNG")
        file = {"name": "x" * 200, "mimeType": "image/png", "buffer": image}
        tab.set_input_files("#file", file)
        assert {label for label, _ in bars(tab)} == set(LABELS)
        width = tab.evaluate("document.documentElement.scrollWidth")
        assert width == PHONE["viewport"]["width"]


def test_a_page_is_small(shipped_page):
    assert shipped_page.stat().st_size < 5_000_000


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nothing_hinders_people(colours, chromium, shipped_page, photographs):
    axe = environments.axe_script()
    options = {"color_scheme": colours, **PHONE}
    with browsers.opened(chromium, shipped_page, **options) as tab:
        tab.evaluate(axe)
        for state in ("empty", "answered", "open"):
            if state == "answered":
                content = encoded(photographs[0], "PNG")
                file = {"name": "a.png", "mimeType": "image/png", "buffer": content}
                tab.set_input_files("#file", file)
                assert len(bars(tab)) == 5
            if state == "open":
                tab.click("summary")
            found = tab.evaluate("axe.run()")
            assert [fault["id"] for fault in found["violations"]] == [], state
            assert len(found["passes"]) > 10


def test_the_page_of_the_documents_is_of_today():
    text = (ROOT / "docs" / "resnet20.html").read_text(encoding="utf-8")
    assert len(text) < 5_000_000
    for name in (*writer.WORKER_SCRIPTS, *writer.PAGE_SCRIPTS):
        assert (writer.FOLDER / f"{name}.js").read_text(encoding="utf-8") in text
    assert (writer.FOLDER / "style.css").read_text(encoding="utf-8") in text
