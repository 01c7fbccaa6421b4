"""Pictures decoded small and fast, for people and for hashes: not for the model."""

import io

from keras_resnet.runner import images


def preview(encoded, least):
    """Decodes a picture, a JPEG at a half, quarter or eighth where that is enough.

    Args:
        encoded: bytes of an image file.
        least: pixels that each side is to have at least, if the picture has them.

    Returns:
        (PIL image of mode RGB and upright, (width, height) of the whole picture).

    Raises:
        UserError: the picture is damaged, or no image.
    """
    file = io.BytesIO(encoded)
    stored = encoded[:3] == b"\xff\xd8\xff" and images.open_jpeg(file)
    if not stored:
        image = images.read_image(file).image
        return image, image.size
    size = stored.size
    stored.draft("RGB", (least, least))
    with images.user_errors("image", Exception):
        image = images.upright_rgb(stored, stored.size).image
    # EXIF may have turned it.
    return image, size if image.size == stored.size else size[::-1]
