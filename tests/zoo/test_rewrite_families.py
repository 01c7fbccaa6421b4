"""The families of keras.applications, rewritten, compute the same."""

import keras
import numpy as np
import pytest

from keras_resnet import rewrite
from keras_resnet.preprocessing import Preprocessing
from tests.helpers.classifiers import kinds, scores, with_random_statistics

applications, layers = keras.applications, keras.layers
slow = pytest.mark.slow
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


def pictures(size, number=32):
    """Returns uint8 images of blocks, coarse and fine: features that differ."""
    rng = np.random.default_rng(3)
    sides = [(1, 2, 4, 8)[index % 4] for index in range(number)]
    return np.stack(
        [
            np.kron(rng.integers(0, 256, (side, side, 3)), np.ones((10, 10, 1)))
            .repeat(8 // side, 0)
            .repeat(8 // side, 1)[:size, :size]
            for side in sides
        ]
    ).astype(np.uint8)


@pytest.mark.parametrize(
    "family, own_preprocessing",
    [
        ("MobileNetV2", "mobilenet_v2"),
        ("MobileNetV3Small", None),
        pytest.param("ConvNeXtTiny", None, marks=slow),
        pytest.param("DenseNet121", "densenet", marks=slow),
        pytest.param("EfficientNetV2B0", None, marks=slow),
        pytest.param("InceptionResNetV2", "inception_resnet_v2", marks=slow),
        pytest.param("InceptionV3", "inception_v3", marks=slow),
        pytest.param("NASNetMobile", "nasnet", marks=slow),
        pytest.param("ResNet50", "resnet", marks=slow),
        pytest.param("ResNet50V2", "resnet_v2", marks=slow),
        pytest.param("VGG16", "vgg16", marks=slow),
        pytest.param("Xception", "xception", marks=slow),
    ],
)
def test_a_nested_family_with_augmentation_and_preprocessing(family, own_preprocessing):
    keras.utils.set_random_seed(0)
    size = SIZES.get(family, 32)
    base = getattr(applications, family)(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    with_random_statistics(base)
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0
    image = keras.Input((size, size, 3))
    x = layers.RandomFlip("horizontal")(image)
    if own_preprocessing:
        x = getattr(applications, own_preprocessing).preprocess_input(x)
    x = layers.GlobalAveragePooling2D()(base(x))
    x = layers.Dense(3, "softmax")(layers.BatchNormalization(momentum=0)(x))
    model = keras.Model(image, x)
    images = pictures(size)
    model(np.float32(images), training=True)  # statistics, as if it had learned
    before = Preprocessing((size, size), (0, 0, 0), (1, 1, 1))

    rewritten = rewrite.for_device(model, before)

    expected = scores(model, before, images)
    actual = scores(rewritten.model, rewritten.preprocessing, images)
    assert np.ptp(expected, axis=0).max() > 0.1
    # Untrained networks of this depth amplify the rounding of float32.
    pixels = np.float32(images)
    rounding = [
        np.abs(keras.ops.convert_to_numpy(model(moved, training=False)) - expected)
        for moved in (np.nextafter(pixels, 256, dtype="float32"), pixels * (1 - 2**-23))
    ]
    assert np.abs(actual - expected).max() <= max(1e-5, 4 * np.max(rounding))
    assert all(isinstance(each, keras.Layer) for each in rewritten.model.operations)
    found = kinds(rewritten.model)
    assert not {"Rescaling", "Normalization", "CustomScaleLayer"} & set(found)
    names = {layer.name for layer in rewritten.model.layers}
    for layer in base.layers:
        if type(layer).__name__ in ("Conv2D", "DepthwiseConv2D", "BatchNormalization"):
            assert layer.name in names
