"""From a run to a .tflite: what is inside, and that its scores are the model's."""

import json
import shutil
import subprocess
import zipfile

import keras
import numpy as np
import pytest
from absl import flags as flags_lib
from absl.testing import flagsaver

import keras_resnet
from keras_resnet.commands import export
from keras_resnet.deploy import fold_normalization
from keras_resnet.edge.convert import converter as conversion
from keras_resnet.edge.convert import metadata, tflite_file
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.report import summary as export_report
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner import Classifier
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.runtime import load_runtime
from keras_resnet.training.quantize import aware as quantization
from tests.conftest import QUANTIZATIONS, SMALL
from tests.helpers import graphs
from tests.helpers.commands import one_error, run_command
from tests.helpers.networks import randomize


def scores(path, images):
    classifier = Classifier(str(path))
    return np.stack([classifier.scores(image) for image in images])


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_scores_are_those_of_the_keras_model(files, digits_run, held_out, quantize):
    images, labels = held_out
    model = keras.saving.load_model(digits_run / "model.keras")
    expected = model.predict(SMALL.normalize(images), verbose=0)
    actual = scores(files[quantize], images)
    difference = np.abs(actual - expected)
    # A score is a multiple of 1/256, at most 255/256. Float files are that exact,
    # but for the 11 bits of a float16 weight.
    exact = quantize in ("float16", "none")
    limits = {"none": 1.02 / 256, "float16": 1.5 / 256}
    assert difference.max() <= limits.get(quantize, 0.3)
    assert difference.mean() <= (0.5 / 256 if exact else 0.01)
    agreement = np.mean(actual.argmax(-1) == expected.argmax(-1))
    assert agreement >= (1.0 if exact else 0.98)


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_the_interface_is_raw_pixels_in_and_scores_out(files, quantize):
    image, result = tflite_file.interface(files[quantize].read_bytes())
    assert list(image.shape) == [1, 32, 32, 3]
    assert image.shapeSignature is None or list(image.shapeSignature) == [1, 32, 32, 3]
    assert list(result.shape) == [1, 10]
    assert (image.type, result.type) == (3, 3)  # UINT8
    assert (image.quantization.scale[0], image.quantization.zeroPoint[0]) == (
        1 / 64,
        128,
    )
    assert (result.quantization.scale[0], result.quantization.zeroPoint[0]) == (
        1 / 256,
        0,
    )


@pytest.mark.parametrize("quantize", ["qat", "int8"])
def test_int8_files_hold_the_minimum_of_operators_and_no_float(files, quantize):
    content = files[quantize].read_bytes()
    assert graphs.counts(content) == {
        "CONV_2D": 9,
        "ADD": 3,
        "QUANTIZE": 2,
        "PAD": 2,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }
    assert graphs.float_tensors(content) == []


def dense_layer(content):
    """Returns the weights and the operator code of the one FULLY_CONNECTED."""
    model = tflite_file.parse(content)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if code.builtinCode == 9:
            return graph.tensors[operator.inputs[1]], code
    raise AssertionError("no FULLY_CONNECTED")


@pytest.mark.parametrize("quantize", ["qat", "int8"])
def test_fully_connected_has_one_scale(files, quantize):
    """With one for each channel, TFLite 2.5 to 2.9 returns constant scores."""
    weights, _ = dense_layer(files[quantize].read_bytes())
    assert len(weights.quantization.scale) == 1


def test_fully_connected_with_dynamic_ranges_is_read_by_old_runtimes():
    """Version 12 is refused by tflite-runtime up to 2.14."""
    model = keras_resnet.ResNet8(classes=100)  # fewer weights are left in float
    content = conversion.from_keras(model, SMALL, "dynamic")
    weights, code = dense_layer(content)
    assert len(weights.quantization.scale) == 1 and code.version < 12


def test_the_archive_holds_labels_and_preprocessing(files):
    with zipfile.ZipFile(files["qat"]) as archive:
        assert archive.read("labels.txt").decode().split() == list("0123456789")
        assert json.loads(archive.read("preprocessing.json")) == {
            "version": 1,
            "input_size": [32, 32],
            "resize_size": 32,
            "crop_fraction": 1.0,
            "interpolation": "bilinear",
        }


