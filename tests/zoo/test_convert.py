"""Foreign weight files against the frameworks that write them."""

import json
import shlex
import subprocess
import sys
import warnings
import zipfile

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

import keras_resnet
from keras_resnet import model_metadata
from keras_resnet.preprocessing import NORMALIZATIONS
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import formats
from keras_resnet.weights.tensors import DIRECTIONS
from tests.helpers import oracles
from tests.helpers.oracles import images, randomize, relative_difference

DEPTHS = [18, 50] + [
    pytest.param(depth, marks=pytest.mark.slow) for depth in (34, 101, 152)
]


def build(depth, **arguments):
    return keras_resnet.create_model(f"resnet{depth}", **arguments)


def predict(model, pixels):
    return model.predict(pixels, verbose=0)


@pytest.fixture(scope="module")
def theirs():
    """keras.applications' ResNet50, and what it makes of the images."""
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    randomize(model, seed=1)
    outputs = [model.get_layer("conv5_block3_out").output, model.output]
    features, logits = predict(keras.Model(model.inputs, outputs), images())
    return model, features, logits


@pytest.fixture(scope="module")
def ours():
    return keras_resnet.ResNet50(weights=None, classifier_activation=None)


# --- keras.applications -----------------------------------------------------


@pytest.mark.parametrize(
    "rename, suffix",
    [(str, ":0"), (str, ""), (oracles.legacy_name, ":0")],
    ids=["keras2", "keras3", "legacy"],
)
def test_keras_applications_file_gives_the_same_logits(
    tmp_path, theirs, ours, rename, suffix
):
    path = tmp_path / "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
    oracles.write_keras2_h5(theirs[0], path, rename, suffix)
    formats.load(randomize(ours, seed=9), path)
    assert relative_difference(predict(ours, images()), theirs[2]) <= 1e-5


def test_a_whole_model_in_an_h5_file_loads_too(tmp_path, theirs, ours):
    theirs[0].save(tmp_path / "model.h5")
    formats.load(randomize(ours, seed=9), tmp_path / "model.h5")
    assert relative_difference(predict(ours, images()), theirs[2]) <= 1e-5


def test_a_file_without_top_fits_a_model_without_top(tmp_path, theirs):
    model, features, _ = theirs
    headless = keras.Model(model.inputs, model.get_layer("conv5_block3_out").output)
    oracles.write_keras2_h5(headless, tmp_path / "notop.h5")
    ours = keras_resnet.ResNet50(include_top=False, weights=tmp_path / "notop.h5")
    assert relative_difference(predict(ours, images()), features) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("depth", [101, 152])
def test_deeper_keras_applications_files_give_the_same_logits(tmp_path, depth):
    theirs = getattr(keras.applications, f"ResNet{depth}")(
        weights=None, classifier_activation=None
    )
    randomize(theirs, seed=depth)
    oracles.write_keras2_h5(theirs, tmp_path / "weights.h5")
    ours = keras_resnet.create_model(
        f"resnet{depth}", weights=tmp_path / "weights.h5", classifier_activation=None
    )
    difference = relative_difference(predict(ours, images()), predict(theirs, images()))
    assert difference <= 1e-5


def test_biases_and_epsilon_are_folded_in_double_precision(tmp_path):
    """Against the formula of batch normalization, in float64."""
    rng = np.random.default_rng(0)
    model = keras_resnet.ResNet8(weights=None)
    state = {(la.name, v.name): v.numpy() for la in model.layers for v in la.weights}
    bias = rng.normal(0, 10, 16).astype("float32")
    mean = rng.normal(0, 10, 16).astype("float32")
    variance = np.float32(10.0 ** rng.uniform(-8, 0, 16))
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        state["conv1_conv", "bias"] = bias
        state["conv1_bn", "moving_mean"] = mean
        state["conv1_bn", "moving_variance"] = variance
        names = list(dict.fromkeys(layer for layer, _ in state))
        file.attrs["layer_names"] = names
        for name in names:
            variables = [v for layer, v in state if layer == name]
            file.create_group(name).attrs["weight_names"] = variables
            for variable in variables:
                file[name][variable] = state[name, variable]
    formats.load(model, tmp_path / "weights.h5")
    batch_norm = model.get_layer("conv1_bn")
    new_mean = np.float64(batch_norm.moving_mean)
    new_variance = np.float64(batch_norm.moving_variance)
    x = np.float64(1)
    expected = (x + np.float64(bias) - mean) / np.sqrt(np.float64(variance) + 1.001e-5)
    actual = (x - new_mean) / np.sqrt(new_variance + 1e-5)
    np.testing.assert_allclose(actual, expected, rtol=2e-7, atol=2e-6)


