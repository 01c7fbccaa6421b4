"""Detection and segmentation: heads on the feature maps of any model of the zoo.

Both heads stand on the same pyramid, a top-down path of maps as in Lin et al., "Feature
Pyramid Networks", arXiv 1612.03144. They are plain Keras layers, so that a model with a
head is trained, quantized and converted like any other. What devices ask for:

- Maps are enlarged by bilinear interpolation, one operator in TensorFlow Lite, and
  added in pairs.
- Each level has convolutions of its own. RetinaNet (Lin et al., arXiv 1708.02002) and
  FCOS (Tian et al., arXiv 1904.01355) share theirs over the levels; then each level
  needs its own statistics, and quantization cannot fold these into a convolution.
- The last stage of the networks for ImageNet has more parameters than all before it. It
  is left out, and one convolution with a stride of 2 makes a coarser level instead, as
  SSD (Liu et al., arXiv 1512.02325) does: a model then fits into 8 MiB.
"""

import math
import re

import keras
import numpy as np
from keras import layers

from keras_resnet import blocks, model_metadata
from keras_resnet.models import feature_maps
from keras_resnet.runner.errors import UserError

# An anchor is a square, its side so many times the distance between two cells.
ANCHOR_CELLS = 4
# What a score is at first, since few cells show an object (RetinaNet, section 4.1).
PRIOR = 0.01
# The maps that a head takes by default: of networks for ImageNet and for CIFAR.
DETECTED = {True: ("C3", "C4"), False: ("C4",)}
SEGMENTED = {True: ("C2", "C3", "C4"), False: ("C2", "C3", "C4")}


def detector(
    backbone,
    classes,
    *,
    maps=None,
    width=None,
    top_down=True,
    activation="sigmoid",
    name=None,
):
    """Builds a single-stage detector with one square anchor for each cell.

    Args:
        backbone: a model of the zoo for images of fixed height and width, with or
            without top. The detector shares its layers.
        classes: number of classes.
        maps: names of the maps that objects are found in, of `feature_maps`, the finest
            first. A level of half the resolution of the last one is added. `None` takes
            strides of 8 and 16, or of 4 for the networks for CIFAR.
        width: channels of the head; `None` takes those of the finest map, 32 at least.
        top_down: whether coarse maps are added to finer ones. Without, objects are
            found in the maps themselves, as SSD does: the model is smaller, and less
            accurate.
        activation: of the scores; `None` returns logits.
        name: name of the model.

    Returns:
        A functional `keras.Model` from preprocessed images (batch, height, width, 3) to
        a dictionary of

        - "boxes": (batch, anchors, 4), the offsets (ty, tx, th, tw) of boxes from the
          `anchors` of the model, in the box coder of SSD and TensorFlow's object
          detection API, with the scales 10, 10, 5 and 5;
        - "scores": (batch, anchors, classes), independent of each other.

    Raises:
        UserError: an argument is out of its range, or the size of the images is no
            multiple of the coarsest stride.
    """
    levels = _levels(backbone, maps, DETECTED, width, top_down)
    bias = -math.log((1 - PRIOR) / PRIOR)
    boxes, scores = [], []
    for level, x in levels.items():
        for parts, what, channels, start in (
            (boxes, "boxes", 4, 0.0),
            (scores, "scores", _checked("classes", classes), bias),
        ):
            part = layers.Conv2D(
                channels,
                3,
                padding="same",
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                bias_initializer=keras.initializers.Constant(start),
                name=f"{level}_{what}",
            )(x)
            flat = layers.Reshape((-1, channels), name=f"{level}_{what}_flat")
            parts.append(flat(part))
    # A linear activation for logits: the order of the weights is then the same.
    activated = layers.Activation(activation or "linear", name="scores")
    outputs = {
        "boxes": layers.Concatenate(axis=1, name="boxes")(boxes),
        "scores": activated(layers.Concatenate(axis=1, name="logits")(scores)),
    }
    return _model(backbone, outputs, name or f"{backbone.name}_detector")


def segmenter(
    backbone, classes, *, maps=None, width=None, activation="softmax", name=None
):
    """Builds a model that tells the class of each cell of a grid over an image.

    Its head is the semantic branch of Panoptic FPN (Kirillov et al., arXiv 1901.02446),
    made lighter: levels are added on the way down, not once more at the end.

    Args:
        backbone: a model of the zoo for images of fixed height and width, with or
            without top. The segmenter shares its layers.
        classes: number of classes, the background among them.
        maps: names of the maps that are used, of `feature_maps`, the finest first. A
            level of half the resolution of the last one is added. `None` takes all but
            that of the last stage of the networks for ImageNet.
        width: channels of the head; `None` takes those of the finest map, 32 at least.
        activation: of the scores; `None` returns logits.
        name: name of the model.

    Returns:
        A functional `keras.Model` from preprocessed images (batch, height, width, 3) to
        scores (batch, rows, columns, classes). There are as many rows and columns as
        the finest map has: a quarter of the image's, or with a network for CIFAR as
        many.

    Raises:
        UserError: as `detector`.
    """
    levels = _levels(backbone, maps, SEGMENTED, width)
    x = layers.Conv2D(
        _checked("classes", classes),
        1,
        kernel_initializer="he_uniform",
        name="logits",
    )(next(iter(levels.values())))
    x = layers.Activation(activation or "linear", name="scores")(x)
    return _model(backbone, x, name or f"{backbone.name}_segmenter")


