"""Layers that tensorflow-model-optimization does not know, in 8 bits."""

import keras
import numpy as np
import pytest

from keras_resnet import console
from keras_resnet.edge.convert import converter
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner import Classifier
from keras_resnet.training.quantize import aware as quantization
from keras_resnet.training.quantize import twin as twins

layers = keras.layers
PREPROCESSING = Preprocessing((32, 32))


def pictures(number=32):
    """Returns uint8 images of coarse blocks."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (number, 4, 4, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def classifier(middle):
    """Returns a model with something in its middle, as if it had learned."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="first")(inputs)
    x = middle(layers.ReLU()(layers.BatchNormalization(momentum=0)(x)))
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="last")(x))
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name in ("gamma", "alpha"):
            variable.assign(rng.uniform(0.1, 2, variable.shape))
        elif variable.name in ("beta", "bias"):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    images = PREPROCESSING.normalize(pictures())
    model(images, training=True)  # statistics
    last = model.get_layer("last")
    logits = np.log(model(images, training=False).numpy())
    last.kernel.assign(last.kernel / logits.std(axis=0).max())
    return model


def convolution(x, activation=None):
    return layers.Conv2D(8, 3, padding="same", activation=activation)(x)


def squeeze_and_excite(x):
    scale = layers.GlobalAveragePooling2D(keepdims=True)(x)
    scale = layers.Conv2D(4, 1, activation="silu")(scale)
    return layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(scale)])


def dense_block(x):
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization(momentum=0)(x))
        x = layers.Concatenate()([x, convolution(y)])
    return x


def pooled_dense_block(x):
    return dense_block(layers.AveragePooling2D(2)(convolution(x)))


def inception_block(x):
    x = layers.MaxPooling2D(2)(x)
    pooled = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    return layers.Concatenate()([convolution(x), convolution(x), convolution(pooled)])


def lone(x, **kwargs):
    return layers.BatchNormalization(momentum=0, name="lone", **kwargs)(x)


def merged(kind, number):
    def merge(x):
        return kind()([x] + [convolution(x) for _ in range(number - 1)])

    return merge


# {name: (function of the middle, operators that the .tflite has for it)}.
CONSTRUCTS = {
    "lone": (
        lambda x: lone(layers.MaxPooling2D(2)(x)),
        "MAX_POOL_2D DEPTHWISE_CONV_2D",
    ),
    "lone-relu": (
        lambda x: layers.ReLU()(lone(layers.MaxPooling2D(2)(x))),
        "MAX_POOL_2D DEPTHWISE_CONV_2D",
    ),
    "lone-pooled": (
        lambda x: lone(layers.GlobalAveragePooling2D()(x)),
        "MEAN RESHAPE DEPTHWISE_CONV_2D",
    ),
    "dense-block": (dense_block, "DEPTHWISE_CONV_2D CONV_2D CONCATENATION"),
    "pooled-dense-block": (
        pooled_dense_block,
        "AVERAGE_POOL_2D QUANTIZE DEPTHWISE_CONV_2D CONV_2D CONCATENATION",
    ),
    "inception-block": (
        inception_block,
        "MAX_POOL_2D AVERAGE_POOL_2D CONV_2D CONV_2D CONV_2D CONCATENATION",
    ),
    "squeeze-and-excite": (
        squeeze_and_excite,
        "MEAN CONV_2D LOGISTIC MUL CONV_2D LOGISTIC MUL",
    ),
    "silu": (
        lambda x: layers.Activation("silu")(convolution(x)),
        "CONV_2D LOGISTIC MUL",
    ),
    "hard_silu": (lambda x: convolution(x, "hard_silu"), "CONV_2D HARD_SWISH"),
    "hard_sigmoid": (
        lambda x: convolution(x, "hard_sigmoid"),
        "CONV_2D DEPTHWISE_CONV_2D DEPTHWISE_CONV_2D",
    ),
    "relu6": (lambda x: convolution(x, "relu6"), "CONV_2D CONV_2D MEAN"),
    "leaky_relu": (lambda x: convolution(x, "leaky_relu"), "CONV_2D LEAKY_RELU"),
    "gelu": (lambda x: convolution(x, "gelu"), "CONV_2D GELU"),
    "prelu": (
        lambda x: layers.PReLU(shared_axes=(1, 2))(convolution(x)),
        "CONV_2D PRELU",
    ),
    "add-3": (merged(layers.Add, 3), "CONV_2D ADD CONV_2D ADD"),
    "average-3": (
        merged(layers.Average, 3),
        "CONV_2D ADD CONV_2D ADD DEPTHWISE_CONV_2D",
    ),
    "multiply-3": (merged(layers.Multiply, 3), "CONV_2D MUL CONV_2D MUL"),
    "subtract": (merged(layers.Subtract, 2), "CONV_2D SUB"),
    "maximum": (merged(layers.Maximum, 2), "CONV_2D MAXIMUM"),
    "separable": (
        lambda x: lone(layers.SeparableConv2D(8, 3, activation="silu")(x)),
        "DEPTHWISE_CONV_2D CONV_2D LOGISTIC MUL DEPTHWISE_CONV_2D",
    ),
    "rescaling": (
        lambda x: layers.Rescaling(0.5, 0.1)(layers.GlobalAveragePooling2D()(x)),
        "MEAN RESHAPE DEPTHWISE_CONV_2D",
    ),
    "unit": (
        lambda x: layers.UnitNormalization()(convolution(x)),
        "CONV_2D L2_NORMALIZATION",
    ),
}