# --- timm and torchvision ---------------------------------------------------


@pytest.mark.parametrize("depth", DEPTHS)
def test_torch_file_gives_the_same_logits(tmp_path, depth):
    pytest.importorskip("torch")
    from safetensors.torch import save_file

    from tests.helpers import torch_resnet

    net = torch_resnet.random_resnet(depth)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    expected = torch_resnet.logits(net, images())
    ours = keras_resnet.create_model(
        f"resnet{depth}",
        weights=tmp_path / "model.safetensors",
        classifier_activation=None,
    )
    tolerance = 1e-5 if keras.backend.backend() == "tensorflow" else 1e-4
    assert relative_difference(predict(ours, images()), expected) <= tolerance
    if depth >= 50:
        other = keras_resnet.create_model(
            f"resnet{depth}",
            weights=tmp_path / "model.safetensors",
            classifier_activation=None,
            stride_on="1x1",
        )
        assert relative_difference(predict(other, images()), expected) > 1e-2


# --- published networks for CIFAR ---------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_cifar_network_of_torch_gives_the_same_logits(tmp_path, prefix):
    pytest.importorskip("torch")
    from safetensors.torch import save_file

    from tests.helpers import torch_resnet

    net = torch_resnet.randomize(torch_resnet.CifarResNet(20))
    path = tmp_path / "model.safetensors"
    save_file({f"{prefix}{k}": v for k, v in net.state_dict().items()}, path)
    small_images = images(32, 4)
    expected = torch_resnet.logits(net, small_images)
    ours = keras_resnet.ResNet20(weights=path, shortcut="A", classifier_activation=None)
    assert relative_difference(predict(ours, small_images), expected) <= 1e-4
    with pytest.raises(UserError, match="10 tensors missing .*with shortcut='A'. Rec"):
        keras_resnet.ResNet20(weights=path)


def test_the_published_resnet56_gives_the_logits_of_torch(shared_data):
    pytest.importorskip("torch")
    from safetensors.torch import load_file

    from tests.helpers import torch_resnet

    path = shared_data / "peers" / "akamaster_resnet56.safetensors"
    net = torch_resnet.CifarResNet(56)
    net.load_state_dict(load_file(path), strict=False)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = torch_resnet.logits(net.eval(), (pixels / 255 - mean) / std)
    ours = keras_resnet.ResNet56(weights=path, shortcut="A", classifier_activation=None)
    # As --normalization=torch has it.
    told = keras_resnet.Preprocessing((32, 32), **NORMALIZATIONS["torch"])
    x = keras_resnet.preprocess_input(pixels, told)
    assert relative_difference(predict(ours, x), expected) <= 1e-5


@pytest.fixture(scope="module")
def small():
    return randomize(keras_resnet.ResNet8(weights=None), seed=3)


def same_weights(model, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(model.get_weights(), other.get_weights(), strict=True)
    )


@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5", "m.h5", "m.safetensors"])
def test_every_format_comes_back_exactly(tmp_path, small, file):
    path = tmp_path / file
    if file == "m.safetensors":
        oracles.write_safetensors(oracles.torch_state(small), path)
    elif file == "m.weights.h5":
        small.save_weights(path)
    else:
        small.save(path)
    assert same_weights(keras_resnet.ResNet8(weights=path), small)


def test_torch_names_are_those_of_the_published_files():
    """The number of tensors and some names, from timm's and torchvision's files."""
    for depth, tensors in ((18, 122), (50, 320)):
        state = oracles.torch_state(build(depth, weights=None))
        assert len(state) == tensors
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer4.2.bn3.running_var"].shape == (2048,)
    assert state["fc.weight"].shape == (1000, 2048)


def test_counters_of_torch_are_optional_and_named_as_unused(tmp_path, small):
    state = oracles.torch_state(small)
    path = tmp_path / "with.safetensors"
    oracles.write_safetensors(state, path)
    unused = formats.load(keras_resnet.ResNet8(weights=None), path)
    assert len(unused) == 9
    assert all(name.endswith("num_batches_tracked") for name in unused)
    for name in unused:
        del state[name]
    path = tmp_path / "without.safetensors"
    oracles.write_safetensors(state, path)
    model = keras_resnet.ResNet8(weights=None)
    assert formats.load(model, path) == []
    assert same_weights(model, small)


