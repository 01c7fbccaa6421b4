"""Every format of a user's model is opened, or refused with the way on."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from sklearn.datasets import load_digits

from keras_resnet import edge, model_metadata, training
from keras_resnet.runner.errors import UserError
from keras_resnet.training import formats
from keras_resnet.training.formats import custom_code
from tests.helpers.classifiers import assert_equal, network, pixels
from tests.helpers.commands import one_error, run_command
from tests.helpers.device import scores

layers = tf_keras.layers
IMAGES = np.float32(pixels())


def with_random_weights(model):
    """Gives a model of Keras 2 weights that make its scores vary."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, tf_keras.Model) or not layer.weights:
            continue
        layer.set_weights(
            [
                np.abs(rng.normal(1, 0.1, x.shape)) if x.ndim == 1 else x
                for x in layer.get_weights()
            ]
        )
    return model


def of_keras_2(front=lambda x: x, end=lambda x: x):
    """Returns a small classifier of Keras 2: a front, a convolution and an end."""
    tf_keras.utils.set_random_seed(1)
    x = image = layers.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, 2)(front(x))
    x = layers.GlobalAveragePooling2D()(end(x))
    return tf_keras.Model(image, layers.Dense(3, "softmax")(x))


def assert_opens_equal(model, path, images=IMAGES, **arguments):
    """Saves a model of Keras 2, opens it and compares the scores."""
    model.save(path)
    opened = formats.open_model(path, **arguments)
    assert isinstance(opened, keras.Model)
    assert_equal(opened.predict(images, verbose=0), model.predict(images, verbose=0))
    return opened


# --- Keras 2 ------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_model_of_keras_2_keeps_names_sharing_and_nesting(tmp_path, suffix):
    shared = tf_keras.Sequential(
        [
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="inside"),
            layers.BatchNormalization(),
            layers.LeakyReLU(0.1),
        ],
        name="shared",
    )

    def end(x):
        x = layers.DepthwiseConv2D(3, name="block/depthwise")(shared(shared(x)))
        return layers.RandomFlip()(layers.Dropout(0.5)(layers.Activation("swish")(x)))

    model = with_random_weights(of_keras_2(layers.Rescaling(1 / 255), end))
    opened = assert_opens_equal(model, tmp_path / f"model{suffix}")
    assert opened.count_params() == model.count_params()
    (inner,) = [layer for layer in opened.layers if layer.name == "shared"]
    assert inner.get_layer("inside").use_bias is False
    assert opened.get_layer("block_depthwise").kernel_size == (3, 3)


def test_arithmetic_of_keras_2_becomes_operations(tmp_path):
    def front(x):
        x = tf_keras.applications.resnet50.preprocess_input(x)
        return 1.0 - tf_keras.applications.mobilenet_v2.preprocess_input(x) / 255.0

    def end(x):
        x = x * tf.nn.sigmoid(x) + tf.nn.relu6(x)
        x = tf.concat([x, tf.nn.silu(x)], -1)[:, 1:]
        return tf.clip_by_value(tf.transpose(x, [0, 2, 1, 3]), -1.0, 5.0)

    opened = assert_opens_equal(of_keras_2(front, end), tmp_path / "model.h5")
    kinds = {type(operation).__name__ for operation in opened.operations}
    assert {"GetItem", "TrueDivide", "Subtract", "Relu6", "Concatenate"} <= kinds


def test_half_precision_and_statistics_of_keras_2_are_carried(tmp_path):
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        normalization = layers.Normalization()
        normalization.adapt(IMAGES)
        model = of_keras_2(normalization)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    model.save(tmp_path / "model.h5")
    opened = formats.open_model(tmp_path / "model.h5")
    assert {layer.compute_dtype for layer in opened.layers} == {"float32"}
    expected = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(opened.predict(IMAGES, verbose=0), expected, atol=3e-3)


def teachable_machine():
    """Returns a model as Teachable Machine exports it: models in models, no bias."""
    body = tf_keras.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, include_top=False, weights=None
    )
    body = tf_keras.Model(body.input, body.get_layer("block_2_add").output)
    features = tf_keras.Sequential(
        [body, layers.GlobalAveragePooling2D()], name="sequential_1"
    )
    dense = layers.Dense(10, "relu", input_shape=(8,), name="dense_Dense1")
    head = tf_keras.Sequential(
        [dense, layers.Dense(3, "softmax", use_bias=False)], name="sequential_3"
    )
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0  # takes the statistics of what it sees
    body(pixels(96, 96) / np.float32(127.5) - 1, training=True)
    return tf_keras.Sequential([features, head])