def test_the_report_states_what_was_measured(files, qat_report, digits_run, held_out):
    path = files["qat"]
    images, labels = held_out
    model = keras.saving.load_model(digits_run / "model.keras")
    expected = model.predict(SMALL.normalize(images), verbose=0)
    actual = scores(path, images)
    difference = np.abs(actual - expected)
    top1, float_top1 = (np.mean(x.argmax(-1) == labels) for x in (actual, expected))
    plain = np.mean(scores(files["int8"], images).argmax(-1) == labels)
    both = {"compared": {"top1": top1}, "post_training": {"top1": plain}}
    advice = export_report.advice(both)
    for line in (
        str(path),
        f"{path.stat().st_size:,} bytes",
        "CONV_2D 9, ADD 3",
        f"max {difference.max():.4f}, mean {difference.mean():.6f}",
        f"{np.mean(actual.argmax(-1) == expected.argmax(-1)):.2%} top-1 with the Keras",
        f"{top1:.2%}; Keras model {float_top1:.2%}",
        "360 held-out of digits",
        "multiply-adds  12,501,632",
        "or newer (tested from 2.7.0)",
        "Edge TPU       estimate: 19 of 19 operators map; on the chip 0.0",
        "of 8 MiB: fits",
        "worst layers   conv",
        f"advice         {advice}",
    ):
        assert line in qat_report
    report = json.loads((digits_run / "model-qat.report.json").read_text())
    assert report["file_bytes"] == path.stat().st_size and not report["problems"]
    assert report["compared"]["top1"] == pytest.approx(top1)
    assert report["compared"]["keras_top1"] == pytest.approx(float_top1)
    assert report["post_training"]["top1"] == pytest.approx(plain)
    assert len(report["layers"]) == 14  # 9 convolutions, 3 sums, the mean, the scores
    page = (digits_run / "model-qat.report.html").read_text()
    assert all(row["layer"] in page for row in report["layers"])


def test_int8_keeps_the_accuracy(qat_report, digits_run):
    top1, float_top1 = (
        float(part.split("%")[0].split()[-1])
        for part in qat_report.split("top-1 ")[-1].split(";")
    )
    metrics = json.loads((digits_run / "metrics.json").read_text())
    assert float_top1 == pytest.approx(100 * metrics["top1"], abs=0.01)
    assert top1 >= float_top1 - 1.0


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_other_normalizations_are_folded_into_the_file(mode, held_out, tmp_path):
    """Float, so that what differs is the folding alone: the border of the image."""
    images = held_out[0][:32]
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
    model = keras_resnet.ResNet8(weights=None)
    for _ in range(20):
        model(preprocessing.normalize(images), training=True)
    expected = model.predict(preprocessing.normalize(images), verbose=0)
    model, uniform = fold_normalization(model, preprocessing)
    content = conversion.from_keras(model, uniform, "none")
    assert sum(graphs.counts(content).values()) == 19  # no operator more
    image, _ = tflite_file.interface(content)
    assert image.quantization.zeroPoint[0] == uniform.mean_rgb_255[0]
    interpreter = load_runtime()[0](model_content=content)
    interpreter.allocate_tensors()
    actual = []
    for pixels in images:
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], pixels[None]
        )
        interpreter.invoke()
        output = interpreter.get_output_details()[0]["index"]
        actual.append(interpreter.get_tensor(output)[0] / 256)
    assert np.abs(np.stack(actual) - expected).max() <= (0.05 if mode != "tf" else 0.01)


def test_int8_resnet50_has_the_operators_of_the_design(held_out):
    small = Preprocessing((64, 64))
    model = randomize(keras_resnet.ResNet50(weights=None, input_shape=(64, 64, 3)))
    calibration = np.repeat(np.repeat(held_out[0][:8], 2, axis=1), 2, axis=2)
    content = conversion.from_keras(model, small, "int8", calibration)
    assert graphs.counts(content) == {
        "CONV_2D": 53,
        "ADD": 16,
        "QUANTIZE": 2,
        "PAD": 2,
        "MAX_POOL_2D": 1,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }
    assert graphs.float_tensors(content) == []


def test_layers_that_stay_in_float(digits_run, held_out, tmp_path):
    """At both ends of the network and inside it."""
    images = held_out[0][:64]
    model = keras.saving.load_model(digits_run / "model.keras")
    kept = ["conv1_conv", "conv3_block1_*", "predictions"]
    aware = quantization.quantize(model, SMALL, held_out[0][64:192], kept)
    quantization.save(aware, tmp_path / "saved_model")
    content = conversion.from_saved_model(tmp_path / "saved_model", SMALL)
    kinds = [
        (operator.name, operator.outputs[0].dtype)
        for operator in tflite_graph.read(content).operators
    ]
    assert kinds.count(("CONV_2D", "FLOAT32")) == 4
    assert kinds.count(("CONV_2D", "INT8")) == 5
    assert kinds.count(("FULLY_CONNECTED", "FLOAT32")) == 1
    (tmp_path / "model.tflite").write_bytes(content)
    actual = scores(tmp_path / "model.tflite", images)
    expected = aware(SMALL.normalize(images), training=False).numpy()
    assert np.abs(actual - expected).max() < 0.1
    assert np.abs(actual - expected).mean() < 0.005


