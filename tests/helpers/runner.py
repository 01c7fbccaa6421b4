"""What the tests of the runner share: small models, images, how it is run."""

import io
import os
import pathlib
import subprocess
import sys
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from keras_resnet.runner import command_line, pipeline
from keras_resnet.runner.supervisor import SharedState
from tests.helpers import environments
from tests.helpers.commands import ROOT

RUNNER = ROOT / "edge" / "run_tflite.py"
SHIPPED = ROOT / "models" / "resnet20.cifar10.int8.tflite"
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


# --- Models and images ----------------------------------------------------------------


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
    """Append a ZIP archive to a model, as export does."""
    file = io.BytesIO(model)
    file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return file.getvalue()


def renamed_custom_op(model, name):
    """Make the first operator of a model a custom one."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    code = tree.operatorCodes[tree.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, name
    tree.subgraphs[0].operators[0].builtinOptionsType = 0
    tree.subgraphs[0].operators[0].builtinOptions = None
    builder = flatbuffers.Builder()
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def classify(path, classifier):
    """The `Result` of one image."""
    return pipeline.invoke(classifier, *pipeline.load_pixels(path, classifier))


def noise(height, width, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.RandomState(7).randint(0, 256, shape).astype(np.uint8)


def encoded(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


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
    return with_archive(bytes(builder.Output()), **files)


def run_main(capfd, *argv):
    """Run the flags in this process; returns (exit code, stdout, lines of stderr)."""
    argv = [str(argument) for argument in argv]
    code = command_line.run_command_line(argv, "run_tflite.py", SharedState())
    out, err = capfd.readouterr()
    return code, out, err.splitlines()


def assert_one_error(capfd, argv, *words):
    code, out, errors = run_main(capfd, *argv)
    assert (code, out, len(errors)) == (2, "", 1), errors
    assert errors[0].startswith("error: ")
    for word in words:
        assert str(word) in errors[0]


def assert_reported(result, code=2):
    """No traceback and no chatter: every line of stderr is an error of ours."""
    assert result.returncode == code, result.stderr[-2000:]
    for line in result.stderr.splitlines():
        assert line.startswith("error: ") and "\x1b" not in line
    return result.stderr.splitlines()


def fill(folder, **classes):
    """Make folder/NAME/*.png of the colours that a string names."""
    colours = {"r": (250, 5, 9), "g": (9, 250, 5), "b": (5, 9, 250)}
    for name, letters in classes.items():
        (folder / name).mkdir()
        for number, letter in enumerate(letters):
            image = Image.new("RGB", (40, 30), colours[letter])
            image.save(folder / name / f"{number}{letter}.png")
    return folder


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


def run_beside_the_file(script, *argv, python=(sys.executable,), timeout=60):
    """Run a script in the folder of the file, which it imports as `run_tflite`."""
    return subprocess.run(
        [*map(str, [*python, "-c", script, *argv])],
        cwd=RUNNER.parent,
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
# `make test-pythons` sets this variable: the Pythons between them, too.
if "EVERY_PYTHON" in os.environ:
    ENVIRONMENTS |= {
        "3.8": ["tflite-runtime", "numpy<2", "Pillow"],
        "3.10": ["tflite-runtime", "numpy<2", "Pillow"],
        "3.12": ["ai-edge-litert", "Pillow"],
    }


def python_environment(name):
    """Make a virtual environment of another Python, once; skip without that Python.

    Args:
        name: of `ENVIRONMENTS`.

    Returns:
        path of its interpreter.
    """
    version = name.split("-")[0]
    found = environments.interpreter([version])
    if found is None:
        pytest.skip(f"needs Python {version}")
    folder = ROOT / "build" / "pythons" / name
    try:
        environments.create(folder, found, ["--only-binary=:all:", *ENVIRONMENTS[name]])
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr or str(error))
    return folder / "bin" / "python"
