"""`edge.export` takes every kind of model, and writes nothing if anything is wrong."""

import json
import pathlib
import shutil
import subprocess

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import edge, model_metadata, training
from keras_resnet.edge import source
from keras_resnet.edge.report import gate, page
from keras_resnet.edge.report.comparison import Comparison
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError
from tests.conftest import SMALL
from tests.helpers import metadata_reader
from tests.helpers.device import scores
from tests.helpers.networks import randomize, small_classifier

LABELS = ["one", "two", "three"]


@pytest.fixture
def plain(digits_run, tmp_path):
    """A copy of the run without its fine-tuning and its exports."""
    ignored = shutil.ignore_patterns("qat", "*.tflite", "*.report.*")
    return shutil.copytree(digits_run, tmp_path / "plain", ignore=ignored)


@pytest.fixture
def theirs(tmp_path):
    """Path of a `.keras` that keras_resnet knows nothing about."""
    path = tmp_path / "theirs.keras"
    small_classifier().save(path)
    return path


# --- What is exported ---------------------------------------------------------


def test_a_run_is_exported_into_its_folder_with_its_fine_tuning(export, digits_run):
    assert export["quantize"] == "qat"
    assert export.paths == {
        kind: digits_run / f"model-qat{suffix}"
        for kind, suffix in (
            ("tflite", ".tflite"),
            ("json", ".report.json"),
            ("html", ".report.html"),
        )
    }
    assert all(path.is_file() for path in export.paths.values())
    assert json.loads(export.paths["json"].read_text()) == export
    classifier = edge.Classifier(export.paths["tflite"])
    assert classifier.labels == list("0123456789")


def test_the_folder_of_the_fine_tuning_stands_for_its_run(digits_run):
    of_run, of_aware = source.of_run(digits_run), source.of_run(digits_run / "qat")
    assert of_aware.aware == of_run.aware == digits_run / "qat"
    assert of_aware.path == of_run.path == digits_run / "model.keras"


def test_a_run_is_given_by_text_path_or_object(plain, tmp_path):
    for run in (str(plain), plain, training.Run.open(plain)):
        assert source.is_run(run)
        assert source.of_run(run).path == plain / "model.keras"
    for model in ("resnet8", "x.keras", plain / "model.keras", small_classifier()):
        assert not source.is_run(model)
    report = edge.export(str(plain), quantize="none", report_examples=8)
    assert report.paths["tflite"] == plain / "model-none.tflite"


def test_a_file_of_somebody_else_needs_its_normalization(theirs, held_out, tmp_path):
    output, labels = tmp_path / "theirs.tflite", tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS) + "\n")
    settings = dict(dataset="digits", report_examples=8, calibration_examples=100)
    with pytest.raises(UserError, match=r"needs --normalization \(zoo, raw, unit, tf"):
        edge.export(theirs, output, labels=labels, **settings)
    settings["normalization"] = "tf"
    edge.export(theirs, output, labels=labels, **settings)
    model = keras.saving.load_model(theirs)
    expected = model.predict(held_out[0][:50] / 127.5 - 1.0, verbose=0)
    actual = scores(output, held_out[0][:50])
    assert np.abs(actual - expected).max() < 0.05
    assert edge.Classifier(output).labels == LABELS

    before = output.read_bytes()
    labels.write_text("one\ntwo\n")
    with pytest.raises(UserError, match="3 scores for each image. Received: 2 labels"):
        edge.export(theirs, output, labels=labels, **settings)
    assert output.read_bytes() == before


def test_a_model_that_knows_its_preprocessing_needs_nothing(held_out, tmp_path):
    preprocessing = Preprocessing(
        (32, 32), crop_fraction=0.875, **NORMALIZATIONS["torch"]
    )
    model = small_classifier()
    model_metadata.attach(model, preprocessing, LABELS, licence="mit")
    model.save(tmp_path / "ours.keras")
    images = held_out[0][:20]
    expected = model.predict(preprocessing.normalize(images), verbose=0)
    for given in (model, tmp_path / "ours.keras"):
        path = tmp_path / "ours.tflite"
        report = edge.export(given, path, quantize="none")
        assert report["gate_not_applied"] == "no --dataset was given"
        classifier = edge.Classifier(path)
        assert classifier.labels == LABELS
        assert classifier.preprocessing.crop_fraction == 0.875
        assert np.abs(scores(path, images) - expected).max() <= 1.02 / 256
        about = metadata_reader.read(path.read_bytes()).about
        assert (about.name, about.license) == ("theirs", "mit")
        assert (about.run_sha256 is None) == (given is model)


