"""Decoding an image file, and making the pixels of the input from it."""

import dataclasses
import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner import Classifier, Preprocessing, UserError
from keras_resnet.runner.images import prepare, read_image, reduction
from tests.helpers.runner import (
    HEIGHT,
    WIDTH,
    assert_one_error,
    encoded,
    noise,
)


def decoded(data):
    return np.array(read_image(io.BytesIO(data)).image)


@pytest.mark.parametrize(
    "size, resized, left_top",
    [
        ((101, 67), (22, 15), (3, 2)),
        ((67, 101), (20, 30), (2, 9)),
        ((62, 40), (23, 15), (4, 2)),  # 3.5 rounds to the even 4
        ((67, 40), (25, 15), (4, 2)),  # 4.5 as well
        ((40, 58), (20, 29), (2, 8)),
        ((20, 20), (20, 20), (2, 4)),
        ((1, 1), (20, 20), (2, 4)),
    ],
)
@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_prepare_covers_the_input_and_crops_the_centre(
    models, size, resized, left_top, name
):
    classifier = Classifier(models["full"])
    classifier.preprocessing = dataclasses.replace(
        classifier.preprocessing, interpolation=name
    )
    image = Image.fromarray(noise(size[1], size[0]))
    pillows = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
    whole = np.asarray(image.resize(resized, pillows[name]))
    left, top = left_top
    expected = whole[top : top + HEIGHT, left : left + WIDTH]
    pixels = prepare(image, classifier)
    # Only the crop is computed, with positions in 32 bits: a pixel may round the other
    # way.
    difference = np.abs(pixels.astype(int) - expected)
    assert difference.max() <= (0 if name == "nearest" else 1)
    assert difference.mean() < 0.05
    assert pixels.shape == (HEIGHT, WIDTH, 3) and pixels.dtype == np.uint8


def test_prepare_stretches_for_a_model_without_preprocessing(models):
    classifier = Classifier(models["plain"])
    assert classifier.preprocessing is None
    image = Image.fromarray(noise(90, 31))
    expected = np.asarray(image.resize((WIDTH, HEIGHT), Image.LANCZOS))
    np.testing.assert_array_equal(prepare(image, classifier), expected)


def test_pixels_of_every_mode_are_those_of_training():
    import tensorflow as tf

    rgb = Image.fromarray(noise(9, 8))
    palette = rgb.quantize(16)
    palette.info["transparency"] = bytes(range(16))
    sixteen = noise(9, 8, 1).astype(np.uint16) * 256 + 77
    images = {
        "RGB": rgb,
        "grey": rgb.convert("L"),
        "grey and alpha": Image.fromarray(noise(9, 8, 2), "LA"),
        "RGBA": Image.fromarray(noise(9, 8, 4)),
        "palette": palette,
        "16 bits": Image.fromarray(sixteen),
        "1 bit": rgb.convert("1"),
        "1x1": Image.new("RGB", (1, 1), (1, 2, 3)),
    }
    for name, image in images.items():
        data = encoded(image, "PNG")
        expected = tf.io.decode_image(data, channels=3).numpy()
        np.testing.assert_array_equal(decoded(data), expected, name)


def test_cmyk_is_converted():
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    red = decoded(data)
    assert red.shape == (16, 16, 3)
    assert np.abs(red.astype(int) - (255, 0, 0)).max() <= 3


def test_sixteen_bits_keep_their_high_byte_in_tiff():
    grey = noise(9, 8, 1)
    image = Image.fromarray(grey.astype(np.uint16) * 256 + 200)
    expected = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(decoded(encoded(image, "TIFF")), expected)


def test_32_bit_pixels_are_refused():
    image = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    with pytest.raises(UserError, match="32-bit"):
        decoded(encoded(image, "TIFF"))


# What a camera stores for each EXIF orientation of a scene that is upright in memory.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, file_format):
    scene = noise(6, 9)
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        decoded(encoded(image, file_format, exif=exif)), scene
    )


def test_damaged_exif_leaves_the_picture_alone():
    scene = Image.fromarray(noise(6, 9))
    for exif in (b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0junk" * 9):
        assert decoded(encoded(scene, "JPEG", exif=exif)).shape == (6, 9, 3)


def test_a_truncated_picture_of_any_format_is_refused():
    image = Image.fromarray(noise(40, 30))
    for file_format in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"):
        data = encoded(image, file_format)
        decoded(data)
        for length in np.linspace(1, len(data) - 100, 20).astype(int):
            with pytest.raises(UserError):
                decoded(data[:length])


def test_a_jpeg_that_lacks_its_last_byte_is_refused():
    with pytest.raises(UserError, match="truncated"):
        decoded(encoded(Image.fromarray(noise(40, 30)), "JPEG")[:-1])


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    for side in (10000, 60000):  # Pillow warns of the first and refuses the second
        data = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zipfile.crc32(data[12:29]))
        with pytest.raises(UserError, match="pixels"):
            decoded(bytes(data))


