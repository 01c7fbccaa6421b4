"""How good a detector or a segmenter is on a whole split, every picture once."""

import numpy as np
import tensorflow as tf

from keras_resnet import heads
from keras_resnet.runner import detections, metrics
from keras_resnet.runner.boxes import IGNORED
from keras_resnet.training import losses
from keras_resnet.training.data import batching
from keras_resnet.training.data.scenes import batching as scene_batching
from keras_resnet.training.scenes import detection, segmentation

DETECTION_MEASURES = ("ap50", "ap", "ap75")
SEGMENTATION_MEASURES = ("miou",)


def detection_evaluator(model, strategy, from_logits=False):
    """Returns a function that measures a detector, as `tasks.Task.evaluator` says.

    What it measures is "loss" (the mean of `detection.loss_function`), "ap50", "ap" and
    "ap75" (shares of 1) and "classes", the same three and the number of "objects" of
    each class; see `metrics.AveragePrecision.result`. Boxes are found as the runner
    finds them.
    """
    anchors, loss_of = heads.anchors(model), detection.loss_function(model)

    @tf.function
    def on_replicas(batch):
        def on_replica(images, targets, is_real):
            outputs = _in_float32(model(images, training=False))
            logits = outputs["scores"]
            if not from_logits:
                logits = losses.logits_of_sigmoids(logits)
            values = loss_of({**outputs, "scores": logits}, targets)
            return outputs["boxes"], tf.sigmoid(logits), values, targets, is_real

        return strategy.run(on_replica, args=batch)

    def evaluate(dataset, preprocessing, batch_size):
        measured = metrics.AveragePrecision(len(dataset.labels))
        losses_of_all = []
        for batch in _batches(strategy, dataset, preprocessing, batch_size):
            gathered = tf.nest.map_structure(
                lambda part: strategy.gather(part, axis=0).numpy(), on_replicas(batch)
            )
            boxes, scores, values, targets, is_real = gathered
            for row in np.flatnonzero(is_real):
                objects = scene_batching.unpadded(targets, row)
                measured.add(
                    objects, detections.find_objects(boxes[row], scores[row], anchors)
                )
            losses_of_all.append(values[is_real])
        values = np.concatenate(losses_of_all)
        _check_count(len(values), dataset)
        return {"loss": float(values.mean(dtype=np.float64)), **measured.result()}

    return evaluate


def segmentation_evaluator(model, strategy, from_logits=False):
    """Returns a function that measures a segmenter, as `tasks.Task.evaluator` says.

    What it measures is "loss" (the mean cross entropy of a pixel, in nats), "miou" (a
    share of 1) and "classes", of each class its "pixels" and "iou"; see
    `metrics.mean_iou`.
    """
    classes = model.output.shape[-1]

    @tf.function
    def sums(batch):
        def on_replica(images, masks, is_real):
            logits = _in_float32(model(images, training=False))
            if not from_logits:
                logits = losses.logits_of_scores(logits)
            values = tf.where(is_real, segmentation.loss(logits, masks), 0.0)
            found = segmentation.predicted(logits, masks.shape[1:3])
            counts = masks != IGNORED  # all of a picture that is not real
            expected = tf.boolean_mask(tf.cast(masks, tf.int32), counts)
            confusion = tf.math.confusion_matrix(
                expected, tf.boolean_mask(found, counts), classes, dtype=tf.int64
            )
            examples = tf.reduce_sum(tf.cast(is_real, tf.int64))
            return examples, tf.reduce_sum(tf.cast(values, tf.float64)), confusion

        parts = strategy.run(on_replica, args=batch)
        return [strategy.reduce("SUM", part, axis=None) for part in parts]

    def evaluate(dataset, preprocessing, batch_size):
        batches = _batches(strategy, dataset, preprocessing, batch_size)
        found = [[part.numpy() for part in sums(batch)] for batch in batches]
        examples, total, confusion = (sum(part) for part in zip(*found, strict=True))
        _check_count(examples, dataset)
        return {"loss": float(total / examples), **metrics.mean_iou(confusion)}

    return evaluate


def _batches(strategy, dataset, preprocessing, batch_size):
    """Returns the batches of the held-out split, shared by the replicas."""
    return strategy.distribute_datasets_from_function(
        lambda context: scene_batching.evaluation_batches(
            dataset,
            dataset.held_out,
            preprocessing,
            batch_size,
            batching.Share.of(context),
        )
    )


def _in_float32(outputs):
    return tf.nest.map_structure(lambda part: tf.cast(part, tf.float32), outputs)


def _check_count(examples, dataset):
    if examples != dataset.held_out.examples:
        raise RuntimeError(
            f"evaluated {examples} of {dataset.held_out.examples} examples"
        )