def as_old_file(path):
    """Gives a file the version and the arguments that Teachable Machine writes."""
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "2.2.4-tf"
        architecture = json.loads(file.attrs["model_config"])

        def changed(value):
            if isinstance(value, list):
                return [changed(each) for each in value]
            if not isinstance(value, dict):
                return value
            value = {k: changed(v) for k, v in value.items() if k != "module"}
            if value.get("class_name") == "DepthwiseConv2D":
                value["config"]["groups"] = 1
            return value

        file.attrs["model_config"] = json.dumps(changed(architecture))


def test_a_model_of_teachable_machine_is_exported_with_its_labels(tmp_path):
    model, path = teachable_machine(), tmp_path / "keras_model.h5"
    model.save(path)
    as_old_file(path)
    labels = tmp_path / "labels.txt"
    labels.write_text("0 apple\n1 red pear\n2 plum\n")
    output = tmp_path / "model.tflite"
    settings = dict(normalization="tf", labels=labels, quantize="none")
    edge.export(path, output, **settings)
    images = pixels(96, 96)
    expected = model.predict(images / np.float32(127.5) - 1, verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.02
    np.testing.assert_allclose(scores(output, images), expected, atol=1 / 256)
    assert edge.Classifier(output).labels == ["apple", "red pear", "plum"]


def test_only_lines_that_all_begin_with_their_index_are_numbered(tmp_path):
    path = tmp_path / "labels.txt"
    for text, expected in (
        ("0 apple\n1 pear\n", ["apple", "pear"]),
        ("1 apple\n2 pear\n", ["1 apple", "2 pear"]),
        ("0 apple\npear\n", ["0 apple", "pear"]),
        ("0\n1\n", ["0", "1"]),
    ):
        path.write_text(text)
        assert model_metadata.read_labels(path) == expected


@pytest.mark.parametrize(
    "end, reason",
    [
        (lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"), "tf.nn.max_pool.* has no count"),
        (
            layers.Activation("hard_sigmoid"),
            "'activation.*its activation 'hard_sigmoid'",
        ),
        (lambda x: tf.nn.bias_add(x, np.ones(8, "f4"), "NHWC"), None),
    ],
)
def test_what_keras_3_lacks_or_computes_otherwise_is_named(tmp_path, end, reason):
    path = tmp_path / "model.h5"
    model = of_keras_2(end=end)
    if reason is None:
        assert_opens_equal(model, path)
        return
    model.save(path)
    with pytest.raises(UserError, match=reason):
        formats.open_model(path)


def test_an_architecture_of_keras_2_imports_no_module(tmp_path):
    """tf_keras would import any module, and call a function of it."""
    model, path = of_keras_2(), tmp_path / "model.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    architecture = json.loads(members["config.json"])
    witness = tmp_path / "written"
    architecture["config"]["layers"].append(
        {
            "module": "pathlib",
            "class_name": "Path",
            "config": {"name": str(witness)},
            "registered_name": None,
            "name": "path",
            "inbound_nodes": [],
        }
    )
    members["config.json"] = json.dumps(architecture)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=r"\(Path\) of .* is custom code of Keras 2"):
        formats.open_model(path)


# --- Code in a model file -----------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("api", [keras, tf_keras], ids=["keras_3", "keras_2"])
def test_a_lambda_is_run_only_if_allowed(tmp_path, suffix, api):
    doubled = api.layers.Lambda(lambda x: x * 2, name="doubled")
    inner = api.Sequential([api.layers.Input((32, 32, 3)), doubled])
    x = image = api.layers.Input((32, 32, 3))
    x = api.layers.GlobalAveragePooling2D()(inner(x))
    model = api.Model(image, api.layers.Dense(3)(x))
    path = tmp_path / f"model{suffix}"
    model.save(path)
    with pytest.raises(UserError, match=r"'doubled' \(Lambda\).*--allow_lambda"):
        formats.open_model(path)
    opened = formats.open_model(path, allow_lambda=True)
    assert_equal(opened.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))


CODE = """
import keras

class Double(keras.layers.Layer):
    def call(self, x):
        return 2 * x

@keras.saving.register_keras_serializable("theirs", "shifted")
class Shift(keras.layers.Layer):
    def call(self, x):
        return x + 1

def squared(x):
    return x * x
"""


