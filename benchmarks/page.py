"""The web page of a model against the runner, in browsers: equality, size, time.

    python -m benchmarks.page models/resnet20.cifar10.int8.tflite --photographs=DIR
    python -m benchmarks.page models/resnet20.cifar10.int8.tflite --browser=firefox

Prints a row for each model: the size of its page; the time from opening the file until
the network is ready and of one picture in it, medians; on how many PNG files pixels and
scores equal the runner's to the bit; and what JPEGs differ in, whose decoding is the
browser's. The runner decodes a large JPEG at a fraction of its size, so its answer may
differ from the page's in the pixels, too. Needs playwright and Chromium, as the tests,
or Firefox and websockets. Firefox gets opaque PNG files alone: without a screen it has
no WebGL, by which a page reads transparent ones.

Without --photographs, the JPEGs are scikit-learn's two photographs. To the JPEGs of a
folder, one of 12 megapixels is added that lies on its side.
"""

import argparse
import contextlib
import functools
import io
import pathlib
import statistics
import tempfile

import numpy as np
import PIL.Image
import sklearn.datasets

from benchmarks import photographs
from keras_resnet import edge
from keras_resnet.runner.images import prepare, read_image
from tests.helpers import browser as browsers
from tests.helpers import firefox

OPENINGS = 5
PNG_FILES = 20
JPEGS = 20
READY = "async () => performance.getEntriesByName('ready')[0].startTime"


def png_files():
    """Yields PNG files of noise and of photographs, of all sizes and modes."""
    random = np.random.default_rng(0)
    modes = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2}
    for image in sklearn.datasets.load_sample_images().images:
        yield encoded(PIL.Image.fromarray(image))
    for number in range(PNG_FILES - 2):
        mode = list(modes)[number % 4]
        shape = (*random.integers(8, 900, 2), modes[mode])
        pixels = random.integers(0, 256, shape, np.uint8).squeeze()
        yield encoded(PIL.Image.fromarray(pixels, mode))


def is_opaque(content):
    """Returns whether an image file has no channel of transparency."""
    return not PIL.Image.open(io.BytesIO(content)).mode.endswith("A")


def encoded(image, file_format="PNG"):
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def jpeg_files(folder):
    """Returns the bytes of JPEGs, the last of 12 megapixels on its side."""
    if folder:
        paths = sorted(pathlib.Path(folder).rglob("*"))
        paths = [path for path in paths if path.suffix.lower() in (".jpg", ".jpeg")]
        chosen = paths[:: max(1, len(paths) // (JPEGS - 1))][: JPEGS - 1]
        found = [path.read_bytes() for path in chosen]
    else:
        images = sklearn.datasets.load_sample_images().images
        found = [encoded(PIL.Image.fromarray(image), "JPEG") for image in images]
    return [*found, photographs.photograph(2)]


def compare(tab, classifier, content):
    """Returns how the page's answer for a file differs from the runner's, a dict."""
    found = browsers.ask(tab, content)
    scores = found["outputs"][0]
    decoded = read_image(io.BytesIO(content))
    whole = prepare(decoded.image, classifier, decoded.box)
    ours = classifier.scores(browsers.expected(content, classifier))
    return {
        "pixels": int(np.abs(found["seen"].astype(int) - whole).max()),
        "mean_pixels": float(np.abs(found["seen"].astype(float) - whole).mean()),
        "scores": float(np.abs(scores - ours).max()),
        "equal_top1": bool(scores.argmax() == ours.argmax()),
        "milliseconds": found["milliseconds"]["invoke"],
    }


def measure(opened, model, labels, pngs, jpegs):
    """Prints what is measured of a model; `opened` opens a page in the browser."""
    classifier = edge.Classifier(model, labels)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "page.html")
        page = edge.write_page(model, path, labels=labels)
        print(f"{model}: page of {page.stat().st_size / 1e6:.2f} MB")
        ready = []
        for _ in range(OPENINGS):
            with opened(page) as tab:
                ready.append(tab.evaluate(READY))
        text = f"median {statistics.median(ready):.0f}, fastest {min(ready):.0f} ms"
        print(f"  ready: {text} of {OPENINGS}")
        with opened(page) as tab:
            rows = [compare(tab, classifier, content) for content in pngs]
            equal = sum(row["pixels"] == row["scores"] == 0 for row in rows)
            print(f"  PNG: pixels and scores equal on {equal} of {len(rows)}")
            times = [row["milliseconds"] for row in rows]
            print(
                f"  network: {statistics.median(times):.1f} ms, {min(times):.1f} least"
            )
            rows = [compare(tab, classifier, content) for content in jpegs]
            equal = sum(row["equal_top1"] for row in rows)
            print(
                f"  JPEG: top-1 equal on {equal} of {len(rows)}; largest difference of "
                f"a pixel {max(row['pixels'] for row in rows)} (mean "
                f"{max(row['mean_pixels'] for row in rows):.3f}), of a score "
                f"{max(row['scores'] for row in rows):.4f}"
            )


@contextlib.contextmanager
def in_firefox(page):
    """Opens a page in a Firefox of its own."""
    with tempfile.TemporaryDirectory() as profile:
        with firefox.opened(page, profile) as tab:
            yield tab


def main():
    """Measures the pages of the models that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument(
        "--browser", choices=("chromium", "firefox"), default="chromium"
    )
    parser.add_argument("--labels", help="a label file for models without labels")
    parser.add_argument("--photographs", help="a folder of JPEGs")
    arguments = parser.parse_args()
    jpegs, pngs = jpeg_files(arguments.photographs), list(png_files())
    with contextlib.ExitStack() as stack:
        if arguments.browser == "firefox":
            opened = in_firefox
            pngs = [content for content in pngs if is_opaque(content)]
        else:
            browser = stack.enter_context(browsers.chromium())()
            opened = functools.partial(browsers.opened, browser)
        for model in arguments.models:
            measure(opened, model, arguments.labels, pngs, jpegs)


if __name__ == "__main__":
    main()
