"""The fixtures of the runner's tests: small models, images, a delegate."""

import json
import pathlib
import shutil
import subprocess

import pytest
import sklearn.datasets
from PIL import Image

from tests.helpers import lessons
from tests.helpers.runner import (
    HEIGHT,
    LABELS,
    PEERS,
    PREPROCESSING,
    WIDTH,
    colour_of,
    convert,
    renamed_custom_op,
    with_archive,
)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Paths of small models, by name."""
    import tensorflow as tf

    shape = [1, HEIGHT, WIDTH, 3]
    plain = convert(colour_of, shape, io_type=tf.uint8)
    archive = {
        "labels__txt": "\n".join(LABELS) + "\n",
        "preprocessing__json": json.dumps(PREPROCESSING),
    }
    contents = {
        "full": with_archive(plain, **archive),
        "plain": plain,
        "int8": convert(colour_of, shape, io_type=tf.int8),
        "float32": convert(colour_of, shape),
        "float16": convert(colour_of, shape, "float16"),
        "nan": convert(lambda x: tf.math.log(colour_of(x) - 2), shape),
        "grey": convert(lambda x: colour_of(x)[:, :1], [1, HEIGHT, WIDTH, 1]),
        "vector": convert(lambda x: x + 1, [1, 3]),
        "dense": convert(lambda x: x + 1, shape),
        "dynamic": convert(colour_of, [1, None, None, 3]),
        "two_outputs": convert(lambda x: (colour_of(x), x + 1), shape),
        "edgetpu": renamed_custom_op(plain, "edgetpu-custom-op"),
        "custom": renamed_custom_op(plain, "OurOwnOp"),
    }
    folder = tmp_path_factory.mktemp("models")
    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: str(folder / f"{name}.tflite") for name in contents}


@pytest.fixture(scope="session")
def photographed(tmp_path_factory):
    """A folder of photographs to learn and of others, and their features file."""
    folder = lessons.write_photographs(tmp_path_factory.mktemp("photographed"))
    lessons.export_features(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """A folder with one picture for each label."""
    for name, colour in (("r", (250, 5, 9)), ("g", (9, 250, 5)), ("b", (5, 9, 250))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The library of delegate.c."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler")
    path = tmp_path_factory.mktemp("delegate") / "libdelegate.so"
    source = pathlib.Path(__file__).with_name("delegate.c")
    subprocess.run([compiler, "-w", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


@pytest.fixture(params=["made", "Coral's"])
def compiled(request, models, pictures):
    """(model for the Edge TPU, beside it the uncompiled one; image; its class)."""
    if request.param == "made":
        shutil.copy(models["edgetpu"], pictures / "model_edgetpu.tflite")
        shutil.copy(models["full"], pictures / "model.tflite")
        return pictures / "model_edgetpu.tflite", pictures / "g.png", 1
    if not PEERS.exists():
        pytest.skip("development data absent")
    return PEERS / "mobilenet_v1_0.25_128_quant_edgetpu.tflite", PEERS / "cat.bmp", 283


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Photographs that everybody has: parts of scikit-learn's two, as JPEG files.

    They have sizes from 1280x854 down to 160x107 pixels, and some an orientation.
    """
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for photograph in sklearn.datasets.load_sample_images().images:
        whole = Image.fromarray(photograph)
        whole = whole.resize((1280, 854), Image.Resampling.LANCZOS)
        for number in range(20):
            share = (1, 0.75, 0.5, 0.25, 0.125)[number // 4]
            width = int(share * whole.width) - 7 * number % 32
            height = int(share * whole.height) - 5 * number % 16
            left = (whole.width - width) * (number % 2)
            top = (whole.height - height) * (number % 4 // 2)
            exif = Image.Exif()
            exif[0x0112] = 6 if number % 5 == 4 else 1
            paths.append(str(folder / f"{len(paths):02d}.jpg"))
            part = whole.crop((left, top, left + width, top + height))
            part.save(paths[-1], quality=90, exif=exif)
    return paths