def test_settings_replace_what_a_model_knows(tmp_path):
    model = small_classifier()
    model_metadata.attach(model, SMALL, LABELS)
    found = source.of_model(model, labels=["1", "2", "3"], normalization="tf")
    assert found.labels == ["1", "2", "3"]
    assert found.preprocessing == Preprocessing((32, 32), **NORMALIZATIONS["tf"])
    found = source.of_model(model, crop_fraction=0.5)
    assert found.labels == LABELS and found.preprocessing.crop_fraction == 0.5


def test_a_model_of_the_zoo_is_exported_with_its_classes(held_out, tmp_path):
    """The ten of CIFAR-10, not ImageNet's thousand."""
    path = tmp_path / "resnet8.tflite"
    edge.export("resnet8", path, weights="cifar10", quantize="none")
    classifier = edge.Classifier(path)
    assert classifier.labels[:2] == ["airplane", "automobile"]
    assert len(classifier.labels) == 10
    about = metadata_reader.read(path.read_bytes()).about
    assert (about.license, about.run_sha256) == ("apache-2.0", None)
    model = keras_resnet.create_model("resnet8", weights="cifar10")
    images = held_out[0][:5]
    expected = model.predict(model.preprocessing.normalize(images), verbose=0)
    # Scores leave as bytes: steps of 1/256.
    np.testing.assert_allclose(scores(path, images), expected, atol=1.02 / 256)


def test_labels_of_the_dataset_are_taken_where_their_number_fits():
    ten, three = small_classifier(classes=10), small_classifier(classes=3)
    settings = dict(dataset="digits", normalization="zoo")
    assert source.of_model(ten, **settings).labels == list("0123456789")
    assert source.of_model(three, **settings).labels is None


def test_the_model_and_the_console_are_left_alone(held_out, tmp_path, capfd):
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS["torch"])
    model = model_metadata.attach(small_classifier(), preprocessing, LABELS)
    before = model.get_weights()
    edge.export(model, tmp_path / "x.tflite", quantize="dynamic")
    assert capfd.readouterr() == ("", "")
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize(
    "policy, in_memory",
    [("mixed_float16", True), ("mixed_bfloat16", False), ("float16", False)],
)
def test_models_of_half_precision_are_exported_in_float(
    policy, in_memory, held_out, tmp_path
):
    def middle(x):
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x) + x)
        inner = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Conv2D(4, 3)])
        return inner(x)

    keras.config.set_dtype_policy(policy)
    try:
        model = small_classifier(middle)
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "half.keras")
    images = held_out[0][:20]
    expected = model.predict(SMALL.normalize(images), verbose=0)
    output = tmp_path / "half.tflite"
    given = model if in_memory else tmp_path / "half.keras"
    edge.export(given, output, normalization="zoo", quantize="none")
    # bfloat16 has 8 bits.
    assert np.abs(scores(output, images) - expected).max() < 0.03


# --- What the file says of itself ---------------------------------------------


def test_the_hash_in_the_file_is_that_of_what_was_exported(export, digits_run):
    about = metadata_reader.read(export.paths["tflite"].read_bytes()).about
    saved = digits_run / "qat" / "saved_model"
    done = subprocess.run(
        "find -type f | LC_ALL=C sort | cut -c 3- | xargs sha256sum | sha256sum",
        **dict(shell=True, cwd=saved, capture_output=True, text=True, check=True),
    )
    assert about.run_sha256 == done.stdout.split()[0]