def test_half_precision_is_widened_and_integers_are_refused(tmp_path, small):
    state = oracles.torch_state(small)
    expected = small.get_layer("conv1_conv").kernel.numpy()
    for name, dtype in (("F16", np.float16), ("BF16", ml_dtypes.bfloat16)):
        half = {k: v.astype(dtype) if v.ndim else v for k, v in state.items()}
        oracles.write_safetensors(half, tmp_path / "half.safetensors")
        model = keras_resnet.ResNet8(weights=tmp_path / "half.safetensors")
        kernel = model.get_layer("conv1_conv").kernel.numpy()
        np.testing.assert_array_equal(kernel, expected.astype(dtype), name)
    state["conv1.weight"] = state["conv1.weight"].astype("int8")
    oracles.write_safetensors(state, tmp_path / "int.safetensors")
    with pytest.raises(UserError, match=r"conv1.weight is I8, not one of F.*int\.s"):
        keras_resnet.ResNet8(weights=tmp_path / "int.safetensors")


def test_headers_that_lie_are_refused(tmp_path, good_files):
    content = good_files["m.safetensors"]
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    lies = {
        "shape": ("conv1.weight", "shape", [16, 3, 3, 4]),
        "offset": ("conv1.weight", "data_offsets", [-4, 1724]),
        "beyond": ("fc.bias", "data_offsets", [10**9, 10**9 + 40]),
        "dtype": ("conv1.weight", "dtype", "F64"),
        "names": ("conv1.weight", "shape", "abc"),
    }
    path = tmp_path / "m.safetensors"
    for name, field, value in lies.values():
        lie = {k: dict(v) for k, v in header.items()}
        lie[name][field] = value
        lie = json.dumps(lie).encode()
        path.write_bytes(len(lie).to_bytes(8, "little") + lie + content[8 + size :])
        refuses(path, "damaged")
    path.write_bytes((2**63).to_bytes(8, "little") + content[8:])
    refuses(path, "damaged")


# --- the classifier ---------------------------------------------------------


@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5", "m.safetensors"])
def test_a_classifier_of_another_size_is_skipped_on_demand(tmp_path, small, file):
    path = tmp_path / file
    if file == "m.safetensors":
        oracles.write_safetensors(oracles.torch_state(small), path)
    else:
        getattr(small, "save" if file == "m.keras" else "save_weights")(path)
    with pytest.warns(UserWarning, match="classifier for 7 classes keeps.*one for 10"):
        model = keras_resnet.ResNet8(weights=path, classes=7)

    def features(model):
        return keras.Model(model.inputs, model.get_layer("avg_pool").output)

    assert same_weights(features(model), features(small))
    assert model.output_shape == (None, 7)
    headless = keras_resnet.ResNet8(weights=path, include_top=False)
    assert same_weights(headless, features(small))


def test_a_classifier_of_another_size_is_refused_otherwise(tmp_path):
    hundred = keras_resnet.ResNet8(classes=100)
    hundred.save_weights(tmp_path / "hundred.weights.h5")
    with pytest.raises(UserError, match="for 10 classes.*one for 100.*Received"):
        keras_resnet.ResNet8(weights=tmp_path / "hundred.weights.h5")
    headless = keras_resnet.ResNet8(weights=None, include_top=False)
    headless.save_weights(tmp_path / "headless.weights.h5")
    with pytest.raises(UserError, match="has none.*include_top=False.*Received"):
        keras_resnet.ResNet8(weights=tmp_path / "headless.weights.h5")


# --- bad files --------------------------------------------------------------


