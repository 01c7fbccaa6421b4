"""Sample pictures inside of a page."""

import base64
import io
import pathlib

from keras_resnet.runner.images import read_image

SIDE = 640  # pixels of the longer side, at most
# Smaller pictures are kept as they are, in PNG: JPEG would blur their few pixels.
SMALL = 64
QUALITY = 85  # of JPEG


def of_files(paths):
    """Returns [{name, content}] of picture files; the content is base64.

    Pictures are written anew: the place where one was taken, which its file may tell,
    is nobody's business.

    Raises:
        UserError: a file is missing, damaged or no picture.
    """
    return [of_image(read_image(path).image, pathlib.Path(path).stem) for path in paths]


def of_image(image, name):
    """Returns {name, content} of a PIL image of mode RGB."""
    file = io.BytesIO()
    if max(image.size) <= SMALL:
        image.save(file, "PNG", optimize=True)
    else:
        image.thumbnail((SIDE, SIDE))
        image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return {"name": name, "content": base64.b64encode(file.getvalue()).decode()}
