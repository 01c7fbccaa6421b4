"""The registry against the facts, and what a `weights` argument means."""

import importlib
import json
import warnings

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import models
from keras_resnet.models import BASIC, BOTTLENECK, IMAGENET
from keras_resnet.preprocessing import classes
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import registry, sources
from tests.helpers import oracles
from tests.helpers.commands import ROOT


def published():
    path = ROOT.parent / "shared" / "weights.json"
    if not path.exists():
        pytest.skip("needs ../shared/weights.json")
    entries = json.loads(path.read_text())["entries"]
    return {
        (entry["model"], entry["tag"]): entry
        for entry in entries
        if entry["source"] in ("timm", "keras-applications")
    }


def all_files():
    return [e for tags in registry.weight_files().values() for e in tags.values()]


def downloaded_files():
    return [entry for entry in all_files() if not entry.shipped]


def test_every_published_file_is_registered_and_no_other():
    assert {(e.model, e.tag) for e in downloaded_files()} == set(published())


def test_list_weights_has_every_file_the_default_of_a_model_first():
    assert len(downloaded_files()) == 50
    assert keras_resnet.list_weights() == [entry.name for entry in all_files()]
    assert keras_resnet.list_weights("resnet34")[0] == "resnet34.a1_in1k"


def test_weights_of_timm_are_where_timm_publishes_them():
    entries = [e for e in downloaded_files() if e.source.startswith("hf://")]
    assert len(entries) == 47
    for entry in entries:
        assert entry.source == f"hf://timm/{entry.name}"
        assert (entry.digest, entry.stride_on) == (None, "3x3")


def test_registered_facts_are_the_published_ones():
    for key, facts in published().items():
        entry = registry.weight_files()[key[0]][key[1]]
        assert entry.stride_on == facts["stride_placement"]
        assert entry.non_commercial == bool(facts.get("non_commercial"))
        if facts["source"] == "keras-applications":
            assert entry.source == facts["base_url"] + facts["file_top"]
            assert entry.digest == facts["md5_top"]
            assert entry.preprocessing.mean_rgb_255 == tuple(facts["mean_rgb"])
            assert entry.preprocessing.channel_order == "bgr"
            continue
        assert entry.source == f"hf://{facts['hub_repo_id']}"
        assert entry.licence == (facts["license"] or "not stated")
        results = {r["img_size"]: r for r in facts["results"]}
        assert len(entry.evaluations) == max(1, len(results))
        for evaluation in entry.evaluations:
            how = evaluation.preprocessing
            np.testing.assert_allclose(
                how.mean_rgb_255, np.multiply(facts["mean"], 255), rtol=1e-12
            )
            np.testing.assert_allclose(
                how.std_rgb_255, np.multiply(facts["std"], 255), rtol=1e-12
            )
            assert how.channel_order == "rgb"
            assert how.interpolation == facts["interpolation"]
            if results:
                result = results[how.input_size[0]]
                assert how.resize_size == result["resize_short_side"]
                assert (evaluation.top1, evaluation.top5) == (
                    result["top1"],
                    result["top5"],
                )


def test_keras_files_are_those_that_keras_itself_downloads():
    theirs = importlib.import_module("keras.src.applications.resnet")
    for model in ("resnet50", "resnet101", "resnet152"):
        entry = registry.find(model, "imagenet")
        assert entry.source.startswith(theirs.BASE_WEIGHTS_PATH)
        assert entry.digest == theirs.WEIGHTS_HASHES[model][0]


def test_first_evaluation_is_at_the_default_input_size():
    for entry in all_files():
        size = {"imagenet": 224, "cifar10": 32}[entry.dataset]
        assert entry.preprocessing.input_size == (size, size)
        assert size == models.VARIANTS[entry.model][0].image_size


def test_normalization_of_a_tag_is_the_same_for_all_depths():
    normalizations = {}
    for entry in all_files():
        if entry.tag != "imagenet":
            how = entry.preprocessing
            normalization = (how.mean_rgb_255, how.std_rgb_255, how.channel_order)
            normalizations.setdefault(entry.tag, set()).add(normalization)
    assert all(len(found) == 1 for found in normalizations.values())


def test_imagenet_names_a_permissive_default_for_every_depth():
    for model in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        assert registry.find(model, "imagenet").licence in ("mit", "apache-2.0")
    for model in ("resnet50", "resnet101", "resnet152"):
        assert registry.find(model, "imagenet").digest
        assert registry.find(model, "imagenet").tag == "imagenet"
    for model in ("resnet18", "resnet34"):
        assert registry.find(model, "imagenet").tag == "a1_in1k"
    assert registry.find("resnet50", "resnet50.a1_in1k").tag == "a1_in1k"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(weights="a1_in2k"),
            "unknown weights for resnet50: did you mean .*a1_in1k",
        ),
        (dict(weights="imagenet21k"), "did you mean imagenet"),
        (dict(weights="cifar10"), "unknown weights for resnet50"),
        (dict(weights="resnet101.a1_in1k"), "another model than resnet50"),
        (dict(weights="ra4_e3600_r224_in1k"), "unknown weights for resnet50"),
        (dict(weights="https://example.com/w.h5"), "not an address"),
        (dict(weights="hf://timm"), "hf://owner/repo"),
        (dict(weights="no/such/file.h5"), "no such file"),
        (dict(weights=True), "None, a name or a path"),
        (dict(weights="a1_in1k", stride_on="1x1"), "for stride_on='3x3'"),
        (dict(weights="imagenet", stride_on="3x3"), "for stride_on='1x1'"),
        (dict(shortcut="A"), "for shortcut='B'.*weights=None"),
        (dict(residual=False), "for residual=True.*weights=None"),
        (dict(width=2), "for width=1.*weights=None"),
    ],
)
def test_wrong_weights_are_refused_before_any_download(arguments, message):
    with pytest.raises(UserError, match=f"{message}.*Received: "):
        keras_resnet.ResNet50(**arguments)