def export_in_process(*arguments):
    """Runs the command without a new process: TensorFlow takes seconds to start."""
    if "model_dir" not in export.FLAGS:
        export.define_flags()
    with flagsaver.flagsaver():
        export.FLAGS(["export.py", *arguments])
        export.main()


def test_a_model_file_of_somebody_else_is_exported(tmp_path, held_out):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, activation="softmax", kernel_initializer="normal")(x)
    model = keras.Model(inputs, x, name="theirs")
    model.save(tmp_path / "theirs.keras")
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\nthree\n")
    output = tmp_path / "theirs.tflite"
    flags = (
        f"--model={tmp_path / 'theirs.keras'}",
        f"--output={output}",
        "--dataset=digits",
        f"--labels={labels}",
    )
    with pytest.raises(UserError, match="--normalization"):
        export_in_process(*flags)
    export_in_process(*flags, "--normalization=tf")
    expected = model.predict(held_out[0] / 127.5 - 1.0, verbose=0)
    actual = scores(output, held_out[0])
    assert np.abs(actual - expected).max() < 0.05
    assert Classifier(str(output)).labels == ["one", "two", "three"]

    labels.write_text("one\ntwo\n")
    before = output.read_bytes()
    with pytest.raises(UserError, match="3 classes. Received: 2 labels"):
        export_in_process(*flags, "--normalization=tf")
    assert output.read_bytes() == before


def their_model(path, middle):
    """Saves a small classifier with something in its middle; returns its scores."""
    inputs = keras.Input((32, 32, 3))
    x = middle(keras.layers.Conv2D(4, 3, strides=2)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    x = keras.layers.Dense(3, activation="softmax")(x)
    model = randomize(keras.Model(inputs, x, name="theirs"))
    model.save(path)
    return model


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
    model.save(tmp_path / "theirs.keras")
    output = tmp_path / "theirs.tflite"
    flags = ("--normalization=zoo", "--dataset=digits", "--max_drop=100")
    expected = model.predict(SMALL.normalize(images), verbose=0)
    assert len(np.unique(expected.argmax(-1))) > 5  # no constant
    for quantize in ("none", "int8"):
        export_in_process(
            f"--model={tmp_path / 'theirs.keras'}",
            *(f"--output={output}", f"--quantize={quantize}", *flags),
            *("--calibration_examples=64", "--report_examples=64"),
        )
        if quantize == "none":
            difference = np.abs(scores(output, images) - expected)
            assert difference.max() <= 1.02 / 256
    # Fifty untrained layers enlarge each other's noise: each is judged alone.
    report = json.loads(output.with_suffix(".report.json").read_text())
    assert len(report["layers"]) > 50
    assert min(row["own_snr_db"] for row in report["layers"]) > 25
    counts = graphs.counts(output.read_bytes())
    assert (counts["CONV_2D"], counts["DEPTHWISE_CONV_2D"]) == (35, 17)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_models_of_half_precision_are_exported_in_float(policy, held_out, tmp_path):
    def middle(x):
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x) + x)
        inner = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Conv2D(4, 3)])
        return inner(x)

    keras.config.set_dtype_policy(policy)
    try:
        model = their_model(tmp_path / "half.keras", middle)
    finally:
        keras.config.set_dtype_policy("float32")
    output = tmp_path / "half.tflite"
    export_in_process(
        f"--model={tmp_path / 'half.keras'}",
        *("--normalization=zoo", "--quantize=none", f"--output={output}"),
    )
    images = held_out[0][:20]
    expected = model.predict(SMALL.normalize(images), verbose=0)
    # bfloat16 has 8 bits.
    assert np.abs(scores(output, images) - expected).max() < 0.03


def test_what_tensorflow_lite_lacks_is_named_before_anything_is_written(tmp_path):
    def recurrent(x):
        return keras.layers.LSTM(4, name="memory")(keras.layers.Reshape((45, 20))(x))

    for middle, reason in (
        (keras.ops.erf, "TensorFlow Lite has no operator for Erf"),
        (lambda x: keras.ops.fft((x, x))[0], "no operator for Complex, FFT"),
        (recurrent, "cannot hold a loop. Received: '.*memory.*unroll=True"),
    ):
        their_model(tmp_path / "theirs.keras", middle)
        for quantize in ("none", "int8"):
            with pytest.raises(UserError, match=reason):
                export_in_process(
                    f"--model={tmp_path / 'theirs.keras'}",
                    *("--normalization=zoo", "--dataset=digits"),
                    f"--quantize={quantize}",
                    *("--calibration_examples=8", f"--output={tmp_path / 'x.tflite'}"),
                )
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.keras"]


