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
        ("resize", "fit", "crop or stretch or pad"),
        ("resize", None, "crop or stretch or pad"),
        ("antialias", 1, "true or false"),
        ("antialias", "false", "true or false"),
        ("reduced_decoding", 0.99, "from 1"),
        ("reduced_decoding", math.inf, "from 1"),
        ("reduced_decoding", "2", "from 1"),
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
        ("version", 0),
        ("version", 1.0),
        ("version", 3.0),
        ("version", "2"),
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
    expected = f"{field}: expected .*received .*; export the model again"
    with pytest.raises(UserError, match=expected):
        parse_preprocessing(data, (12, 16))


@pytest.mark.parametrize("there, expected", [({}, 8), ({"reduced_decoding": 2}, 2)])
def test_files_without_reduced_decoding_mean_8(there, expected):
    for file in (FILE, SECOND):
        data = json.dumps({**file, **there}).encode()
        assert parse_preprocessing(data, (12, 16)).reduced_decoding == expected


SECOND = {
    "version": 2,
    "input_size": [12, 16],
    "crop_fraction": 1.0,
    "interpolation": "bicubic",
    "resize": "pad",
    "antialias": False,
}


def test_version_2_says_how_other_aspects_are_resized():
    found = parse_preprocessing(json.dumps(SECOND).encode(), (12, 16))
    assert (found.resize, found.antialias) == ("pad", False)
    # A file of version 1 that has the fields by chance means what it always meant.
    data = json.dumps(dict(FILE, resize="pad", antialias=False)).encode()
    found = parse_preprocessing(data, (12, 16))
    assert (found.resize, found.antialias) == ("crop", True)


@pytest.mark.parametrize(
    "field, value",
    [("resize", None), ("antialias", None), ("antialias", 0), ("crop_fraction", 0.8)],
)
def test_a_wrong_field_of_version_2_is_named(field, value):
    data = json.dumps(dict(SECOND, **{field: value})).encode()
    with pytest.raises(UserError, match=f"{field}: expected .*received {value}"):
        parse_preprocessing(data, (12, 16))


@pytest.mark.parametrize("version", [4, 10**30])
def test_a_newer_version_asks_for_a_newer_runner(version):
    data = json.dumps(dict(SECOND, version=version)).encode()
    with pytest.raises(UserError) as raised:
        parse_preprocessing(data, (12, 16))
    assert str(raised.value) == (
        f"version: this runner reads 1 to 3, received {version}; take the "
        "run_tflite.py of the keras_resnet that exported the model"
    )


def test_padding_keeps_the_whole_image():
    with pytest.raises(UserError, match="crop_fraction: expected 1.*received 0.875"):
        Preprocessing((32, 32), crop_fraction=0.875, resize="pad")


def test_the_resized_image_is_as_much_larger_as_the_crop_keeps():
    assert Preprocessing((12, 16), crop_fraction=0.8).resized_size == (15, 20)
    assert Preprocessing((224, 224), crop_fraction=224 / 232).resized_size == (232, 232)
