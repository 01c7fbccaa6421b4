"""Decodes and resizes images in TensorFlow, to the same pixels as on a device."""

import dataclasses
import io

import numpy as np
import PIL.Image
import tensorflow as tf

from keras_resnet.runner import geometry, images
from keras_resnet.runner.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins


def decode(encoded):
    """Decodes an image to uint8 (height, width, 3), upright by its EXIF.

    TensorFlow reads JPEG and PNG. The device's runner reads all other formats that it
    knows: TensorFlow refuses BMPs and GIFs that Pillow reads, and knows no TIFF, WebP
    and HEIC.

    Raises:
        tf.errors.InvalidArgumentError: it is damaged, or another kind of file.
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    is_png = tf.equal(tf.strings.substr(encoded, 0, len(PNG)), PNG)
    image = tf.cond(
        is_jpeg | is_png,
        lambda: _decode_fast(encoded, is_jpeg),
        lambda: _decode_as_on_the_device(encoded),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _decode_fast(encoded, is_jpeg):
    # TensorFlow's default for JPEG is a fast approximation, one level off on average.
    image = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(encoded, 3),
    )
    return tf.cond(
        has_exif(encoded),
        lambda: tf.numpy_function(upright, [image, encoded], tf.uint8),
        lambda: image,
    )


def _decode_as_on_the_device(encoded):
    # An exception in the function would print its traceback, and lose its type.
    def pixels_and_error(encoded):
        try:
            return np.array(images.read_image(io.BytesIO(encoded)).image), b""
        except UserError as error:
            return np.zeros((1, 1, 3), np.uint8), str(error).encode()

    pixels, error = tf.numpy_function(
        pixels_and_error, [encoded], (tf.uint8, tf.string)
    )
    whole = tf.debugging.Assert(tf.equal(error, b""), [error])
    with tf.control_dependencies([whole]):
        return tf.identity(pixels)


def has_exif(encoded):
    """Returns whether an encoded image, or its beginning, may have an orientation."""

    # The markers of EXIF in JPEG and in PNG; XMP can hold an orientation too. Splitting
    # finds bytes many times faster than a regular expression.
    def holds(marker):
        parts = tf.raw_ops.StringSplitV2(input=[encoded], sep=marker, maxsplit=1)
        return tf.size(parts.values) > 1

    return holds(b"Exif\x00") | holds(b"eXIf") | holds(b"Orientation")


def upright(image, encoded):
    """Turns an array (height, width, 3) as the EXIF of its file says."""
    try:
        orientation = PIL.Image.open(io.BytesIO(encoded)).getexif().get(0x0112)
    except Exception:  # the EXIF is damaged, but the pixels are not
        return image
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def resize_and_crop(image, preprocessing):
    """Resizes a uint8 image and crops its centre, as `preprocessing` says."""
    height, width = preprocessing.input_size

    # The device's own code does it. TensorFlow rounds once and Pillow twice, which
    # changed the top-1 class of 2 or 3 in 100 photographs.
    def as_on_the_device(image):
        return geometry.resize_and_crop(PIL.Image.fromarray(image), preprocessing)

    resized = preprocessing.resized_size
    left, top, right, bottom = geometry.centre(resized[::-1], (width, height))
    pixels = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == resized),
        lambda: image[top:bottom, left:right],
        lambda: tf.numpy_function(as_on_the_device, [image], tf.uint8),
    )
    return tf.ensure_shape(pixels, (height, width, 3))


def resize(image, preprocessing):
    """Resizes a uint8 image as `preprocessing` says, but cuts nothing out of it."""

    def as_on_the_device(image):
        image = PIL.Image.fromarray(image)
        size = preprocessing.resized_size
        if preprocessing.resize == "crop":
            size = geometry.covering_size(image.size, size[::-1])[::-1]
        how = "pad" if preprocessing.resize == "pad" else "stretch"
        whole = dataclasses.replace(
            preprocessing, input_size=size, crop_fraction=1.0, resize=how
        )
        return geometry.resize_and_crop(image, whole)

    image = tf.numpy_function(as_on_the_device, [image], tf.uint8)
    return tf.ensure_shape(image, (None, None, 3))


def to_uint8(image):
    """Rounds levels of 0..255 to uint8."""
    return tf.saturate_cast(tf.round(image), tf.uint8)


def normalize(pixels, preprocessing):
    """Normalizes levels of 0..255, (..., height, width, 3), to float32.

    It does in TensorFlow what `Preprocessing.normalize` does in numpy.
    """
    # By whole rows: TensorFlow takes eight times as long for three numbers at a time.
    shape = tf.shape(pixels)
    rows = tf.reshape(tf.cast(pixels, tf.float32), (-1, shape[-2] * 3))
    rows -= tf.tile(preprocessing.mean_rgb_255, shape[-2:-1])
    rows /= tf.tile(preprocessing.std_rgb_255, shape[-2:-1])
    pixels = tf.ensure_shape(tf.reshape(rows, shape), pixels.shape)
    return pixels if preprocessing.channel_order == "rgb" else pixels[..., ::-1]


def renormalize(pixels, source, target):
    """Turns pixels that one `Preprocessing` normalized into those of another."""
    fields = ("mean_rgb_255", "std_rgb_255", "channel_order")
    if all(getattr(source, name) == getattr(target, name) for name in fields):
        return pixels
    pixels = pixels if source.channel_order == "rgb" else pixels[..., ::-1]
    pixels = pixels * source.std_rgb_255 + source.mean_rgb_255
    return normalize(pixels, target)