def test_the_licence_of_the_weights_goes_into_the_file(plain):
    config = json.loads((plain / "config.json").read_text())
    settings = dict(quantize="none", report_examples=8)
    for weights, licence, given in (
        (None, None, None),
        ("a1_in1k", "apache-2.0", "MIT"),
        ("fb_ssl_yfcc100m_ft_in1k", "cc-by-nc-4.0", None),
    ):
        config["settings"] |= {"model": "resnet18", "weights": weights}
        (plain / "config.json").write_text(json.dumps(config))
        assert source.of_run(plain).licence == licence
        if licence:
            report = edge.export(plain, license=given, **settings)
            about = metadata_reader.read(report.paths["tflite"].read_bytes()).about
            assert about.license == (given or licence)
    with pytest.raises(UserError, match="under cc-by-nc-4.0, .* --license=mit"):
        edge.export(plain, license="mit", **settings)


# --- What is refused ----------------------------------------------------------


def test_a_drop_of_exactly_the_limit_is_allowed():
    compared = {"images": 300, "keras_top1": 0.99, "top1": 0.98}
    report = {"quantize": "int8", "compared": compared}
    gate.check_drop(report, 1.0)
    with pytest.raises(UserError, match="loses 1.00 points of top-1 on 300 images"):
        gate.check_drop(report, 0.99)


def test_two_images_are_no_drop():
    """Of 24 pictures, one is four points."""
    for lost, is_refused in ((2, False), (3, True)):
        compared = {"images": 24, "keras_top1": 1.0, "top1": 1 - lost / 24}
        report = {"quantize": "int8", "compared": compared}
        if is_refused:
            with pytest.raises(UserError, match="loses 12.50 points of top-1 on 24"):
                gate.check_drop(report, 1.0)
        else:
            gate.check_drop(report, 1.0)


def test_a_file_that_loses_too_much_is_not_written(tmp_path, monkeypatch):
    compare = Comparison.scores

    def worse(*arguments):
        return compare(*arguments) | {"top1": 0.5, "keras_top1": 0.9}

    monkeypatch.setattr(Comparison, "scores", worse)
    settings = dict(normalization="zoo", dataset="digits", report_examples=8)
    message = "none loses 40.00 points of top-1 on 8 .*Try training/qat.py, more"
    with pytest.raises(UserError, match=message):
        edge.export(
            small_classifier(classes=10),
            tmp_path / "x.tflite",
            quantize="none",
            max_drop=39.9,
            **settings,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "quantize, remedy",
    [
        ("int8", "Try training/qat.py, more --calibration_examples"),
        (
            "qat",
            "training/qat.py with a lower --learning_rate, or pass --quantize=int8",
        ),
    ],
)
def test_the_advice_depends_on_whether_there_was_fine_tuning(quantize, remedy):
    compared = {"images": 300, "keras_ap50": 0.9, "ap50": 0.8}
    report = {"quantize": quantize, "compared": compared}
    with pytest.raises(UserError, match=f"10.00 points of mAP50 .* {remedy}"):
        gate.check_drop(report, 1.0)


@pytest.mark.parametrize(
    "compared, reason",
    [
        ({"multi_label": True}, "no image of dataset x has a label"),
        ({"ap50": None, "keras_ap50": None}, "nothing is annotated in x"),
        ({"miou": None, "keras_miou": None}, "nothing is annotated in x"),
    ],
)
def test_without_anything_to_compare_a_file_passes(compared, reason):
    report = {"compared": {"dataset": "x", "images": 9, **compared}}
    gate.check_drop(report, 0)
    assert report["gate_not_applied"] == reason


@pytest.mark.parametrize(
    "classes, dataset, reason",
    [
        (3, None, "no --dataset was given"),
        (3, "digits", "digits has other classes"),
        (10, "digits", None),
    ],
)
def test_where_the_accuracy_gate_cannot_apply_the_report_says_so(
    classes, dataset, reason, tmp_path
):
    settings = dict(normalization="zoo", quantize="none", dataset=dataset)
    model = small_classifier(classes=classes)
    report = edge.export(model, tmp_path / "x.tflite", report_examples=8, **settings)
    found = report.get("gate_not_applied")
    assert reason in found if reason else found is None
    shown = f"accuracy gate  not applied: {found}" in str(report)
    assert shown == bool(reason)


