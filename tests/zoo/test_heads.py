"""Detection and segmentation heads: shapes, anchors, sizes, and what is refused."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import heads
from keras_resnet.runner.errors import UserError


def backbone(name="resnet8", size=(64, 64), **arguments):
    return keras_resnet.create_model(
        name, include_top=False, weights=None, input_shape=(*size, 3), **arguments
    )


def outputs(model, images):
    """What a model gives, as NumPy arrays on every backend."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images))


@pytest.fixture(scope="module")
def detector():
    return heads.detector(backbone(size=(64, 96)), 3)


def test_a_detector_has_boxes_and_scores_for_every_anchor(detector):
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    found = outputs(detector, images)
    number = 16 * 24 + 8 * 12
    assert found["boxes"].shape == (2, number, 4)
    assert found["scores"].shape == (2, number, 3)
    assert heads.anchors(detector).shape == (number, 4)
    # At first nothing is likely; only the bias speaks of a grey image.
    grey = outputs(detector, np.zeros((1, 64, 96, 3), np.float32))["scores"]
    np.testing.assert_allclose(grey, heads.PRIOR, rtol=1e-5)


def test_logits_have_the_weights_of_scores_in_equal_order(detector):
    logits = heads.detector(backbone(size=(64, 96)), 3, activation=None)
    logits.set_weights(detector.get_weights())
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    expected, found = outputs(detector, images), outputs(logits, images)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-6)
    scores = 1 / (1 + np.exp(-found["scores"]))
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-6)


def test_anchors_are_squares_of_four_strides_around_the_cells():
    """A map of 2 x 3 cells, then one of 1 x 1."""
    found = heads.anchors([(2, 3), (1, 1)])
    assert found.dtype == np.float32
    expected = [
        ((row + 0.5) / 2, (column + 0.5) / 3, 4 / 2, 4 / 3)
        for row in range(2)
        for column in range(3)
    ]
    np.testing.assert_allclose(found, [*expected, (0.5, 0.5, 4, 4)], rtol=1e-6)


def test_an_output_belongs_to_the_anchor_of_its_cell(detector):
    """A level's map, and its part of the outputs, have the same order."""
    level = detector.get_layer("P3_boxes").output
    parts = keras.Model(detector.input, [level, detector.output["boxes"]])
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    of_level, boxes = outputs(parts, images)
    anchors = heads.anchors(detector)
    for row, column in ((0, 0), (0, 11), (3, 7), (7, 2)):
        place = (row + 0.5) / 8, (column + 0.5) / 12
        is_here = np.isclose(anchors[:, :2], place).all(1)
        is_here &= np.isclose(anchors[:, 2], 4 / 8)
        (index,) = np.flatnonzero(is_here)
        np.testing.assert_array_equal(boxes[0, index], of_level[0, row, column])


@pytest.mark.parametrize(
    ("name", "build", "classes"),
    [
        ("resnet16_224", heads.detector, 20),
        ("resnet16_224", heads.segmenter, 21),
        ("resnet14", heads.detector, 20),
        ("resnet14", heads.segmenter, 21),
    ],
)
def test_the_default_fits_into_the_memory_of_the_edge_tpu(name, build, classes):
    """With the 1.33 by which the compiler enlarges parameters at most."""
    size = 224 if "224" in name else 64
    model = build(backbone(name, (size, size)), classes)
    assert 1.33 * model.count_params() < 8 << 20
    kinds = {
        type(layer).__module__.partition(".src.layers")[0] for layer in model.layers
    }
    assert kinds == {"keras"}


def test_without_a_top_down_path_a_detector_is_smaller():
    whole, small = (
        heads.detector(backbone("resnet16_224", (224, 224)), 3, top_down=top_down)
        for top_down in (True, False)
    )
    assert small.count_params() < 0.9 * whole.count_params()
    kinds = {type(layer) for layer in small.layers}
    assert keras.layers.UpSampling2D not in kinds
    assert small.output_shape == whole.output_shape


def test_coarse_maps_reach_fine_ones():
    """The scores of the finest level depend on the coarsest map."""
    model = heads.detector(backbone(), 3)
    coarse = model.get_layer("P3_down_conv")
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    fine = keras.Model(model.input, model.get_layer("P2_scores").output)
    before = outputs(fine, images)
    coarse.set_weights([2 * weights[::-1] for weights in coarse.get_weights()])
    assert np.abs(outputs(fine, images) - before).max() > 1e-6


@pytest.mark.parametrize(("name", "size"), [("resnet16_224", 64), ("resnet8", 32)])
def test_a_segmenter_has_scores_for_every_cell_of_the_finest_map(name, size):
    model = heads.segmenter(backbone(name, (size, 2 * size)), 5)
    stride = 4 if "224" in name else 1
    scores = outputs(model, np.zeros((1, size, 2 * size, 3), np.float32))
    assert scores.shape == (1, size // stride, 2 * size // stride, 5)
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-5)


def test_other_maps_and_widths_can_be_chosen():
    model = heads.detector(backbone("resnet18"), 3, maps=("C3", "C4", "C5"), width=48)
    shapes = [(8, 8), (4, 4), (2, 2), (1, 1)]
    np.testing.assert_array_equal(heads.anchors(model), heads.anchors(shapes))
    assert model.get_layer("P6_head_conv").filters == 48


def test_a_head_knows_what_the_backbone_knows(tmp_path):
    features = keras_resnet.ResNet16_224(include_top=False, input_shape=(64, 64, 3))
    model = heads.detector(features, 3)
    assert model.preprocessing == features.preprocessing
    assert model.licence == features.licence
    model.save(tmp_path / "model.keras")
    opened = keras_resnet.load(tmp_path / "model.keras")
    assert opened.preprocessing == features.preprocessing
    assert sorted(opened.output) == ["boxes", "scores"]


def test_only_the_backbone_s_normalization_is_frozen(detector):
    model = keras.models.clone_model(detector)
    heads.freeze_normalization(model)
    kinds = {
        (layer.name.startswith("conv"), layer.trainable)
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert kinds == {(True, False), (False, True)}
    assert model.get_layer("conv1_conv").trainable


@pytest.mark.parametrize(
    ("size", "arguments", "text"),
    [
        ((64, 64), dict(classes=0), "`classes` must be a whole number from 1"),
        ((64, 64), dict(width=1.5), "`width` must be a whole number from 1"),
        ((64, 64), dict(maps=("C7",)), "must be some of C2, C3, C4. Received"),
        ((64, 64), dict(maps=("C2", "C4")), "half the resolution of the one before"),
        ((64, 66), {}, "multiples of 8 pixels. Received: 64 x 66"),
        ((64, None), {}, "images of a fixed size"),
    ],
)
def test_what_does_not_fit_is_refused(size, arguments, text):
    with pytest.raises(UserError, match=text):
        heads.detector(backbone(size=size), **{"classes": 3, **arguments})


def test_a_classifier_has_no_anchors():
    with pytest.raises(UserError, match="no detector. Received: 'resnet8'"):
        heads.anchors(backbone())
