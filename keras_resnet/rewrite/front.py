"""What stands in front of a network: per-channel arithmetic, moved to the pixels.

`x / 255`, Rescaling, Normalization, preprocess_input of keras.applications, another
order of the channels: together they are one affine map of a pixel's channels. Where
`Preprocessing` can say it, it says it from then on; what it cannot say becomes one
1x1 convolution.
"""

import dataclasses

import keras
import numpy as np

from keras_resnet.rewrite.arithmetic import scale_and_offset
from keras_resnet.rewrite.graph import Call
from keras_resnet.runner.errors import UserError

# ITU-R BT.601: what Pillow and TensorFlow make a grey picture of RGB with.
GREY_OF_RGB = (0.299, 0.587, 0.114)
# Relative to the largest: far above the rounding of float64, far below float32's.
_ROUNDING = 1e-9


def absorb(graph, preprocessing):
    """Moves per-channel arithmetic out of a graph into the preprocessing.

    A grey input becomes an RGB one, whose pixels a 1x1 convolution makes grey.

    Args:
        graph: a `Graph` of an input of 3 channels or 1; it is changed.
        preprocessing: the `Preprocessing` of the model's input. For a grey model its
            mean and its standard deviation are those of the grey pixel.

    Returns:
        (`Preprocessing`, list of notes for the user).

    Raises:
        UserError: the model takes grey pixels, the preprocessing tells colours apart.
    """
    given = preprocessing
    channels = graph.input.shape[-1]
    end, matrix, offset, inside = _affine_part(graph)
    absorbed = [call for call in inside if call.kind != "Cast"]
    notes = []
    if channels == 1:
        preprocessing, layer, notes = _for_grey(preprocessing, matrix, offset)
    else:
        moved = _composed(preprocessing, matrix, offset)
        if moved is None and absorbed:
            layer = (matrix, offset)
        else:
            preprocessing, layer = moved or preprocessing, None
    graph.input = end
    graph.prune()
    if layer:
        name = "grey" if channels == 1 else absorbed[-1].operation.name
        insert_affine(graph, name, *layer)
    if absorbed:
        names = ", ".join(call.operation.name for call in absorbed)
        where = (
            "became the 1x1 convolution in front"
            if layer and channels == 3
            else "moved into the preprocessing, which is now "
            + _description(preprocessing)
        )
        notes.insert(0, f"The model's own preprocessing ({names}) {where}.")
        if set(given.mean_rgb_255) != {0} or set(given.std_rgb_255) != {1}:
            notes.insert(
                1,
                "It stands behind the normalization that was given: give raw pixels "
                "(mean 0, std 1) if it was trained on these.",
            )
    return preprocessing, notes


def insert_affine(graph, name, matrix, offset):
    """Puts an affine map of the channels between a graph's input and its readers.

    Args:
        graph: a `Graph` whose input has a channel for each row of the matrix; it is
            changed, and has an input channel for each column then.
        name: of the layer, a depthwise convolution where the matrix is diagonal, and
            else a convolution.
        matrix: (channels out, channels in).
        offset: (channels out,).
    """
    outputs, inputs = matrix.shape
    use_bias = bool(np.any(offset))
    weights = [offset] * use_bias
    if outputs == inputs and np.count_nonzero(matrix - np.diag(np.diag(matrix))) == 0:
        layer = keras.layers.DepthwiseConv2D(1, use_bias=use_bias, name=name)
        weights.insert(0, np.diag(matrix)[None, None, :, None])
    else:
        layer = keras.layers.Conv2D(outputs, 1, use_bias=use_bias, name=name)
        weights.insert(0, matrix.T[None, None])
    behind = graph.input
    graph.input = keras.KerasTensor((*behind.shape[:3], inputs), "float32")
    graph.calls.insert(0, Call(layer, (graph.input,), (behind,), weights=weights))


def _affine_part(graph):
    """Finds how far a graph is affine in each pixel's channels.

    Returns:
        (tensor behind it, matrix (channels out, channels in), offset, calls of it).
    """
    _, height, width, channels = graph.input.shape
    image = np.random.default_rng(0).uniform(0, 255, (1, height, width, channels))
    values = {id(graph.input): image}
    known = []
    for call in graph.calls:
        if all(id(x) in values for x in call.inputs):
            results = _results(call, values)
            if results:
                values.update(zip(map(id, call.outputs), results, strict=True))
                known.append(call)
    for last in reversed(known):
        end = last.outputs[0]
        inside, wanted = [], {id(end)}
        for call in reversed(known):
            if wanted & set(map(id, call.outputs)):
                inside.append(call)
                wanted.update(map(id, call.inputs))
        before = [graph.input] + [x for c in inside for x in c.outputs if x is not end]
        readers = [reader for tensor in before for reader in graph.readers(tensor)]
        fit = all(reader in inside for reader in readers) and _fit(
            image, values[id(end)]
        )
        if fit:
            return end, *fit, inside[::-1]
    return graph.input, np.eye(channels), np.zeros(channels), []


