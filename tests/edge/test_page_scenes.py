"""The pages of detectors and segmenters: boxes and masks as the runner's."""

import base64

import numpy as np
import pytest
from PIL import Image

from keras_resnet import edge
from tests.helpers import browser as browsers
from tests.helpers import found_colours
from tests.helpers.runner import encoded

BLOB = """const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  const answer = await network.ask(new Blob([bytes]));"""
OBJECTS = f"async (content) => {{ {BLOB} return objectsOf(answer); }}"
MASK = f"""async (content) => {{ {BLOB}
  const found = bestPixels(answer.outputs[0]);
  const mask = maskOfPicture(found, answer.size, answer.place);
  return [Array.from(mask), regions(found, answer.size, answer.place, config.labels)];
}}"""

# Whether a pixel of the canvas over the picture has a colour.
DRAWN = """() => {
  const { width, height } = part("overlay");
  const context = part("overlay").getContext("2d");
  return context.getImageData(0, 0, width, height).data.some((value) => value);
}"""


@pytest.fixture(scope="module")
def chromium():
    with browsers.chromium() as start:
        yield start()


@pytest.fixture(scope="module", params=["raw", "boxes"])
def detector(request, tmp_path_factory):
    """A detector's file: raw outputs, or with TFLite_Detection_PostProcess."""
    path = tmp_path_factory.mktemp("detector") / f"{request.param}.tflite"
    path.write_bytes(getattr(found_colours.detector_files(), request.param))
    return path


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    path = tmp_path_factory.mktemp("segmenter") / "colours.tflite"
    path.write_bytes(found_colours.segmenter_file())
    return path


def pictures():
    """Pictures with squares, of the input's size and of others."""
    for number, (pixels, _) in enumerate(found_colours.pictures(6, seed=4)):
        image = Image.fromarray(pixels)
        width, height = image.size
        yield image.resize((width + 17 * number, height + 40 * (number % 3)), 0)


def show(tab, image):
    content = encoded(image, "PNG")
    file = {"name": "a.png", "mimeType": "image/png", "buffer": content}
    tab.set_input_files("#file", file)
    tab.locator("#status", has_text="%").wait_for()
    return base64.b64encode(content).decode()


def test_boxes_equal_the_runners(detector, chromium):
    runner = edge.Detector(detector)
    found_any = 0
    with browsers.opened(chromium, edge.write_page(detector)) as tab:
        for image in pictures():
            content = show(tab, image)
            expected = runner.detect(image)
            found = tab.evaluate(OBJECTS, content)
            assert [one["label"] for one in found] == [one.label for one in expected]
            for ours, theirs in zip(found, expected, strict=True):
                assert ours["score"] == theirs.score
                box = np.array(ours["box"]) * (image.size * 2)
                np.testing.assert_allclose(box, theirs.box, atol=1e-4)
            found_any += len(found)
        assert found_any > 10
        names = tab.locator("#scores .label").all_inner_texts()
        assert names == [one.label for one in expected]
        assert tab.evaluate(DRAWN)


def test_masks_equal_the_runners(segmenter, chromium):
    runner = edge.Segmenter(segmenter)
    with browsers.opened(chromium, edge.write_page(segmenter)) as tab:
        for image in pictures():
            mask, shares = tab.evaluate(MASK, show(tab, image))
            expected = runner.segment(image)
            np.testing.assert_array_equal(
                np.uint8(mask).reshape(expected.shape), expected
            )
            found = [(one["index"], one["label"]) for one in shares]
            theirs = runner.regions(expected)
            assert found == [(one.index, one.label) for one in theirs]
            for ours, region in zip(shares, theirs, strict=True):
                assert ours["score"] == pytest.approx(region.share)
        assert len(found) > 1


def test_a_picture_of_nothing_says_so(chromium, tmp_path):
    path = tmp_path / "raw.tflite"
    path.write_bytes(found_colours.detector_files().raw)
    with browsers.opened(chromium, edge.write_page(path)) as tab:
        show(tab, Image.new("RGB", (96, 64), (found_colours.GREY,) * 3))
        text = tab.inner_text("#status")
        assert text == "Nothing found with a score of 40.0%."
        assert tab.locator("#scores li").count() == 0
