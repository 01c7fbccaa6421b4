"""Accuracy of a whole split, every example once, whatever the strategy."""

import numpy as np
import tensorflow as tf

import input_pipeline


def evaluator(model, strategy):
    """Returns a function that evaluates the model.

    Keras' own `evaluate` averages over batches and replicas of unequal size;
    here every example counts once.

    Args:
        model: a Keras 3 or tf_keras model with softmax output.
        strategy: the strategy in whose scope it was built.

    Returns:
        function of (split, preprocessing, batch size) -> {"loss", "top1", "top5"}:
        mean cross entropy and shares of 1. The batch size is that of all
        replicas. It raises `RuntimeError` when not every example was counted.
    """

    @tf.function
    def sums(batch):
        def on_replica(images, labels):
            scores = tf.cast(model(images, training=False), tf.float32)
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
            lambda context: input_pipeline.evaluation_batches(
                split, preprocessing, batch_size, input_pipeline.Share.of(context)
            )
        ):
            totals += sums(batch).numpy()
        if totals[0] != split.examples:
            raise RuntimeError(
                f"evaluated {totals[0]:.0f} of {split.examples} examples"
            )
        return dict(zip(("loss", "top1", "top5"), totals[1:] / totals[0], strict=True))

    return evaluate
