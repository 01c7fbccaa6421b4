"""What a segmenter learns: the loss of pixels beside plain loops."""

import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.boxes import IGNORED, mask_to_picture
from keras_resnet.training.scenes import segmentation


def made(seed=0, size=(6, 8)):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 3, (2, *size)).astype(np.uint8)
    masks[rng.uniform(size=masks.shape) < 0.3] = IGNORED
    return masks, rng.normal(size=(2, *size, 3)).astype(np.float32)


def test_the_loss_is_the_mean_over_pixels_that_count():
    masks, logits = made()
    for value, mask, picture in zip(
        segmentation.loss(logits, tf.constant(masks)), masks, logits, strict=True
    ):
        shares = np.exp(picture) / np.exp(picture).sum(-1, keepdims=True)
        losses = [
            -np.log(shares[place][mask[place]])
            for place in np.ndindex(mask.shape)
            if mask[place] != IGNORED
        ]
        assert 0 < len(losses) < mask.size
        assert float(value) == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_picture_of_which_nothing_counts_costs_nothing():
    masks, logits = made()
    found = segmentation.loss(logits, tf.fill(masks.shape, np.uint8(IGNORED)))
    np.testing.assert_array_equal(found, [0, 0])


def test_logits_are_enlarged_to_the_mask():
    """Four times as large; constant ones stay what they are."""
    masks, _ = made(size=(8, 12))
    coarse = np.broadcast_to(np.float32([0, 1, 2]), (2, 2, 3, 3))
    fine = np.broadcast_to(np.float32([0, 1, 2]), (2, 8, 12, 3))
    np.testing.assert_allclose(
        segmentation.loss(coarse, tf.constant(masks)),
        segmentation.loss(fine, tf.constant(masks)),
        rtol=1e-6,
    )


def test_pixels_are_predicted_as_the_runner_enlarges_them():
    logits = made(size=(3, 5))[1]
    expected = [
        mask_to_picture(picture.argmax(-1), (20, 12), Preprocessing((12, 20)))
        for picture in logits
    ]
    np.testing.assert_array_equal(segmentation.predicted(logits, (12, 20)), expected)
