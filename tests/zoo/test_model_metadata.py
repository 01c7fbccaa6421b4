"""What a model knows of its input and its scores, and that files keep it."""

import dataclasses
import json
import re
import zipfile

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import model_metadata
from keras_resnet.runner.errors import UserError
from tests.helpers import oracles
from tests.helpers.commands import run_code

HOW = keras_resnet.Preprocessing(
    (32, 48),
    mean_rgb_255=(123.675, 116.28, 103.53),
    std_rgb_255=(58.395, 57.12, 57.375),
    channel_order="bgr",
    crop_fraction=0.875,
    interpolation="bicubic",
)
LABELS = ["Käse, geräuchert", "chat", "犬"]


def small_model(size=(32, 48), classes=3):
    """A model of somebody else's: not of the zoo."""
    inputs = keras.Input((*size, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    return oracles.randomize(keras.Model(inputs, outputs, name="small"), seed=1)


def described():
    return model_metadata.attach(small_model(), HOW, LABELS, "cc-by-4.0")


def knows_all(model):
    assert type(model.preprocessing) is keras_resnet.Preprocessing
    assert model.preprocessing == HOW
    assert type(model.labels) is list and model.labels == LABELS
    assert model.licence == "cc-by-4.0"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.keras"
    described().save(path)
    return path


def rewrite(path, change, member="assets/keras_resnet.json"):
    """Changes a JSON file inside a file; `change` returns the new text or bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = change(json.loads(members[member]))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refuses(path, message):
    with pytest.raises(UserError, match=message) as error:
        keras_resnet.load(path)
    assert str(error.value).endswith(f"Received: {str(path)!r}")
    assert "\n" not in str(error.value)


# --- it comes back ------------------------------------------------------------


def test_plain_keras_opens_the_file_without_this_package(path):
    pixels = np.random.default_rng(0).normal(size=(2, 32, 48, 3))
    np.save(path.with_name("pixels.npy"), pixels)
    done = run_code(
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('scores.npy', model.predict(np.load('pixels.npy'), verbose=0))\n"
        "model.save('again.keras')\n"
        "print(type(model).__name__, 'keras_resnet' in sys.modules)",
        cwd=path.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Functional", "False"]
    expected = small_model().predict(pixels, verbose=0)
    np.testing.assert_allclose(np.load(path.with_name("scores.npy")), expected)
    # What Keras alone opens and saves knows nothing any more, and says so.
    refuses(path.with_name("again.keras"), "does not say how its input is made")


def test_saving_and_loading_keep_all_of_it_any_number_of_times(path):
    for _ in range(3):
        model = keras_resnet.load(path)
        knows_all(model)
        model.save(path)
    for value, other in zip(model.weights, small_model().weights, strict=True):
        np.testing.assert_array_equal(value, other)


def test_what_is_unknown_stays_unknown(tmp_path):
    model_metadata.attach(small_model(), HOW).save(tmp_path / "m.keras")
    model = keras_resnet.load(tmp_path / "m.keras")
    assert (model.preprocessing, model.labels, model.licence) == (HOW, None, None)


@pytest.mark.parametrize(
    "fields, version",
    [
        (dict(), 1),
        (dict(antialias=False), 2),
        (dict(resize="stretch"), 2),
        (dict(resize="pad", crop_fraction=1.0), 2),
        (dict(reduced_decoding=2), 3),
        (dict(resize="stretch", reduced_decoding=2), 3),
    ],
)
def test_a_file_has_the_oldest_version_that_says_it_all(tmp_path, fields, version):
    how = dataclasses.replace(HOW, **fields)
    model_metadata.attach(small_model(), how).save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        found = json.loads(archive.read("assets/keras_resnet.json"))
    assert found["version"] == version
    assert ("reduced_decoding" in found["preprocessing"]) == (version == 3)
    said = {"resize", "antialias"} if {"resize", "antialias"} & set(fields) else set()
    assert {"resize", "antialias"} & set(found["preprocessing"]) == said
    assert keras_resnet.load(tmp_path / "m.keras").preprocessing == how


def test_what_is_changed_later_is_what_is_saved(path):
    model = keras_resnet.load(path)
    model.labels = ["x", "y", "z"]
    model.preprocessing = dataclasses.replace(HOW, crop_fraction=1.0)
    model.save(path)
    model = keras_resnet.load(path)
    assert model.labels == ["x", "y", "z"]
    assert model.preprocessing.crop_fraction == 1.0
    model.labels = ["too", "few"]
    with pytest.raises(UserError, match="3 scores.*Received: 2 labels"):
        model.save(path)


def test_training_and_checkpoints_of_keras_keep_it(tmp_path):
    model = described()
    model.compile("sgd", "sparse_categorical_crossentropy")
    path = tmp_path / "checkpoint.keras"
    model.fit(
        np.zeros((4, 32, 48, 3)),
        np.array([0, 1, 2, 0]),
        callbacks=[keras.callbacks.ModelCheckpoint(path)],
        verbose=0,
    )
    again = keras_resnet.load(path)
    knows_all(again)
    assert again.optimizer is not None


def test_a_described_model_inside_another_does_not_describe_that(tmp_path):
    inputs = keras.Input((32, 48, 3))
    keras.Model(inputs, described()(inputs)).save(tmp_path / "outer.keras")
    refuses(tmp_path / "outer.keras", "does not say")
    assert keras.models.load_model(tmp_path / "outer.keras").output_shape == (None, 3)


def test_named_weights_describe_their_model(tmp_path):
    model = keras_resnet.ResNet8()
    assert model.labels[:2] == ["airplane", "automobile"] and len(model.labels) == 10
    assert model.licence == "apache-2.0"
    model.save(tmp_path / "m.keras")
    again = keras_resnet.load(tmp_path / "m.keras")
    assert again.preprocessing == keras_resnet.Preprocessing((32, 32))
    assert (again.labels, again.licence) == (model.labels, model.licence)
    # The classifier for other classes is new.
    with pytest.warns(UserWarning, match="keeps its initialization"):
        assert keras_resnet.ResNet8(weights="cifar10", classes=7).labels is None
    assert keras_resnet.ResNet8(include_top=False, pooling="avg").labels is None


def test_the_described_size_is_that_of_the_built_model():
    size = keras_resnet.ResNet8(input_shape=(64, 48, 3)).preprocessing.input_size
    assert size == (64, 48)
    headless = keras_resnet.ResNet8(include_top=False)
    assert headless.preprocessing.input_size == (32, 32)


def test_a_keras_file_given_as_weights_describes_the_model(tmp_path):
    trained = keras_resnet.ResNet8(weights=None, classes=3, input_shape=(32, 48, 3))
    model_metadata.attach(trained, HOW, LABELS, "cc-by-4.0")
    trained.save(tmp_path / "m.keras")
    knows_all(
        keras_resnet.ResNet8(
            weights=tmp_path / "m.keras", classes=3, input_shape=(32, 48, 3)
        )
    )
    trained.save_weights(tmp_path / "m.weights.h5")
    model = keras_resnet.ResNet8(weights=tmp_path / "m.weights.h5", classes=3)
    assert not hasattr(model, "preprocessing")


# --- the folder of a run --------------------------------------------------------


def write_run(folder, model, **changes):
    """The files of a run of version 0.1, whose model.keras says nothing."""
    folder.mkdir()
    model.save(folder / "model.keras")
    config = {"preprocessing": dataclasses.asdict(HOW), "labels": LABELS} | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_folder_of_a_run_of_version_01_is_read_through_its_config(tmp_path):
    model = keras_resnet.load(write_run(tmp_path / "run", small_model()))
    assert (model.preprocessing, model.labels) == (HOW, LABELS)
    model.save(tmp_path / "m.keras")
    assert keras_resnet.load(tmp_path / "m.keras").labels == LABELS


def test_the_folder_of_a_run_is_read_from_its_file(tmp_path):
    run = write_run(tmp_path / "run", described(), labels=["x"])
    knows_all(keras_resnet.load(run))
    knows_all(keras_resnet.load(str(run)))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    refuses(tmp_path, "no model.keras: it is no folder of a run, or")
    small_model().save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="does not say.*model.keras'$"):
        keras_resnet.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="damaged.*config.json'$"):
        keras_resnet.load(tmp_path)
    (tmp_path / "config.json").write_text('{"labels": null}')
    with pytest.raises(UserError, match="lacks preprocessing. .*config.json'$"):
        keras_resnet.load(tmp_path)


# --- bad files ------------------------------------------------------------------


def test_missing_and_foreign_files_are_refused(tmp_path):
    refuses(tmp_path / "none.keras", "no such file")
    refuses(tmp_path / "model.h5", "folder of a run or a file that ends in .keras")
    (tmp_path / "text.keras").write_text("hello")
    refuses(tmp_path / "text.keras", "damaged: File is not a zip file")
    small_model().save(tmp_path / "foreign.keras")
    refuses(
        tmp_path / "foreign.keras",
        "keras.models.load_model.*model_metadata.attach.*keras-resnet adopt",
    )
    with pytest.raises(UserError, match="must be a path. Received: None"):
        keras_resnet.load(None)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda found: "", "damaged"),
        (lambda found: b"\xff\xfe", "damaged"),
        (lambda found: "[" * 100_000, "damaged"),
        (lambda found: "[]", "damaged"),
        (lambda found: "{}", "damaged"),
        (lambda found: json.dumps(found | {"version": 4}), "newer keras_resnet.* 4 "),
        (lambda found: json.dumps(found | {"preprocessing": None}), "damaged"),
        (lambda found: json.dumps(found | {"preprocessing": {}}), "damaged.*size"),
        (lambda found: json.dumps(found | {"licence": 3}), "damaged.*licence"),
        (lambda found: json.dumps(found | {"labels": 3}), "damaged.*labels"),
        (lambda found: json.dumps(found | {"labels": [1, 2, 3]}), "damaged.*labels"),
        (lambda found: json.dumps(found | {"labels": "abc"}), "damaged.*labels"),
        (lambda found: json.dumps(found | {"labels": ["a", "b", ""]}), "one line"),
        (lambda found: json.dumps(found | {"labels": ["a", "b", "c\nd"]}), "one line"),
        (lambda found: json.dumps(found | {"labels": ["a"]}), "3 scores.*1 labels"),
        (lambda found: json.dumps(found) + " " * (5 << 20), "longer than 4194304"),
    ],
)
def test_damaged_metadata_is_refused(path, change, message):
    rewrite(path, change)
    refuses(path, message)


def test_damaged_metadata_of_a_weight_file_are_refused(tmp_path):
    path = tmp_path / "m.keras"
    keras_resnet.ResNet8().save(path)
    rewrite(path, lambda found: json.dumps(found | {"preprocessing": None}))
    with pytest.raises(UserError, match="damaged.*Received: "):
        keras_resnet.ResNet8(weights=path)


@pytest.mark.parametrize(
    "field, value",
    [
        ("input_size", [32, 32]),
        ("input_size", [32]),
        ("std_rgb_255", [0, 1, 1]),
        ("mean_rgb_255", [None, 1, 1]),
        ("crop_fraction", 1.5),
        ("channel_order", "grb"),
        ("interpolation", "cubic"),
        ("resize", "fit"),
        ("antialias", "no"),
        ("more", 1),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(path, field, value):
    def change(found):
        found["preprocessing"][field] = value
        return json.dumps(found)

    rewrite(path, change)
    refuses(path, f"damaged: .*({field}|preprocessing)")


def test_a_file_that_keras_cannot_open_is_refused(path):
    content = path.read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        refuses(path, "damaged")
    path.write_bytes(
        content.replace(b"GlobalAveragePooling2D", b"GlobalAveragePooling9D")
    )
    refuses(path, "damaged|cannot open")


def test_a_lambda_in_a_file_is_not_run(tmp_path):
    inputs = keras.Input((32, 48, 3))
    outputs = keras.layers.Lambda(lambda x: x[:, 0, 0])(inputs)
    model_metadata.attach(keras.Model(inputs, outputs), HOW).save(tmp_path / "m.keras")
    refuses(tmp_path / "m.keras", f"Keras {re.escape(keras.__version__)} cannot open")


# --- describing a model -----------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(preprocessing=None), "keras_resnet.Preprocessing"),
        (dict(preprocessing={"input_size": (32, 48)}), "keras_resnet.Preprocessing"),
        (dict(labels="abc"), "list of texts"),
        (dict(labels=["a", "b"]), "3 scores for each image. Received: 2 labels"),
        (dict(licence=1), "text or None"),
        (dict(preprocessing=keras_resnet.Preprocessing((48, 32))), r"\(48, 32\)"),
    ],
)
def test_a_wrong_description_is_refused_and_changes_nothing(arguments, message):
    model = described()
    with pytest.raises(UserError, match=f"{message}.*"):
        model_metadata.attach(model, **dict(preprocessing=HOW) | arguments)
    knows_all(model)


def test_a_model_that_takes_no_image_is_refused():
    inputs = keras.Input((7,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(UserError, match=r"must take images.*Received: \(None, 7\)"):
        model_metadata.attach(model, HOW)
    assert not hasattr(model, "preprocessing")


def test_an_open_input_takes_any_size():
    model = small_model(size=(None, None))
    assert model_metadata.attach(model, HOW).preprocessing == HOW


# --- what uses it -------------------------------------------------------------------


def test_preprocess_input_uses_what_the_model_or_a_preprocessing_says(path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)
    expected = HOW.normalize(pixels)
    assert np.abs(expected).max() > 1
    for known in (keras_resnet.load(path), HOW):
        actual = keras_resnet.preprocess_input(pixels, known)
        np.testing.assert_array_equal(actual, expected)


def test_a_model_that_lost_its_description_names_what_keeps_it(path):
    for model in (
        keras.models.load_model(path),
        keras.models.clone_model(keras_resnet.load(path)),
    ):
        with pytest.raises(
            UserError, match="keras_resnet.load.*Received: model 'small'"
        ):
            keras_resnet.preprocess_input(np.zeros((1, 32, 48, 3)), model)
        with pytest.raises(UserError, match="its labels.*keras_resnet.load"):
            keras_resnet.decode_predictions(np.zeros((1, 3)), model_or_weights=model)


def test_decode_predictions_uses_the_labels_of_the_model(path):
    model = keras_resnet.load(path)
    scores = np.array([[0.2, 0.5, 0.3]])
    decoded = keras_resnet.decode_predictions(scores, 2, model)
    assert decoded == [[("chat", "chat", 0.5), ("犬", "犬", 0.3)]]
    with pytest.raises(UserError, match="3. of scores.*Received: shape .1, 4."):
        keras_resnet.decode_predictions(np.zeros((1, 4)), model_or_weights=model)
