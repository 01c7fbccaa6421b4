"""Decodes and resizes images in TensorFlow, to the same pixels as on a device."""

import contextlib
import dataclasses
import functools
import io
import math

import numpy as np
import PIL.Image
import tensorflow as tf

from keras_resnet.runner import geometry, images
from keras_resnet.runner.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
# Pictures that are cropped at random are kept with at most so many times the pixels of
# the input: then a crop of a sixth of the picture need not be enlarged, and the whole
# picture is about as large as the largest of `random_scale_crop_flip`.
CROPPED_AREA = 6


def decode(encoded):
    """Decodes an image to uint8 (height, width, 3), upright by its EXIF.

    TensorFlow reads JPEG and PNG. The device's runner reads all other formats that it
    knows: TensorFlow refuses BMPs and GIFs that Pillow reads, and knows no TIFF, WebP
    and HEIC.

    Raises:
        tf.errors.InvalidArgumentError: it is damaged, or another kind of file.
    """
    return _upright(_stored(encoded, lambda height, width: 1))


def device_pixels(encoded, preprocessing):
    """Makes a model's input of an encoded image, as the device does.

    Returns:
        uint8 (*preprocessing.input_size, 3).

    Raises:
        tf.errors.InvalidArgumentError: as from `decode`, or the image is too elongated
            to be resized.
    """

    def reduction(height, width):
        def as_on_the_device(*size):
            return np.int32(images.reduction(size, preprocessing))

        scale = tf.numpy_function(as_on_the_device, [width, height], tf.int32)
        return tf.ensure_shape(scale, ())

    return _resized(_stored(encoded, reduction), preprocessing)


def resize_and_crop(image, preprocessing):
    """Does the same with a uint8 image (height, width, 3)."""
    image = tf.convert_to_tensor(image)
    return _resized((image, _size(image), tf.constant(b"")), preprocessing)


def decode_for_crops(encoded, preprocessing):
    """Decodes an image that will be cropped at random, with pixels to spare.

    A JPEG is decoded at a fraction of its size as `reduction_for_crops` says.
    """
    return _upright(_stored_for_crops(encoded, preprocessing))