def quantized_file(model, folder):
    """Returns (quantization-aware model, bytes of its .tflite)."""
    aware = quantization.quantize(model, PREPROCESSING, pictures())
    with console.hidden_output(1, 2):
        quantization.save(aware, folder / "saved")
    return aware, converter.from_saved_model(folder / "saved", PREPROCESSING)


def float_operators(content):
    return {
        operator.name
        for operator in tflite_graph.read(content).operators
        for tensor in (*operator.inputs, *operator.outputs)
        if tensor is not None and "FLOAT" in tensor.dtype
    }


FAST = (
    "add-3",
    "dense-block",
    "hard_sigmoid",
    "hard_silu",
    "inception-block",
    "lone-pooled",
    "pooled-dense-block",
    "separable",
    "squeeze-and-excite",
)


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in CONSTRUCTS
    ],
)
def test_layers_run_in_8_bits(name, tmp_path, capfd):
    middle, operators = CONSTRUCTS[name]
    model = classifier(middle)
    images = pictures()
    expected = model(PREPROCESSING.normalize(images), training=False).numpy()
    assert np.ptp(expected, axis=0).max() > 0.1
    before = [value.copy() for value in model.get_weights()]

    aware, content = quantized_file(model, tmp_path)

    found = " ".join(each.name for each in tflite_graph.read(content).operators)
    assert operators in found and not float_operators(content)
    assert "stay in float" not in capfd.readouterr().err
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    device = Classifier(path)
    actual = np.stack([device.scores(image) for image in images])
    assert np.abs(actual - expected).mean() < 0.01
    # Nothing was trained: the weights return as they were.
    assert quantization.copy_weights(aware, model)
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_allclose(value, old, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer, operator",
    [
        (layers.LayerNormalization(name="mine"), "RSQRT"),
        (layers.GroupNormalization(4, name="mine"), "RSQRT"),
        (layers.ELU(name="mine"), "ELU"),
        (layers.Activation("softplus", name="mine"), "LOG"),
    ],
)
def test_what_has_no_8_bit_form_stays_in_float_and_is_named(
    layer, operator, tmp_path, capfd
):
    model = classifier(lambda x: convolution(layer(convolution(x))))
    aware, content = quantized_file(model, tmp_path)
    found = float_operators(content)
    assert operator in found and not {"CONV_2D", "FULLY_CONNECTED"} & found
    (line,) = (x for x in capfd.readouterr().err.splitlines() if "note:" in x)
    assert f"stay in float: {type(layer).__name__} mine." in line
    assert "An Edge TPU and an Ethos-U cannot run them" in line


def test_many_float_layers_are_named_in_one_line(capfd):
    def middle(x):
        for _ in range(5):
            x = layers.ELU()(layers.LayerNormalization()(x))
        return x

    quantization.quantize(classifier(middle), PREPROCESSING, pictures())
    (line,) = (x for x in capfd.readouterr().err.splitlines() if "note:" in x)
    assert line.count("and 2 more") == 2


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_what_a_lone_batch_normalization_learned_returns(scale, center):
    model = classifier(
        lambda x: lone(layers.MaxPooling2D(2)(x), scale=scale, center=center)
    )
    aware = quantization.quantize(model, PREPROCESSING, pictures())
    kernel, bias = aware.get_layer("quant_lone").layer.weights
    kernel.assign(1.3 * kernel)
    bias.assign(bias + 0.2)
    assert quantization.copy_weights(aware, model)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype("float32")
    expected = x * kernel.numpy()[..., 0] + bias.numpy()
    actual = model.get_layer("lone")(x, training=False).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_negative_scale_cannot_return_without_gamma():
    model = classifier(lambda x: lone(layers.MaxPooling2D(2)(x), scale=False))
    aware = quantization.quantize(model, PREPROCESSING, pictures())
    before = [value.copy() for value in model.get_weights()]
    kernel, _ = aware.get_layer("quant_lone").layer.weights
    kernel.assign(-kernel)
    assert not quantization.copy_weights(aware, model)
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: lone(convolution(x, "relu")),
        lambda x: layers.Add()([(y := convolution(x)), lone(y)]),
        lambda x: lone(layers.Conv2DTranspose(8, 3)(x)),
        lambda x: lone((c := layers.Conv2D(8, 3, padding="same"))(c(x))),
    ],
)
def test_a_batch_normalization_that_nothing_can_fold_is_a_convolution(middle):
    twin, _ = twins.twin(classifier(middle))
    assert type(twin.get_layer("lone")).__name__ == "DepthwiseConv2D"


@pytest.mark.parametrize("kind", [layers.DepthwiseConv2D, layers.SeparableConv2D])
def test_a_folded_batch_normalization_stays_what_it_is(kind):
    def middle(x):
        return lone(
            kind(**({"filters": 8} if "Sep" in str(kind) else {}), kernel_size=1)(x)
        )

    twin, _ = twins.twin(classifier(middle))
    assert type(twin.get_layer("lone")).__name__ == "BatchNormalization"


def test_a_split_layer_is_left_in_float_by_its_name(tmp_path):
    model = classifier(lambda x: layers.Conv2D(8, 3, activation="silu", name="both")(x))
    aware = quantization.quantize(model, PREPROCESSING, pictures(), ["both"])
    names = {layer.name for layer in aware.layers}
    assert "both_linear" in names and "quant_both_linear" not in names
    assert "quant_both" in names  # for the layer that reads it
