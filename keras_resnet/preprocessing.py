"""How a picture becomes the input of a model, and what the classes are called."""

import functools
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from keras_resnet.runner import geometry
from keras_resnet.runner import preprocessing as fields
from keras_resnet.runner.errors import UserError, user_errors

# `reduced_decoding` of runs that train on photographs: a 12-megapixel JPEG for 224
# pixels is decoded at a quarter of its size. Trained so, a model expects such pixels.
REDUCED_DECODING_OF_PHOTOGRAPHS = 2.0


class Preprocessing(fields.Preprocessing):  # noqa: D101 - it has one
    __doc__ = fields.Preprocessing.__doc__

    @property
    def uniform(self) -> bool:
        """Whether one 8-bit scale and zero point express the normalization.

        If so, the quantized input of a model is the raw pixel itself, and zero
        padding after the normalization is exact.
        """
        mean, std = self.mean_rgb_255, self.std_rgb_255
        return (
            self.channel_order == "rgb"
            and len(set(mean)) == len(set(std)) == 1
            and mean[0] == int(mean[0])
        )

    @property
    def in_version_1(self) -> bool:
        """Whether files of version 1, without `resize` and `antialias`, say it all."""
        return self.resize == "crop" and self.antialias

    def resize_and_crop(self, image: np.ndarray | Image.Image) -> np.ndarray:
        """Resizes an image and cuts out its centre, as training and devices do.

        By default, that is what torchvision and timm do in published evaluations:
        they resize with Pillow, antialiased and rounded to whole pixel values. Only
        the centre is computed: one value in some thousand is rounded the other way.

        Args:
            image: uint8 array (height, width, 3), RGB, or a `PIL.Image`. Not
                changed.

        Returns:
            uint8 array (height, width, 3) of `input_size`, RGB.

        Raises:
            UserError: the array is not one RGB image of bytes, or the image is too
                elongated to be resized.
        """
        if not isinstance(image, Image.Image):
            image = np.asarray(image)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise UserError(
                    "`image` must be a uint8 array (height, width, 3). "
                    f"Received: {image.dtype} {image.shape}"
                )
            image = Image.fromarray(image)
        with user_errors("image", ValueError):
            return geometry.resize_and_crop(image.convert("RGB"), self)

    def normalize(self, images: npt.ArrayLike) -> np.ndarray:
        """Normalizes raw pixels.

        Args:
            images: array (..., height, width, 3), RGB, 0..255, any dtype. Not
                changed.

        Returns:
            float32 array of the same shape, channels in the model's order.
        """
        pixels = np.asarray(images, np.float32)
        mean = np.asarray(self.mean_rgb_255, np.float32)
        normalized = (pixels - mean) / np.asarray(self.std_rgb_255, np.float32)
        return normalized if self.channel_order == "rgb" else normalized[..., ::-1]


# Normalizations by name: those of `mode` in keras.applications' preprocess_input
# ("tf", "torch", "caffe"), raw pixels, `Rescaling(1 / 255)` ("unit"), and the zoo's
# own, which is `uniform`.
NORMALIZATIONS: dict[str, dict[str, Any]] = {
    "zoo": dict(mean_rgb_255=(128.0,) * 3, std_rgb_255=(64.0,) * 3),
    "raw": dict(mean_rgb_255=(0.0,) * 3, std_rgb_255=(1.0,) * 3),
    "unit": dict(mean_rgb_255=(0.0,) * 3, std_rgb_255=(255.0,) * 3),
    "tf": dict(mean_rgb_255=(127.5,) * 3, std_rgb_255=(127.5,) * 3),
    "torch": dict(
        mean_rgb_255=(123.675, 116.28, 103.53), std_rgb_255=(58.395, 57.12, 57.375)
    ),
    "caffe": dict(
        mean_rgb_255=(123.68, 116.779, 103.939),
        std_rgb_255=(1.0,) * 3,
        channel_order="bgr",
    ),
}


@functools.cache
def classes(dataset):
    """Returns the classes of a dataset in the order of their scores.

    Args:
        dataset: "imagenet" (the 1000 of ILSVRC) or "cifar10".

    Returns:
        Tuple of (id, name) pairs, such as ("n01440764", "tench"): the id of
        WordNet, or for CIFAR-10, which has none, the name again.
    """
    path = pathlib.Path(__file__).with_name(f"{dataset}_classes.tsv")
    rows = path.read_text(encoding="utf-8").splitlines()
    return tuple(tuple(row.split("\t")[1:]) for row in rows)


def identifiers(labels):
    """Returns the WordNet ids of ImageNet's classes; other labels are their own ids."""
    known = classes("imagenet")
    if list(labels) == [name for _, name in known]:
        return [identifier for identifier, _ in known]
    return list(labels)