def kept_for_crops(encoded, preprocessing):
    """Decodes an image for crops, and shrinks it to `CROPPED_AREA` times the input."""
    most = CROPPED_AREA * math.prod(preprocessing.input_size)

    def shrunk(image, _):
        scale = math.sqrt(most / (image.width * image.height))
        if scale < 1:
            size = (max(1, int(side * scale)) for side in image.size)
            image = image.resize(tuple(size), PIL.Image.Resampling.BILINEAR)
        return np.asarray(image)

    stored = image, _, exif = _stored_for_crops(encoded, preprocessing)
    image = tf.cond(
        tf.equal(exif, b"") & (tf.size(image) <= 3 * most),
        lambda: image,
        lambda: _by_pillow(shrunk, stored),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _stored_for_crops(encoded, preprocessing):
    return _stored(encoded, lambda *size: reduction_for_crops(*size, preprocessing))


def reduction_for_crops(height, width, preprocessing):
    """Returns by how much the sides of a JPEG are divided if it is cropped at random.

    As many pixels are left as the device would leave: `reduced_decoding` times as many
    as the input has, along both sides. And at least `CROPPED_AREA` times as many.
    """
    least = max(CROPPED_AREA, preprocessing.reduced_decoding**2)
    area = least * math.prod(preprocessing.input_size)
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    scales = tf.constant((1, 2, 4, 8))
    wanted = tf.cast(scales**2, tf.float32) * area
    return tf.reduce_max(tf.where(pixels >= wanted, scales, 1))


def _stored(encoded, reduction):
    """Decodes an image as it is stored, a JPEG at a fraction of its size.

    Args:
        encoded: string tensor, the content of a file.
        reduction: function of the (height, width) of a JPEG, int32 tensors. It returns
            1, 2, 4 or 8, by which they are to be divided.

    Returns:
        (image: uint8 (height, width, 3), size: float32 (width, height) of the part that
        is filled, exif: `encoded` if it may have an orientation, else an empty string).
    """
    encoded = tf.convert_to_tensor(encoded)
    is_jpeg = tf.io.is_jpeg(encoded)
    is_png = tf.equal(tf.strings.substr(encoded, 0, len(PNG)), PNG)

    def by_tensorflow():
        image, size = tf.cond(
            is_jpeg,
            lambda: _decode_jpeg(encoded, reduction),
            lambda: _whole(tf.io.decode_png(encoded, 3)),
        )
        # Not tf.where: it would copy the file.
        exif = tf.cond(has_exif(encoded, is_jpeg), lambda: encoded, lambda: b"")
        return image, size, exif

    image, size, exif = tf.cond(
        is_jpeg | is_png,
        by_tensorflow,
        lambda: (*_whole(_decode_as_on_the_device(encoded)), tf.constant(b"")),
    )
    return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(size, (2,)), exif


def _whole(image):
    return image, _size(image)


def _size(image):
    """Returns (width, height) of an image, float32."""
    return tf.cast(tf.shape(image)[1::-1], tf.float32)


def _decode_jpeg(encoded, reduction):
    # TensorFlow's default is a fast approximation, one level off on average.
    def decoded(ratio):
        return tf.io.decode_jpeg(encoded, 3, ratio, dct_method="INTEGER_ACCURATE")

    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
    scale = reduction(height, width)
    image = tf.switch_case(
        tf.reduce_sum(tf.cast(scale > tf.constant((1, 2, 4)), tf.int32)),
        [functools.partial(decoded, ratio) for ratio in (1, 2, 4, 8)],
    )
    return image, tf.cast(tf.stack([width, height]) / scale, tf.float32)


def _decode_as_on_the_device(encoded):
    # An exception in the function would print its traceback, and lose its type.
    def pixels_and_error(encoded):
        try:
            return np.array(images.read_image(as_file(encoded)).image), b""
        except UserError as error:
            return np.zeros((1, 1, 3), np.uint8), str(error).encode()

    return checked(pixels_and_error, [encoded])


def as_file(encoded):
    """Returns a file of what a numpy_function receives for a string tensor."""
    # Bytes in a graph, but an array of one object where TensorFlow runs eagerly.
    return io.BytesIO(encoded if isinstance(encoded, bytes) else encoded.item())


def checked(pixels_and_error, arguments, shape=(None, None, 3)):
    """Returns the pixels that a function makes; raises the error that it returns."""
    pixels, error = tf.numpy_function(
        pixels_and_error, arguments, (tf.uint8, tf.string)
    )
    whole = tf.debugging.Assert(tf.equal(error, b""), [error])
    with tf.control_dependencies([whole]):
        return tf.ensure_shape(pixels, shape)


def has_exif(encoded, is_jpeg):
    """Returns whether an encoded image may have an orientation."""
    # The metadata of a JPEG come before its first scan, so only that part is searched.
    parts = tf.raw_ops.StringSplitV2(input=[encoded], sep=b"\xff\xda", maxsplit=1)
    searched = tf.cond(is_jpeg, lambda: parts.values[0], lambda: encoded)

    # The markers of EXIF in JPEG and in PNG; XMP can hold an orientation too. Splitting
    # finds bytes many times faster than a regular expression.
    def holds(marker):
        parts = tf.raw_ops.StringSplitV2(input=[searched], sep=marker, maxsplit=1)
        return tf.size(parts.values) > 1

    return holds(b"Exif\x00") | holds(b"eXIf") | holds(b"Orientation")


def _upright(stored):
    """Turns a stored image as its EXIF says."""
    image, _, exif = stored
    image = tf.cond(
        tf.equal(exif, b""),
        lambda: image,
        lambda: _by_pillow(lambda image, _: np.asarray(image), stored),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _resized(stored, preprocessing):
    """Resizes a stored image, turned upright, and crops its centre."""
    height, width = preprocessing.input_size
    image, _, exif = stored

    # The device's own code does it. TensorFlow rounds once and Pillow twice, which
    # changed the top-1 class of 2 or 3 in 100 photographs.
    def as_on_the_device(image, box):
        box = None if box == (0, 0, *image.size) else box
        return geometry.resize_and_crop(image, preprocessing, box)

    resized = preprocessing.resized_size
    left, top, right, bottom = geometry.centre(resized[::-1], (width, height))
    pixels = tf.cond(
        tf.equal(exif, b"") & tf.reduce_all(tf.shape(image)[:2] == resized),
        lambda: image[top:bottom, left:right],
        lambda: _by_pillow(as_on_the_device, stored),
    )
    return tf.ensure_shape(pixels, (height, width, 3))


def _by_pillow(function, stored):
    """Returns what a function makes of a stored image, turned upright.

    `function` gets a PIL image and the box of it that is filled, as the device's
    `images.DecodedImage` has them.
    """

    def pixels_and_error(image, size, exif):
        file, orientation = as_file(exif), None
        if file.getbuffer():
            with contextlib.suppress(Exception):  # the pixels are whole all the same
                orientation = images.orientation_of(PIL.Image.open(file))
        image, size = PIL.Image.fromarray(image), tuple(size.tolist())
        try:
            turned = images.upright(image, size, orientation)
            return function(turned.image, turned.box), b""
        except ValueError as error:
            return np.zeros((1, 1, 3), np.uint8), str(error).encode()

    return checked(pixels_and_error, stored)


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