def test_a_picture_too_elongated_for_the_crop_is_refused(models, capfd, tmp_path):
    Image.new("L", (500000, 1)).save(tmp_path / "line.png")
    argv = ["--model", models["full"], tmp_path / "line.png"]
    assert_one_error(capfd, argv, "line.png", "500000 x 1")


def test_programs_disguised_as_pictures_are_not_run():
    with pytest.raises(UserError, match="EPS"):
        decoded(encoded(Image.new("RGB", (8, 8)), "EPS"))


def photograph(width, height, orientation=1):
    """A JPEG of smooth shapes with some fine structure."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 37 + y / 53), np.cos(x / 91), np.sin(x * y / 9e4)]
    pixels = np.stack(waves, -1) * 90 + 128 + noise(height, width) / 16
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels.astype(np.uint8))
    return encoded(image, "JPEG", quality=92, exif=exif)


@pytest.mark.parametrize(
    "name, resize, factor",
    [("full", "crop", 2), ("full", "stretch", 2), ("full", "pad", 4), ("plain", "", 4)],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_that_is_decoded_smaller_gives_nearly_the_same_pixels(
    models, tmp_path, name, resize, factor, orientation
):
    path = tmp_path / "photo.jpg"
    path.write_bytes(photograph(801, 603, orientation))  # both leave a rest
    classifier = Classifier(models[name])
    if resize:
        classifier.preprocessing = dataclasses.replace(
            classifier.preprocessing,
            resize=resize,
            crop_fraction=1.0 if resize == "pad" else 0.8,
        )
    picture = read_image(str(path), classifier)
    whole = read_image(str(path)).image
    assert whole.size == ((801, 603) if orientation < 5 else (603, 801))
    assert sorted(picture.image.size) == [603 // factor + 1, 801 // factor + 1]
    left, top, right, bottom = picture.box
    assert ((right - left) * factor, (bottom - top) * factor) == whole.size
    pixels = prepare(picture.image, classifier, picture.box)
    expected = prepare(whole, classifier)
    assert np.abs(pixels.astype(int) - expected).mean() < 0.5


@pytest.mark.parametrize(
    "size, expected",
    [((4032, 3024), 4), ((3024, 4032), 4), ((2048, 4000), 4), ((2047, 4000), 2)]
    + [((1023, 1023), 1), ((4096, 4096), 8), ((300, 9000), 1), ((40, 30), 1)],
)
def test_so_much_is_decoded_smaller_that_twice_the_pixels_are_left(size, expected):
    """For a shorter side of 256: at least 512 are left."""
    how = Preprocessing((224, 224), crop_fraction=0.875, reduced_decoding=2)
    assert reduction(size, how) == expected
    assert reduction(size, dataclasses.replace(how, reduced_decoding=8)) == (
        2 if size == (4096, 4096) else 1
    )


def test_a_photograph_with_more_pictures_behind_it_is_decoded_smaller(models, tmp_path):
    """Phones write MPO files: a JPEG, then a depth map or another exposure."""
    image = Image.open(io.BytesIO(photograph(801, 603)))
    path = tmp_path / "photo.jpg"
    image.save(path, "MPO", save_all=True, append_images=[image.resize((80, 60))])
    assert Image.open(path).format == "MPO"
    picture = read_image(str(path), Classifier(models["full"]))
    assert picture.image.size == (401, 302)
    whole = read_image(str(path)).image.resize((401, 302), Image.BOX)
    difference = np.asarray(picture.image, float) - np.asarray(whole)
    assert np.abs(difference).mean() < 1.5


@pytest.mark.parametrize(
    "fields", [dict(interpolation="nearest"), dict(antialias=False)]
)
def test_where_pixels_are_picked_nothing_is_decoded_smaller(models, tmp_path, fields):
    (tmp_path / "photo.jpg").write_bytes(photograph(801, 603))
    classifier = Classifier(models["full"])
    how = dataclasses.replace(classifier.preprocessing, **fields)
    classifier.preprocessing = how
    picture = read_image(str(tmp_path / "photo.jpg"), classifier)
    assert (picture.image.size, picture.box) == ((801, 603), (0, 0, 801, 603))
