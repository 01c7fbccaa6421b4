"""What a segmenter learns: the class of each pixel."""

import tensorflow as tf

from keras_resnet.runner.boxes import IGNORED


def loss(logits, masks):
    """Returns the mean cross entropy of a pixel in nats, float32 (batch,).

    Logits are enlarged to the size of the mask, as DeepLab does (Chen et al., arXiv
    1706.05587, section 4.1): a mask made smaller would lose what is thin. Pixels that
    are ignored do not count.

    Args:
        logits: (batch, rows, columns, classes).
        masks: uint8 (batch, height, width).
    """
    if logits.shape[1:3] != masks.shape[1:3]:
        logits = tf.image.resize(logits, masks.shape[1:3])
    counts = masks != IGNORED
    classes = tf.where(counts, tf.cast(masks, tf.int32), 0)
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    weights = tf.cast(counts, tf.float32)
    pixels = tf.maximum(tf.reduce_sum(weights, [1, 2]), 1.0)
    return tf.reduce_sum(values * weights, [1, 2]) / pixels


def predicted(logits, size):
    """Returns the class of each pixel, int32 (batch, *size).

    Cells are enlarged to pixels as the runner does it, by the nearest one.
    """
    classes = tf.argmax(logits, -1, output_type=tf.int32)[..., tf.newaxis]
    return tf.image.resize(classes, size, "nearest")[..., 0]
