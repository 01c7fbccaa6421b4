"""What people's models are made of: models inside, augmentation, operations, names."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import rewrite
from keras_resnet.runner.errors import UserError
from tests.helpers.classifiers import (
    assert_equal,
    body,
    kinds,
    network,
    normalization,
    pixels,
    scores,
    with_random_statistics,
)

layers, ops = keras.layers, keras.ops


def rewritten_equally(model, name="raw", **arguments):
    """Rewrites a model of RGB input, and compares scores on images of our own."""
    before = normalization(name, model)
    weights = model.get_weights()
    rewritten = rewrite.for_device(model, before, **arguments)
    images = pixels(*before.input_size)
    expected = scores(model, before, images)
    assert_equal(scores(rewritten.model, rewritten.preprocessing, images), expected)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not any(isinstance(each, keras.Model) for each in rewritten.model.layers)
    return rewritten


def small_base(name="base", shape=(48, 48, 3)):
    """A base without a top, as keras.applications has them."""
    image = keras.Input(shape)
    return with_random_statistics(keras.Model(image, body(image), name=name))


def test_the_model_of_the_guide_transfer_learning():
    base = small_base()
    image = keras.Input((48, 48, 3))
    augmentation = keras.Sequential(
        [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)]
    )
    x = layers.Rescaling(scale=1 / 127.5, offset=-1)(augmentation(image))
    x = layers.GlobalAveragePooling2D()(base(x, training=False))
    outputs = layers.Dense(1)(layers.Dropout(0.2)(x))
    model = with_random_statistics(keras.Model(image, outputs))
    before = normalization("raw", model)
    rewritten = rewrite.for_device(model, before)
    logit = scores(model, before, pixels(48, 48))
    actual = scores(rewritten.model, rewritten.preprocessing, pixels(48, 48))
    score = 1 / (1 + np.exp(-logit))
    assert_equal(actual, np.concatenate([1 - score, score], axis=1))
    assert rewritten.scores == "softmax"
    assert rewritten.preprocessing == normalization("tf", model)
    assert kinds(rewritten.model) == [
        "Conv2D",
        "BatchNormalization",
        "ReLU",
        "GlobalAveragePooling2D",
        "Dense",
    ]
    said = " ".join(rewritten.notes)
    assert "random_flip" in said and "rescaling" in said and "two classes" in said


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_the_model_of_the_tutorial_image_classification(activation):
    model = keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            layers.RandomFlip("horizontal"),
            layers.RandomZoom(0.1),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(3, activation=activation, name="classes"),
        ]
    )
    before = normalization("raw", model)
    rewritten = rewrite.for_device(model, before)
    expected = scores(model, before, pixels(48, 48))
    if activation is None:
        expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    actual = scores(rewritten.model, rewritten.preprocessing, pixels(48, 48))
    assert_equal(actual, expected)
    last = rewritten.model.get_layer("classes")
    assert last.activation is keras.activations.softmax
    assert rewritten.preprocessing.mean_rgb_255 == (0, 0, 0)
    assert rewritten.preprocessing.std_rgb_255 == (255, 255, 255)
    assert any("logits" in note for note in rewritten.notes) == (activation is None)


def test_models_inside_models_are_flattened_at_any_depth():
    innermost = small_base("innermost", shape=(None, None, 3))
    inner = keras.Sequential([keras.Input((32, 32, 3)), innermost], name="inner")
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(3, 1)(image)
    head = keras.Sequential(
        [layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")], name="head"
    )
    model = keras.Model(image, head(inner(x)))
    assert len(rewritten_equally(with_random_statistics(model)).model.layers) == 7


def test_a_sequence_of_a_base_that_was_never_called():
    base = with_random_statistics(
        keras_resnet.ResNet8(weights=None, input_shape=(32, 32, 3), classes=3)
    )
    rewritten = rewritten_equally(keras.Sequential([base]))
    names = [[each.name for each in m.layers[1:]] for m in (rewritten.model, base)]
    assert names[0] == names[1]


def test_names_are_kept_and_twins_get_the_name_of_their_model():
    first, second = (
        keras.Sequential(
            [keras.Input(shape), layers.Conv2D(4, 3, name="conv")], name=name
        )
        for name, shape in (("first", (32, 32, 3)), ("second", (30, 30, 4)))
    )
    image = keras.Input((32, 32, 3), name="photo")
    x = layers.GlobalMaxPooling2D(name="pool")(second(first(image)))
    outputs = layers.Dense(3, "softmax", name="scores")(x)
    rewritten = rewritten_equally(keras.Model(image, outputs, name="mine"))
    assert rewritten.model.name == "mine"
    assert [each.name for each in rewritten.model.layers] == [
        "photo",
        "conv",
        "second_conv",
        "pool",
        "scores",
    ]


def test_shared_layers_stay_shared():
    conv = layers.Conv2D(3, 3, padding="same", name="twice")
    model = network(front=lambda x: layers.Dropout(0.1)(conv(layers.ReLU()(conv(x)))))
    rewritten = rewritten_equally(model)
    assert kinds(rewritten.model).count("Conv2D") == 2
    assert rewritten.model.count_params() == model.count_params()


def test_a_model_that_needs_nothing_is_returned_itself():
    model = keras_resnet.ResNet8(weights=None, input_shape=(32, 32, 3), classes=3)
    before = normalization("torch", model)
    rewritten = rewrite.for_device(model, before)
    assert rewritten.model is model and rewritten.preprocessing is before
    assert rewritten.scores == "softmax" and rewritten.notes == []


def test_names_of_input_and_output_are_dropped():
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Dense(3, "softmax")(layers.GlobalMaxPooling2D()(body(image)))
    model = with_random_statistics(keras.Model({"image": image}, {"scores": x}))
    before = normalization("zoo", model)
    rewritten = rewrite.for_device(model, before)
    images = before.normalize(pixels())
    expected = model.predict({"image": images}, verbose=0)["scores"]
    assert_equal(rewritten.model.predict(images, verbose=0), expected)


def test_rewriting_again_changes_nothing():
    model = network(front=lambda x: layers.Rescaling(1 / 255)(x), shape=(24, 32, 3))
    once = rewritten_equally(model)
    again = rewrite.for_device(once.model, once.preprocessing)
    assert again.model is once.model and again.preprocessing == once.preprocessing


def test_training_only_layers_are_left_out():
    def front(x):
        for layer in (
            layers.RandomContrast(0.1),
            layers.RandomCrop(32, 32),
            layers.Resizing(32, 32),
            layers.GaussianNoise(0.1),
            layers.SpatialDropout2D(0.1),
            layers.AlphaDropout(0.1),
            layers.GaussianDropout(0.1),
            layers.ActivityRegularization(0.1),
        ):
            x = layer(x)
        return x

    rewritten = rewritten_equally(network(front))
    assert kinds(rewritten.model) == kinds(network())
    assert "gaussian_noise" in rewritten.notes[0]


def test_the_code_of_a_lambda_is_read_where_it_calls_keras():
    def end(x):
        x = layers.Lambda(lambda y: keras.ops.relu(y) * 2, name="code")(x)
        return layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(x))

    rewritten = rewritten_equally(network(end=end))
    assert "Lambda" not in kinds(rewritten.model)


def test_the_code_of_a_lambda_stays_where_it_calls_something_else():
    def code(x):
        if isinstance(x, keras.KerasTensor):  # as the functions of a backend do
            raise TypeError("no tensor of this backend")
        return ops.relu(x) * 2

    def end(x):
        x = layers.Lambda(code)(layers.Dropout(0.1)(x))
        return layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(x))

    rewritten = rewritten_equally(network(end=end))
    assert "Lambda" in kinds(rewritten.model)


def test_operations_become_layers():
    def front(x):
        x = ops.pad(ops.relu6(x), [[0, 0], [1, 1], [2, 0], [0, 0]])
        x = ops.leaky_relu(ops.max_pool(x, 2, 2) - ops.average_pool(x, 2, 2))
        x = ops.concatenate([ops.silu(x), ops.maximum(x, 0), ops.clip(x, 0, 4)], -1)
        return ops.transpose(ops.transpose(x, [0, 3, 1, 2]), [0, 2, 3, 1])

    def end(x):
        x = ops.mean(x, axis=[1, 2], keepdims=True) * ops.max(x, (1, 2), keepdims=True)
        x = ops.reshape(ops.expand_dims(x, 1), (-1, 12))
        return ops.softmax(layers.Dense(3)(x) + layers.Dense(3)(x))

    rewritten = rewritten_equally(network(front, end))
    assert all(isinstance(each, keras.Layer) for each in rewritten.model.operations)


def test_an_operation_without_a_layer_stays():
    def end(x):
        return layers.Dense(3, "softmax")(ops.mean(ops.log1p(x), axis=(1, 2)))

    rewritten = rewritten_equally(network(lambda x: layers.Dropout(0.1)(x), end))
    assert kinds(rewritten.model)[3:] == ["Log1p", "GlobalAveragePooling2D", "Dense"]


def test_constants_go_into_the_weights_before_them():
    def end(x):
        x = layers.Conv2D(4, 1, name="conv")(x) * np.float32([1, 2, 3, 4]) + 3
        x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x) / 3 - 1
        x = layers.GlobalAveragePooling2D()(ops.relu6(x))
        return layers.Activation("softmax")(2 - layers.Dense(3)(x) / 7)

    model = network(lambda x: layers.Dropout(0.1)(x), end)
    rewritten = rewritten_equally(model)
    assert kinds(rewritten.model)[3:] == [
        "Conv2D",
        "DepthwiseConv2D",
        "ReLU",
        "GlobalAveragePooling2D",
        "Dense",
        "Activation",
    ]


def test_constants_behind_an_activation_become_layers():
    def end(x):
        x = layers.GlobalAveragePooling2D()(2 - x * np.float32(range(12)))
        return layers.Dense(3, "softmax")(x * 0.25)

    rewritten = rewritten_equally(network(lambda x: layers.Dropout(0.1)(x), end))
    assert kinds(rewritten.model)[3:] == [
        "DepthwiseConv2D",
        "GlobalAveragePooling2D",
        "Rescaling",
        "Dense",
    ]


def test_a_convolution_that_others_read_keeps_its_weights():
    def end(x):
        x = layers.Conv2D(4, 1)(x)
        x = layers.Concatenate()([x, x * 3])
        return layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(x))

    rewritten = rewritten_equally(network(lambda x: layers.Dropout(0.1)(x), end))
    assert kinds(rewritten.model).count("DepthwiseConv2D") == 1


def test_half_precision_becomes_single():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network(lambda x: layers.Rescaling(1 / 255)(x))
    finally:
        keras.config.set_dtype_policy(policy)
    before = normalization("raw", model)
    rewritten = rewrite.for_device(model, before)
    assert {each.compute_dtype for each in rewritten.model.layers} == {"float32"}
    actual = scores(rewritten.model, rewritten.preprocessing, pixels())
    expected = scores(model, before, pixels()).astype("float32")
    assert_equal(actual, expected, tolerance=2e-2)  # bfloat16 has 8 bits


def test_a_model_of_a_fixed_batch_takes_any():
    image = keras.Input(batch_shape=(2, 32, 32, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, 4)(image))
    model = keras.Model(image, layers.Dense(3, "softmax")(ops.reshape(x, (2, -1))))
    before = normalization("raw", model)
    rewritten = rewrite.for_device(model, before)
    images = pixels(number=4)
    assert rewritten.model.input_shape == (None, 32, 32, 3)
    expected = model.predict(before.normalize(images), batch_size=2, verbose=0)
    assert_equal(scores(rewritten.model, before, images), expected)


def test_saved_and_loaded_the_rewritten_model_is_the_same(tmp_path):
    rewritten = rewritten_equally(network(lambda x: ops.flip(x / 255, axis=-1)))
    rewritten.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = rewritten.preprocessing.normalize(pixels())
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), rewritten.model.predict(images, verbose=0)
    )


def test_a_network_that_amplifies_rounding_is_no_other_network():
    """Its scores differ beyond 1e-5, but no layer does on equal inputs."""
    model = network(layers.Rescaling(0.37, 2e5))
    # Keras computes a variance on PyTorch as a difference of squares: here below 0.
    variance = next(v for v in model.variables if v.name == "moving_variance")
    variance.assign(np.full(variance.shape, 200.0))
    before = normalization("torch", model)
    rewritten = rewrite.for_device(model, before)
    expected = scores(model, before, pixels())
    actual = scores(rewritten.model, rewritten.preprocessing, pixels())
    assert np.abs(actual - expected).max() > 1e-5 * expected.max()
    assert_equal(actual, expected, tolerance=0.2)


class Forgetful(keras.layers.Layer):
    """A layer whose configuration does not say what it computes."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return keras.layers.Layer.get_config(self)


