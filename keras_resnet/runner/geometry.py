"""Geometry: an image is cut or padded, resized and cropped to the model's input."""

MAX_PIXELS = 89478485  # Pillow warns of larger images: 256 MiB of RGB


def resize_and_crop(image, how, box=None):
    """Makes a model's input of an image, in training as on the device.

    Args:
        image: PIL image of mode RGB. Not changed.
        how: `Preprocessing`, whose docstring defines the result.
        box: (left, top, right, bottom) of the part of the image that is filled,
            where it `may_shrink`; None is all of it.

    Returns:
        uint8 array (*how.input_size, 3), RGB.

    Raises:
        ValueError: the image is too elongated to be resized within MAX_PIXELS.
    """
    import numpy as np

    target, new_size = how.input_size[::-1], how.resized_size[::-1]
    region = box if box and may_shrink(how) else (0, 0) + image.size
    size = (region[2] - region[0], region[3] - region[1])
    resize_region = resize_with_pillow if how.antialias else sample
    if how.resize == "pad":
        (width, height), (left, top) = fitting_size(size, target)
        whole = (0, 0, width, height)
        pixels = np.zeros(how.input_size + (3,), np.uint8)
        pixels[top : top + height, left : left + width] = resize_region(
            image, region, (width, height), whole, how.interpolation
        )
        return pixels
    if how.resize == "crop" and how.antialias:
        new_size = covering_size(size, new_size)
        if new_size[0] * new_size[1] > MAX_PIXELS:
            raise ValueError(
                f"{image.width} x {image.height} pixels: too elongated to be resized"
            )
    elif how.resize == "crop":
        region = region_of_aspect(size, target)
    crop = centre(new_size, target)
    return resize_region(image, region, new_size, crop, how.interpolation)


def placement(size, how):
    """Returns where a whole image lies in a model's input, as `resize_and_crop` has it.

    Args:
        size: (width, height) of the image, or of the part of it that is filled.
        how: `Preprocessing`.

    Returns:
        (left, top, right, bottom) as shares of the input's width and height. They lie
        within 0..1 where the image is padded, and beyond where it is cropped.
    """
    target, new_size = how.input_size[::-1], how.resized_size[::-1]
    region = (0, 0) + tuple(size)
    if how.resize == "pad":
        new_size, first = fitting_size(size, target)
    else:
        if how.resize == "crop" and how.antialias:
            new_size = covering_size(size, new_size)
        elif how.resize == "crop":
            region = region_of_aspect(size, target)
        first = [-side for side in centre(new_size, target)[:2]]
    low, high = [], []
    for axis in (0, 1):
        scale = new_size[axis] / (region[axis + 2] - region[axis])
        start = first[axis] - region[axis] * scale
        low.append(start / target[axis])
        high.append((start + size[axis] * scale) / target[axis])
    return tuple(low + high)


def may_shrink(how):
    """Returns whether a large JPEG may be decoded at a fraction of its size.

    Without antialiasing, pixels are picked: they must be the real ones.
    """
    return how.antialias and how.interpolation != "nearest"


def centre(size, crop):
    """Returns the box (left, top, right, bottom) of a crop, both (width, height)."""
    left, top = (round((whole - part) / 2) for whole, part in zip(size, crop))
    return left, top, left + crop[0], top + crop[1]


def covering_size(size, target):
    """Returns the least (width, height) of an image's aspect that covers a target."""
    width, height = size
    if width * target[1] <= height * target[0]:
        return target[0], int(target[0] * height / width)
    return int(target[1] * width / height), target[1]


def fitting_size(size, target):
    """Returns how `tf.image.resize_with_pad` fits an image into a target.

    In its 32 bits, in which a side sometimes comes out one pixel short.

    Returns:
        (width, height) of the image after resizing, and its place (left, top).
    """
    import numpy as np

    sides, targets = np.float32(size), np.float32(target)
    fitted = sides / (sides / targets).max()
    margins = ((targets - fitted) / 2).clip(0)
    new_size = fitted.clip(1).astype(int).tolist()  # TensorFlow fails at 0 pixels
    return tuple(new_size), tuple(margins.astype(int).tolist())


