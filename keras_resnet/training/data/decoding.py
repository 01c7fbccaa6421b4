"""Decodes and resizes images in TensorFlow, to the same pixels as on a device."""

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
    image, _ = decode_reduced(encoded, lambda height, width: 1)
    return image


def decode_reduced(encoded, reduction):
    """Decodes an image like `decode`, but a JPEG at a fraction of its size.

    Args:
        encoded: string tensor, the content of a file.
        reduction: function of the (height, width) that are stored, int32 tensors. It
            returns 1, 2, 4 or 8, by which they are to be divided.

    Returns:
        (image: uint8 (height, width, 3), box: float32 (left, top, right, bottom)), as
        the device's `images.DecodedImage`: not all of the image is filled where an odd
        number of pixels was halved.
    """
    encoded = tf.convert_to_tensor(encoded)
    is_jpeg = tf.io.is_jpeg(encoded)
    is_png = tf.equal(tf.strings.substr(encoded, 0, len(PNG)), PNG)
    image, box = tf.cond(
        is_jpeg | is_png,
        lambda: _decode_fast(encoded, is_jpeg, reduction),
        lambda: _filled(_decode_as_on_the_device(encoded)),
    )
    return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(box, (4,))


def _filled(image):
    """Returns an image and the box of all of it."""
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    return image, tf.stack([0.0, 0.0, width, height])


def _decode_fast(encoded, is_jpeg, reduction):
    # TensorFlow's default for JPEG is a fast approximation, one level off on average.
    def jpeg(ratio):
        return tf.io.decode_jpeg(encoded, 3, ratio, dct_method="INTEGER_ACCURATE")

    def reduced_jpeg():
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
        scale = tf.convert_to_tensor(reduction(height, width))
        image = tf.switch_case(
            tf.cast(scale > 1, tf.int32)
            + tf.cast(scale > 2, tf.int32)
            + tf.cast(scale > 4, tf.int32),
            [functools.partial(jpeg, ratio) for ratio in (1, 2, 4, 8)],
        )
        size = tf.stack([width, height]) / scale
        return image, tf.concat([tf.zeros(2), tf.cast(size, tf.float32)], 0)

    image, box = tf.cond(
        is_jpeg, reduced_jpeg, lambda: _filled(tf.io.decode_png(encoded, 3))
    )
    return tf.cond(
        has_exif(encoded, is_jpeg),
        lambda: tuple(
            tf.numpy_function(_upright, [image, box, encoded], (tf.uint8, tf.float32))
        ),
        lambda: (image, box),
    )


def _decode_as_on_the_device(encoded):
    # An exception in the function would print its traceback, and lose its type.
    def pixels_and_error(encoded):
        try:
            return np.array(images.read_image(_as_file(encoded)).image), b""
        except UserError as error:
            return np.zeros((1, 1, 3), np.uint8), str(error).encode()

    return _checked(pixels_and_error, [encoded])


def _as_file(encoded):
    """Returns a file of what a numpy_function receives for a string tensor."""
    # Bytes in a graph, but an array of one object where TensorFlow runs eagerly.
    return io.BytesIO(encoded if isinstance(encoded, bytes) else encoded.item())


def _checked(pixels_and_error, arguments):
    """Returns the pixels that a function makes; raises the error that it returns."""
    pixels, error = tf.numpy_function(
        pixels_and_error, arguments, (tf.uint8, tf.string)
    )
    whole = tf.debugging.Assert(tf.equal(error, b""), [error])
    with tf.control_dependencies([whole]):
        return tf.ensure_shape(pixels, (None, None, 3))


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


def _upright(image, box, encoded):
    """Turns an array (height, width, 3) and its box as the EXIF of its file says."""
    try:
        orientation = images.orientation_of(PIL.Image.open(_as_file(encoded)))
    except Exception:  # Pillow finds damage that does not concern the pixels
        return image, box
    turned = images.upright(PIL.Image.fromarray(image), tuple(box[2:]), orientation)
    return np.asarray(turned.image), np.float32(turned.box)


def device_pixels(encoded, preprocessing):
    """Makes a model's input of an encoded image, as the device does: uint8."""

    def reduction(height, width):
        def as_on_the_device(*size):
            return np.int32(images.reduction(size, preprocessing))

        scale = tf.numpy_function(as_on_the_device, [width, height], tf.int32)
        return tf.ensure_shape(scale, ())

    image, box = decode_reduced(encoded, reduction)
    return resize_and_crop(image, preprocessing, box)


def decode_for_crops(encoded, preprocessing):
    """Decodes an image that will be cropped at random, with pixels to spare.

    A JPEG is decoded at a fraction of its size where at least `CROPPED_AREA` times the
    pixels of the input are left, and on each side on average at least
    `reduced_decoding` times as many.
    """
    return decode_reduced(
        encoded, lambda *shape: reduction_for_crops(*shape, preprocessing)
    )[0]


def reduction_for_crops(height, width, preprocessing):
    """Returns by how much `decode_for_crops` divides the sides of a JPEG."""
    least = max(CROPPED_AREA, preprocessing.reduced_decoding**2)
    area = least * math.prod(preprocessing.input_size)
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    return tf.reduce_max(
        [tf.where(pixels >= area * scale**2, scale, 1) for scale in (1, 2, 4, 8)]
    )


def kept_for_crops(encoded, preprocessing):
    """Decodes an image for crops, and shrinks it to `CROPPED_AREA` times the input."""
    most = CROPPED_AREA * math.prod(preprocessing.input_size)

    def shrunk(image):
        height, width = image.shape[:2]
        scale = math.sqrt(most / (height * width))
        size = max(1, int(width * scale)), max(1, int(height * scale))
        image = PIL.Image.fromarray(image)
        return np.asarray(image.resize(size, PIL.Image.Resampling.BICUBIC))

    image = decode_for_crops(encoded, preprocessing)
    image = tf.cond(
        tf.size(image) <= 3 * most,
        lambda: image,
        lambda: tf.numpy_function(shrunk, [image], tf.uint8),
    )
    return tf.ensure_shape(image, (None, None, 3))


def resize_and_crop(image, preprocessing, box=None):
    """Resizes a uint8 image and crops its centre, as `preprocessing` says.

    `box` is (left, top, right, bottom) of the part that is filled; `None` is all.

    Raises:
        tf.errors.InvalidArgumentError: the image is too elongated to be resized.
    """
    height, width = preprocessing.input_size
    if box is None:
        _, box = _filled(image)

    # The device's own code does it. TensorFlow rounds once and Pillow twice, which
    # changed the top-1 class of 2 or 3 in 100 photographs.
    def as_on_the_device(image, box):
        image, box = PIL.Image.fromarray(image), tuple(box.tolist())
        box = None if box == (0, 0, *image.size) else box
        try:
            return geometry.resize_and_crop(image, preprocessing, box), b""
        except ValueError as error:
            return np.zeros((height, width, 3), np.uint8), str(error).encode()

    resized = preprocessing.resized_size
    left, top, right, bottom = geometry.centre(resized[::-1], (width, height))
    pixels = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == resized),
        lambda: image[top:bottom, left:right],
        lambda: _checked(as_on_the_device, [image, box]),
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