def test_a_drop_of_exactly_the_limit_is_allowed():
    compared = {"images": 100, "keras_top1": 0.99, "top1": 0.98}
    report = {"quantize": "int8", "compared": compared}
    export_report.refuse_drop(report, 1.0)
    with pytest.raises(UserError, match="loses 1.00 points of top-1 on 100 images"):
        export_report.refuse_drop(report, 0.99)


def test_where_the_accuracy_gate_cannot_apply_the_report_says_so(digits_run, tmp_path):
    path = tmp_path
    shutil.copy(digits_run / "model.keras", path)
    their_model(path / "theirs.keras", keras.layers.ReLU())
    common = ("--normalization=zoo", "--quantize=none", f"--output={path / 'x.tflite'}")
    digits = ("--dataset=digits", "--report_examples=8")
    for flags, reason in (
        ((f"--model={path / 'theirs.keras'}",), "no --dataset was given"),
        ((f"--model={path / 'theirs.keras'}", *digits), "digits has other classes"),
        ((f"--model={path / 'model.keras'}", *digits), None),
    ):
        export_in_process(*flags, *common)
        report = json.loads((path / "x.report.json").read_text())
        found = report.get("gate_not_applied")
        assert reason in found if reason else found is None
        shown = f"accuracy gate  not applied: {found}" in export_report.text(report)
        assert shown == bool(reason)
    for limit in ("nan", "-1"):
        with pytest.raises(flags_lib.Error, match="max_drop"):
            export_in_process(*flags, *common, f"--max_drop={limit}")


def test_advice_says_which_is_better():
    for aware, plain, expected in (
        (0.92, 0.91, "keep QAT: int8 without it has 91.00%"),
        (0.91, 0.91, "--quantize=int8 is as good: 91.00% without QAT"),
        (0.90, 0.91, "--quantize=int8 is better: 91.00% without QAT"),
    ):
        report = {"compared": {"top1": aware}, "post_training": {"top1": plain}}
        assert export_report.advice(report) == expected


def test_models_that_are_no_classifiers_of_images_are_refused(tmp_path):
    layers = keras.layers
    image = keras.Input((32, 32, 3))
    grey = keras.Input((32, 32, 1))
    pool = layers.GlobalAveragePooling2D()
    softmax = layers.Dense(3, activation="softmax")
    for model, reason in (
        (keras.Model(image, layers.Dense(3)(pool(image))), "softmax"),
        (keras.Model(image, layers.Conv2D(3, 3)(image)), "one score"),
        (keras.Model(grey, softmax(pool(layers.Conv2D(3, 3)(grey)))), "32, 32, 1"),
        (keras.Model(image, [softmax(pool(image))] * 2), "one score"),
    ):
        model.save(tmp_path / "model.keras")
        with pytest.raises(UserError, match=reason):
            export_in_process(
                f"--model={tmp_path / 'model.keras'}",
                f"--output={tmp_path / 'x.tflite'}",
                "--normalization=tf",
                "--quantize=none",
            )
    assert not (tmp_path / "x.tflite").exists()