def test_models_that_are_no_classifiers_of_images_are_refused(tmp_path):
    layers = keras.layers
    image = keras.Input((32, 32, 3))
    pool = layers.GlobalAveragePooling2D()
    softmax = layers.Dense(3, activation="softmax")
    for model, reason in (
        (keras.Model(image, layers.Conv2D(3, 3)(image)), "one score"),
        (keras.Model(image, softmax(image)), "one score"),
        (keras.Model(image, [softmax(pool(image))] * 2), "return one tensor of scores"),
    ):
        with pytest.raises(UserError, match=reason):
            edge.export(
                model, tmp_path / "x.tflite", normalization="tf", quantize="none"
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings, reason",
    [
        (dict(model="resnt8"), "did you mean resnet8"),
        (dict(model=8), "must be a run, a keras.Model, .*Received: int"),
        (dict(model="none.keras"), "no such model file.*none.keras"),
        (dict(output=None), "needs --output"),
        (dict(output="x.bin"), "must end in .tflite"),
        (dict(quantize="int4"), "unknown quantize.*Received: 'int4'"),
        (dict(quantize="qat"), "needs a run that training/qat.py has finished"),
        (dict(quantize="int8"), "--dataset"),
        (dict(target="edgetpus"), "did you mean edgetpu"),
        (dict(weights="none.keras"), "none.keras"),
        (dict(model="my.keras", weights="imagenet"), "needs a model of the zoo"),
        (dict(normalization="torsh"), "did you mean torch"),
        (dict(crop_fraction=0), "crop_fraction"),
        (dict(crop_fraction=1.5), "crop_fraction"),
        (dict(labels=["a", "b"]), "10 scores for each image. Received: 2 labels"),
        (dict(labels=["a\nb"] * 10), "each one line of text"),
        (dict(labels="missing.txt"), "--labels cannot be read"),
        (dict(dataset="folder", data_dir="missing"), "missing"),
        (dict(quantize=8), "unknown quantize.*Received: 8"),
        (dict(target=None), "unknown target.*Received: None"),
        (dict(target=["litert"]), "unknown target.*Received: \\['litert'\\]"),
        (dict(output=3), "--output must be a path. Received: 3"),
        (dict(dataset=5), "--dataset must be a text. Received: 5"),
        (dict(data_dir=5), "--data_dir must be a path. Received: 5"),
        (dict(weights=5), "--weights must be a text. Received: 5"),
        (dict(normalization=["tf"]), "--normalization must be a text"),
        (dict(crop_fraction="1"), "--crop_fraction must be .*Received: '1'"),
        (dict(labels=7), "--labels must be a list of names. Received: 7"),
        (dict(labels=[7]), "--labels must be a list of names. Received"),
        (dict(author=3), "--author must be a text. Received: 3"),
        (dict(license=3), "--license must be a text. Received: 3"),
        (dict(max_drop="1"), "number from 0. Received: '1'"),
        (dict(calibration_examples=1.5), "a whole number.*Received: 1.5"),
        (dict(calibration_examples=0), "at least 1. Received: 0"),
        (dict(report_examples=0), "at least 1. Received: 0"),
        (dict(max_drop=float("nan")), "number from 0. Received: nan"),
        (dict(max_drop=-1), "number from 0. Received: -1"),
    ],
)
def test_a_wrong_setting_is_one_line_and_writes_nothing(
    settings, reason, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = dict(model="resnet8", output="x.tflite", quantize="none") | settings
    with pytest.raises(UserError, match=reason) as caught:
        edge.export(settings.pop("model"), settings.pop("output"), **settings)
    assert "\n" not in str(caught.value).strip()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        dict(weights="cifar10"),
        dict(normalization="tf"),
        dict(crop_fraction=0.5),
        dict(labels=["a"]),
    ],
)
def test_a_run_takes_no_settings_of_a_model(settings, plain):
    with pytest.raises(UserError, match="need --model: a run knows its own"):
        edge.export(plain, **settings)


def break_nothing(run):
    pass


def break_config(run):
    (run / "config.json").unlink()


