"""The features of ImageNet in the package: which network gets them, and what they give.

They have no classifier, so no accuracy: an independent network in NumPy computes the
same numbers from the same file.
"""

import dataclasses
import hashlib
import json

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import keras_resnet
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import download, formats, registry
from tests.helpers import numpy_resnet, oracles
from tests.helpers.backends import BACKENDS, run

COUNTS = {"resnet20_224": (2, 2, 2, 3), "resnet16_224": (2, 2, 2, 1)}
FILE = registry.PACKAGE / "pretrained" / "resnet20_224.imagenet.safetensors"
# What torchvision normalizes with, on the scale 0..255.
TORCH = Preprocessing(
    (224, 224),
    mean_rgb_255=(123.675, 116.28, 103.53),
    std_rgb_255=(58.395, 57.12, 57.375),
    crop_fraction=0.875,
    interpolation="bilinear",
)
SMALLEST = (32, 32, 3)  # a quick model: the weights are the same for every size


def kernels(model):
    return {layer.name: layer.kernel for layer in model.layers if "_conv" in layer.name}


@pytest.fixture(scope="module")
def state():
    return load_file(FILE)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """The path of raw pixels, smooth as photographs are."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 8, 8, 3))
    noise = rng.integers(-20, 21, (2, 64, 64, 3))
    images = coarse.repeat(8, 1).repeat(8, 2) + noise
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    np.save(path, images.clip(0, 255).astype(np.uint8))
    return path


# --- what they compute --------------------------------------------------------

FEATURES = """
import sys
import keras_resnet
import numpy as np

