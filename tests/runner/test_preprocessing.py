"""The fields of Preprocessing, and preprocessing.json."""

import dataclasses
import json
import math

import numpy as np
import pytest

from keras_resnet.runner.errors import UserError
from keras_resnet.runner.preprocessing import Preprocessing, parse_preprocessing

FILE = {
    "version": 1,
    "input_size": [12, 16],
    "resize_size": 20,
    "crop_fraction": 0.8,
    "interpolation": "bicubic",
}


def test_lists_and_numpy_numbers_become_tuples_of_python_numbers():
    given = Preprocessing(np.array([12, 16]), [1, 2, 3], np.ones(3, np.float32))
    plain = Preprocessing((12, 16), (1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    assert given == plain and hash(given) == hash(plain)
    assert json.dumps(dataclasses.asdict(given)) == json.dumps(
        dataclasses.asdict(plain)
    )


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("input_size", 32, "2 whole numbers"),
        ("input_size", None, "2 whole numbers"),
        ("input_size", (32,), "2 whole numbers"),
        ("input_size", (32, 0), "from 1 to"),
        ("input_size", (32, 10**6), "from 1 to"),
        ("input_size", (32, 32.0), "whole numbers"),
        ("input_size", (True, True), "whole numbers"),
        ("mean_rgb_255", (0.0, 0.0), "3 finite numbers"),
        ("mean_rgb_255", "abc", "3 finite numbers"),
        ("mean_rgb_255", (0.0, 0.0, math.nan), "3 finite numbers"),
        ("std_rgb_255", (1.0, 1.0, math.inf), "above 0"),
        ("std_rgb_255", (1.0, 1.0, 0.0), "above 0"),
        ("std_rgb_255", (1.0, 1.0, -1.0), "above 0"),
        ("channel_order", "rbg", "rgb or bgr"),
        ("channel_order", ["rgb"], "rgb or bgr"),
        ("crop_fraction", 0, "to 1"),
        ("crop_fraction", 1.01, "to 1"),
        ("crop_fraction", 1e-320, "to 1"),
        ("crop_fraction", 10**400, "to 1"),
        ("crop_fraction", math.nan, "to 1"),
        ("crop_fraction", "0.8", "to 1"),
        ("crop_fraction", True, "to 1"),
        ("interpolation", "area", "bilinear"),
        ("interpolation", ["bilinear"], "bilinear"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(field, value, expected):
    fields = dict({"input_size": (32, 32)}, **{field: value})
    with pytest.raises(UserError) as raised:
        Preprocessing(**fields)
    message = str(raised.value)
    assert message.startswith(f"{field}: expected ") and expected in message
    assert f"received {value!r:.80}" in message


def test_the_file_of_a_model_describes_raw_pixels():
    found = parse_preprocessing(
        json.dumps(dict(FILE, more="ignored")).encode(), (12, 16)
    )
    assert found == Preprocessing(
        (12, 16), (0.0,) * 3, (1.0,) * 3, "rgb", 0.8, "bicubic"
    )
    assert found.resize_size == 20


@pytest.mark.parametrize(
    "field, value",
    [
        ("version", 2),
        ("version", True),
        ("version", None),
        ("input_size", [16, 12]),
        ("input_size", 12),
        ("resize_size", 19),
        ("resize_size", 20.0),
        ("resize_size", None),
        ("crop_fraction", 0),
        ("crop_fraction", None),
        ("interpolation", "area"),
    ],
)
def test_a_wrong_field_of_the_file_is_named(field, value):
    data = json.dumps(dict(FILE, **{field: value})).encode()
    with pytest.raises(UserError, match=f"{field}: expected .*received"):
        parse_preprocessing(data, (12, 16))