def _fit(image, value):
    """Returns (matrix, offset) with value = image @ matrix.T + offset, or None."""
    if value.shape[:-1] != image.shape[:-1]:
        return None
    pixels = image.reshape(-1, image.shape[-1])
    pixels = np.append(pixels, np.full((len(pixels), 1), 255.0), axis=1)
    value = value.reshape(len(pixels), -1)
    solution = np.linalg.lstsq(pixels, value, rcond=None)[0]
    if np.abs(pixels @ solution - value).max() > _ROUNDING * np.abs(value).max():
        return None
    solution[np.abs(solution) < _ROUNDING * np.abs(solution).max()] = 0
    return solution[:-1].T, solution[-1] * 255.0


def _composed(preprocessing, matrix, offset):
    """Returns a preprocessing with an affine map behind it, or None if none says it."""
    if matrix.shape != (3, 3):
        return None
    if (matrix == np.eye(3)).all() and not offset.any():
        return preprocessing
    mean = np.float64(preprocessing.mean_rgb_255)
    to_model = np.diag(1 / np.float64(preprocessing.std_rgb_255))
    if preprocessing.channel_order == "bgr":
        to_model = to_model[::-1]
    matrix = matrix @ to_model  # of (pixel - mean), RGB
    for order, by_channel in (("rgb", matrix), ("bgr", matrix[::-1])):
        scale = np.diag(by_channel)
        if (scale > 0).all() and np.count_nonzero(by_channel) == 3:
            in_rgb = offset if order == "rgb" else offset[::-1]
            return dataclasses.replace(
                preprocessing,
                mean_rgb_255=_in_few_digits(mean - in_rgb / scale, 1 / scale),
                std_rgb_255=_in_few_digits(1 / scale, 1 / scale),
                channel_order=order,
            )
    return None


def _in_few_digits(values, scales):
    """Rounds numbers to what float32, in which a model holds them, can tell.

    A model that divides by 255 and subtracts the float32 of 0.485 then has a mean of
    123.675, as it was meant.

    Args:
        values: numbers, on the scale 0..255.
        scales: for each the size of what it is added to.
    """

    def rounded(value, scale):
        for candidate in (round(value, 4), float(f"{value:.6g}")):
            if abs(candidate - value) <= np.finfo("float32").eps * max(
                abs(value), scale
            ):
                return candidate + 0.0  # no -0.0
        return float(str(np.float32(value)))

    return tuple(map(rounded, values.tolist(), scales.tolist()))


def _for_grey(preprocessing, matrix, offset):
    """Returns (preprocessing, (matrix, offset) of the layer, notes) for RGB pixels."""
    for field in ("mean_rgb_255", "std_rgb_255"):
        numbers = getattr(preprocessing, field)
        if len(set(numbers)) > 1:
            raise UserError(
                "the model takes grey pictures, whose normalization has one mean and "
                f"one standard deviation. Received: {field}={numbers}"
            )
    preprocessing = dataclasses.replace(preprocessing, channel_order="rgb")
    scale, shift = matrix[0, 0], offset[0]
    if scale > 0 and (matrix == scale).all() and (offset == shift).all():
        moved = _composed(preprocessing, scale * np.eye(3), np.full(3, shift))
        preprocessing, matrix, offset = moved, matrix / scale, offset * 0
    notes = [
        "The model takes grey pictures: a 1x1 convolution in front makes them of RGB, "
        f"by the weights of ITU-R 601 {GREY_OF_RGB}."
    ]
    return preprocessing, (matrix @ np.array([GREY_OF_RGB]), offset), notes


def _description(preprocessing):
    mean = ", ".join(f"{x:.6g}" for x in preprocessing.mean_rgb_255)
    std = ", ".join(f"{x:.6g}" for x in preprocessing.std_rgb_255)
    return f"mean ({mean}), std ({std}), {preprocessing.channel_order.upper()}"


def _results(call, values):
    """Returns the float64 arrays that a call returns, or None where no rule says it."""
    args, _ = call.filled(values)
    affine = scale_and_offset(call)
    if affine:
        scale, offset = affine
        return [values[id(call.inputs[0])] * scale + offset]
    rule = _RULES.get(call.kind)
    results = rule and rule(call.operation, *args)
    return results if isinstance(results, list | None) else [results]


# {class of an operation that only moves numbers: function of (operation, arguments)}.
_RULES = {
    "Cast": lambda operation, x: x,
    "Concatenate": lambda operation, x: np.concatenate(x, operation.axis),
    "ExpandDims": lambda operation, x: np.expand_dims(x, operation.axis),
    "Flip": lambda operation, x: np.flip(x, operation.axis),
    "GetItem": lambda operation, x, key: x[tuple(key) if type(key) is list else key],
    "Repeat": lambda operation, x: np.repeat(x, operation.repeats, operation.axis),
    "RGBToGrayscale": lambda operation, x: x @ np.array([[0.2989], [0.587], [0.114]]),
    "Split": lambda operation, x: np.split(
        x, operation.indices_or_sections, operation.axis
    ),
    "Stack": lambda operation, x: np.stack(x, operation.axis),
}
