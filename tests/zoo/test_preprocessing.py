"""Pixels to model input, and scores to labels."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing, classes
from keras_resnet.runner.errors import UserError
from tests.helpers.commands import ROOT


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 24, 3), np.uint8)


def theirs(pixels, mode="caffe", **arguments):
    return keras.applications.imagenet_utils.preprocess_input(
        pixels.astype("float32"), mode=mode, **arguments
    )


@pytest.mark.parametrize(
    "name, mode",
    [
        ("resnet50", "caffe"),
        ("resnet152.imagenet", "caffe"),
        ("resnet18", "torch"),
        ("a1_in1k", "torch"),
        ("resnet34.ra4_e3600_r224_in1k", "tf"),
    ],
)
def test_preprocess_input_equals_keras_applications(pixels, name, mode):
    expected = theirs(pixels, mode)
    for x in (pixels, pixels.astype("float64"), pixels[0], pixels.tolist()):
        before = np.array(x)
        actual = keras_resnet.preprocess_input(x, name)
        assert actual.dtype == np.float32
        np.testing.assert_allclose(
            actual, expected[0] if np.ndim(x) == 3 else expected, rtol=1e-5, atol=1e-5
        )
        np.testing.assert_array_equal(x, before)


def test_preprocess_input_defaults_to_keras_applications(pixels):
    np.testing.assert_allclose(
        keras_resnet.preprocess_input(pixels), theirs(pixels), atol=1e-4
    )


def test_unit_is_what_keras_rescales_by():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    how = Preprocessing((8, 8), **NORMALIZATIONS["unit"])
    expected = keras.layers.Rescaling(1 / 255)(pixels)
    np.testing.assert_allclose(
        how.normalize(pixels), keras.ops.convert_to_numpy(expected), atol=1e-6
    )
    assert how.uniform


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_preprocess_input_takes_tensors_and_both_data_formats(pixels, data_format):
    if data_format == "channels_first":
        pixels = pixels.transpose(0, 3, 1, 2)
    expected = theirs(pixels, data_format=data_format)
    for x in (pixels, keras.ops.convert_to_tensor(pixels)):
        for image in (x, x[0]):
            actual = keras_resnet.preprocess_input(image, data_format=data_format)
            np.testing.assert_allclose(
                actual, expected if image.ndim == 4 else expected[0], atol=1e-4
            )
    symbolic = keras.Input(pixels.shape[1:], dtype="uint8")
    outputs = keras_resnet.preprocess_input(symbolic, data_format=data_format)
    model = keras.Model(symbolic, outputs)
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, atol=1e-4)


def test_preprocess_input_works_inside_tf_data(pixels):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data hands out tensors of TensorFlow")
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensors(pixels).map(keras_resnet.preprocess_input)
    np.testing.assert_allclose(next(iter(dataset)), theirs(pixels), atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(model_or_weights="resnet51"), "resnet50.*list_weights"),
        (dict(model_or_weights="imagenet"), "resnet50.*list_weights"),
        (dict(model_or_weights="resnet50.a9_in1k"), "did you mean .*a3_in1k"),
        (dict(model_or_weights=50), "resnet50.*list_weights"),
        (dict(data_format="last"), "channels_last"),
    ],
)
def test_unknown_weights_and_formats_are_refused(pixels, arguments, message):
    with pytest.raises(UserError, match=f"{message}.*Received: "):
        keras_resnet.preprocess_input(pixels, **arguments)


def test_a_model_without_named_weights_does_not_guess(pixels):
    with pytest.raises(UserError, match="does not know.*keras_resnet.load.*'resnet8'"):
        keras_resnet.preprocess_input(pixels, keras_resnet.ResNet8(weights=None))
    with pytest.raises(UserError, match="does not know.*keras_resnet.load.*'resnet8'"):
        keras_resnet.decode_predictions(
            np.zeros((1, 10)), model_or_weights=keras_resnet.ResNet8(weights=None)
        )


# --- resize and crop --------------------------------------------------------


@pytest.mark.parametrize(
    "shape, crop_fraction, resized, top, left",
    [
        # torchvision: the longer side rounds down, the offset to the even number
        ((375, 500), 0.875, (256, 341), 16, 58),
        ((500, 375), 0.875, (341, 256), 58, 16),
        ((375, 500), 0.95, (235, 313), 6, 44),
        ((400, 400), 0.965, (232, 232), 4, 4),
        ((100, 101), 1.0, (224, 226), 0, 1),
    ],
)
def test_geometry_is_that_of_torchvision(shape, crop_fraction, resized, top, left):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    how = Preprocessing((224, 224), crop_fraction=crop_fraction)
    whole = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[top : top + 224, left : left + 224]
    before = image.copy()
    actual = how.resize_and_crop(image)
    # Only the crop is computed: Pillow's positions then have 32 bits.
    difference = np.abs(actual.astype(int) - expected)
    assert difference.max() <= 1 and difference.mean() < 0.005
    np.testing.assert_array_equal(how.resize_and_crop(Image.fromarray(image)), actual)
    np.testing.assert_array_equal(image, before)


def test_crop_of_another_shape_keeps_height_and_width_apart():
    image = np.zeros((300, 400, 3), np.uint8)
    how = Preprocessing((64, 96), crop_fraction=0.9, interpolation="bicubic")
    assert how.resize_and_crop(image).shape == (64, 96, 3)


# Pillow rounds and clips between its two passes, where bicubic overshoots.
@pytest.mark.parametrize("interpolation, worst", [("bilinear", 1), ("bicubic", 8)])
def test_photographs_are_resized_with_antialiasing(interpolation, worst):
    """Against Keras' own antialiased resizing, in grey levels."""
    datasets = pytest.importorskip("sklearn.datasets")
    how = Preprocessing((224, 224), interpolation=interpolation)
    for photograph in datasets.load_sample_images().images:
        # A part with a larger height than width, and one with a smaller.
        for image in (photograph, photograph[:, 100:400]):
            size = tuple(224 * side // min(image.shape[:2]) for side in image.shape[:2])
            expected = keras.ops.convert_to_numpy(
                keras.ops.image.resize(
                    image.astype("float32"), size, interpolation, antialias=True
                )
            )
            top, left = (round((side - 224) / 2) for side in size)
            expected = expected[top : top + 224, left : left + 224].clip(0, 255).round()
            difference = np.abs(how.resize_and_crop(image) - expected)
            assert difference.max() <= worst and difference.mean() < 0.2


def test_grey_images_become_rgb_and_floats_are_refused():
    how = Preprocessing((32, 32))
    assert how.resize_and_crop(Image.new("L", (40, 50), 7)).shape == (32, 32, 3)
    for image in (np.zeros((40, 50, 3)), np.zeros((40, 50), np.uint8)):
        with pytest.raises(UserError, match="uint8 array.*Received: "):
            how.resize_and_crop(image)


# --- labels -----------------------------------------------------------------


def test_classes_are_the_published_ones():
    names = classes("imagenet")
    assert names[0] == ("n01440764", "tench")
    assert names[999] == ("n15075141", "toilet_tissue")
    assert [name for _, name in classes("cifar10")] == [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ]


def test_the_ids_of_classes_are_in_the_order_of_published_scores():
    """Against the list of tensorflow-datasets, which orders ImageNet's labels so."""
    spec = importlib.util.find_spec("tensorflow_datasets")
    if spec is None:
        pytest.skip("needs tensorflow-datasets")
    labels = pathlib.Path(spec.origin).parent / "datasets" / "imagenet2012/labels.txt"
    assert [wnid for wnid, _ in classes("imagenet")] == labels.read_text().split()


def test_the_names_of_classes_are_those_of_keras_applications():
    path = ROOT.parent / "shared" / "imagenet_classes.tsv"
    if not path.exists():
        pytest.skip("needs ../shared/imagenet_classes.tsv")
    rows = [tuple(row.split("\t")[1:]) for row in path.read_text().splitlines()]
    assert list(classes("imagenet")) == rows


def test_decode_predictions_names_the_best_classes_first():
    scores = np.zeros((2, 1000))
    scores[0, [1, 2]] = 0.7, 0.3
    decoded = keras_resnet.decode_predictions(scores, top=2)
    assert decoded[0] == [
        ("n01443537", "goldfish", 0.7),
        ("n01484850", "great_white_shark", 0.3),
    ]
    assert [len(row) for row in keras_resnet.decode_predictions(scores)] == [5, 5]
    with pytest.raises(UserError, match=r"Received: shape \(1000,\)"):
        keras_resnet.decode_predictions(scores[0])
    with pytest.raises(UserError, match="other classes.*`model_or_weights`"):
        keras_resnet.decode_predictions(scores[:, :10])
