"""Random changes of a picture together with its boxes or its mask.

Each is a pure function of its seed, an int64 tensor (2,), as in `data.augmentation`.
"""

import dataclasses
import math

import tensorflow as tf

from keras_resnet.runner.boxes import IGNORED, Objects
from keras_resnet.training.data import decoding

# Factors on all levels, and on the saturation. Black stays black, with which the device
# pads pictures, and little of a bright picture is cut off at 255.
BRIGHTNESS = (0.6, 1.2)
SATURATION = (0.5, 1.5)
HUE = 0.05  # largest turn in either direction, 1 being a whole one


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What changes at random.

    Attributes:
        scales: (least, largest) size of the whole input, relative to its size. A larger
            one is cropped, a smaller one put on black: the scale jittering of Ghiasi et
            al., "Simple copy-paste", arXiv 2012.07177.
        flip: whether half of the pictures are mirrored, left to right.
        colour: whether brightness, saturation and hue vary, each in half of the
            pictures, as in SSD (Liu et al., arXiv 1512.02325, section 2.2). Saturation
            and hue vary as in torchvision's `RandomPhotometricDistort`.
    """

    scales: tuple[float, float] = (0.75, 1.25)
    flip: bool = True
    colour: bool = True

    def kept_size(self, input_size):
        """Returns the (height, width) at which pictures are kept: for the largest."""
        return tuple(math.ceil(side * self.scales[1]) for side in input_size)


AUGMENTATIONS = {
    "scale_crop_flip_colour": Augmentation(),
    "scale_crop_colour": Augmentation(flip=False),  # of digits: a mirrored 2 is no 2
}


def augment(augmentation, input_size, image, target, seed):
    """Makes a training example.

    Args:
        augmentation: `Augmentation`.
        input_size: (height, width) of the model's input.
        image: uint8 tensor (*augmentation.kept_size(input_size), 3), a whole picture.
        target: `Objects` of it, or its mask, a uint8 tensor of the same size.
        seed: int64 tensor (2,).

    Returns:
        (image: uint8 (*input_size, 3), target). What is new in a mask is `IGNORED`; of
        boxes see `visible`.
    """
    size = tf.constant(input_size, tf.float32)
    scale, *places, flip = tf.unstack(tf.random.stateless_uniform((4,), seed))
    least, largest = augmentation.scales
    scaled = tf.round(size * (least + (largest - least) * scale))
    # Where the scaled picture begins in the input: below 0 if it is larger.
    first = tf.round((size - scaled) * tf.stack(places))
    # Kept for the largest scale, it shrinks by less than half: without antialiasing no
    # pixel is missed.
    image = tf.image.resize(image, tf.cast(scaled, tf.int32))
    image = _placed(image, first, input_size, 0.0)
    if augmentation.colour:
        image = _recoloured(image, seed + 1)
    image = decoding.to_uint8(image)
    if isinstance(target, Objects):
        boxes = target.boxes * tf.tile(scaled / size, [2]) + tf.tile(first / size, [2])
        target = visible(target._replace(boxes=boxes))
    else:
        target = tf.image.resize(
            target[..., tf.newaxis], tf.cast(scaled, tf.int32), "nearest"
        )
        ignored = tf.constant(IGNORED, target.dtype)
        target = _placed(target, first, input_size, ignored)[..., 0]
    if augmentation.flip:
        image, target = tf.cond(
            flip < 0.5, lambda: _mirrored(image, target), lambda: (image, target)
        )
    return image, target


def visible(objects):
    """Cuts boxes off at the edges of the input.

    As in SSD (Liu et al., arXiv 1512.02325, section 2.2) and torchvision's
    `RandomIoUCrop`, an object stays if its centre is inside. There, the others become
    background; here those of which a part shows are ignored: a network that sees half a
    cell is not taught that it sees none.

    Args:
        objects: `Objects` of tensors, shares of the input.
    """
    low, high = objects.boxes[:, :2], objects.boxes[:, 2:]
    centre = (low + high) / 2
    is_inside = tf.reduce_all((centre >= 0) & (centre <= 1), axis=1)
    cut = tf.clip_by_value(objects.boxes, 0, 1)
    shows = tf.reduce_all(cut[:, 2:] > cut[:, :2], axis=1)
    ignored = objects.ignored | ~is_inside
    found = objects._replace(boxes=cut, ignored=ignored)
    return Objects(*(tf.boolean_mask(part, shows) for part in found))


def _placed(image, first, input_size, outside):
    """Crops an image to the input, or puts it on a constant."""
    first = tf.cast(first, tf.int32)
    shape = tf.shape(image)[:2]
    before = tf.maximum(first, 0)
    after = tf.maximum(input_size - first - shape, 0)
    paddings = tf.stack([before, after], axis=1)
    padded = tf.pad(image, tf.concat([paddings, [[0, 0]]], 0), constant_values=outside)
    begin = tf.concat([tf.maximum(-first, 0), [0]], 0)
    return tf.slice(padded, begin, (*input_size, image.shape[-1]))


def _mirrored(image, target):
    image = tf.image.flip_left_right(image)
    if not isinstance(target, Objects):
        return image, target[:, ::-1]
    top, left, bottom, right = tf.unstack(target.boxes, axis=1)
    boxes = tf.stack([top, 1 - right, bottom, 1 - left], axis=1)
    return image, target._replace(boxes=boxes)


def _recoloured(image, seed):
    """Changes the colours of an image of levels 0..255, float32."""
    changes = tf.random.stateless_uniform((3,), seed) < 0.5
    low, high = zip(BRIGHTNESS, SATURATION, (-HUE, HUE), strict=True)
    drawn = tf.random.stateless_uniform((3,), seed + 1, low, high)
    brightness, saturation, hue = tf.unstack(tf.where(changes, drawn, (1.0, 1.0, 0.0)))
    image = tf.clip_by_value(image / 255 * brightness, 0, 1)
    image = tf.image.adjust_saturation(image, saturation)
    return tf.image.adjust_hue(image, hue) * 255