def test_bad_requests_are_refused_and_write_nothing(digits_run, tmp_path):
    (tmp_path / "text.keras").write_text("no model")
    broken = tmp_path / "broken"
    shutil.copytree(
        digits_run, broken, ignore=shutil.ignore_patterns("qat", "*.tflite")
    )
    (broken / "model.keras").write_bytes(b"PK\x03\x04 half")
    plain = tmp_path / "plain"
    shutil.copytree(digits_run, plain, ignore=shutil.ignore_patterns("qat", "*.tflite"))
    stale, no_result, damaged, no_metrics = (
        shutil.copytree(
            digits_run, tmp_path / name, ignore=shutil.ignore_patterns("*.tflite")
        )
        for name in ("stale", "no_result", "damaged", "no_metrics")
    )
    keras.models.load_model(stale / "model.keras").save(stale / "model.keras")
    shutil.rmtree(no_result / "qat" / "saved_model")
    (damaged / "qat" / "saved_model" / "saved_model.pb").write_bytes(b"half")
    (no_metrics / "qat" / "metrics.json").write_text("{}")
    output = f"--output={tmp_path / 'x.tflite'}"
    small = (f"--model_dir={plain}", output, "--report_examples=20")
    for flags, reason in (
        ((), "either --model_dir"),
        (("--model=resnet50",), "--output"),
        (("--model=resnet50", "--output=x.bin"), ".tflite"),
        (("--model=resnt50", output), "resnet50"),
        (("--model=resnet8", output), "--dataset"),
        (("--model=resnet8", output, "--weights=none.keras"), "none.keras"),
        ((f"--model={tmp_path / 'text.keras'}", output), "no readable .keras"),
        ((f"--model_dir={tmp_path}", output), "config.json is missing"),
        ((f"--model_dir={broken}", output), "no readable .keras"),
        ((f"--model_dir={plain}", output, "--quantize=qat"), "qat.py"),
        (("--model=resnet8", output, "--crop_fraction=0"), "crop_fraction"),
        ((f"--model_dir={plain}", output, "--labels=x.txt"), "need --model"),
        ((f"--model_dir={plain}", output, "--data_dir=x", "--dataset=folder"), "x"),
        (("--model=my.keras", output, "--weights=imagenet"), "of the zoo"),
        ((f"--model_dir={plain}", output, "--target=edgetpus"), "edgetpu"),
        (
            (*small, "--quantize=float16", "--target=edgetpu"),
            "--target=edgetpu cannot run this: .*float",
        ),
        ((f"--model_dir={stale}", output), "another model.keras"),
        ((f"--model_dir={no_result}", output), "saved_model is damaged"),
        ((f"--model_dir={damaged}", output), "saved_model is damaged"),
        ((f"--model_dir={no_metrics}", output), "metrics.json is damaged"),
        ((f"--model_dir={plain}", "--output=/proc/x/y.tflite"), "/proc/x"),
    ):
        with pytest.raises((UserError, FileNotFoundError), match=reason):
            export_in_process(*flags)
    done = run_command("edge/export.py", f"--model_dir={broken}", output)
    assert "no readable .keras" in one_error(done)
    assert not list(tmp_path.rglob("*.tflite")) and not list(
        tmp_path.rglob(".writing*")
    )


def test_weights_of_the_package_are_exported_with_their_classes(held_out, tmp_path):
    """The ten of CIFAR-10, not ImageNet's thousand."""
    path = tmp_path / "resnet20.tflite"
    done = run_command(
        "edge/export.py",
        *("--model=resnet20", "--weights=cifar10", "--quantize=none"),
        f"--output={path}",
    )
    assert done.returncode == 0, done.stderr
    classifier = Classifier(str(path))
    assert classifier.labels[:2] == ["airplane", "automobile"]
    assert len(classifier.labels) == 10
    about = metadata.read(path.read_bytes()).about
    assert (about.license, about.run_sha256) == ("apache-2.0", None)
    model = keras_resnet.ResNet20()
    images = held_out[0][:5]
    expected = model.predict(model.preprocessing.normalize(images), verbose=0)
    for image, scores in zip(images, expected, strict=True):
        # Scores leave as bytes: steps of 1/256.
        np.testing.assert_allclose(classifier.scores(image), scores, atol=1 / 256)


def test_the_licence_of_the_weights_goes_into_the_file(digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run, ignore=shutil.ignore_patterns("qat", "*.tflite"))
    config = json.loads((run / "config.json").read_text())
    flags = (f"--model_dir={run}", "--quantize=none", "--report_examples=8")
    for weights, given, expected in (
        (None, None, None),
        (None, "mit", "mit"),
        ("a1_in1k", None, "apache-2.0"),
        ("a1_in1k", "MIT", "MIT"),
        ("fb_ssl_yfcc100m_ft_in1k", None, "cc-by-nc-4.0"),
    ):
        config["settings"] |= {"model": "resnet18", "weights": weights}
        (run / "config.json").write_text(json.dumps(config))
        export_in_process(*flags, *([f"--license={given}"] if given else []))
        about = metadata.read((run / "model-none.tflite").read_bytes()).about
        assert about.license == expected
    with pytest.raises(UserError, match="under cc-by-nc-4.0, .* --license=mit"):
        export_in_process(*flags, "--license=mit")


def test_the_hash_in_the_file_is_that_of_what_was_exported(qat_report, digits_run):
    about = metadata.read((digits_run / "model-qat.tflite").read_bytes()).about
    saved = digits_run / "qat" / "saved_model"
    done = subprocess.run(
        "find -type f | LC_ALL=C sort | cut -c 3- | xargs sha256sum | sha256sum",
        **dict(shell=True, cwd=saved, capture_output=True, text=True, check=True),
    )
    assert about.run_sha256 == done.stdout.split()[0]
