"""The page's pixels: its scripts, run by Node.js, give those of the runner."""

import dataclasses
import itertools
import json
import shutil
import subprocess

import numpy as np
import PIL
import pytest
from PIL import Image

from keras_resnet.edge.page import contents, writer
from keras_resnet.runner.geometry import placement, resize_and_crop
from keras_resnet.runner.preprocessing import INTERPOLATIONS, RESIZES, Preprocessing

SCRIPTS = ("resample", "sampling", "geometry")
RUN = """
const fs = require("fs");
const cases = JSON.parse(fs.readFileSync(0));
const places = cases.map(({ file, width, height, how }) => {
  const data = new Uint8ClampedArray(fs.readFileSync(file));
  fs.writeFileSync(file, resizeAndCrop({ data, width, height }, how).data);
  return placement([width, height], how);
});
console.log(JSON.stringify(places));
"""
OLD_PILLOW = int(PIL.__version__.split(".")[0]) < 13


def run_scripts(cases, folder):
    """Returns (pixels, placement) of (image, Preprocessing) by the page's scripts."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js: apt-get install nodejs")
    told = []
    for number, (image, how) in enumerate(cases):
        file = folder / str(number)
        file.write_bytes(image.convert("RGBA").tobytes())
        told.append({"file": str(file), "width": image.width, "height": image.height})
        told[-1]["how"] = contents.steps(how)
    texts = [(writer.FOLDER / f"{name}.js").read_text() for name in SCRIPTS]
    done = subprocess.run(
        [node, "-e", "\n".join([*texts, RUN])],
        input=json.dumps(told),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = []
    for case, place in zip(told, json.loads(done.stdout), strict=True):
        with open(case["file"], "rb") as file:
            pixels = np.frombuffer(file.read(), np.uint8)
        pixels = pixels.reshape(*case["how"]["inputSize"], 4)
        assert (pixels[..., 3] == 255).all()
        found.append((pixels[..., :3], place))
    return found


def noise(random, width, height):
    """Noise, and at times black and white: there, filters overshoot."""
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    if random.random() < 0.3:
        pixels = np.where(pixels > 127, np.uint8(255), np.uint8(0))
    return Image.fromarray(pixels)


@pytest.mark.parametrize("antialias", [True, False])
def test_pixels_equal_the_runners(antialias, tmp_path):
    random = np.random.default_rng(0)
    cases = []
    for resize, interpolation in itertools.product(RESIZES, INTERPOLATIONS):
        for number in range(12):
            how = Preprocessing(
                tuple(random.integers(1, 80, 2).tolist()),
                resize=resize,
                antialias=antialias,
                interpolation=interpolation,
                crop_fraction=1.0 if resize == "pad" or number % 2 else 0.875,
            )
            cases.append((noise(random, *random.integers(1, 200, 2).tolist()), how))
    found = run_scripts(cases, tmp_path)
    for (image, how), (pixels, place) in zip(cases, found, strict=True):
        np.testing.assert_array_equal(pixels, resize_and_crop(image, how), str(how))
        assert place == list(placement(image.size, how))


@pytest.mark.skipif(OLD_PILLOW, reason="before 13, Pillow began with the other axis")
def test_pixels_of_elongated_pictures_equal_pillows(tmp_path):
    random = np.random.default_rng(1)
    how = Preprocessing((32, 32), resize="stretch", interpolation="lanczos")
    sizes = [(30, 700), (64, 700), (700, 30), (400, 763), (400, 764), (400, 765)]
    cases = [(noise(random, *size), how) for size in sizes]
    for (image, _), (pixels, _) in zip(
        cases, run_scripts(cases, tmp_path), strict=True
    ):
        np.testing.assert_array_equal(pixels, resize_and_crop(image, how))


def test_an_input_of_the_pictures_size_keeps_every_pixel(tmp_path):
    image = noise(np.random.default_rng(2), 40, 24)
    how = Preprocessing((24, 40), interpolation="bicubic")
    cases = [(image, dataclasses.replace(how, antialias=on)) for on in (True, False)]
    for pixels, place in run_scripts(cases, tmp_path):
        np.testing.assert_array_equal(pixels, np.asarray(image))
        assert place == [0, 0, 1, 1]


def test_a_picture_that_is_too_elongated_is_refused(tmp_path):
    image = Image.new("RGB", (1, 30_000))
    with pytest.raises(AssertionError, match="too elongated to be resized"):
        run_scripts([(image, Preprocessing((64, 64)))], tmp_path)