def test_models_without_published_weights_say_so():
    with pytest.raises(UserError, match="No weights are published for resnet110"):
        keras_resnet.ResNet110(weights="imagenet")
    with pytest.raises(UserError, match="must be a local file"):
        keras_resnet.ResNet(IMAGENET, BASIC, (1, 1, 1, 1), weights="imagenet")


def test_a_folder_called_imagenet_does_not_hide_the_name(tmp_path, monkeypatch):
    (tmp_path / "imagenet").mkdir()
    monkeypatch.chdir(tmp_path)
    source = sources.resolve("resnet50", "imagenet")
    assert source == registry.find("resnet50", "imagenet")


def stride_of(model):
    return model.get_layer("conv3_block1_2_conv").strides


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Puts files into the cache by hand, as a user without a network does."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "models").mkdir()

    def put(model, file):
        oracles.write_safetensors(
            oracles.torch_state(model), tmp_path / "models" / file
        )

    return put


def test_named_weights_decide_the_stride_and_the_preprocessing(cached):
    source = oracles.randomize(keras_resnet.ResNet50(weights=None), seed=5)
    cached(source, "resnet50.a1_in1k.safetensors")
    model = keras_resnet.ResNet50(weights="a1_in1k")
    assert stride_of(model) == (2, 2)
    assert model.preprocessing == registry.find("resnet50", "a1_in1k").preprocessing
    np.testing.assert_array_equal(
        model.get_layer("conv1_conv").kernel, source.get_layer("conv1_conv").kernel
    )
    pixels = np.full((1, 8, 8, 3), 255, np.uint8)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    actual = keras_resnet.preprocess_input(pixels, model)
    np.testing.assert_allclose(actual[0, 0, 0], expected, rtol=1e-6)


def test_non_commercial_weights_say_so_once(cached):
    cached(
        keras_resnet.ResNet18(weights=None), "resnet18.fb_swsl_ig1b_ft_in1k.safetensors"
    )
    sources._warn_non_commercial.cache_clear()
    with pytest.warns(UserWarning, match="non-commercial use only .cc-by-nc-4.0"):
        keras_resnet.ResNet18(weights="fb_swsl_ig1b_ft_in1k")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_resnet.ResNet18(weights="fb_swsl_ig1b_ft_in1k")


def test_a_keras_file_keeps_its_stride_placement(tmp_path):
    def build(**arguments):
        return keras_resnet.ResNet(IMAGENET, BOTTLENECK, (1, 1, 1, 1), **arguments)

    for stride_on, strides in (("1x1", (1, 1)), ("3x3", (2, 2))):
        path = tmp_path / f"{stride_on}.keras"
        build(stride_on=stride_on).save(path)
        assert stride_of(build(weights=path)) == strides
        other = {"1x1": "3x3", "3x3": "1x1"}[stride_on]
        with pytest.raises(UserError, match="Received: stride_on"):
            build(weights=path, stride_on=other)


FINE_TUNING = """
from keras.applications.resnet50 import ResNet50
from keras.applications.resnet50 import preprocess_input, decode_predictions
import keras
import numpy as np

keras.utils.set_random_seed(1)
photos = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3))
x = preprocess_input(photos.copy())
base = ResNet50(weights=WEIGHTS, include_top=False, input_shape=(64, 64, 3))
features = base.predict(x, verbose=0)
y = keras.layers.GlobalAveragePooling2D()(base.output)
y = keras.layers.Dense(8, activation="relu")(y)
predictions = keras.layers.Dense(2, activation="softmax")(y)
model = keras.Model(inputs=base.input, outputs=predictions)
for layer in base.layers:
    layer.trainable = False
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy")
model.fit(x, np.array([0, 1, 0, 1]), verbose=0)
for layer in model.layers[:143]:
    layer.trainable = False
for layer in model.layers[143:]:
    layer.trainable = True
trainable = [layer.name for layer in base.layers if layer.trainable][1:]
model.compile(
    optimizer=keras.optimizers.SGD(learning_rate=0.0001, momentum=0.9),
    loss="sparse_categorical_crossentropy",
)
loss = model.fit(x, np.array([0, 1, 0, 1]), verbose=0).history["loss"]
top = decode_predictions(np.random.default_rng(0).random((2, 1000)), top=3)
"""


@pytest.mark.slow
def test_a_fine_tuning_script_runs_after_changing_the_import_alone(
    tmp_path, monkeypatch
):
    base = keras.applications.ResNet50(weights=None, include_top=False)
    path = tmp_path / "weights.h5"
    oracles.write_keras2_h5(oracles.randomize(base, seed=1), path)
    # Keras would download the names of the classes.
    monkeypatch.setattr(
        importlib.import_module("keras.src.applications.imagenet_utils"),
        "CLASS_INDEX",
        {str(i): list(row) for i, row in enumerate(classes("imagenet"))},
    )
    theirs, ours = dict(WEIGHTS=str(path)), dict(WEIGHTS=str(path))
    exec(FINE_TUNING, theirs)
    exec(FINE_TUNING.replace("keras.applications.resnet50", "keras_resnet"), ours)
    assert oracles.relative_difference(ours["features"], theirs["features"]) < 1e-5
    assert ours["trainable"] == theirs["trainable"]
    assert np.isfinite(ours["loss"]).all()
    assert ours["top"] == theirs["top"]
