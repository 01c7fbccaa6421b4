"""Checks of settings, with one text for the commands and for Python."""

import math
import numbers
import os
import pathlib

from keras_resnet.errors import unknown
from keras_resnet.preprocessing import NORMALIZATIONS
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import augmentation


def whole_number(flag, value, least, most=2**31 - 1):
    """Returns `value` as an int; raises `UserError` if it is no such number."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or not least <= value <= most:
        raise UserError(
            f"--{flag} must be a whole number, at least {least}. Received: {value!r}"
        )
    return int(value)


def positive_number(flag, value, most=math.inf):
    """Returns `value` as a float; raises `UserError` unless it is in (0, most]."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 < value <= most:
        limit = f", at most {most}" if most < math.inf else ""
        raise UserError(
            f"--{flag} must be a finite number above 0{limit}. Received: {value!r}"
        )
    return float(value)


def number_from_0(flag, value):
    """Raises `UserError` unless a value is a finite number that is not negative."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise UserError(f"--{flag} must be a number from 0. Received: {value!r}")


def text(flag, value):
    """Raises `UserError` if a value is neither a text, nor a path, nor None."""
    if value is not None and not isinstance(value, str | os.PathLike):
        raise UserError(f"--{flag} must be a text. Received: {value!r}")


def choice(flag, value, choices):
    """Returns `value`; raises `UserError` if it is none of the names `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise unknown(flag, value, choices)
    return value


def path(flag, value):
    """Returns `value` as a `pathlib.Path`; raises `UserError` if it is no path."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"--{flag} must be a path. Received: {value!r}")
    return pathlib.Path(value).expanduser()


def names(flag, value):
    """Returns `value` as a list; raises `UserError` if it is no list of names."""
    if not isinstance(value, list | tuple | set) or not all(
        isinstance(name, str) for name in value
    ):
        raise UserError(f"--{flag} must be a list of names. Received: {value!r}")
    return list(value)


def preprocessing_fields(
    normalization=None, mean=None, std=None, bgr=False, **geometry
):
    """Returns the fields of `Preprocessing` that the user gave, as a dict.

    `adoption.adopt` documents the arguments; those that are None were not given.

    Raises:
        UserError: there is no such normalization, or it was given twice.
    """
    fields = {name: value for name, value in geometry.items() if value is not None}
    numbers = mean is not None or std is not None
    order = {"channel_order": "bgr"} if bgr else {}
    if normalization is not None:
        choice("normalization", normalization, NORMALIZATIONS)
        if numbers:
            raise UserError(
                "give either --normalization or --mean and --std. Received: "
                f"--normalization={normalization} --mean={mean} --std={std}"
            )
        named = {"channel_order": "rgb", **NORMALIZATIONS[normalization]}
        return {**named, **order, **fields}
    fields |= order
    if numbers:
        fields["channel_order"] = "bgr" if bgr else "rgb"
        fields["mean_rgb_255"] = _by_channel("mean", mean, 0.0)
        fields["std_rgb_255"] = _by_channel("std", std, 1.0)
    return fields


def _by_channel(flag, value, default):
    values = default if value is None else value
    values = values if isinstance(values, list | tuple) else (values,)
    try:
        values = tuple(map(float, values))  # a command has texts
    except (TypeError, ValueError):
        values = ()
    if len(values) not in (1, 3):
        raise UserError(f"--{flag} must be 1 or 3 numbers. Received: {value!r}")
    return values * 3 if len(values) == 1 else values


def parts_of_batch(recipe, strategy):
    """Returns the number of equal parts that a batch must have."""
    replicas = strategy.num_replicas_in_sync
    return 2 * replicas if augmentation.mixes(recipe) else replicas


def batch_size(recipe, dataset, strategy):
    """Raises `UserError` unless replicas can share a batch and images fill it."""
    size, replicas = recipe.batch_size, strategy.num_replicas_in_sync
    parts = parts_of_batch(recipe, strategy)
    if size % parts:
        nearest = max(1, round(size / parts)) * parts
        pairs = "pairs for each of " if parts > replicas else ""
        raise UserError(
            f"--batch_size must be a multiple of {parts}, for {pairs}the {replicas} "
            f"replicas: try {nearest}. Received: {size}"
        )
    if size > dataset.train.examples:
        raise UserError(
            f"--batch_size must be at most the {dataset.train.examples} training "
            f"images. Received: {size}"
        )