def region_of_aspect(size, aspect):
    """Returns the largest centred region of an aspect, as Keras's loaders cut it out.

    Args:
        size: (width, height) of the image, whole numbers.
        aspect: (width, height) whose ratio is wanted.

    Returns:
        (left, top, right, bottom).
    """
    width = max(1, min(size[0], size[1] * aspect[0] // aspect[1]))
    height = max(1, min(size[1], size[0] * aspect[1] // aspect[0]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def resize_with_pillow(image, region, new_size, crop, interpolation):
    """Resizes a region of an image with antialiasing, and returns a crop of it.

    The arguments and the result are those of `sample`.
    """
    import numpy as np
    from PIL import Image

    method = getattr(Image, interpolation.upper())
    if interpolation == "nearest":
        return np.array(image.resize(new_size, method).crop(crop))
    # Resize and crop at once: pixels outside the crop are never computed.
    across = (region[2] - region[0]) / new_size[0]
    down = (region[3] - region[1]) / new_size[1]
    part = (
        region[0] + crop[0] * across,
        region[1] + crop[1] * down,
        region[0] + crop[2] * across,
        region[1] + crop[3] * down,
    )
    size = (crop[2] - crop[0], crop[3] - crop[1])
    return np.array(image.resize(size, method, part))


def sample(image, region, new_size, crop, interpolation):
    """Resizes a region of an image as `tf.image.resize(antialias=False)` does.

    Args:
        image: PIL image of mode RGB.
        region: (left, top, right, bottom) in it, whole numbers.
        new_size: (width, height) of the resized region.
        crop: (left, top, right, bottom) in it: only these pixels are computed.
        interpolation: one of `INTERPOLATIONS`.

    Returns:
        uint8 array (height, width, 3), rounded, halves to the even number.
    """
    import numpy as np

    columns, across = taps(region[::2], new_size[0], crop[::2], interpolation)
    rows, down = taps(region[1::2], new_size[1], crop[1::2], interpolation)
    # Row by row: an array of a whole photograph takes more time and memory than the
    # rest.
    used_rows, used_columns = np.unique(rows), np.unique(columns)
    pixels = np.empty((len(used_rows), len(used_columns), 3), np.uint8)
    for number, row in enumerate(used_rows.tolist()):
        line = np.asarray(image.crop((0, row, image.width, row + 1)))
        pixels[number] = line[0, used_columns]
    columns = np.searchsorted(used_columns, columns)
    rows = np.searchsorted(used_rows, rows)
    lines = sum(
        pixels[:, column] * weight[:, np.newaxis]
        for column, weight in zip(columns, across)
    )
    levels = sum(
        lines[row] * weight[:, np.newaxis, np.newaxis]
        for row, weight in zip(rows, down)
    )
    return np.rint(levels).clip(0, 255).astype(np.uint8)


def taps(region, new_size, crop, interpolation):
    """Returns which pixels make each pixel of a resized axis, and with what weights.

    Positions are computed in 32 bits, as TensorFlow does: in 64 bits, the nearest
    pixel would sometimes be another one.

    Args:
        region: (start, end) of what is resized, in pixels of the image.
        new_size: of the resized region.
        crop: (start, end) of the pixels wanted, of the resized region.
        interpolation: one of `INTERPOLATIONS`.

    Returns:
        (places, weights): int and float32 arrays (taps, pixels wanted).
    """
    import numpy as np

    length = region[1] - region[0]
    scale = np.float32(length) / np.float32(new_size)
    centres = (np.arange(*crop, dtype=np.float32) + np.float32(0.5)) * scale
    if interpolation == "nearest":
        places = np.minimum(np.floor(centres), length - 1)[np.newaxis]
        weights = np.ones_like(places)
    else:
        centres -= np.float32(0.5)
        before = np.floor(centres)
        rest = centres - before
        radius = {"bilinear": 1, "bicubic": 2, "lanczos": 3}[interpolation]
        offsets = np.arange(1 - radius, radius + 1)[:, np.newaxis]
        places = before + offsets
        if interpolation == "bilinear":
            weights = 1 - abs(rest - offsets)
        elif interpolation == "bicubic":
            weights = keys_cubic(abs(np.rint(rest * 1024) / 1024 - offsets))
        else:
            weights = np.sinc(rest - offsets) * np.sinc((rest - offsets) / 3)
        weights = weights * ((places >= 0) & (places < length))
        weights /= weights.sum(0)
    places = places.clip(0, length - 1).astype(int) + region[0]
    return places, weights.astype(np.float32)


def keys_cubic(distance):
    """Weights by distance in pixels, up to 2 (Keys 1981, a = -0.5).

    TensorFlow reads them from a table of 1024 steps a pixel.
    """
    import numpy as np

    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, far)
