"""Photographs: the runner feeds the pixels that training's evaluation feeds."""

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner import Classifier, Preprocessing
from keras_resnet.runner.images import prepare, read_image
from keras_resnet.runner.pipeline import load_pixels
from keras_resnet.training.data import decoding
from tests.helpers.runner import PEERS, PHOTOS, SHIPPED


@pytest.fixture(params=["scikit-learn", "imagenet_sample"])
def photos(request, photographs):
    """Paths of photographs: those that everybody has, and the development data."""
    if request.param == "scikit-learn":
        return photographs
    if not PHOTOS.exists():
        pytest.skip("development data absent")
    return sorted(map(str, PHOTOS.glob("*/*")))


def trained(name):
    """A trained model of the checkout, or one of the development data."""
    path = SHIPPED if name == "resnet20" else PEERS / f"{name}.tflite"
    if not path.exists():
        pytest.skip("development data absent")
    classifier = Classifier(path)
    size = classifier.input_shape[1:3]
    classifier.preprocessing = Preprocessing(size, crop_fraction=7 / 8)
    return classifier


def evaluation_pixels(path, preprocessing):
    """What training's evaluation makes of a file."""
    data = open(path, "rb").read()
    return decoding.device_pixels(data, preprocessing).numpy()


@pytest.mark.parametrize("size, resize_size", [(224, 256), (128, 146), (32, 36)])
def test_pixels_are_those_of_trainings_evaluation(photos, size, resize_size):
    classifier = Classifier(SHIPPED)
    classifier.input_shape = (1, size, size, 3)
    steps = Preprocessing((size, size), crop_fraction=size / resize_size)
    assert steps.resize_size == resize_size
    classifier.preprocessing = steps
    differences = []
    for path in photos:
        pixels = load_pixels(path, classifier)[0].astype(int)
        differences.append(np.abs(pixels - evaluation_pixels(path, steps)).mean())
    assert np.mean(differences) < 0.02


@pytest.mark.parametrize(
    "photos, name",
    [
        ("scikit-learn", "resnet20"),
        ("imagenet_sample", "resnet20"),
        ("imagenet_sample", "mobilenet_v1_0.25_128_quant"),
    ],
    indirect=["photos"],
)
def test_labels_are_those_of_trainings_evaluation(photos, name):
    classifier = trained(name)
    leads = []
    for path in photos:
        scores = classifier.scores(load_pixels(path, classifier)[0])
        exact = evaluation_pixels(path, classifier.preprocessing)
        leads.append(scores.max() - scores[classifier.scores(exact).argmax()])
    # A pixel of some hundred is rounded differently. A small network then wavers
    # between classes a few steps of 1/256 apart.
    assert sum(lead == 0 for lead in leads) >= 0.95 * len(photos)
    assert max(leads) < 10 / 256


@pytest.mark.parametrize(
    "name",
    ["resnet20", "mobilenet_v1_0.25_128_quant", "mlperf_tiny_resnet8_int8"],
)
def test_photographs_decoded_smaller_keep_their_labels(photos, name):
    classifier = trained(name)
    same = smaller = 0
    for path in photos:
        part, whole = read_image(path, classifier), read_image(path)
        smaller += part.image.size != whole.image.size
        pixels = [prepare(each.image, classifier, each.box) for each in (part, whole)]
        one, other = (classifier.scores(each).argmax() for each in pixels)
        same += one == other
    assert same >= 0.99 * len(photos)
    assert smaller > 3 or classifier.input_shape[1] == 128


@pytest.mark.parametrize("name", ["full", "plain"])
def test_photographs_decoded_smaller_give_nearly_the_same_pixels(models, photos, name):
    # Nearly all photographs are decoded smaller for an input of 12 x 16 pixels.
    classifier, differences, smaller = Classifier(models[name]), [], 0
    for path in photos:
        part, whole = read_image(path, classifier), read_image(path)
        smaller += part.image.size != whole.image.size
        pixels = prepare(part.image, classifier, part.box)
        expected = prepare(whole.image, classifier)
        differences.append(np.abs(pixels.astype(int) - expected).mean())
    assert smaller > 0.4 * len(photos) and np.mean(differences) < 0.5


def test_photographs_decode_as_pillow_decodes_them(photos):
    compared = 0
    for path in photos[::4]:
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        pixels = np.asarray(read_image(path).image)
        assert pixels.shape in (expected.shape, expected.swapaxes(0, 1).shape)
        if pixels.shape == expected.shape:
            np.testing.assert_array_equal(pixels, expected)
            compared += 1
    assert compared >= 8