@pytest.fixture(scope="module")
def custom(tmp_path_factory):
    """A Python file of custom layers, and a model that has them."""
    folder = tmp_path_factory.mktemp("custom")
    code = folder / "mine.py"
    code.write_text(CODE)
    objects = custom_code.load(code)

    def front(x):
        x = objects["theirs>shifted"]()(objects["Double"](name="twice")(x))
        return keras.layers.Activation(objects["squared"])(x)

    model = network(front)
    for suffix in (".keras", ".h5"):
        model.save(folder / f"model{suffix}")
    keras.saving.get_custom_objects().clear()
    return model, folder


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_custom_objects_are_known_by_name(custom, suffix):
    model, folder = custom
    path = folder / f"model{suffix}"
    keras.saving.get_custom_objects().clear()
    with pytest.raises(UserError, match=r"\(.*Double\).*--custom_objects=FILE.py"):
        formats.open_model(path)
    opened = formats.open_model(path, custom_objects=folder / "mine.py")
    assert_equal(opened.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import keras\n\n1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("def f(:\n    pass\n", "line 1: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(1)\n", "line 2: SystemExit: 1"),
        (
            CODE.replace("return 2 * x", "return x.no_such"),
            "line 6: AttributeError: .*no_such",
        ),
    ],
)
def test_custom_code_that_fails_is_one_line(custom, tmp_path, code, reason):
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(UserError, match=f"fails: .*mine.py, {reason}") as caught:
        formats.open_model(custom[1] / "model.keras", custom_objects=path)
    assert "\n" not in str(caught.value)


def test_a_run_needs_the_custom_code_that_it_was_made_with(custom, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    settings = custom_code.settings(path, False)
    arguments = custom_code.of_run(settings)
    assert "Double" in arguments["custom_objects"]
    assert arguments["allow_lambda"] is False
    path.write_text(CODE + "\n")
    with pytest.raises(UserError, match="has changed since.*adopt.py again"):
        custom_code.of_run(settings)
    path.unlink()
    with pytest.raises(UserError, match="is missing: .*mine.py"):
        custom_code.of_run(settings)
    empty = {"custom_objects": {}, "allow_lambda": False}
    assert custom_code.of_run(custom_code.settings(None, False)) == empty


def test_a_run_with_custom_layers_is_exported_with_the_recorded_file(tmp_path):
    code, path = tmp_path / "mine.py", tmp_path / "model.keras"
    code.write_text(CODE)
    double = custom_code.load(code)["Double"]
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, activation="relu"),
            double(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    digits = load_digits()
    images = np.repeat(digits.images[..., None] * (255 / 16), 3, -1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, digits.target, epochs=10, verbose=0)
    model.save(path)
    settings = dict(dataset="digits", model_dir=tmp_path / "run", normalization="raw")
    run = training.adopt(path, custom_objects=code, **settings)
    report = edge.export(run, quantize="int8", report_examples=50)
    assert report["compared"]["agreement"] > 0.95
    code.unlink()
    with pytest.raises(UserError, match="--custom_objects file is missing"):
        edge.export(run, quantize="int8")


# --- What cannot be opened ----------------------------------------------------


@pytest.mark.parametrize(
    "api, suffix",
    [(keras, ".weights.h5"), (tf_keras, ".weights.h5"), (tf_keras, ".h5")],
)
def test_weights_alone_need_the_architecture(tmp_path, api, suffix):
    image = api.layers.Input((8, 8, 3))
    model = api.Model(image, api.layers.Conv2D(2, 3)(image))
    path = tmp_path / f"model{suffix}"
    model.save_weights(path)
    with pytest.raises(UserError, match="weights only, and the architecture is needed"):
        formats.open_model(path)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("model.onnx", "is an ONNX file. Convert it"),
        ("model.pt", "is a PyTorch file. Convert it"),
        ("model.tflite", "is exported already"),
        ("saved_model.pb", "a part of a SavedModel. Give its folder"),
        ("model.keras", "is no readable model: .* zip archive"),
        ("model.h5", "is no readable model: .* HDF5"),
        ("model.txt", "is no readable model"),
    ],
)
def test_another_file_is_refused_with_the_way_on(tmp_path, name, reason):
    path = tmp_path / name
    path.write_text("nothing")
    with pytest.raises(UserError, match=reason):
        formats.open_model(path)
    path.unlink()
    with pytest.raises(UserError, match="no such model file"):
        formats.open_model(path)


def test_a_folder_that_is_no_model_is_refused_by_export(tmp_path):
    done = run_command(
        *("edge/export.py", f"--model={tmp_path}", "--normalization=raw"),
        *("--quantize=none", f"--output={tmp_path / 'model.tflite'}"),
    )
    assert "without saved_model.pb (a SavedModel) or config.json" in one_error(done)
    assert not list(tmp_path.iterdir())
