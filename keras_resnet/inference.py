"""From pixels to the input of a model, and from its scores to the names of classes."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_resnet.preprocessing import Preprocessing, identifiers
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import registry


def preprocess_input(
    x: Any,
    model_or_weights: keras.Model | Preprocessing | str = "resnet50",
    data_format: str | None = None,
) -> Any:
    """Normalizes raw pixels as a model wants them.

    Args:
        x: RGB pixels, 0..255, any dtype: array or tensor of one image (height,
            width, 3) or a batch (batch, height, width, 3). Not changed.
        model_or_weights: a model that knows its preprocessing (built with named
            weights, or opened by `keras_resnet.load`); or a `Preprocessing`; or the
            name of weights: "resnet50.a1_in1k", "a1_in1k" where all depths agree, or
            a model's name for its default weights. The default are the weights
            of keras.applications, as its function of the same name has it.
        data_format: "channels_last" or "channels_first"; `None` takes
            `keras.config.image_data_format()`.

    Returns:
        float32 array, or tensor where `x` is one, of the same shape.

    Raises:
        UserError: unknown weights, or a model that does not know its preprocessing.
    """
    if isinstance(model_or_weights, Preprocessing):
        preprocessing = model_or_weights
    else:
        preprocessing = _described(model_or_weights, "preprocessing")
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise UserError(
            "`data_format` must be 'channels_last' or 'channels_first'. "
            f"Received: {data_format!r}"
        )
    channels_first = data_format == "channels_first"
    if not (keras.ops.is_tensor(x) or keras.utils.is_keras_tensor(x)):
        x = np.moveaxis(x, -3, -1) if channels_first else x
        x = preprocessing.normalize(x)
        return np.moveaxis(x, -1, -3) if channels_first else x
    broadcast = (3, 1, 1) if channels_first else (3,)
    mean, std = (
        keras.ops.reshape(keras.ops.convert_to_tensor(values, "float32"), broadcast)
        for values in (preprocessing.mean_rgb_255, preprocessing.std_rgb_255)
    )
    x = (keras.ops.cast(x, "float32") - mean) / std
    if preprocessing.channel_order == "bgr":
        x = keras.ops.flip(x, axis=-len(broadcast))
    return x


def decode_predictions(
    preds: npt.ArrayLike,
    top: int = 5,
    model_or_weights: keras.Model | str = "resnet50",
) -> list[list[tuple[str, str, float]]]:
    """Names the best classes of predictions.

    Args:
        preds: array (batch, classes) of scores.
        top: how many classes to return for each image.
        model_or_weights: whose classes they are: a model that knows its labels, or the
            name of weights, as for `preprocess_input`. The default are those of
            ImageNet, as keras.applications has it.

    Returns:
        One list for each image, of (id, label, score) tuples, the best first. The id
        is that of WordNet for the classes of ImageNet, else the label again.

    Raises:
        UserError: the array has another shape, unknown weights, or a model that does
            not know its labels.
    """
    labels = _described(model_or_weights, "labels")
    if labels is None:
        raise UserError(
            "these weights are features without a classifier: their scores have no "
            f"names. Received: {model_or_weights!r}"
        )
    preds = np.asarray(preds)
    if preds.ndim != 2 or preds.shape[1] != len(labels):
        raise UserError(
            f"`preds` must be an array (batch, {len(labels)}) of scores for "
            f"{labels[0]}, ...; for other classes give `model_or_weights`. "
            f"Received: shape {preds.shape}"
        )
    names = list(zip(identifiers(labels), labels, strict=True))
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(*names[index], scores[index]) for index in indices]
        for indices, scores in zip(best, preds, strict=True)
    ]


def _described(model_or_weights, what):
    """Returns the `preprocessing` or the `labels` of a model or of named weights."""
    if isinstance(model_or_weights, keras.Model):
        found = getattr(model_or_weights, what, None)
        if found is None:
            raise UserError(
                f"the model does not know its {what}: it was built without named "
                "weights, cloned, or not opened with keras_resnet.load. Open its file "
                "with that, or give the name of its weights. "
                f"Received: model {model_or_weights.name!r}"
            )
        return found
    files = registry.weight_files()
    model, _, tag = str(model_or_weights).partition(".")
    if model in files:
        entry = registry.find(model, tag) if tag else registry.default(model)
        return getattr(entry, what)
    found = [tags[model] for tags in files.values() if model in tags]
    if model == "imagenet" or not found:  # "imagenet" depends on the depth
        raise UserError(
            "`model_or_weights` must be a model that knows its preprocessing, or a "
            f"name: {', '.join(files)}, or one of `list_weights()`. "
            f"Received: {model_or_weights!r}"
        )
    # The normalization of a tag is the same for all depths (a test asserts it).
    return getattr(found[0], what)