def break_model(run):
    (run / "model.keras").write_bytes(b"PK\x03\x04 half")


def break_saved_model(run):
    (run / "qat" / "saved_model" / "saved_model.pb").write_bytes(b"half")


def break_metrics(run):
    (run / "qat" / "metrics.json").write_text("{}")


def remove_saved_model(run):
    shutil.rmtree(run / "qat" / "saved_model")


def remove_fine_tuning(run):
    shutil.rmtree(run / "qat")


def train_again(run):
    keras.models.load_model(run / "model.keras").save(run / "model.keras")


@pytest.mark.parametrize(
    "change, settings, reason",
    [
        (break_config, {}, "config.json is missing"),
        (break_model, {}, "no readable .keras"),
        (break_saved_model, {}, "saved_model is damaged"),
        (break_metrics, {}, "metrics.json is damaged"),
        (remove_saved_model, {}, "saved_model is damaged"),
        (remove_fine_tuning, {"quantize": "qat"}, "training/qat.py"),
        (train_again, {}, "made from another model.keras"),
        (
            break_nothing,
            {"quantize": "float16", "target": "edgetpu"},
            "floating point in all operators.* Use --quantize=int8, or",
        ),
        (break_nothing, {"output": "/proc/x/y.tflite"}, "/proc/x"),
    ],
)
def test_a_run_that_cannot_be_exported_is_left_as_it_is(
    change, settings, reason, digits_run, tmp_path
):
    ignored = shutil.ignore_patterns("*.tflite", "*.report.*", "checkpoints")
    run = shutil.copytree(digits_run, tmp_path / "run", ignore=ignored)
    change(run)
    before = sorted(run.rglob("*"))
    with pytest.raises((UserError, FileNotFoundError), match=reason):
        edge.export(run, report_examples=20, **settings)
    assert sorted(run.rglob("*")) == before


def test_if_the_last_file_fails_none_is_written(tmp_path, monkeypatch):
    model = model_metadata.attach(small_classifier(), SMALL, LABELS)
    output = tmp_path / "x.tflite"
    edge.export(model, output, quantize="none")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 3

    def fail(report):
        raise RuntimeError("no page")

    monkeypatch.setattr(page, "html", fail)
    with pytest.raises(RuntimeError, match="no page"):
        edge.export(randomize(model, seed=1), output, quantize="none")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- Somebody else's network --------------------------------------------------


@pytest.mark.slow
def test_mobilenet_of_keras_applications_keeps_its_scores(held_out, tmp_path):
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(64, 64, 3), classes=10
    )
    images = np.repeat(np.repeat(held_out[0], 2, axis=1), 2, axis=2)[:64]
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.5
    for _ in range(12):  # statistics that fit the images
        model(SMALL.normalize(images), training=True)
    # Untrained, it sees little difference between images: enlarged here.
    scores_layer = model.get_layer("predictions")
    pooled = keras.Model(model.inputs, model.layers[-2].output)
    features = pooled.predict(SMALL.normalize(images), verbose=0)
    kernel = scores_layer.kernel.numpy() / features.std(0).mean()
    scores_layer.set_weights([kernel, -features.mean(0) @ kernel])
    output = pathlib.Path(tmp_path / "theirs.tflite")
    expected = model.predict(SMALL.normalize(images), verbose=0)
    assert len(np.unique(expected.argmax(-1))) > 5  # no constant
    for quantize in ("none", "int8"):
        report = edge.export(
            model,
            output,
            **dict(quantize=quantize, normalization="zoo", dataset="digits"),
            **dict(calibration_examples=64, report_examples=64, max_drop=100),
        )
        if quantize == "none":
            difference = np.abs(scores(output, images) - expected)
            assert difference.max() <= 1.02 / 256
    # Fifty untrained layers enlarge each other's noise: each is judged alone.
    assert len(report["layers"]) > 50
    assert min(row["own_snr_db"] for row in report["layers"]) > 25
    counts = {row["name"]: row["count"] for row in report["operators"]}
    assert (counts["CONV_2D"], counts["DEPTHWISE_CONV_2D"]) == (35, 17)
