"""Random changes of training images, each a pure function of its seed.

A seed is an int64 tensor (2,): the run's seed, and a number of the epoch and example. A
function that needs more random numbers adds a small constant to it.
"""

import functools

import tensorflow as tf

from keras_resnet.training.data import decoding, policies


def augment(recipe, preprocessing, image, seed):
    """Makes a training image, uint8 (height, width, 3).

    If `takes_resized(recipe)`, `image` is a uint8 tensor of the input's size. Else the
    input is square, and `image` is a string tensor, the encoded image, or a uint8
    tensor (height, width, 3) of any size.
    """
    function, _ = AUGMENTATIONS[recipe.augmentation]
    image = function(image, preprocessing, seed)
    image = tf.ensure_shape(image, (*preprocessing.input_size, 3))
    if recipe.policy:
        image = policies.apply(recipe.policy, image, seed + 3)
    if recipe.random_erasing:
        image = _erase(image, recipe.random_erasing, preprocessing, seed + 4)
    return image


def takes_resized(recipe):
    """Returns whether `augment` takes images that are already decoded and resized."""
    return AUGMENTATIONS[recipe.augmentation][1]


def mixes(recipe):
    """Returns whether the recipe uses `mix`."""
    return recipe.mixup > 0 or recipe.cutmix > 0


def mix(recipe, images, targets, seed):
    """Mixes two examples by mixup or CutMix; if the recipe has both, by either.

    Zhang et al., arXiv 1710.09412; Yun et al., arXiv 1905.04899. It mixes pairs, not
    whole batches, so that replicas can share a batch in any way. Images are uint8 (2,
    size, size, 3), targets float32 (2, classes); the seed is that of the first example.
    """
    seed += 5
    size = images.shape[1]

    def mixup():
        share = _beta(recipe.mixup, seed + 1)
        both = tf.cast(images, tf.float32)
        mixed = decoding.to_uint8(share * both + (1 - share) * both[::-1])
        return mixed, share

    def cutmix():
        share = _beta(recipe.cutmix, seed + 1)
        middle = tf.random.stateless_uniform((2,), seed + 2, 0, size, tf.int32)
        side = tf.cast(size * tf.sqrt(1 - share), tf.int32)
        low = tf.maximum(middle - side // 2, 0)
        high = tf.minimum(middle + side // 2, size)
        inside = _box(size, low, high)
        share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32))  # after clipping
        return tf.where(inside, images[::-1], images), share

    if recipe.mixup and recipe.cutmix:
        either = tf.random.stateless_uniform((), seed)
        images, share = tf.cond(either < 0.5, mixup, cutmix)
    else:
        images, share = (mixup if recipe.mixup else cutmix)()
    return images, share * targets + (1 - share) * targets[::-1]


def _beta(alpha, seed):
    """Draws a float32 scalar from the distribution Beta(alpha, alpha)."""
    one, other = tf.unstack(
        tf.random.stateless_gamma((2,), seed, alpha, dtype=tf.float64)
    )
    # With a small alpha, both can be 0.
    return tf.cast(tf.math.divide_no_nan(one, one + other), tf.float32)


def _box(size, low, high):
    """Returns a mask (size, size, 1), true from (y, x) `low` to before `high`."""
    place = tf.range(size)
    rows = (place >= low[0]) & (place < high[0])
    columns = (place >= low[1]) & (place < high[1])
    return (rows[:, None] & columns[None, :])[..., None]


def _erase(image, probability, preprocessing, seed):
    """Fills a box of 2% to 33% of the image with the mean colour.

    Zhong et al., arXiv 1708.04896; area and aspect ratio as in torchvision.
    """
    size = image.shape[0]
    draw, area, shape, *place = tf.unstack(tf.random.stateless_uniform((5,), seed))
    area = (0.02 + (0.33 - 0.02) * area) * size**2
    shape = tf.exp((2 * shape - 1) * tf.math.log(10 / 3))
    extent = tf.sqrt([area * shape, area / shape])
    extent = tf.clip_by_value(tf.cast(tf.round(extent), tf.int32), 1, size)
    low = tf.cast(place * tf.cast(size - extent + 1, tf.float32), tf.int32)
    inside = _box(size, low, low + extent) & (draw < probability)
    colour = decoding.to_uint8(tf.constant(preprocessing.mean_rgb_255, tf.float32))
    return tf.where(inside, colour, image)