class Particular(Forgetful):
    """A layer that cannot be made of its configuration."""

    @classmethod
    def from_config(cls, config):
        raise TypeError("particular")


class Subclassed(keras.Model):
    """A model whose layers are called in its own code."""

    def call(self, x):
        return x


def open_size():
    image = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    return keras.Model(image, layers.Dense(3)(x))


def two_inputs():
    images = [keras.Input((32, 32, 3), name=name) for name in ("left", "right")]
    return keras.Model(images, layers.Flatten()(layers.Add()(images)))


def two_outputs():
    image = keras.Input((32, 32, 3))
    x = layers.Flatten()(image)
    return keras.Model(image, [layers.Dense(3)(x), layers.Dense(2)(x)])


def with_end(*ends, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), layers.Dropout(0.1), *ends])


@pytest.mark.parametrize(
    "model, message",
    [
        (two_inputs, r"one image .* left \(None, 32, 32, 3\), right .*keras.Model\("),
        (two_outputs, r"one tensor of scores.*\(None, 3\), .*\(None, 2\)"),
        (open_size, r"fixed size.*\(None, None, None, 3\).*keras.Sequential\("),
        (Subclassed, "is a Subclassed whose layers .*model.call"),
        (lambda: keras.Sequential([layers.Conv2D(4, 3)]), "was never built.*build"),
        (lambda: with_end(layers.Flatten(), shape=(8, 8, 4)), r"RGB.*8, 8, 4"),
        (lambda: with_end(layers.Flatten(), shape=(8, 8)), r"RGB.*None, 8, 8\)"),
        (
            lambda: with_end(layers.Reshape((8, 24)), layers.LSTM(3, name="memory")),
            r"loop. Received: layer 'memory' \(LSTM\). Leave",
        ),
        (
            lambda: with_end(
                layers.Reshape((8, 24)),
                layers.Bidirectional(layers.GRU(3), name="memory"),
            ),
            r"'memory' \(Bidirectional\)",
        ),
        (
            lambda: with_end(Particular(name="odd"), layers.Flatten(), layers.Dense(3)),
            r"cannot copy 'odd' \(Particular\): particular. Give",
        ),
        (
            lambda: with_end(
                Forgetful(0.1, name="odd"), layers.Flatten(), layers.Dense(3)
            ),
            r"scores differ by .*, by layer 'odd' \(Forgetful\). Build",
        ),
    ],
)
def test_what_cannot_be_rewritten_is_refused_in_one_line(model, message):
    before = keras_resnet.preprocessing.Preprocessing((32, 32))
    with pytest.raises(UserError, match=message) as error:
        rewrite.for_device(model(), before)
    assert "\n" not in str(error.value)
