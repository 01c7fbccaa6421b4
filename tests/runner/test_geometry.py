"""Crop, stretch and pad, with and without antialiasing, against others' arithmetic."""

import itertools
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner import Classifier, UserError
from keras_resnet.runner.geometry import resize_and_crop
from keras_resnet.runner.pipeline import load_pixels
from keras_resnet.runner.preprocessing import INTERPOLATIONS, RESIZES
from keras_resnet.training.data import batching, datasets, decoding
from tests.helpers.runner import SHIPPED, noise

IN_TENSORFLOW = {name: name for name in INTERPOLATIONS} | {"lanczos": "lanczos3"}
# (height, width): wide, tall, odd, one pixel, a line, smaller and larger than inputs.
SIZES = [(1, 1), (1, 7), (13, 1), (17, 31), (64, 48), (101, 67), (120, 163), (24, 32)]
INPUTS = [(1, 1), (2, 5), (12, 16), (31, 33), (96, 64), (7, 130)]


def picture(height, width):
    """Noise, or for half of the sizes something smooth."""
    if (height + width) % 2:
        return noise(height, width)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + y / 5), np.cos(x / 9), np.sin(x * y / 900)]
    return (np.stack(waves, -1) * 120 + 128).astype(np.uint8)


def rounded(levels):
    return np.rint(np.asarray(levels, np.float64)).clip(0, 255).astype(np.uint8)


def cropped(pixels, height, width):
    """The centre of an array."""
    top, left = (
        round((s - n) / 2)
        for s, n in zip(pixels.shape[:2], (height, width), strict=True)
    )
    return pixels[top : top + height, left : left + width]


def assert_within_one_level(pairs, share):
    """At most one level of 255 apart, and equal but for a share of the values."""
    differences = [np.abs(one.astype(int) - other) for one, other in pairs]
    assert all(difference.max() <= 1 for difference in differences)
    different = sum((difference > 0).sum() for difference in differences)
    assert different <= share * sum(difference.size for difference in differences)


# --- without antialiasing: TensorFlow ---


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_without_antialiasing_pixels_are_those_of_tensorflow(name, photographs):
    images = [picture(*size) for size in SIZES]
    images += [np.asarray(Image.open(path)) for path in photographs[:2]]
    pairs = []
    for image, size in itertools.product(images, INPUTS):
        how = Preprocessing(size, interpolation=name, resize="stretch", antialias=False)
        levels = tf.image.resize(image, size, IN_TENSORFLOW[name], antialias=False)
        pairs.append((how.resize_and_crop(image), rounded(levels)))
    assert_within_one_level(pairs, 0 if name == "nearest" else 1e-3)


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_a_crop_of_the_stretched_image_is_that_of_tensorflow(name):
    pairs = []
    for image in (picture(101, 67), picture(37, 52)):
        how = Preprocessing(
            (24, 33), (0,) * 3, (1,) * 3, "rgb", 0.8, name, "stretch", False
        )
        whole = tf.image.resize(image, (30, 41), IN_TENSORFLOW[name], antialias=False)
        pairs.append((how.resize_and_crop(image), cropped(rounded(whole), 24, 33)))
    assert_within_one_level(pairs, 2e-3)


# --- Keras's own loaders ---


def loaded_by_keras(folder, images, size, **arguments):
    """What image_dataset_from_directory makes of images, float32."""
    for number, image in enumerate(images):
        (folder / "class").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "class" / f"{number:02d}.png")
    return [
        batch.numpy()[0]
        for batch in keras.utils.image_dataset_from_directory(
            folder,
            labels=None,
            image_size=size,
            batch_size=1,
            shuffle=False,
            verbose=False,
            **arguments,
        )
    ]


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize(
    "resize, argument",
    [("stretch", {}), ("pad", "pad_to_aspect_ratio"), ("crop", "crop_to_aspect_ratio")],
)
def test_keras_loads_the_same_pixels_from_a_folder(tmp_path, resize, argument, name):
    arguments = {argument: True} if argument else {}
    images = [picture(*size) for size in SIZES]
    if resize == "pad":  # where a side would become 0 pixels long, TensorFlow fails
        images = [image for image in images if min(image.shape[:2]) > 1]
    for size in INPUTS[2:5]:
        how = Preprocessing(size, interpolation=name, resize=resize, antialias=False)
        theirs = loaded_by_keras(
            tmp_path, images, size, interpolation=IN_TENSORFLOW[name], **arguments
        )
        assert_within_one_level(
            [
                (how.resize_and_crop(image), rounded(levels))
                for image, levels in zip(images, theirs, strict=True)
            ],
            2e-3,
        )


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_keras_loads_the_same_stretched_image_with_pillow(tmp_path, name):
    for size in SIZES:
        image = picture(*size)
        Image.fromarray(image).save(tmp_path / "image.png")
        theirs = keras.utils.load_img(
            tmp_path / "image.png", target_size=(31, 33), interpolation=name
        )
        how = Preprocessing((31, 33), interpolation=name, resize="stretch")
        np.testing.assert_array_equal(how.resize_and_crop(image), np.asarray(theirs))


