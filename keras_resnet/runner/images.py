"""Images: from a file to the pixels of the model's input."""

import collections
import importlib
import io
import math
import os
import re
import sys

from keras_resnet.runner.errors import UserError, open_file, user_errors
from keras_resnet.runner.geometry import MAX_PIXELS, may_shrink, resize_and_crop
from keras_resnet.runner.preprocessing import Preprocessing

# Pillow knows more formats; for EPS, for one, it would run a program.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "HEIF")
# The kinds of HEIF files that hold a picture of a phone (.heic).
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")
# Each scan of a JPEG costs as much as an image; progressive files have about ten.
MAX_SCANS = 100
MAX_IMAGE_BYTES = 256 << 20
# EXIF orientation -> what turns the image upright.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class DecodedImage(collections.namedtuple("DecodedImage", "image box scale")):
    """A picture, of mode RGB and upright.

    Attributes:
        image: PIL image.
        box: (left, top, right, bottom) of it that is filled: not all of it where an
            odd number of pixels was halved.
        scale: by how much its sides were divided when it was decoded: 1, 2, 4 or 8.
    """

    __slots__ = ()

    @property
    def size(self):
        """(width, height) of the whole picture in pixels."""
        left, top, right, bottom = self.box
        return round((right - left) * self.scale), round((bottom - top) * self.scale)


def read_image(source, classifier=None):
    """Decodes an image, whole or not at all.

    Args:
        source: path, "-" for the standard input, binary file that can seek, PIL image
            or uint8 array (height, width, 3) of RGB pixels.
        classifier: `Classifier` whose input needs the image: a large JPEG is decoded
            at a half, quarter or eighth of its size. None decodes all pixels.

    Returns:
        `DecodedImage`.

    Raises:
        UserError: missing, empty, not an image, truncated, or larger than MAX_PIXELS.
    """
    if isinstance(source, (str, os.PathLike)):
        with read_stdin() if source == "-" else open_file(source) as file:
            return read_image(file, classifier)
    # Pillow raises exceptions of many types on a damaged file.
    with user_errors(getattr(source, "name", "image"), Exception):
        if hasattr(source, "read"):
            image, size, scale = decode(source, classifier)
        else:
            image, scale = as_pil_image(source), 1
            size = image.size
        return upright_rgb(image, size)._replace(scale=scale)


def as_pil_image(image):
    """Returns the PIL image of an array of RGB pixels, or a PIL image as it is."""
    import numpy as np
    from PIL import Image

    if not isinstance(image, Image.Image):
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                "expected a path, a PIL image or a uint8 array (height, width, 3), "
                f"received {type(image).__name__} {pixels.shape} of {pixels.dtype}"
            )
        image = Image.fromarray(pixels)
    if 0 in image.size:
        raise ValueError(f"expected pixels, received {image.width} x {image.height}")
    return image


def read_stdin():
    """Reads an image from the standard input into memory, since it cannot seek."""
    if sys.stdin is None:
        raise UserError("standard input: it is closed")
    file = io.BytesIO(sys.stdin.buffer.read(MAX_IMAGE_BYTES + 1))
    file.name = "standard input"
    if len(file.getbuffer()) > MAX_IMAGE_BYTES:
        raise UserError(f"{file.name}: more than {MAX_IMAGE_BYTES} bytes")
    return file


