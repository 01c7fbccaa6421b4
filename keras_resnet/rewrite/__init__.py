"""Any Keras 3 classifier of images, rewritten into what a device's file is made of.

`for_device` is the step before everything else: adopting, quantization-aware training
and export see only what it returns.
"""

import dataclasses

import keras
import numpy as np

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.rewrite import front, graph, heads
from keras_resnet.rewrite.folding import fold_normalization
from keras_resnet.rewrite.graph import in_float32
from keras_resnet.rewrite.simplify import simplify
from keras_resnet.runner.errors import UserError

__all__ = [
    "Rewritten",
    "fold_normalization",
    "for_device",
    "without_classifier",
    "in_float32",
    "input_shape",
]

# Of the largest score: float32 rounding stays an order below.
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A classifier as adopting, quantization-aware training and export take it.

    Attributes:
        model: functional `keras.Model` of layers, in float32, from RGB images (batch,
            height, width, 3) to scores (batch, classes); no model inside.
        preprocessing: the `Preprocessing` of its input.
        scores: "softmax" (shares of 1) or "independent" (a sigmoid for each class).
        notes: sentences for the user: what was moved, left out and assumed.
    """

    model: keras.Model
    preprocessing: Preprocessing
    scores: str
    notes: list


def for_device(model, preprocessing, scores=None):
    """Rewrites a classifier for devices, and checks that it computes the same.

    Models inside are flattened, layers that do nothing at inference are left out,
    operations become layers, per-channel arithmetic in front moves into the
    preprocessing, a grey input becomes an RGB one, and the end becomes a softmax or
    independent sigmoids. Names of layers are kept wherever they stay unique.

    Args:
        model: functional or sequential `keras.Model`. Not changed.
        preprocessing: the `Preprocessing` with which it was trained. For a grey model
            its mean and its standard deviation are those of the grey pixel.
        scores: for a model that returns logits, "softmax" or "independent"; None: as
            the model has it, and a softmax for logits.

    Returns:
        `Rewritten`; its model is the given one where nothing had to be done.

    Raises:
        UserError: the model is no classifier of one image of fixed size, or a part of
            it cannot be rewritten. The message names the layer, the reason and what to
            do.
    """
    input_shape(model)
    if scores not in (None, *heads.SCORES):
        raise UserError(
            f"scores must be {' or '.join(heads.SCORES)}. Received: {scores!r}"
        )
    original, before = graph.in_float32(model), preprocessing
    network, left_out = graph.flatten(original)
    _refuse_loops(network)
    _refuse_crops(network)
    calls, ends = list(network.calls), (id(network.input), id(network.outputs[0]))
    preprocessing, notes = front.absorb(network, preprocessing)
    simplify(network)
    found, expected, assumed = heads.finish(network, scores)
    notes += assumed
    if left_out:
        names = ", ".join(dict.fromkeys(layer.name for layer in left_out))
        notes.insert(0, f"Left out, as they do nothing at inference: {names}.")
    if graph.is_that_of(network, original):
        return Rewritten(original, preprocessing, found, notes)
    network.prune()
    rewritten, made = graph.build(network)
    images = _images(original)
    given, taken = _given(original, images, before), preprocessing.normalize(images)
    outputs = _scores(original, given)
    target = expected(outputs)
    difference = np.abs(_scores(rewritten, taken) - target).max() / target.max()
    if not difference <= TOLERANCE:
        number = graph.function_of(original).inputs[0].shape[0] or len(images)
        given, outputs, taken, target = (
            np.resize(np.float32(x), (number, *x.shape[1:]))
            for x in (given, outputs, taken, target)
        )
        cause = graph.first_difference(
            original,
            calls,
            dict(zip(ends, (given, outputs), strict=True)),
            network,
            made,
            {id(network.input): taken, id(network.outputs[0]): target},
            TOLERANCE,
        )
        if cause:
            raise UserError(
                f"cannot rewrite the model {model.name!r}: its scores differ by "
                f"{difference:.2g} of the largest, by {cause}. Build it of other "
                "layers of keras.layers"
            )
    return Rewritten(rewritten, preprocessing, found, notes)


def without_classifier(model):
    """Returns a model of `for_device` that ends with what its classifier reads.

    Args:
        model: the `keras.Model` of `Rewritten`. Not changed.

    Returns:
        functional `keras.Model` from RGB images to features (batch, channels).

    Raises:
        UserError: its scores are not those of one Dense layer.
    """
    network, _ = graph.flatten(model)
    heads.leave_out(network)
    return graph.build(network)[0]


def input_shape(model):
    """Returns (height, width, channels) of a classifier's input, in pixels.

    It has 3 channels (RGB) or 1 (grey).

    Raises:
        UserError: the model has no graph, or does not take one RGB or grey image of
            fixed size.
    """
    function = graph.function_of(model)
    if function is None:
        reason = f"is a {type(model).__name__} whose layers are called in its own code"
        remedy = "inputs = keras.Input(...); keras.Model(inputs, model.call(inputs))"
        if isinstance(model, keras.Sequential):
            reason, remedy = "was never built", "model.build((None, height, width, 3))"
        raise UserError(f"the model {model.name!r} {reason}. Save it after {remedy}")
    if len(function.inputs) != 1 or len(function.outputs) != 1:
        raise UserError(
            "the model must take one image and return one tensor of scores. Received: "
            f"{_shown(function.inputs)} -> {_shown(function.outputs)}. Save "
            "keras.Model(image, scores) of these"
        )
    (shape,) = (tuple(tensor.shape) for tensor in function.inputs)
    received = f"Received: {_shown(function.inputs)}"
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise UserError(
            "the model must take one image (height, width, channels) of 3 channels "
            f"(RGB) or 1 (grey). {received}. Build it for such an input"
        )
    if None in shape[1:]:
        raise UserError(
            f"a file for a device has an input of fixed size. {received}. Save "
            "keras.Sequential([keras.Input((height, width, channels)), model])"
        )
    return shape[1:]


def _shown(tensors):
    return ", ".join(f"{x.name} {tuple(x.shape)}" for x in tensors)


def _refuse_loops(network):
    """Raises `UserError` where a model has a recurrent layer that is a loop."""
    for call in network.calls:
        layer = call.operation
        recurrent = getattr(layer, "forward_layer", layer)  # of Bidirectional
        if isinstance(recurrent, keras.layers.RNN) and not recurrent.unroll:
            raise UserError(
                "a file for a device cannot hold a loop. Received: layer "
                f"{layer.name!r} ({type(layer).__name__}). Leave it out, or build it "
                "with unroll=True"
            )


def _refuse_crops(network):
    """Raises `UserError` where a layer for augmentation resizes at inference."""
    for call in network.calls:
        if call.kind == "RandomCrop":
            layer = call.operation
            raise UserError(
                f"layer {layer.name!r} (RandomCrop) resizes images at inference. Build "
                f"the model for images of {layer.height}x{layer.width}, without it"
            )


def _images(model):
    """Returns uint8 (number, height, width, 3): noise, black and white."""
    tensor = graph.function_of(model).inputs[0]
    # A grey input of whole numbers rounds what is grey of colours.
    is_whole = tensor.shape[-1] == 1 and np.issubdtype(tensor.dtype, np.integer)
    shape = (4, *tensor.shape[1:3], 1 if is_whole else 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images[2:] = [[[[0]]], [[[255]]]]
    return np.broadcast_to(images, (*shape[:3], 3))


def _given(model, images, preprocessing):
    """Returns what a model takes for images (number, height, width, 3)."""
    tensor = graph.function_of(model).inputs[0]
    if tensor.shape[-1] == 1:
        grey = images @ np.float64(front.GREY_OF_RGB)
        images = np.repeat(grey[..., None], 3, axis=-1)
    return preprocessing.normalize(images)[..., : tensor.shape[-1]].astype(tensor.dtype)


def _scores(model, images):
    """Returns what a model returns, float64 (number, classes)."""
    function = graph.function_of(model)

    def scores(images):
        inputs = keras.tree.map_structure(lambda _: images, function.input)
        (outputs,) = keras.tree.flatten(model(inputs, training=False))
        return np.float64(keras.ops.convert_to_numpy(outputs)).reshape(len(images), -1)

    batch = function.inputs[0].shape[0]
    if batch is None:
        return scores(images)
    # A model of a fixed batch takes nothing else.
    return np.concatenate([scores(np.repeat(x[None], batch, 0))[:1] for x in images])