def _pad_crop(image, _, seed, flip=False):
    """Shifts by up to an eighth of each side, filled with black; may flip."""
    shape = image.shape
    vertical, horizontal = (side // 8 for side in shape[:2])
    # 4 of 32 pixels: He et al., section 4.2
    padded = tf.pad(image, [[vertical, vertical], [horizontal, horizontal], [0, 0]])
    image = tf.image.stateless_random_crop(padded, shape, seed)
    if flip:
        image = tf.image.stateless_random_flip_left_right(image, seed + 1)
    return image


def _random_resized_crop(image, preprocessing, seed, least_area, flip):
    """Cuts out a part of the image, of aspect ratio 3/4 to 4/3; may flip.

    Szegedy et al., "Going deeper with convolutions", section 6. The part covers
    `least_area` to 1 of the image: 0.08 there.
    """
    size = preprocessing.input_size[0]

    def window(shape):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.zeros((0, 0, 4)),
            seed,
            # By default a crop of less than a tenth of the image is drawn again.
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(least_area, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        return begin, extent

    def part(image):
        return tf.slice(image, *window(tf.shape(image)))

    def decoded_in_part(encoded):
        begin, extent = window(tf.io.extract_jpeg_shape(encoded))
        return tf.image.decode_and_crop_jpeg(
            encoded,
            tf.concat([begin[:2], extent[:2]], 0),
            channels=3,
            dct_method="INTEGER_FAST",
        )

    def part_of_encoded(encoded):
        is_jpeg = tf.io.is_jpeg(encoded)

        def stays_whole():
            height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
            return decoding.reduction_for_crops(height, width, preprocessing) == 1

        lies_upright = is_jpeg & ~decoding.has_exif(encoded, is_jpeg)
        return tf.cond(
            tf.cond(lies_upright, stays_whole, lambda: False),
            lambda: decoded_in_part(encoded),
            lambda: part(decoding.decode_for_crops(encoded, preprocessing)),
        )

    image = part_of_encoded(image) if image.dtype == tf.string else part(image)
    # When it shrinks an image by no more than half, plain interpolation misses no
    # pixel. Antialiasing takes three times as long.
    image = tf.cond(
        tf.reduce_max(tf.shape(image)[:2]) <= 2 * size,
        lambda: tf.image.resize(image, (size, size)),
        lambda: tf.image.resize(image, (size, size), antialias=True),
    )
    image = tf.cast(tf.round(image), tf.uint8)  # bilinear stays within 0..255
    if flip:
        image = tf.image.stateless_random_flip_left_right(image, seed + 1)
    return image


def _random_scale_crop_flip(image, preprocessing, seed):
    """Resizes the shorter side to 256..480 (at 224), cuts out a square; may flip.

    He et al., "Deep residual learning", section 3.4.
    """
    size = preprocessing.input_size[0]
    if image.dtype == tf.string:
        image = decoding.decode_for_crops(image, preprocessing)
    least, most = size * 256 // 224, size * 480 // 224
    shorter = tf.random.stateless_uniform((), seed + 2, least, most + 1, tf.int32)
    shape = tf.shape(image)[:2]
    resized = shape * shorter // tf.reduce_min(shape)
    image = decoding.to_uint8(tf.image.resize(image, resized, antialias=True))
    image = tf.image.stateless_random_crop(image, (size, size, 3), seed)
    return tf.image.stateless_random_flip_left_right(image, seed + 1)


_part, _large_part = (
    functools.partial(_random_resized_crop, least_area=area) for area in (0.08, 0.3)
)
# name: (function of (image, preprocessing, seed), whether it takes an image that was
# decoded and resized once for all epochs; if not, see `augment`).
AUGMENTATIONS = {
    "pad_crop": (_pad_crop, True),
    "pad_crop_flip": (functools.partial(_pad_crop, flip=True), True),
    "random_resized_crop_flip": (functools.partial(_part, flip=True), False),
    "random_resized_crop_flip_30": (functools.partial(_large_part, flip=True), False),
    "random_resized_crop_30": (functools.partial(_large_part, flip=False), False),
    "random_scale_crop_flip": (_random_scale_crop_flip, False),
}