# --- the regions ---


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(17, 31), (64, 48), (101, 67), (24, 32)])
def test_padding_puts_what_pillow_resizes_in_the_middle_of_black(name, size):
    image = Image.fromarray(picture(*size))
    for height, width in ((12, 16), (31, 33), (40, 40)):
        ratio = max(size[0] / height, size[1] / width)
        inner = [int(side / ratio + 1e-9) for side in size]
        left, top = (width - size[1] / ratio) / 2, (height - size[0] / ratio) / 2
        expected = Image.new("RGB", (width, height))
        method = getattr(Image, name.upper())
        expected.paste(image.resize(inner[::-1], method), (int(left), int(top)))
        how = Preprocessing((height, width), interpolation=name, resize="pad")
        np.testing.assert_array_equal(how.resize_and_crop(image), expected)


def test_a_crop_keeps_the_largest_region_of_the_inputs_aspect():
    """Which for an input that is not square is not what version 0.1 cut out."""
    for shape, height, width in (((60, 210), 60, 120), ((210, 60), 30, 60)):
        image = np.zeros((*shape, 3), np.uint8)
        cropped(image, height, width)[:] = 255
        for antialias in (True, False):
            how = Preprocessing((20, 40), antialias=antialias, interpolation="nearest")
            assert (how.resize_and_crop(image) == 255).all()
            half = Preprocessing((10, 20), crop_fraction=0.5, antialias=antialias)
            inner = np.zeros_like(image)
            cropped(inner, height // 2, width // 2)[:] = 255
            assert half.resize_and_crop(inner).mean() > 240
            assert half.resize_and_crop(inner)[1:-1, 1:-1].min() == 255


def test_an_image_that_needs_too_many_pixels_is_refused():
    line = Image.new("RGB", (500_000, 1))
    how = Preprocessing((224, 224))
    with pytest.raises(UserError, match="500000 x 1 pixels: too elongated"):
        how.resize_and_crop(line)
    for fields in (dict(resize="pad"), dict(resize="stretch"), dict(antialias=False)):
        how = Preprocessing((224, 224), **fields)
        assert how.resize_and_crop(line).shape == (224, 224, 3)


# --- the same everywhere ---


HOWS = [
    Preprocessing(
        size,
        crop_fraction=1.0 if resize == "pad" else crop_fraction,
        interpolation=name,
        resize=resize,
        antialias=antialias,
    )
    for size, crop_fraction in (((24, 24), 0.875), ((24, 32), 1.0))
    for resize, antialias in itertools.product(RESIZES, (True, False))
    for name in INTERPOLATIONS
]


def label(how):
    kind = "antialiased" if how.antialias else "sampled"
    return f"{how.input_size}-{how.resize}-{kind}-{how.interpolation}"


@pytest.mark.parametrize("how", HOWS, ids=label)
def test_training_and_the_device_see_the_same_pixels(tmp_path, how):
    classifier = Classifier(SHIPPED)
    classifier.input_shape, classifier.preprocessing = (1, *how.input_size, 3), how
    for size in SIZES:
        image = picture(*size)
        Image.fromarray(image).save(tmp_path / "image.png")
        on_the_device = load_pixels(str(tmp_path / "image.png"), classifier)[0]
        encoded = (tmp_path / "image.png").read_bytes()
        trained = decoding.resize_and_crop(decoding.decode(encoded), how)
        np.testing.assert_array_equal(trained, on_the_device)
        np.testing.assert_array_equal(how.resize_and_crop(image), on_the_device)


def test_an_input_that_is_not_square_is_evaluated_and_calibrated(tmp_path):
    images = [picture(*size) for size in SIZES]
    encoded = [tf.io.encode_png(image).numpy() for image in images]

    def read():
        return tf.data.Dataset.from_tensor_slices((encoded, np.arange(len(encoded))))

    split = datasets.Split(len(images), read)
    data = datasets.Dataset("made", list(map(str, range(8))), split, split, {})
    for resize in RESIZES:
        how = Preprocessing((24, 32), resize=resize, antialias=False)
        expected = np.stack([how.resize_and_crop(image) for image in images])
        batches = batching.evaluation_batches(split, how, 5)
        batches = np.concatenate([batch for batch, _ in batches])
        np.testing.assert_array_equal(batches[:8], how.normalize(expected))
        found = batching.calibration_images(data, how, 8)
        assert found.shape == expected.shape
        assert sorted(map(bytes, found)) == sorted(map(bytes, expected))


def test_a_photograph_is_sampled_in_little_memory():
    """12 megapixels are 36 MB; an array of them all would take as much again."""
    photograph = Image.effect_noise((4032, 3024), 60).convert("RGB")
    how = Preprocessing((224, 224), interpolation="lanczos", antialias=False)
    tracemalloc.start()
    resize_and_crop(photograph, how)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
