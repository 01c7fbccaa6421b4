"""Every example counts once, whatever the strategy."""

import dataclasses
import json
import re

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet import training
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner import Classifier
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.pipeline import load_pixels
from keras_resnet.training import accuracy, evaluation, views
from keras_resnet.training.accuracy import evaluator
from keras_resnet.training.data import batching, datasets, decoding, sources
from keras_resnet.training.distribute import strategies
from tests.helpers.commands import ROOT, one_error, run_command

SMALL = Preprocessing((32, 32))


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


def test_eval_under_mirrored_counts_every_example_once(digits):
    """With a remainder of one example: one replica gets nothing."""
    strategy = strategies.create("mirrored", cpu_replicas=2)
    with strategy.scope():
        model = keras_resnet.ResNet8(weights=None)
    part = datasets.Split(61, lambda: digits.held_out.read().take(61))
    result = evaluator(model, strategy)(part, SMALL, 20)
    batches = batching.evaluation_batches(part, SMALL, 20)
    images, labels = (np.concatenate(x) for x in zip(*batches.as_numpy_iterator()))  # noqa: B905
    images, labels = images[:61], labels[:61]  # the rest fills the last batch
    scores = model.predict(images, verbose=0)
    assert result["top1"] == pytest.approx(np.mean(scores.argmax(-1) == labels))
    right = scores[np.arange(61), labels]
    loss = -np.log(np.maximum(right, 1e-7)).mean()  # as Keras limits it
    assert result["loss"] == pytest.approx(loss, rel=1e-5)


def test_eval_that_misses_examples_is_a_bug_that_shows(digits):
    short = datasets.Split(360, lambda: digits.held_out.read().take(200))
    evaluate = evaluator(
        keras_resnet.ResNet8(weights=None), tf.distribute.get_strategy()
    )
    with pytest.raises(RuntimeError, match="200 of 360"):
        evaluate(short, SMALL, 100)


def test_top1_and_top5_are_counted():
    scores = np.eye(7)[[0, 1, 2, 3]] + np.linspace(0.5, 0, 7)
    examples = zip(range(4), (0, 1, 6, 4), strict=True)  # right, right, sixth, second
    found = accuracy.of_scores(lambda index: scores[index], examples)
    assert found == {"top1": 0.5, "top5": 0.75, "examples_evaluated": 4}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras_resnet.ResNet8(weights=None)


def mean_scores(model, crops):
    both = np.concatenate([[crop, crop[:, ::-1]] for crop in crops])
    return model.predict(SMALL.normalize(both), verbose=0).mean(0)


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images(model):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    crops = [
        image[top : top + 32, left : left + 32]
        for top, left in ((0, 0), (0, 24), (8, 0), (8, 24), (4, 12))
    ]
    wider = dataclasses.replace(SMALL, crop_fraction=0.8)  # 40 pixels: as it is
    score = views.ten_crop(model, wider)
    np.testing.assert_allclose(score(image), mean_scores(model, crops), atol=1e-6)
    assert np.abs(score(image) - mean_scores(model, crops[4:])).max() > 1e-4


def test_multi_scale_averages_the_whole_image_at_five_sizes(model):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    expected = []
    for size in (32, 36, 54, 68, 91):
        scaled = dataclasses.replace(SMALL, input_size=(size, size))
        resized = decoding.resize(image, scaled).numpy()
        assert min(resized.shape[:2]) == size
        net = keras_resnet.ResNet8(input_shape=resized.shape)
        net.set_weights(model.get_weights())
        expected.append(mean_scores(net, [resized]))
    score = views.multi_scale(model, SMALL)
    np.testing.assert_allclose(score(image), np.mean(expected, 0), atol=1e-6)