def decode(file, classifier):
    """Decodes the pixels of a file.

    Returns:
        (PIL image as it was stored, (width, height) of the part that is filled, by
        how much its sides were divided).
    """
    from PIL import Image

    start = file.read(16)
    file.seek(0)
    if not start:
        raise ValueError("empty, expected an image")
    is_jpeg = start[:3] == b"\xff\xd8\xff"
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        teach_pillow_heif()
    try:
        image = (is_jpeg and open_jpeg(file)) or Image.open(file)
    except OSError as error:
        raise ValueError(f"not an image, or damaged; it begins {start!r}") from error
    if image.format not in FORMATS:
        raise ValueError(
            f"expected one of {', '.join(FORMATS)}, received {image.format}"
        )
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
        )
    if is_jpeg:
        # The header of a scan has 8 to 14 bytes. Others that look alike may follow
        # the image: the film of a phone's moving picture.
        file.seek(0)
        data = file.read(MAX_IMAGE_BYTES)
        scans = len(re.findall(b"\xff\xda\0[\x08\x0a\x0c\x0e]", data))
        if scans > MAX_SCANS:
            raise ValueError(f"{scans} scans, expected at most {MAX_SCANS}")
    scale, (width, height) = 1, image.size
    if classifier and is_jpeg:
        scale = reduction(image.size, geometry_of(classifier))
    if scale > 1:
        image.draft(image.mode, (width // scale, height // scale))
    image.load()
    return image, (width / scale, height / scale), scale


def teach_pillow_heif():
    """Lets Pillow open HEIF files, by the optional package pillow-heif."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ValueError("HEIC needs pillow-heif: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()


def open_jpeg(file):
    """Opens a JPEG, or returns None; `Image.open` imports other formats, for 3 ms."""
    from PIL import JpegImagePlugin

    try:
        return JpegImagePlugin.jpeg_factory(file, "")
    except Exception:  # `Image.open` comes next and says what is wrong
        file.seek(0)
        return None


def reduction(size, how):
    """Returns by how much the sides of a JPEG are divided when it is decoded.

    Args:
        size: (width, height) of the image, as it is stored.
        how: `Preprocessing`.

    Returns:
        1, 2, 4 or 8. Sides that this does not divide are rounded up, so that the last
        row or column of the decoded image is not filled with the image alone.
    """
    if not may_shrink(how):
        return 1
    least = [how.reduced_decoding * pixels for pixels in needed_size(size, how)]
    room = min(pixels // needed for pixels, needed in zip(size, least))
    return next(scale for scale in (8, 4, 2, 1) if scale <= max(room, 1))


def needed_size(size, how):
    """Returns the (width, height) to which an image of this size is resized."""
    if how.resize == "stretch":
        return how.resize_size, how.resize_size  # EXIF may still turn it
    fitted = max(size) if how.resize == "pad" else min(size)
    return [math.ceil(how.resize_size * pixels / fitted) for pixels in size]


def geometry_of(classifier):
    """Returns the preprocessing of a classifier, or how others feed their models."""
    size = classifier.input_shape[1:3]
    stretched = Preprocessing(size, interpolation="lanczos", resize="stretch")
    return classifier.preprocessing or stretched


def upright_rgb(image, size):
    """Turns an image upright as EXIF says and converts it to RGB.

    Args:
        image: PIL image of any mode, filled from its upper left corner.
        size: (width, height) of the part that is filled.

    Returns:
        `DecodedImage`.
    """
    file_format = image.format
    turned = upright(image, size, orientation_of(image))
    return turned._replace(image=to_rgb(turned.image, file_format))


def orientation_of(image):
    """Returns the EXIF orientation of a PIL image; None where it has none."""
    # Pillow 5 (Mendel Linux) has `_getexif`, for JPEG only.
    read_exif = getattr(image, "getexif", None) or getattr(image, "_getexif", dict)
    try:
        return (read_exif() or {}).get(0x0112)
    except Exception:  # damaged EXIF: the pixels are whole all the same
        return None


def upright(image, size, orientation):
    """Turns an image as its EXIF orientation says; see `upright_rgb`."""
    from PIL import Image

    if orientation in UPRIGHT:
        image = image.transpose(getattr(Image, UPRIGHT[orientation]))
    else:
        orientation = 1
    width, height = size[::-1] if orientation > 4 else size
    left = image.width - width if orientation in (2, 3, 6, 7) else 0
    top = image.height - height if orientation in (3, 4, 7, 8) else 0
    return DecodedImage(image, (left, top, left + width, top + height), 1)


def to_rgb(image, file_format):
    """Converts an image of any mode to RGB, as training's tf.io.decode_image does.

    Alpha is dropped, and 16-bit grey keeps its high byte (Pillow alone would clip it).
    """
    import numpy as np
    from PIL import Image

    # Older versions of Pillow give 16-bit grey PNG the mode of 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known range; save it with 8 or 16 bits")
    return image if image.mode == "RGB" else image.convert("RGB")


def prepare(image, classifier, box=None):
    """Resizes an RGB image, or the box of a `DecodedImage`, to the model's input.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: the image is too elongated to be resized within MAX_PIXELS.
    """
    return resize_and_crop(image, geometry_of(classifier), box)
