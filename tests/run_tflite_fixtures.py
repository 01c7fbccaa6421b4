"""What the tests of edge/run_tflite.py share: small models and pictures."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

import run_tflite

ROOT = pathlib.Path(__file__).parents[1]
RUNNER = ROOT / "edge" / "run_tflite.py"
PEERS = ROOT.parent / "shared" / "data" / "peers"
PHOTOS = ROOT.parent / "shared" / "data" / "imagenet_sample" / "val"
HEIGHT, WIDTH = 12, 16  # not square, so that a swapped axis shows
LABELS = ["red", "grün", "blue"]
PREPROCESSING = {
    "version": 1,
    "input_size": [HEIGHT, WIDTH],
    "resize_size": 20,
    "crop_fraction": 0.8,
    "interpolation": "bilinear",
}


# --- Models and pictures --------------------------------------------------------------


def convert(function, shape, dtype="float32", io_type=None):
    """Convert a function of one tensor; io_type makes it full int8 with that I/O."""
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, dtype)]
    function = tf.function(function, input_signature=signature, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], function
    )
    if io_type:
        random = np.random.RandomState(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [random.randint(0, 256, shape).astype(np.float32)] for _ in range(20)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = io_type
    return converter.convert()


def colour_of(pixels):
    """Scores of red, green, blue: a softmax of the mean colour of the left half."""
    import tensorflow as tf

    pixels = tf.cast(pixels, tf.float32)[:, :, : WIDTH // 2]
    return tf.nn.softmax(tf.reduce_mean(pixels, [1, 2]) / 32)


def with_archive(model, **files):
    """Append a ZIP archive to a model, as edge/export.py does."""
    file = io.BytesIO(model)
    file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return file.getvalue()


def renamed_custom_op(model, name):
    """Make the first operator of a model a custom one."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    code = tree.operatorCodes[tree.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, name
    tree.subgraphs[0].operators[0].builtinOptionsType = 0
    tree.subgraphs[0].operators[0].builtinOptions = None
    builder = flatbuffers.Builder()
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


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


def noise(height, width, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.RandomState(7).randint(0, 256, shape).astype(np.uint8)


def encoded(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture
def pictures(tmp_path):
    """A folder with one picture for each label."""
    for name, colour in (("r", (250, 5, 9)), ("g", (9, 250, 5)), ("b", (5, 9, 250))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{name}.png")
    return tmp_path


def run_main(capfd, *argv):
    """Run main in this process; returns (exit code, stdout, lines of stderr)."""
    code = run_tflite.main([str(argument) for argument in argv])
    out, err = capfd.readouterr()
    return code, out, err.splitlines()


def assert_one_error(capfd, argv, *words):
    code, out, errors = run_main(capfd, *argv)
    assert (code, out, len(errors)) == (2, "", 1), errors
    assert errors[0].startswith("error: ")
    for word in words:
        assert str(word) in errors[0]


def run_alone(*argv, python=sys.executable, timeout=60, stdin=None, **environment):
    """Run the file as its own process, where it watches over itself."""
    return subprocess.run(
        [python, RUNNER, *map(str, argv)],
        env=dict(os.environ, **environment),
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


# What the newest wheels for a Python are; "mendel" is what the Coral Dev Board has.
ENVIRONMENTS = {
    "3.7-mendel": ["tflite-runtime==2.7.0", "numpy==1.19.5", "Pillow==5.4.1"],
    "3.7": ["tflite-runtime", "numpy<2", "Pillow"],
    "3.9": ["tflite-runtime", "numpy<2", "Pillow"],
    "3.11": ["tflite-runtime", "numpy<2", "Pillow"],
    "3.13": ["ai-edge-litert", "Pillow"],
}


def python_environment(name):
    """Make a virtual environment of another Python, once; skip without that Python.

    Args:
        name: of `ENVIRONMENTS`.

    Returns:
        path of its interpreter.
    """
    version = name.split("-")[0]
    root = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    found = sorted(root.glob(f"versions/{version}.*/bin/python{version}"))
    found = found or [shutil.which(f"python{version}")]
    if not found[-1]:
        pytest.skip(f"needs Python {version}")
    folder = ROOT / "build" / "pythons" / name
    python, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        subprocess.run([found[-1], "-m", "venv", "--clear", folder], check=True)
        command = [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        installed = subprocess.run(
            [*command, *ENVIRONMENTS[name]], capture_output=True, text=True
        )
        assert installed.returncode == 0, installed.stderr
        done.touch()
    return python
