"""Decodes and resizes images in TensorFlow, to the same pixels as on a device."""

import io

import numpy as np
import PIL.Image
import tensorflow as tf

import keras_resnet.preprocessing


def decode(encoded):
    """Decodes a JPEG, PNG, BMP or GIF to uint8 (height, width, 3), upright by its EXIF.

    Raises:
        tf.errors.InvalidArgumentError: it is damaged, or another kind of file.
    """
    # TensorFlow's default for JPEG is a fast approximation, one level off on average.
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, 3, expand_animations=False),
    )
    image.set_shape((None, None, 3))
    turned = tf.cond(
        has_exif(encoded),
        lambda: tf.numpy_function(upright, [image, encoded], tf.uint8),
        lambda: image,
    )
    return tf.ensure_shape(turned, (None, None, 3))


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
    image = resize(image, preprocessing.resize_size, preprocessing.interpolation)
    margins = tf.cast(tf.shape(image)[:2] - [height, width], tf.float32)
    top, left = tf.unstack(tf.cast(tf.round(margins / 2), tf.int32))
    return tf.image.crop_to_bounding_box(image, top, left, height, width)


def resize(image, size, interpolation):
    """Resizes a uint8 image so that its shorter side has `size` pixels."""

    # Pillow does it, as on the device. TensorFlow rounds once and Pillow twice, which
    # changed the top-1 class of 2 or 3 in 100 photographs.
    def with_pillow(image):
        image = PIL.Image.fromarray(image)
        return np.asarray(keras_resnet.preprocessing.resize(image, size, interpolation))

    image = tf.cond(
        tf.equal(tf.reduce_min(tf.shape(image)[:2]), size),
        lambda: image,
        lambda: tf.numpy_function(with_pillow, [image], tf.uint8),
    )
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