def refuses(path, message):
    """The error, and the model as it was before."""
    model = randomize(keras_resnet.ResNet8(weights=None), seed=4)
    before = model.get_weights()
    with pytest.raises(UserError, match=message) as error:
        formats.load(model, path)
    assert str(error.value).endswith(f"Received: {str(path)!r}")
    assert "\n" not in str(error.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory, small):
    directory = tmp_path_factory.mktemp("good")
    small.save(directory / "m.keras")
    small.save_weights(directory / "m.weights.h5")
    small.save(directory / "m.h5")
    oracles.write_safetensors(oracles.torch_state(small), directory / "m.safetensors")
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5", "m.h5", "m.safetensors"])
def test_truncated_files_are_refused(tmp_path, good_files, file):
    content = good_files[file]
    for size in (0, 5, 100, len(content) // 2, len(content) - 1):
        (tmp_path / file).write_bytes(content[:size])
        refuses(tmp_path / file, "damaged")


@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5", "m.h5", "m.safetensors"])
def test_foreign_files_are_refused(tmp_path, file):
    (tmp_path / file).write_text("<html>404 not found</html>" * 100)
    refuses(tmp_path / file, "damaged")
    if file.endswith("h5"):
        with h5py.File(tmp_path / file, "w") as content:
            content["somebody"] = np.zeros(3)
        refuses(tmp_path / file, "damaged or no weight file")
    if file == "m.keras":
        with zipfile.ZipFile(tmp_path / file, "w") as archive:
            archive.writestr("readme.txt", "hello")
        refuses(tmp_path / file, "model.weights.h5")


def test_another_architecture_is_refused_with_what_differs(tmp_path, small):
    deeper = keras_resnet.ResNet14(weights=None)
    state = oracles.torch_state(deeper)
    path = tmp_path / "deeper.safetensors"
    oracles.write_safetensors(state, path)
    refuses(path, r"30 tensors unknown \(layer1.1.bn1.bias, ")
    (tmp_path / "shallower").mkdir()
    path = tmp_path / "shallower" / "m.weights.h5"
    small.save_weights(path)
    with pytest.raises(UserError, match="30 tensors missing .conv2_block2_1_conv/ker"):
        keras_resnet.ResNet14(weights=path)
    state = oracles.torch_state(small)
    state["conv1.weight"] = state["conv1.weight"][:, :1].copy()
    path = tmp_path / "grey.safetensors"
    oracles.write_safetensors(state, path)
    refuses(path, r"1 of another shape \(conv1.weight \(3, 3, 1, 16\) for \(3, 3, 3, 1")
    oracles.write_safetensors({"bert.embeddings": np.zeros((3, 2))}, path)
    refuses(path, r"missing .*1 tensors unknown \(bert.embeddings\)|none")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, small, value):
    state = oracles.torch_state(small)
    state["layer3.0.bn2.running_mean"][5] = value
    oracles.write_safetensors(state, tmp_path / "m.safetensors")
    refuses(tmp_path / "m.safetensors", "NaN or infinity in layer3.0.bn2.running_mean")


def test_other_suffixes_and_missing_files_are_refused(tmp_path):
    (tmp_path / "m.onnx").write_text("x")
    refuses(tmp_path / "m.onnx", "ends in .keras, .weights.h5, .h5, .safetensors")
    refuses(tmp_path / "none.safetensors", "no such file")


@pytest.mark.parametrize("suffix", ["pth", "pt", "th", "bin"])
def test_a_pickle_is_refused_unread_with_the_command_that_converts_it(tmp_path, suffix):
    path = tmp_path / f"my m.{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    refuses(path, "pickle.*python -c")
    assert not (tmp_path / "pwned").exists()


def test_the_command_against_pickles_works(tmp_path, small):
    torch = pytest.importorskip("torch")
    state = {k: torch.from_numpy(v) for k, v in oracles.torch_state(small).items()}
    torch.save({"state_dict": state}, tmp_path / "my m.pth")
    with pytest.raises(UserError) as error:
        keras_resnet.ResNet8(weights=tmp_path / "my m.pth")
    command = str(error.value).split("trust it: ")[1].split(" Received: ")[0]
    arguments = shlex.split(command)
    assert arguments[0] == "python"
    subprocess.run([sys.executable, *arguments[1:]], check=True)
    model = keras_resnet.ResNet8(weights=tmp_path / "my m.safetensors")
    assert same_weights(model, small)


def test_the_classifier_of_a_fine_tuned_network_is_not_taken_without_a_word(tmp_path):
    body = keras_resnet.ResNet8(weights=None, include_top=False, pooling="avg")
    unit = keras.layers.UnitNormalization(name=DIRECTIONS)(body.output)
    scores = keras.layers.Dense(3, "softmax", name="predictions")(unit)
    model = keras.Model(body.input, scores)
    preprocessing = keras_resnet.Preprocessing((32, 32))
    model_metadata.attach(model, preprocessing, ["a", "b", "c"])
    path = str(tmp_path / "model.keras")
    model.save(path)
    with pytest.warns(UserWarning, match=f"{DIRECTIONS}.*keras_resnet.load"):
        keras_resnet.ResNet8(weights=path, classes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_resnet.ResNet8(weights=path, include_top=False)
