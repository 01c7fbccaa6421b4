"""Small pictures inside of a page, as data URIs."""

import base64
import io

import numpy as np

from keras_resnet.training.data import datasets, previews

SIDE = 160  # pixels of the longer side
# Smaller pictures are kept as they are, in PNG: JPEG would blur their few pixels.
SMALL = 64
QUALITY = 80  # of JPEG


def of_examples(split, indices):
    """Returns {index: data URI} of examples of a split."""
    chosen = np.zeros(split.examples, bool)
    chosen[list(indices)] = True
    encoded = datasets.subset(split, chosen).read()
    encoded = encoded.map(lambda image, label: image).as_numpy_iterator()
    return {
        index: data_uri(content)
        for index, content in zip(np.flatnonzero(chosen).tolist(), encoded, strict=True)
    }


def data_uri(encoded):
    """Returns a small picture of an encoded image as a data URI."""
    image, _ = previews.preview(encoded, SIDE)
    file, kind = io.BytesIO(), "png"
    if max(image.size) > SMALL:
        image.thumbnail((SIDE, SIDE))
        kind = "jpeg"
        image.save(file, "JPEG", quality=QUALITY, optimize=True)
    else:
        image.save(file, "PNG", optimize=True)
    content = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{kind};base64,{content}"
