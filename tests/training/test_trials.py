"""How images were preprocessed is found by trying, with few calls of the model."""

import numpy as np
import pytest

from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.training import trials

CLASSES = 4


def examples(count=64, height=60, width=90):
    """Images whose mean level tells the class, taking turns."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        label = number % CLASSES
        level = 40 + 50 * label
        image = rng.integers(level - 20, level + 20, (height, width, 3), np.uint8)
        found.append((image, np.eye(CLASSES)[label]))
    return found


class Model:
    """Is right where the images come as `right` makes them, and else unsure."""

    def __init__(self, right, order=range(CLASSES)):
        self.right, self.order, self.calls = right, list(order), 0
        self.known = {}
        for image, target in examples():
            key = right.normalize(right.resize_and_crop(image)).tobytes()
            self.known[key] = target

    def __call__(self, images):
        self.calls += len(images)
        uniform = np.full(CLASSES, 1 / CLASSES)
        answers = [self.known.get(image.tobytes(), uniform) for image in images]
        return (0.1 * uniform + 0.9 * np.stack(answers))[:, self.order]


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("geometry", trials.GEOMETRIES)
def test_every_way_is_found(name, geometry):
    right = Preprocessing((24, 24), **NORMALIZATIONS[name], **geometry)
    found = trials.run(trials.candidates((24, 24), {}), examples(), Model(right))
    best, answers = trials.pick(found)
    assert best.preprocessing == right and best.normalization == name
    assert answers.all()


@pytest.mark.parametrize("name", trials.BGR)
def test_channels_in_the_order_of_opencv_are_found(name):
    numbers = {**NORMALIZATIONS[name], "channel_order": "bgr"}
    right = Preprocessing((24, 24), **numbers, resize="stretch", antialias=False)
    found = trials.run(trials.candidates((24, 24), {}), examples(), Model(right))
    best, _ = trials.pick(found)
    assert best.preprocessing == right and "--bgr=true" in best.flags()


def test_what_was_said_remains_though_others_fit_better():
    right = Preprocessing((24, 24), **NORMALIZATIONS["unit"], resize="stretch")
    said = {"resize": "pad", "interpolation": "bicubic"}
    found = trials.run(trials.candidates((24, 24), said), examples(), Model(right))
    kept = [trial for trial in found if trial.said]
    assert kept and all(
        (each.preprocessing.resize, each.preprocessing.interpolation)
        == ("pad", "bicubic")
        for each in kept
    )
    assert trials.pick(found)[0].preprocessing == right


def test_numbers_of_the_user_are_tried_beside_the_names():
    said = dict(mean_rgb_255=(10.0,) * 3, std_rgb_255=(20.0,) * 3, channel_order="bgr")
    right = Preprocessing((24, 24), **said, resize="stretch", antialias=False)
    found = trials.run(trials.candidates((24, 24), said), examples(), Model(right))
    best, _ = trials.pick(found)
    assert best.preprocessing == right and best.said
    flags = "--mean=10 --std=20 --bgr=true --resize=stretch --antialias=false"
    assert best.flags() == flags


def test_classes_in_another_order_do_not_hide_the_right_way():
    """Images of 224 pixels, of which few are tried at first."""
    right = Preprocessing((224, 224), **NORMALIZATIONS["tf"], antialias=False)
    model = Model(right, order=(1, 2, 3, 0))
    found = trials.run(trials.candidates((224, 224), {}), examples(), model)
    best, answers = trials.pick(found)
    assert best.preprocessing == right
    assert answers.all() and not best.right.any()


def test_large_images_cost_no_more_than_a_thousand_calls_or_so():
    right = Preprocessing((224, 224), **NORMALIZATIONS["torch"], crop_fraction=0.875)
    model = Model(right)
    found = trials.run(trials.candidates((224, 224), {}), examples(120), model)
    assert trials.pick(found)[0].preprocessing == right
    whole = len(trials.NORMALIZED) * len(trials.GEOMETRIES) * 80
    assert model.calls < 0.4 * whole


def test_the_commonest_is_picked_of_those_that_fit_as_well():
    targets = np.eye(2)[[0, 1] * 10]
    sure, less = 0.98, 0.98 * np.exp(-0.5 * trials.MARGIN_IF_RIGHT)

    def trial(right):
        scores = np.where(targets > 0, right, 1 - right)
        return trials.Trial("raw", Preprocessing((8, 8)), False, targets, scores)

    first, second = trial(less), trial(sure)
    assert trials.pick([first, second])[0] is first
    worse = trial(0.98 * np.exp(-2 * trials.MARGIN_IF_RIGHT))
    assert trials.pick([worse, second])[0] is second


def test_of_those_that_are_less_often_right_few_fit_as_well():
    targets = np.eye(2)[[0, 1] * 100]

    def trial(wrong, sure):
        scores = np.where(targets > 0, sure, 1 - sure)
        scores[:wrong] = scores[:wrong, ::-1]
        return trials.Trial("raw", Preprocessing((8, 8)), False, targets, scores)

    best = trial(0, 0.9)
    for first, picked in ((trial(1, 0.9), True), (trial(4, 0.9), False)):
        difference = best.fit - first.fit
        assert (difference < trials.MARGIN) == picked
        assert difference < trials.MARGIN_IF_RIGHT
        assert (trials.pick([first, best])[0] is first) == picked


def test_grey_models_are_tried_with_one_mean_alone():
    found = trials.candidates((24, 24), {}, grey=True)
    assert {trial.normalization for trial in found} == {"raw", "unit", "tf", "zoo"}
