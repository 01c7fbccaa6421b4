"""What a detector learns: which cells find which object, and the loss of that."""

import math

import tensorflow as tf

from keras_resnet import heads
from keras_resnet.runner.detections import BOX_SCALES

# The largest size that is decoded in training, in anchors: early steps may ask for more
# than a float can hold. That of Detectron (`BBOX_XFORM_CLIP`).
LARGEST = 1000 / 16
# Cells so near to the centre of an object find it, in distances between two cells:
# FCOS with centre sampling (Tian et al., "FCOS: a simple and strong anchor-free object
# detector", arXiv 2006.09214, section 3.4).
RADIUS = 1.5
# Weight of the boxes' loss, and the exponent of the scores' (Li et al., "Generalized
# focal loss", arXiv 2006.04388, sections 3.2 and 4).
BOX_WEIGHT = 2.0
FOCUS = 2.0


def loss_function(model):
    """Returns the loss of a detector.

    The scores learn the IoU of the box beside them where they find an object, and 0
    elsewhere: the quality focal loss of "Generalized focal loss". Boxes learn the
    generalized IoU (Rezatofighi et al., arXiv 1902.09630). The sums over the cells are
    divided by the number of cells that find an object (RetinaNet, arXiv 1708.02002,
    section 4.1). Cells in objects that are ignored learn nothing of the background.

    Args:
        model: `heads.detector`.

    Returns:
        Function of (outputs of the model, scores as logits, and `Objects` as
        `data.scenes.batching` has them) -> (batch,).
    """
    anchors = heads.anchors(model)

    def loss(logits, targets):
        boxes, logits = logits["boxes"], logits["scores"]
        found, ignored = assign(targets, anchors)
        positive = found >= 0
        weights = tf.cast(positive, tf.float32)
        index = tf.maximum(found, 0)
        classes = tf.gather(targets.classes, index, batch_dims=1)
        wanted = tf.gather(targets.boxes, index, batch_dims=1)
        iou, generalized = overlaps(corners(boxes, anchors), wanted)
        quality = tf.stop_gradient(iou) * weights
        quality = quality[..., tf.newaxis] * tf.one_hot(classes, logits.shape[-1])
        # Cross entropy of logits by hand: see `losses.binary_cross_entropy`.
        entropy = tf.nn.softplus(logits) - quality * logits
        focused = entropy * tf.abs(quality - tf.sigmoid(logits)) ** FOCUS
        learned = tf.cast(positive | ~ignored, tf.float32)
        of_scores = tf.reduce_sum(focused, 2) * learned
        of_boxes = (1 - generalized) * weights
        total = tf.reduce_sum(of_scores + BOX_WEIGHT * of_boxes, 1)
        return total / tf.maximum(tf.reduce_sum(weights, 1), 1.0)

    return loss


def assign(targets, anchors):
    """Decides which object each cell is to find.

    The level whose anchors have the size that is nearest to the object's finds it, in
    the cells near its centre; the cell that has the centre always does. Of several
    objects, a cell finds the smallest.

    Args:
        targets: `Objects` of tensors (batch, objects, ...), of class -1 where there is
            none.
        anchors: array (anchors, 4) of `heads.anchors`.

    Returns:
        (int32 (batch, anchors): index of the object, -1 if the cell finds none,
        bool (batch, anchors): whether the centre of the cell is in an object that is
        ignored).
    """
    low, high = targets.boxes[..., :2], targets.boxes[..., 2:]
    centre, size = (low + high) / 2, high - low
    places, sides = anchors[:, tf.newaxis, :2], anchors[:, tf.newaxis, 2:]
    cell = sides / heads.ANCHOR_CELLS
    distance = tf.abs(places - centre[:, tf.newaxis])
    half = size[:, tf.newaxis] / 2
    inside = tf.reduce_all(distance <= half, -1)
    reach = tf.maximum(tf.minimum(half, RADIUS * cell), cell / 2)
    near = tf.reduce_all(distance <= reach, -1)
    area = tf.reduce_prod(size, -1)[:, tf.newaxis]
    ratio = tf.maximum(area, 1e-9) / tf.reduce_prod(sides, -1)
    misfit = tf.abs(tf.math.log(ratio))
    # Anchors of one level have one size, up to rounding.
    fits = misfit <= tf.reduce_min(misfit, 1, keepdims=True) + 1e-3
    is_object = (targets.classes >= 0)[:, tf.newaxis]
    passed = (targets.ignored | targets.crowd)[:, tf.newaxis]
    finds = near & fits & is_object & ~passed
    smallest = tf.argmin(tf.where(finds, area, math.inf), axis=-1, output_type=tf.int32)
    index = tf.where(tf.reduce_any(finds, -1), smallest, -1)
    return index, tf.reduce_any(inside & is_object & passed, -1)


def corners(offsets, anchors):
    """Returns the boxes of a detector's offsets, as `detections.decode_boxes` does it.

    Args:
        offsets: (batch, anchors, 4).
        anchors: array (anchors, 4) of `heads.anchors`.
    """
    shares = offsets / BOX_SCALES
    centre = anchors[:, :2] + shares[..., :2] * anchors[:, 2:]
    growth = tf.minimum(shares[..., 2:], math.log(LARGEST))
    half = anchors[:, 2:] * tf.exp(growth) / 2
    return tf.concat([centre - half, centre + half], -1)


def overlaps(boxes, others):
    """Returns the IoU and the generalized IoU of boxes, pair by pair."""
    area, other_area, shared, around = (
        tf.reduce_prod(tf.maximum(high - low, 0.0), -1)
        for low, high in (
            (boxes[..., :2], boxes[..., 2:]),
            (others[..., :2], others[..., 2:]),
            (
                tf.maximum(boxes[..., :2], others[..., :2]),
                tf.minimum(boxes[..., 2:], others[..., 2:]),
            ),
            (
                tf.minimum(boxes[..., :2], others[..., :2]),
                tf.maximum(boxes[..., 2:], others[..., 2:]),
            ),
        )
    )
    union = area + other_area - shared
    iou = tf.math.divide_no_nan(shared, union)
    return iou, iou - tf.math.divide_no_nan(around - union, around)
