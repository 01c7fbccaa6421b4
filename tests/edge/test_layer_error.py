"""The error of each layer of an export, against files whose error is known."""

import keras
import numpy as np
import pytest

from keras_resnet.edge.convert import converter, tflite_file
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.inspect import layer_error
from tests.conftest import SMALL
from tests.helpers.networks import every_layer, randomize


@pytest.fixture(scope="module")
def model(digits_run):
    return keras.saving.load_model(digits_run / "model.keras")


def by_layer(model, content, images):
    errors = layer_error.measure(model, SMALL, content, list(images))
    return {error["layer"]: error for error in errors}


def test_a_float_file_has_none(model, files, held_out):
    found = by_layer(model, files["none"].read_bytes(), held_out[0][:4])
    blocks = [f"conv{stage}_block1" for stage in (2, 3, 4)]
    assert set(found) == {
        "conv1_relu",
        *(f"{block}_{end}" for block in blocks for end in ("1_relu", "2_bn", "out")),
        *(f"{block}_0_bn" for block in blocks[1:]),
        "avg_pool",
        "predictions",
    }
    # Scores leave as bytes, but are compared before.
    assert min(error["snr_db"] for error in found.values()) > 90
    assert min(error["own_snr_db"] for error in found.values()) > 90


def test_layers_of_many_kinds_are_found():
    """Also one that is called twice, and some that become several operators."""
    model = randomize(every_layer())
    content = converter.from_keras(model, SMALL, "none")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    errors = layer_error.measure(model, SMALL, content, list(images))
    moves = ("InputLayer", "ZeroPadding2D", "Flatten", "Dropout")
    computing = [x.name for x in model.layers if type(x).__name__ not in moves]
    (twice,) = (
        x.name for x in model.layers if x.get_config().get("activation") == "relu6"
    )
    assert sorted(error["layer"] for error in errors) == sorted([*computing, twice])
    assert min(error["snr_db"] for error in errors) > 90


def test_sequential_models_have_layers_too():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(4, 3, strides=2, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )
    randomize(model)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    content = converter.from_keras(model, SMALL, "int8", images)
    found = by_layer(model, content, images)
    assert set(found) == {"relu", "pool", "scores"}
    assert min(error["own_snr_db"] for error in found.values()) > 25


@pytest.mark.parametrize("quantize", ["int8", "int16x8", "dynamic"])
def test_quantized_files_have_the_error_of_their_bits(model, files, held_out, quantize):
    found = by_layer(model, files[quantize].read_bytes(), held_out[0][:8])
    assert len(found) == 14
    first = found["conv1_relu"]
    assert first["own_snr_db"] == pytest.approx(first["snr_db"])  # none before it
    for error in found.values():
        assert 20 < error["own_snr_db"] <= layer_error.MAX_DB
        assert 15 < error["snr_db"]
    # Rounding to steps of the output's scale: its noise is that of a uniform error,
    # to which the weights add theirs.
    graph = tflite_graph.read(files[quantize].read_bytes())
    if quantize == "int8":
        tensor = graph.operators[first["index"]].outputs[0]
        image = SMALL.normalize(held_out[0][:8])
        part = keras.Model(model.inputs, model.get_layer("conv1_relu").output)
        signal = np.mean(np.square(part.predict(image, verbose=0)))
        bound = 10 * np.log10(signal / (tensor.scales[0] ** 2 / 12))
        assert bound - 12 < first["own_snr_db"] < bound + 3


def test_a_spoilt_layer_is_the_first_of_the_list(model, files, held_out):
    spoilt = tflite_file.parse(files["int8"].read_bytes())
    graph = tflite_graph.read(files["int8"].read_bytes())
    (operator,) = (
        operator
        for operator in graph.operators
        if "conv3_block1_1_relu" in operator.outputs[0].name
    )
    weights = spoilt.subgraphs[0].tensors[operator.inputs[1].index]
    data = np.array(spoilt.buffers[weights.buffer].data)
    spoilt.buffers[weights.buffer].data = np.roll(data, 7)
    content = tflite_file.pack(spoilt)
    images = list(held_out[0][:4])
    errors = layer_error.measure(model, SMALL, content, images)
    assert errors[0]["layer"] == "conv3_block1_1_relu"
    assert errors[0]["own_snr_db"] < 5
    own = [error["own_snr_db"] for error in errors]
    assert own == sorted(own) and own[1] > 20
    # What comes behind it is fine alone, and not in all.
    behind = {error["layer"]: error for error in errors}["conv3_block1_2_bn"]
    assert behind["own_snr_db"] > 20 and behind["snr_db"] < 15


def test_fine_tuned_files_are_compared_with_the_fine_tuned_weights(
    model, files, digits_run, held_out
):
    content, images = files["qat"].read_bytes(), held_out[0][:4]
    tuned = keras.saving.load_model(digits_run / "qat" / "model.keras")
    with_tuned = by_layer(tuned, content, images)
    with_older = by_layer(model, content, images)
    assert len(with_tuned) == 14
    assert min(error["own_snr_db"] for error in with_tuned.values()) > 20
    nearer = [
        with_tuned[layer]["own_snr_db"] > with_older[layer]["own_snr_db"]
        for layer in with_tuned
        if layer.endswith(("_bn", "_relu"))
    ]
    assert np.mean(nearer) > 0.7
