"""The zoo against the paper and against keras.applications."""

import inspect
import re
import time

import keras
import numpy as np
import pytest
from keras.src.applications.mobilenet_v2 import _make_divisible

import keras_resnet
from keras_resnet import blocks, model_metadata, models
from keras_resnet.commands.models import NARROW_SIZES, SIZES
from keras_resnet.models import BASIC, BOTTLENECK, IMAGENET, VARIANTS
from keras_resnet.runner.errors import UserError
from tests.helpers import oracles
from tests.helpers.commands import ROOT, run_python

ENTRY_POINTS = {
    name: getattr(keras_resnet, name.replace("resnet", "ResNet"))
    for name in keras_resnet.list_models()
}


SLOW = pytest.mark.slow


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def multiply_adds(model):
    """Those of convolutions and the classifier, counted layer by layer."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            outputs = np.prod(layer.output.shape[1:])
            total += outputs * np.prod(layer.kernel.shape[:-1])
    return total


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        pytest.param("resnet101", 44_549_160, marks=pytest.mark.slow),
        pytest.param("resnet152", 60_192_808, marks=pytest.mark.slow),
        ("resnet20_224", 15_897_152 + 513_000),
        ("resnet16_224", 6_455_872 + 513_000),
        ("resnet8", 78_042),
        ("resnet14", 175_258),
        ("resnet20", 272_474),
        ("resnet32", 466_906),
        ("resnet44", 661_338),
        ("resnet56", 855_770),
        ("resnet110", 1_730_714),
        pytest.param("resnet1202", 19_424_026, marks=pytest.mark.slow),
    ],
)
def test_model_has_the_published_size(name, parameters):
    in_millions, *giga_multiply_adds = SIZES[name]
    assert in_millions == round(parameters / 1e6, 3)
    for stride_on, expected in zip(("1x1", "3x3"), giga_multiply_adds, strict=True):
        model = keras_resnet.create_model(name, weights=None, stride_on=stride_on)
        assert model.name == name
        assert trainable_parameters(model) == parameters
        assert round(multiply_adds(model) / 1e9, 3) == expected


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("resnet8", "resnet50") else SLOW)
        for name in SIZES
    ],
)
def test_a_narrow_model_has_the_size_of_the_table(name):
    for width, (parameters, millions) in zip(
        models.NARROW, NARROW_SIZES[name], strict=True
    ):
        model = keras_resnet.create_model(name, weights=None, width=width)
        assert trainable_parameters(model) == parameters
        assert round(multiply_adds(model) / 1e6, 1) == millions


def channels(model):
    """The channels of every convolution."""
    return {
        layer.name: layer.filters
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    }


@pytest.mark.parametrize("width", models.NARROW)
@pytest.mark.parametrize("name", ["resnet14", "resnet18", "resnet50"])
def test_a_width_below_1_scales_every_channel_count_as_mobilenet_does(name, width):
    whole = channels(keras_resnet.create_model(name, weights=None))
    narrow = channels(keras_resnet.create_model(name, weights=None, width=width))
    assert narrow == {key: _make_divisible(width * n, 8) for key, n in whole.items()}


def test_channels_are_rounded_as_mobilenet_rounds_them():
    for width in models.NARROW:
        for count in range(1, 600):
            assert blocks.scaled(count, width) == _make_divisible(count * width, 8)


@pytest.mark.parametrize("width", [2, 3.0])
def test_a_whole_width_leaves_the_stem_and_the_outputs_of_bottlenecks(width):
    expected = {
        name: count
        if name.endswith(("conv1_conv", "_0_conv", "_3_conv"))
        else int(width * count)
        for name, count in channels(keras_resnet.ResNet50(weights=None)).items()
    }
    wide = keras_resnet.ResNet50(weights=None, width=width)
    assert channels(wide) == expected


@pytest.mark.slow
def test_resnet1202_is_built_in_a_minute_and_loaded_by_another_process(tmp_path):
    """Keras walks its 4,200 layers by recursion."""
    started = time.perf_counter()
    model = keras_resnet.ResNet1202(shortcut="A")
    assert time.perf_counter() - started < 60
    preprocessing = keras_resnet.Preprocessing((32, 32))
    model_metadata.attach(model, preprocessing).save(tmp_path / "deep.keras")
    done = run_python(
        "-c",
        "import sys, keras_resnet\n"
        "model = keras_resnet.load(sys.argv[1])\n"
        "print(len(model.layers), model.count_params())",
        tmp_path / "deep.keras",
    )
    assert done.stdout.split() == [str(len(model.layers)), str(model.count_params())]


def test_every_model_of_the_list_has_an_entry_point():
    assert set(keras_resnet.list_models()) - set(SIZES) == {
        "plain20",
        "plain32",
        "plain44",
    }
    for name, entry_point in ENTRY_POINTS.items():
        assert entry_point.__name__ == name.replace("resnet", "ResNet")


def test_create_model_is_the_entry_point_of_that_name():
    keras.utils.set_random_seed(1)
    expected = keras_resnet.plain20(classes=7, pooling="avg")
    keras.utils.set_random_seed(1)
    model = keras_resnet.create_model("plain20", classes=7, pooling="avg")
    assert model.name == expected.name
    assert [layer.name for layer in model.layers[1:]] == [
        layer.name for layer in expected.layers[1:]
    ]
    for value, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("name", ["resnet51", "ResNet50", "", 50, None, ["resnet50"]])
def test_create_model_refuses_a_name_that_is_none_with_the_nearest(name):
    with pytest.raises(
        UserError, match="unknown model: .*resnet50.*Received: "
    ) as error:
        keras_resnet.create_model(name)
    assert str(error.value).endswith(f"Received: {name!r}")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_points_begin_like_those_of_keras_applications(name):
    theirs = inspect.signature(keras.applications.ResNet50).parameters.values()
    ours = inspect.signature(ENTRY_POINTS[name]).parameters.values()
    family = VARIANTS[name][0]
    own = {
        "name": name,
        "classes": family.classes,
        "weights": "auto" if family is not IMAGENET or "_224" in name else "imagenet",
    }
    ours = [each.replace(annotation=each.empty) for each in ours]
    assert ours[: len(theirs)] == [
        each.replace(default=own.get(each.name, each.default)) for each in theirs
    ]
    own = {"residual": not name.startswith("plain")}
    more = inspect.signature(keras_resnet.ResNet).parameters.values()
    assert ours[len(theirs) :] == [
        each.replace(default=own.get(each.name, each.default), annotation=each.empty)
        for each in more
        if each.kind is each.KEYWORD_ONLY
    ]


@pytest.mark.parametrize("build", [keras_resnet.ResNet, *ENTRY_POINTS.values()])
def test_every_argument_is_in_the_docstring(build):
    documented = inspect.getdoc(build).partition("\nArgs:\n")[2]
    documented = re.findall(
        r"^    (\w+): ", documented.partition("\nReturns:\n")[0], re.M
    )
    assert documented == list(inspect.signature(build).parameters)


def test_entry_points_hand_every_argument_on(monkeypatch):
    signature = inspect.signature(keras_resnet.ResNet)

    def received(*arguments, **keywords):
        return signature.bind(*arguments, **keywords).arguments

    monkeypatch.setattr(models, "ResNet", received)
    for name, build in ENTRY_POINTS.items():
        given = {key: object() for key in inspect.signature(build).parameters}
        network = dict(zip(("family", "block", "counts"), VARIANTS[name], strict=True))
        assert build(**given) == network | given


@pytest.mark.parametrize(
    "depth, parameters",
    [
        (20, 269_722),
        (32, 464_154),
        (44, 658_586),
        (56, 853_018),
        (110, 1_727_962),
        pytest.param(1202, 19_421_274, marks=SLOW),
    ],
)
def test_option_a_has_the_parameters_of_table_6(depth, parameters):
    model = keras_resnet.create_model(f"resnet{depth}", shortcut="A")
    assert trainable_parameters(model) == parameters


@pytest.mark.parametrize(
    "name, parameters",
    [("plain20", 269_722), ("plain32", 464_154), ("plain44", 658_586)],
)
def test_plain_networks_are_the_resnets_without_additions(name, parameters):
    plain = keras_resnet.create_model(name, shortcut="A")
    residual = keras_resnet.create_model(name.replace("plain", "resnet"), shortcut="A")
    assert plain.name == name
    assert trainable_parameters(plain) == parameters
    assert [w.shape for w in plain.weights] == [w.shape for w in residual.weights]
    kinds = {type(layer).__name__ for layer in plain.layers}
    assert "Add" in {type(layer).__name__ for layer in residual.layers} - kinds
    assert multiply_adds(plain) == multiply_adds(residual)
    with pytest.raises(UserError, match="Received: "):
        keras_resnet.create_model(name, weights="cifar10")


def test_plain_networks_have_as_many_parameters_as_option_a():
    for name, parameters in (("resnet18", 11_515_688), ("resnet20", 269_722)):
        for arguments in (dict(shortcut="A"), dict(residual=False)):
            model = keras_resnet.create_model(name, weights=None, **arguments)
            assert trainable_parameters(model) == parameters


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
    def build(stride_on):
        return keras_resnet.ResNet(
            IMAGENET,
            BOTTLENECK,
            (1, 1, 1, 1),
            input_shape=(64, 64, 3),
            classifier_activation=None,
            stride_on=stride_on,
        )

    v1, v15 = oracles.randomize(build("1x1"), seed=0), build("3x3")
    v15.set_weights(v1.get_weights())
    image = oracles.images(64)
    difference = oracles.relative_difference(
        v15.predict(image, verbose=0), v1.predict(image, verbose=0)
    )
    assert difference > 1e-2


def test_only_normalization_and_the_classifier_have_biases():
    for name in ("resnet18", "resnet50", "resnet20"):
        for layer in keras_resnet.create_model(name, weights=None).layers:
            if isinstance(layer, keras.layers.Conv2D):
                assert not layer.use_bias
            if isinstance(layer, keras.layers.BatchNormalization):
                assert (layer.epsilon, layer.momentum) == (1e-5, 0.9)


def test_strided_convolutions_pad_symmetrically():
    for name in ("resnet18", "resnet20"):
        for layer in keras_resnet.create_model(name, weights=None).layers:
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
    model = keras_resnet.ResNet8(weights=None)
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
        model = keras_resnet.ResNet8(weights=None)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.output.dtype == "float32"
    assert model.get_layer("conv1_conv").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    "arguments",
    [
        dict(shortcut="D"),
        dict(stride_on="2x2"),
        dict(pooling="sum"),
        dict(output_stride=4),
        dict(width=0),
        dict(width=1.5),
        dict(width=-1),
        dict(width=0.3),
        dict(width=float("nan")),
        dict(width=float("inf")),
        dict(width=True),
        dict(width="0.5"),
        dict(width=None),
        dict(classes=0),
        dict(classes="10"),
        dict(dropout=1),
        dict(dropout=-0.1),
        dict(dropout=None),
        dict(input_shape=(16, 32, 3)),
        dict(input_shape=(None, None, 3)),
        dict(input_shape=(32, 32)),
        dict(input_shape=32),
        dict(input_shape="32x32x3"),
        dict(input_shape=(32.0, 32.0, 3)),
        dict(input_shape=(32, 32, 0)),
        dict(input_shape=(32, 32, None)),
        dict(input_tensor=np.zeros((1, 32, 32, 3))),
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(UserError, match="Received: "):
        keras_resnet.ResNet8(**arguments)


def test_input_tensor_and_open_sizes_work():
    inputs = keras.Input((64, 64, 3))
    model = keras_resnet.ResNet18(include_top=False, weights=None, input_tensor=inputs)
    assert model.output_shape == (None, 2, 2, 512)
    open_model = keras_resnet.ResNet18(include_top=False, weights=None, pooling="max")
    assert open_model.predict(np.zeros((1, 96, 40, 3)), verbose=0).shape == (1, 512)


# --- the table of the zoo ---------------------------------------------------


def test_the_page_of_the_weights_has_the_table_that_the_command_prints():
    done = run_python("-m", "keras_resnet", "models")
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    assert page.endswith("\n\n" + done.stdout)
    assert len(done.stdout.splitlines()) == 2 + 50 + 2 + 8 + 1 + 2 + 15


# --- feature maps -----------------------------------------------------------


def test_feature_maps_are_the_ends_of_the_stages():
    model = keras_resnet.ResNet18(weights=None, input_shape=(64, 96, 3))
    maps = keras_resnet.feature_maps(model)
    assert {name: tensor.shape[1:] for name, tensor in maps.output.items()} == {
        "C2": (16, 24, 64),
        "C3": (8, 12, 128),
        "C4": (4, 6, 256),
        "C5": (2, 3, 512),
    }
    image = oracles.images(96, 1)[:, :64]
    pooled = model.get_layer("avg_pool")
    top = model.get_layer("predictions")(pooled(maps(image)["C5"]))
    top = keras.ops.convert_to_numpy(top)
    np.testing.assert_allclose(top, model.predict(image, verbose=0), atol=1e-6)
    small = keras_resnet.feature_maps(keras_resnet.ResNet20(shortcut="A"))
    assert list(small.output) == ["C2", "C3", "C4"]


def test_feature_maps_refuse_a_model_around_one():
    inputs = keras.Input((32, 32, 3))
    around = keras.Model(
        inputs, keras_resnet.ResNet8(weights=None)(inputs), name="around"
    )
    with pytest.raises(UserError, match="Received: 'around'"):
        keras_resnet.feature_maps(around)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    "block, arguments",
    [
        (BASIC, dict(shortcut="B")),
        (BASIC, dict(shortcut="A")),
        (BOTTLENECK, dict(stride_on="1x1")),
        (BOTTLENECK, dict(stride_on="3x3")),
    ],
)
def test_dilation_computes_the_same_values_more_densely(
    block, arguments, output_stride
):
    """Every second, or fourth, value of a dilated map is one of the original."""

    def build(**more):
        return keras_resnet.ResNet(
            IMAGENET, block, (1, 1, 2, 2), include_top=False, **arguments, **more
        )

    model = oracles.randomize(build(), seed=1)
    dilated = build(output_stride=output_stride)
    dilated.set_weights(model.get_weights())
    image = oracles.images(96, 1)
    sparse, dense = (
        {
            name: keras.ops.convert_to_numpy(value)
            for name, value in keras_resnet.feature_maps(m)(image).items()
        }
        for m in (model, dilated)
    )
    for stage, stride in (("C3", 8), ("C4", 16), ("C5", 32)):
        step = max(1, stride // output_stride)
        assert dense[stage].shape[1] == 96 // min(stride, output_stride)
        difference = oracles.relative_difference(
            dense[stage][:, ::step, ::step], sparse[stage]
        )
        assert difference < 1e-5
