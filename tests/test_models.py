"""The zoo against the paper and against keras.applications."""

import keras
import numpy as np
import pytest

import keras_resnet


def builder(name):
    return getattr(keras_resnet, name.replace("resnet", "ResNet"))


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnet8", 78_042),
        ("resnet14", 175_258),
        ("resnet20", 272_474),
        ("resnet32", 466_906),
        ("resnet44", 661_338),
        ("resnet56", 855_770),
        ("resnet110", 1_730_714),
    ],
)
def test_model_has_the_published_parameters(name, parameters):
    model = builder(name)(weights=None)
    assert trainable_parameters(model) == parameters
    assert model.name == name


def test_every_model_of_the_list_has_an_entry_point():
    for name in keras_resnet.list_models():
        assert builder(name).__name__ == name.replace("resnet", "ResNet")


def test_option_a_shortcuts_have_no_parameters():
    # Table 6 of the paper: 0.27 M for ResNet-20.
    assert trainable_parameters(keras_resnet.ResNet20(shortcut="A")) == 269_722
    assert trainable_parameters(
        keras_resnet.ResNet20(residual=False)
    ) == trainable_parameters(keras_resnet.ResNet20(shortcut="A"))


def test_option_a_shortcut_subsamples_and_pads_channels():
    model = keras_resnet.ResNet8(shortcut="A")
    into = model.get_layer("conv3_block1_1_pad").input
    out = model.get_layer("conv3_block1_0_pad").output
    x, y = keras.Model(model.inputs, [into, out]).predict(
        np.random.default_rng(0).normal(size=(2, 32, 32, 3)), verbose=0
    )
    expected = np.zeros_like(y)
    expected[..., 8:24] = x[:, ::2, ::2]
    np.testing.assert_array_equal(y, expected)


def test_resnet50_has_the_layers_of_keras_applications():
    theirs = keras.applications.ResNet50(weights=None)
    ours = keras_resnet.ResNet50(weights=None)
    assert [layer.name for layer in ours.layers[1:]] == [
        layer.name for layer in theirs.layers[1:]
    ]


def test_stride_placement_changes_the_result_but_not_the_weights():
    v1 = keras_resnet.ResNet50(include_top=False, weights=None, pooling="avg")
    v15 = keras_resnet.ResNet50(
        include_top=False, weights=None, pooling="avg", stride_on="3x3"
    )
    v15.set_weights(v1.get_weights())
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3))
    assert (
        np.abs(v1.predict(image, verbose=0) - v15.predict(image, verbose=0)).max() > 0
    )


def test_only_normalization_and_the_classifier_have_biases():
    for name in ("resnet18", "resnet50", "resnet20"):
        for layer in builder(name)(weights=None).layers:
            if isinstance(layer, keras.layers.Conv2D):
                assert not layer.use_bias
            if isinstance(layer, keras.layers.BatchNormalization):
                assert (layer.epsilon, layer.momentum) == (1e-5, 0.9)


def test_strided_convolutions_pad_symmetrically():
    for name in ("resnet18", "resnet20"):
        for layer in builder(name)(weights=None).layers:
            if isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2):
                assert layer.padding == "valid" or layer.kernel_size == (1, 1)


def test_convolutions_start_with_the_variance_of_he():
    kernel = (
        keras_resnet.ResNet18(weights=None)
        .get_layer("conv5_block2_2_conv")
        .kernel.numpy()
    )
    assert kernel.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 512)), rel=0.01)


def test_every_parameter_gets_a_gradient():
    model = keras_resnet.ResNet8()
    before = model.get_weights()
    model.compile("sgd", "categorical_crossentropy")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8, 32, 32, 3)), np.eye(10)[:8], verbose=0)
    for variable, old in zip(model.variables, before, strict=True):
        assert np.any(variable.numpy() != old), variable.path


def test_the_classifier_stays_in_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = keras_resnet.ResNet8()
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.output.dtype == "float32"
    assert model.get_layer("conv1_conv").compute_dtype == "bfloat16"


def test_weights_come_back_from_a_keras_file_and_a_weights_file(tmp_path):
    model = keras_resnet.ResNet8()
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    for name in ("model.keras", "model.weights.h5"):
        again = keras_resnet.ResNet8(weights=tmp_path / name)
        np.testing.assert_array_equal(
            again.predict(image, verbose=0), model.predict(image, verbose=0)
        )


def test_bad_weights_are_refused(tmp_path):
    keras_resnet.ResNet14().save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.keras").write_text("no archive")
    (tmp_path / "empty.weights.h5").write_bytes(b"")
    for file in ("other.weights.h5", "text.keras", "empty.weights.h5", "none.keras"):
        with pytest.raises(ValueError, match="Received: .*" + file):
            keras_resnet.ResNet8(weights=tmp_path / file)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(shortcut="D"),
        dict(stride_on="2x2"),
        dict(pooling="sum"),
        dict(width=0),
        dict(input_shape=(16, 32, 3)),
        dict(input_shape=(None, None, 3)),
        dict(input_shape=(32, 32)),
        dict(input_tensor=np.zeros((1, 32, 32, 3))),
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="Received: "):
        keras_resnet.ResNet8(**arguments)


def test_input_tensor_and_open_sizes_work():
    inputs = keras.Input((64, 64, 3))
    model = keras_resnet.ResNet18(include_top=False, weights=None, input_tensor=inputs)
    assert model.output_shape == (None, 2, 2, 512)
    open_model = keras_resnet.ResNet18(include_top=False, weights=None, pooling="max")
    assert open_model.predict(np.zeros((1, 96, 40, 3)), verbose=0).shape == (1, 512)
