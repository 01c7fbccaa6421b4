"""The families of keras.applications in tf_keras."""

import keras
import numpy as np
import pytest

from keras_resnet import rewrite
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training.quantize import twin as twins
from tests.helpers.classifiers import with_random_statistics
from tests.zoo.test_rewrite_families import SIZES, pictures

slow = pytest.mark.slow


@pytest.mark.parametrize(
    "family",
    [
        "MobileNetV3Small",
        "ResNet50V2",
        "VGG16",
        *(
            pytest.param(family, marks=slow)
            for family in (
                "ConvNeXtTiny",
                "DenseNet121",
                "EfficientNetB0",
                "EfficientNetV2B0",
                "InceptionResNetV2",
                "InceptionV3",
                "MobileNetV2",
                "NASNetMobile",
                "ResNet50",
                "Xception",
            )
        ),
    ],
)
def test_the_twin_of_a_family_computes_the_same(family):
    keras.utils.set_random_seed(0)
    size = SIZES.get(family, 32)
    model = getattr(keras.applications, family)(
        weights=None,
        input_shape=(size, size, 3),
        classes=10,
    )
    with_random_statistics(model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0
    images = pictures(size)
    model(np.float32(images), training=True)  # statistics, as if it had learned
    raw = Preprocessing((size, size), (0, 0, 0), (1, 1, 1))

    rewritten = rewrite.for_device(model, raw)

    # Behind the last layer a softmax could hide a difference.
    features = keras.Model(rewritten.model.inputs, rewritten.model.layers[-1].input)
    twin, _ = twins.twin(features)
    images = rewritten.preprocessing.normalize(images)
    expected = features(images, training=False).numpy()
    actual = twin(images, training=False).numpy()
    largest = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-2 * largest  # pictures matter
    # Untrained networks of this depth amplify the rounding of float32.
    moved = features(np.nextafter(images, np.float32(256)), training=False).numpy()
    rounding = np.abs(moved - expected).max()
    assert np.abs(actual - expected).max() <= max(1e-4 * largest, 4 * rounding)
