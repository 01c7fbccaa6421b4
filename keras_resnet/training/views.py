"""Several views of an image, whose scores are averaged.

He et al., arXiv 1512.03385.
"""

import dataclasses

import keras
import tensorflow as tf

from keras_resnet.training.data import decoding

# Section 4.1: the shorter sides of the images, for an input of 224.
SCALES = (224, 256, 384, 480, 640)


def ten_crop(model, preprocessing):
    """Returns a function: uint8 image -> mean scores of ten crops, float32 (classes,).

    The four corners and the centre of the resized image and their mirror images (He et
    al., section 3.4).
    """
    height, width = preprocessing.input_size

    def crops(image):
        image = decoding.resize(image, preprocessing)
        rest = tf.shape(image)[:2] - [height, width]
        middle = tf.cast(tf.round(tf.cast(rest, tf.float32) / 2), tf.int32)
        places = ((0, 0), (0, rest[1]), (rest[0], 0), (rest[0], rest[1]), middle)
        return [
            tf.image.crop_to_bounding_box(image, place[0], place[1], height, width)
            for place in places
        ]

    return _mean_over(model, preprocessing, lambda image: [tf.stack(crops(image))])


def multi_scale(model, preprocessing):
    """Returns a function: uint8 image -> mean scores at five sizes, float32 (classes,).

    The network, which must pool globally, is applied fully convolutionally to the whole
    image, its scores averaged over places, scales and mirror images (He et al., section
    4.1).
    """
    everywhere = keras.models.clone_model(model, keras.Input((None, None, 3)))
    everywhere.set_weights(model.get_weights())
    scales = [
        dataclasses.replace(
            preprocessing,
            input_size=[scale * side // SCALES[0] for side in preprocessing.input_size],
            crop_fraction=1.0,
        )
        for scale in SCALES
    ]

    def sizes(image):
        return [decoding.resize(image, scale)[None] for scale in scales]

    return _mean_over(everywhere, preprocessing, sizes)


def _mean_over(model, preprocessing, views):
    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def score(image):
        scores = []
        for batch in views(image):
            both = tf.concat([batch, tf.reverse(batch, [2])], 0)
            scores.append(model(decoding.normalize(both, preprocessing)))
        return tf.reduce_mean(tf.concat(scores, 0), 0)

    return lambda image: score(image).numpy()
