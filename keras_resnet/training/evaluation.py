"""Accuracy of a whole split, every example once, whatever the strategy."""

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.training.data import batching, decoding

# He et al., section 4.1: the shorter sides of the images, for an input of 224.
SCALES = (224, 256, 384, 480, 640)


def evaluator(model, strategy, from_logits=False):
    """Returns a function that evaluates the model.

    Keras' own `evaluate` averages over batches and replicas of unequal size;
    here every example counts once.

    Args:
        model: a Keras 3 or tf_keras model with softmax output.
        strategy: the strategy in whose scope it was built.
        from_logits: whether the output is logits instead.

    Returns:
        function of (split, preprocessing, batch size) -> {"loss", "top1", "top5"}:
        mean cross entropy and shares of 1. The batch size is that of all
        replicas. It raises `RuntimeError` when not every example was counted.
    """

    @tf.function
    def sums(batch):
        def on_replica(images, labels):
            scores = tf.cast(model(images, training=False), tf.float32)
            if from_logits:
                scores = tf.nn.softmax(scores)
            counts = labels >= 0  # the last batch is filled up
            top1 = tf.equal(tf.argmax(scores, axis=-1), labels)
            top5 = tf.math.in_top_k(labels, scores, min(5, scores.shape[-1]))
            right = tf.gather(scores, tf.maximum(labels, 0), batch_dims=1)
            loss = -tf.math.log(tf.maximum(right, 1e-7))
            return tf.stack(
                [
                    tf.reduce_sum(tf.where(counts, tf.cast(value, tf.float32), 0.0))
                    for value in (counts, loss, top1, top5)
                ]
            )

        return strategy.reduce("SUM", strategy.run(on_replica, args=batch), axis=None)

    def evaluate(split, preprocessing, batch_size):
        totals = np.zeros(4)
        for batch in strategy.distribute_datasets_from_function(
            lambda context: batching.evaluation_batches(
                split, preprocessing, batch_size, batching.Share.of(context)
            )
        ):
            totals += sums(batch).numpy()
        if totals[0] != split.examples:
            raise RuntimeError(
                f"evaluated {totals[0]:.0f} of {split.examples} examples"
            )
        return dict(zip(("loss", "top1", "top5"), totals[1:] / totals[0], strict=True))

    return evaluate


def of_scores(score, examples):
    """Returns the accuracy of any classifier.

    Args:
        score: function of an example's image -> float (classes,), scores.
        examples: iterable of (image, label).

    Returns:
        {"top1", "top5": shares of 1, "examples_evaluated": their number}.
    """
    right = np.zeros(2)
    count = 0
    for image, label in examples:
        best = np.argsort(-score(image), kind="stable")[:5]
        right += (best[0] == label, label in best)
        count += 1
    top1, top5 = (right / count).tolist()
    return {"top1": top1, "top5": top5, "examples_evaluated": count}


def ten_crop(model, preprocessing):
    """Returns a function of an image: mean scores of ten crops.

    The four corners and the centre of the resized image and their mirror images
    (He et al., section 3.4).

    Args:
        model: a `keras.Model` with softmax output.
        preprocessing: what it expects.

    Returns:
        function of a uint8 image (height, width, 3) -> float32 (classes,).
    """
    height, width = preprocessing.input_size

    def crops(image):
        image = decoding.resize(
            image, preprocessing.resize_size, preprocessing.interpolation
        )
        rest = tf.shape(image)[:2] - [height, width]
        middle = tf.cast(tf.round(tf.cast(rest, tf.float32) / 2), tf.int32)
        places = ((0, 0), (0, rest[1]), (rest[0], 0), (rest[0], rest[1]), middle)
        return [
            tf.image.crop_to_bounding_box(image, place[0], place[1], height, width)
            for place in places
        ]

    return _mean_over(model, preprocessing, lambda image: [tf.stack(crops(image))])


def multi_scale(model, preprocessing):
    """Returns a function of an image: mean scores of the whole image at five sizes.

    The network is applied fully convolutionally, its scores averaged over places,
    scales and mirror images (He et al., section 4.1).

    Args:
        model: a `keras.Model` with softmax output and global pooling.
        preprocessing: what it expects.

    Returns:
        function of a uint8 image (height, width, 3) -> float32 (classes,).
    """
    everywhere = keras.models.clone_model(model, keras.Input((None, None, 3)))
    everywhere.set_weights(model.get_weights())
    scales = [size * preprocessing.input_size[0] // SCALES[0] for size in SCALES]

    def sizes(image):
        return [
            decoding.resize(image, size, preprocessing.interpolation)[None]
            for size in scales
        ]

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