def anchors(detector):
    """Returns the anchors of a `detector`.

    Args:
        detector: the model, its quantization-aware one, or the (rows, columns) of each
            level, the finest first.

    Returns:
        float32 array (anchors, 4): the centre and the size (y, x, height, width) of
        each, as shares of the image's height and width, in the order of the outputs:
        level by level from the finest, and within a level row by row.

    Raises:
        UserError: the model is no detector.
    """
    if hasattr(detector, "layers"):
        shapes = [
            layer.output.shape[1:3]
            for layer in detector.layers
            if re.fullmatch(r"(quant_)?P\d+_scores", layer.name)
        ]
        if not shapes:
            raise UserError(f"the model is no detector. Received: {detector.name!r}")
    else:
        shapes = detector
    parts = []
    for rows, columns in shapes:
        y, x = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
        side = np.full_like(y, ANCHOR_CELLS)
        part = np.stack([y, x, side, side], axis=1) / ([rows, columns] * 2)
        parts.append(part.astype(np.float32))
    return np.concatenate(parts)


def task_of(model):
    """Returns what a `keras.Model` does: "detect", "segment" or "classify"."""
    if isinstance(model.output, dict) and set(model.output) == {"boxes", "scores"}:
        return "detect"
    is_map = len(model.outputs) == 1 and len(model.outputs[0].shape) == 4
    return "segment" if is_map else "classify"


def freeze_normalization(model):
    """Makes the batch normalization of the backbone of a model keep its weights.

    Detectors that start from published weights are usually trained so, as torchvision's
    are (its `FrozenBatchNorm2d`): the statistics are better than those of a few
    pictures.
    """
    for layer in model.layers:
        if layer.name.startswith("conv") and layer.name.endswith("_bn"):
            layer.trainable = False


def _levels(backbone, maps, defaults, width, top_down=True):
    """Returns {name of a level, "P3" for a stride of 8: its map}, the finest first."""
    if blocks.channel_axis() != -1:
        raise UserError(
            "heads need images of the layout channels_last: call "
            "keras.config.set_image_data_format('channels_last')"
        )
    found = feature_maps(backbone).output
    image = backbone.input_shape[1:3]
    if None in image:
        raise UserError(
            "`backbone` must be built for images of a fixed size: pass input_shape. "
            f"Received: {backbone.input_shape}"
        )
    pooled = "pool1_pool" in (layer.name for layer in backbone.layers)
    maps = defaults[pooled] if maps is None else tuple(maps)
    unknown = [name for name in maps if name not in found]
    if unknown or not maps:
        raise UserError(
            f"`maps` must be some of {', '.join(found)}. Received: {maps!r}"
        )
    strides = [image[0] // found[name].shape[1] for name in maps]
    if strides != [strides[0] * 2**place for place in range(len(strides))]:
        raise UserError(
            "`maps` must each have half the resolution of the one before. Received: "
            f"{maps!r}, whose strides are {strides}"
        )
    coarsest = strides[-1] * 2
    if any(side % coarsest for side in image):
        raise UserError(
            f"height and width of the images must be multiples of {coarsest} pixels. "
            f"Received: {image[0]} x {image[1]}"
        )
    if width is None:
        width = max(32, found[maps[0]].shape[-1])
    width = _checked("width", width)
    inputs = {
        f"P{int(math.log2(stride))}": found[name]
        for stride, name in zip(strides, maps, strict=True)
    }
    last = f"P{int(math.log2(coarsest))}"
    inputs[last] = _conv(found[maps[-1]], width, 3, f"{last}_down", stride=2)
    if not top_down:
        return inputs
    levels, coarse = {}, None
    for name, x in reversed(inputs.items()):
        if coarse is not None:
            x = blocks.conv_bn(x, width, 1, 1, f"{name}_lateral")
            above = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up")
            x = layers.Add(name=f"{name}_add")([x, above(coarse)])
            x = layers.Activation("relu", name=f"{name}_relu")(x)
        levels[name] = coarse = _conv(x, width, 3, f"{name}_head")
    return dict(reversed(levels.items()))


def _conv(x, width, kernel, name, stride=1):
    x = blocks.conv_bn(x, width, kernel, stride, name)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _model(backbone, outputs, name):
    """Returns the model, which takes and knows the images that the backbone takes."""
    model = keras.Model(backbone.input, outputs, name=name)
    preprocessing = getattr(backbone, "preprocessing", None)
    if preprocessing is not None:
        model_metadata.attach(model, preprocessing, licence=backbone.licence)
    return model


def _checked(argument, value):
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(
            f"`{argument}` must be a whole number from 1. "
            f"Received: {argument}={value!r}"
        )
    return value