def test_the_command_gives_the_metrics_of_the_run(digits_run, tmp_path):
    done = run_command("training/evaluate.py", f"--model={digits_run / 'model.keras'}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = json.loads((digits_run / "model.keras.evaluation.json").read_text())
    run = json.loads((digits_run / "metrics.json").read_text())
    for key in ("top1", "top5", "examples_evaluated"):
        assert found[key] == run[key]
    assert found["loss"] == pytest.approx(run["loss"], rel=1e-5)
    assert f"top-1 {run['top1']:.2%}" in done.stdout


def test_a_model_is_given_in_many_ways(digits_run, tmp_path):
    """The file of the run, its folder, the run itself, or the model in memory."""
    run = training.Run.open(digits_run)
    model = run.load_model()
    output = tmp_path / "result.json"
    expected = training.evaluate(digits_run / "model.keras", output=output)
    assert json.loads(output.read_text()) == expected
    assert expected["top1"] == run.metrics["top1"]
    assert expected["views"] == "single" and expected["dataset"] == "digits"
    told = dict(dataset="digits", normalization="zoo")
    for given, arguments in ((run, {}), (str(digits_run), {}), (model, told)):
        assert training.evaluate(given, **arguments) == expected
    other = training.evaluate(model, "digits", normalization="caffe")
    assert other["loss"] > 2 * expected["loss"]
    cropped = training.evaluate(run, crop_fraction=0.5)
    assert cropped["loss"] != expected["loss"]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (dict(model=7), "--model must be a path. Received: 7"),
        (dict(model="none"), "--model must be a .keras or .tflite file, or the folder"),
        (dict(views="all"), "unknown views: .* Received: 'all'"),
        (dict(normalization="torhc"), "unknown normalization: did you mean torch"),
        (dict(crop_fraction=1.5), "--crop_fraction .* at most 1. Received: 1.5"),
        (dict(dataset="mnits"), "did you mean .*mnist"),
        (dict(dataset="cifar100", data_dir="nowhere"), "cifar100 is not in nowhere"),
    ],
)
def test_wrong_arguments_are_refused(digits_run, arguments, reason):
    arguments = {"model": digits_run / "model.keras", **arguments}
    with pytest.raises(UserError, match=reason):
        training.evaluate(**arguments, output=digits_run / "x.json")
    assert not (digits_run / "x.json").exists()


def test_a_model_that_no_run_describes_needs_to_be_told(model, tmp_path):
    path = tmp_path / "alone.keras"
    keras.models.clone_model(model).save(path)
    with pytest.raises(UserError, match="needs --normalization"):
        training.evaluate(path, "digits")
    with pytest.raises(UserError, match="lies in no run: it needs --dataset"):
        training.evaluate(path, normalization="zoo")


@pytest.mark.parametrize(
    "flags, reason",
    [
        (("--model=none.keras", "--dataset=digits"), "no such model"),
        (("--model=none.h5",), "must be a .keras or .tflite"),
        (("--model=none.tflite", "--dataset=digits"), "none.tflite"),
        (("--model=none.tflite", "--views=ten_crop"), "need a .keras model"),
        (("--model=none.keras", "--view=ten"), "views"),
    ],
)
def test_wrong_requests_are_one_line(flags, reason, tmp_path):
    done = run_command("training/evaluate.py", *flags, cwd=tmp_path)
    assert re.search(reason, one_error(done))
    assert not list(tmp_path.iterdir())


def test_a_file_is_evaluated_on_the_pixels_that_its_runner_makes(tmp_path):
    model, image = ROOT / "models" / "resnet8.cifar10.int8.tflite", tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(image)
    for said in (None, Preprocessing((32, 32), resize="pad", antialias=False)):
        classifier = Classifier(model)
        classifier.preprocessing = said
        seen = evaluation._preprocessing_of(classifier, None, None)
        found = decoding.resize_and_crop(decoding.decode(image.read_bytes()), seen)
        expected, *_ = load_pixels(str(image), classifier)
        np.testing.assert_array_equal(found, expected)


def test_the_file_of_the_device_is_evaluated_on_its_runtime(digits_run, files):
    done = run_command(
        "training/evaluate.py", f"--model={files['qat']}", "--dataset=digits"
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = json.loads((digits_run / "model-qat.tflite.evaluation.json").read_text())
    classifier = Classifier(str(files["qat"]))
    images = batching.images(sources.load("digits").held_out, SMALL)
    right = [classifier.scores(i).argmax() == y for i, y in images.as_numpy_iterator()]
    assert found["top1"] == pytest.approx(np.mean(right))
    assert found["examples_evaluated"] == len(right) == 360