pixels, output = sys.argv[1:]
for name in ("resnet20_224", "resnet16_224"):
    model = keras_resnet.create_model(name, include_top=False, pooling="avg")
    x = keras_resnet.preprocess_input(np.load(pixels), model)
    np.save(f"{output}-{name}.npy", model.predict(x, verbose=0))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_are_those_of_an_independent_network_without_a_network_connection(
    backend, state, pixels, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    run(FEATURES, backend, pixels, tmp_path / "features")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    x = (np.load(pixels) / 255 - mean) / std
    for name, counts in COUNTS.items():
        expected = numpy_resnet.features(state, counts, x)
        actual = np.load(tmp_path / f"features-{name}.npy")
        assert actual.shape == expected.shape == (2, 512)
        assert oracles.relative_difference(actual, expected) < 1e-5
    assert not (tmp_path / "keras" / "models").exists()


def test_the_oracle_is_the_network_of_pytorch(pixels, state):
    torch = pytest.importorskip("torch")
    from tests.helpers import torch_resnet

    net = torch_resnet.TorchResNet(COUNTS["resnet20_224"]).eval()
    net.fc = torch.nn.Identity()
    values = {name: torch.from_numpy(value) for name, value in state.items()}
    missing, unknown = net.eval().load_state_dict(values, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unknown
    x = TORCH.normalize(np.load(pixels))
    expected = torch_resnet.logits(net, x)
    actual = numpy_resnet.features(state, COUNTS["resnet20_224"], x)
    assert oracles.relative_difference(actual, expected) < 1e-5


def test_the_smaller_network_is_the_larger_one_without_its_last_two_blocks(pixels):
    whole = keras_resnet.ResNet20_224(include_top=False)
    cut = keras.Model(whole.input, whole.get_layer("conv5_block1_out").output)
    small = keras_resnet.ResNet16_224(include_top=False)
    assert [layer.name for layer in small.layers[1:]] == [
        layer.name for layer in cut.layers[1:]
    ]
    x = TORCH.normalize(np.load(pixels))
    np.testing.assert_array_equal(
        small.predict(x, verbose=0), cut.predict(x, verbose=0)
    )


@pytest.mark.slow
def test_features_tell_ants_from_bees(shared_data):
    """The mean of each class is the classifier: it needs the right preprocessing."""
    from keras_resnet.training.data import batching, sources

    dataset = sources.load("folder", shared_data / "ants_bees")
    model = keras_resnet.ResNet20_224(include_top=False, pooling="avg")

    def features(split):
        pairs = batching.images(split, model.preprocessing).as_numpy_iterator()
        images, labels = zip(*pairs, strict=True)
        x = model.predict(model.preprocessing.normalize(np.stack(images)), verbose=0)
        return x / np.linalg.norm(x, axis=1, keepdims=True), np.stack(labels)

    x, labels = features(dataset.train)
    means = np.stack([x[labels == label].mean(0) for label in (0, 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    x, labels = features(dataset.held_out)
    assert len(labels) == 153
    right = ((x @ means.T).argmax(1) == labels).sum()
    assert right >= 146  # 96.1% are 147; measured by others with PyTorch


# --- which network gets them --------------------------------------------------


@pytest.mark.parametrize("name", COUNTS)
def test_a_network_with_another_classifier_or_none_has_them_by_default(name, state):
    def build(**arguments):
        return keras_resnet.create_model(name, **arguments)

    headless = build(include_top=False, input_shape=SMALLEST)
    assert headless.preprocessing == dataclasses.replace(TORCH, input_size=(32, 32))
    assert (headless.labels, headless.licence) == (None, "mit")
    open_sides = build(include_top=False)
    assert open_sides.preprocessing == TORCH
    with pytest.warns(UserWarning, match="for 7 classes keeps its init.*has none"):
        seven = build(classes=7)
    assert seven.preprocessing == TORCH
    assert (seven.labels, seven.output_shape) == (None, (None, 7))
    expected = state["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    for model in (headless, open_sides, seven):
        for kernel in kernels(model).values():
            assert keras.backend.standardize_dtype(kernel.dtype) == "float32"
        kernel = keras.ops.convert_to_numpy(kernels(model)["conv1_conv"])
        np.testing.assert_array_equal(kernel, expected)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        dict(classes=1000),
        dict(weights=None, classes=7),
        dict(shortcut="A", classes=7),
        dict(width=2, include_top=False),
        dict(include_top=False, input_shape=(32, 32, 1)),
    ],
)
def test_other_networks_start_at_random(name, arguments):
    model = keras_resnet.create_model(name, **(dict(input_shape=SMALLEST) | arguments))
    assert not hasattr(model, "preprocessing")
    means = [
        np.abs(variable).max()
        for layer in model.layers
        for variable in layer.non_trainable_variables
        if variable.name == "moving_mean"
    ]
    assert len(means) > 10 and max(means) == 0  # as before any training


@pytest.mark.parametrize("name", COUNTS)
def test_weights_with_the_classifier_that_nobody_published_are_refused(name):
    for weights in ("imagenet", f"{name}.imagenet"):
        with pytest.raises(UserError, match="never published. Pass incl.*Rec") as error:
            keras_resnet.create_model(name, weights=weights)
        assert "\n" not in str(error.value)
        assert f"{name}.imagenet are features without a classifier" in str(error.value)
        model = keras_resnet.create_model(
            name, weights=weights, include_top=False, input_shape=SMALLEST
        )
        assert model.licence == "mit"


def test_scores_of_features_have_no_names():
    for name in COUNTS:
        with pytest.raises(UserError, match=f"without a classifier.*Received: '{name}"):
            keras_resnet.decode_predictions(np.zeros((1, 1000)), 1, name)


# --- which part of the file is left out ---------------------------------------


def test_nothing_but_the_two_blocks_is_left_out(state, tmp_path):
    model = keras_resnet.ResNet16_224(
        weights=None, include_top=False, input_shape=SMALLEST
    )
    left_out = registry.find("resnet16_224", "imagenet").left_out
    unused = formats.load(model, FILE, left_out=left_out)
    blocks = ("layer4.1.", "layer4.2.")
    assert sorted(unused) == sorted(name for name in state if name.startswith(blocks))

    def fails(changed, message):
        path = tmp_path / "changed.safetensors"
        oracles.write_safetensors(changed, path)
        with pytest.raises(UserError, match=message) as error:
            formats.load(model, path, left_out=left_out)
        assert "\n" not in str(error.value)

    fails(
        state | {"layer4.3.conv1.weight": state["layer4.1.conv1.weight"]},
        "1 tensors unknown .layer4.3",
    )
    fails(state | {"layer4.1": state["bn1.bias"]}, "1 tensors unknown .layer4.1")
    fails(
        {n: v for n, v in state.items() if n != "layer4.0.bn2.bias"}, "1 tensors miss"
    )


def test_the_file_of_the_larger_network_is_refused_by_others():
    for name, unknown in (("resnet16_224", 20), ("resnet18", 10)):
        with pytest.raises(UserError, match=f"fit {name}: {unknown} tensors unknown"):
            keras_resnet.create_model(
                name, weights=FILE, include_top=False, input_shape=SMALLEST
            )


# --- the file and its card ----------------------------------------------------


def test_both_networks_share_one_file_and_its_card_says_where_it_comes_from():
    card = json.loads(FILE.with_suffix(".json").read_text(encoding="utf-8"))
    root = registry.PACKAGE.parents[1]
    content = FILE.read_bytes()
    assert root / card["float"]["file"] == FILE
    assert card["float"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert card["float"]["bytes"] == len(content)
    assert card["float"]["accuracy"] is None
    assert (root / card["licence_file"]).read_text().startswith("The MIT License")
    assert "Microsoft.ML.DnnImageFeaturizer.ResNet18" in card["source"]["package"]
    for name in COUNTS:
        entry = registry.find(name, "imagenet")
        assert entry == registry.shipped(name) == registry.default(name)
        assert download.fetch(entry) == str(FILE)
        assert (entry.digest, entry.licence) == (card["float"]["sha256"], "mit")
        (evaluation,) = entry.evaluations
        assert (evaluation.top1, evaluation.top5) == (None, None)
        model = keras_resnet.create_model(name, include_top=False, input_shape=SMALLEST)
        count = sum(np.prod(v.shape) for v in model.trainable_variables)
        assert card["parameters"][name] == count


def test_variances_that_float16_cannot_hold_are_in_float32(state):
    assert state["bn1.running_var"].max() > np.finfo(np.float16).max
    for name, value in state.items():
        assert value.dtype == (np.float16 if value.ndim == 4 else np.float32), name


def test_the_weights_in_the_wheel_are_no_larger_than_they_must_be():
    sizes = [path.stat().st_size for path in FILE.parent.glob("*")]
    # PyPI takes files of up to 100 MB.
    assert 30_000_000 < sum(sizes) < 34_000_000
