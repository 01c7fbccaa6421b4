"""RandAugment and TrivialAugment, with Pillow's operations as in timm and torchvision.

Keras's RandAugment layer has other operations and strengths (it rotates by up to half a
turn), and its random numbers depend on what was drawn before.
"""

import functools

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import tensorflow as tf

_FILL = (124, 116, 104)  # ImageNet's mean colour, for pixels from outside the image
_BILINEAR = PIL.Image.Resampling.BILINEAR


def _affine(image, *matrix):
    return image.transform(
        image.size,
        PIL.Image.Transform.AFFINE,
        matrix,
        resample=_BILINEAR,
        fillcolor=_FILL,
    )


def _enhance(kind, image, amount):
    return kind(image).enhance(1 + amount)


def _solarize_add(image, amount):
    return image.point([min(255, v + amount) if v < 128 else v for v in range(256)] * 3)


# name: function of (image, amount). Translations are in pixels, angles in degrees.
_OPERATIONS = {
    "identity": lambda image, amount: image,
    "auto_contrast": lambda image, amount: PIL.ImageOps.autocontrast(image),
    "equalize": lambda image, amount: PIL.ImageOps.equalize(image),
    "invert": lambda image, amount: PIL.ImageOps.invert(image),
    "posterize": PIL.ImageOps.posterize,
    "solarize": PIL.ImageOps.solarize,
    "solarize_add": _solarize_add,
    "rotate": lambda image, amount: image.rotate(amount, _BILINEAR, fillcolor=_FILL),
    "shear_x": lambda image, amount: _affine(image, 1, amount, 0, 0, 1, 0),
    "shear_y": lambda image, amount: _affine(image, 1, 0, 0, amount, 1, 0),
    "translate_x": lambda image, amount: _affine(image, 1, 0, amount, 0, 1, 0),
    "translate_y": lambda image, amount: _affine(image, 1, 0, 0, 0, 1, amount),
    "color": functools.partial(_enhance, PIL.ImageEnhance.Color),
    "contrast": functools.partial(_enhance, PIL.ImageEnhance.Contrast),
    "brightness": functools.partial(_enhance, PIL.ImageEnhance.Brightness),
    "sharpness": functools.partial(_enhance, PIL.ImageEnhance.Sharpness),
}
_SHEARS, _TRANSLATIONS = ("shear_x", "shear_y"), ("translate_x", "translate_y")
_ENHANCEMENTS = ("color", "contrast", "brightness", "sharpness")
# The amounts of these are negative half of the time.
_SIGNED = ("rotate", *_SHEARS, *_TRANSLATIONS, *_ENHANCEMENTS)


def _none(level, size):
    return 0


# name: function of (level in 0..1, side of the image in pixels), returns the amount.
# Cubuk et al., arXiv 1909.13719, as timm's "rand-mM-mstd0.5-inc1", in which every
# operation becomes stronger with its level.
_RAND_AUGMENT = {
    "auto_contrast": _none,
    "equalize": _none,
    "invert": _none,
    "posterize": lambda level, size: max(1, 4 - int(4 * level)),
    "solarize": lambda level, size: 256 - int(256 * level),
    "solarize_add": lambda level, size: int(110 * level),
    "rotate": lambda level, size: 30 * level,
    **dict.fromkeys(_ENHANCEMENTS, lambda level, size: 0.9 * level),
    **dict.fromkeys(_SHEARS, lambda level, size: 0.3 * level),
    **dict.fromkeys(_TRANSLATIONS, lambda level, size: 0.45 * level * size),
}
# torchvision's TrivialAugmentWide: Müller and Hutter, arXiv 2103.10158.
_TRIVIAL_AUGMENT = {
    "identity": _none,
    "auto_contrast": _none,
    "equalize": _none,
    "posterize": lambda level, size: 8 - round(6 * level),
    "solarize": lambda level, size: 255 * (1 - level),
    "rotate": lambda level, size: 135 * level,
    **dict.fromkeys((*_SHEARS, *_ENHANCEMENTS), lambda level, size: 0.99 * level),
    **dict.fromkeys(_TRANSLATIONS, lambda level, size: 32 * level),
}


def _apply(image, rng, amounts, level):
    name = rng.choice(list(amounts))
    amount = amounts[name](level, image.width)
    if name in _SIGNED and rng.random() < 0.5:
        amount = -amount
    return _OPERATIONS[name](image, amount)


def _rand_augment(magnitude, image, rng):
    for _ in range(2):
        if rng.random() < 0.5:
            level = np.clip(rng.normal(magnitude, 0.5), 0, 10) / 10
            image = _apply(image, rng, _RAND_AUGMENT, level)
    return image


def _trivial_augment(image, rng):
    return _apply(image, rng, _TRIVIAL_AUGMENT, rng.integers(31) / 30)


# name: function of (`PIL.Image.Image`, `numpy.random.Generator`).
POLICIES = {
    "rand_augment_6": functools.partial(_rand_augment, 6),
    "rand_augment_7": functools.partial(_rand_augment, 7),
    "trivial_augment": _trivial_augment,
}


def apply(name, image, seed):
    """Augments a uint8 image (height, width, 3) with one of `POLICIES`."""

    def with_pillow(image, seed):
        rng = np.random.default_rng(seed.astype(np.uint64))
        return np.asarray(POLICIES[name](PIL.Image.fromarray(image), rng))

    return tf.ensure_shape(
        tf.numpy_function(with_pillow, [image, seed], tf.uint8), image.shape
    )
