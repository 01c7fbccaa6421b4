"""Fine-tuning: the classifier first, then all layers if they are worth it."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import scipy
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

import keras_resnet
from keras_resnet import training
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner import learning
from keras_resnet.runner.errors import UserError
from keras_resnet.training import recipes
from keras_resnet.training.data import datasets, sources
from keras_resnet.training.settings import Settings
from keras_resnet.training.transfer import classifier, features, plan
from tests.helpers.pictures import discs
from tests.helpers.runs import assert_equal_ends, break_after, silent, without_times

FAST = dict(model="resnet8", dataset="digits", recipe="finetune", progress=silent)
SOME = Preprocessing((32, 32))


def made(number=120, classes=3, spread=1.5, seed=0):
    """Returns `Features`: directions around random ones; mirrors are other draws.

    `spread` is that of each channel, or of all.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 20))
    labels = np.arange(number) % classes

    def draw():
        return learning.unit(centres[labels] + rng.normal(0, spread, (number, 20)))

    return features.Features(draw(), draw(), labels, classes, classes)


def independent(inputs, labels, strength, weights):
    """Returns logits of another minimizer of the same penalized loss."""
    classes = labels.max() + 1
    means = np.stack([inputs[labels == k].mean(0) for k in range(classes)])
    centre = 40 * means.T / np.linalg.norm(means, axis=1)
    penalty = (2 if classes == 2 else 1) / strength

    def loss(values):
        kernel, bias = values[:-classes].reshape(centre.shape), values[-classes:]
        logits = inputs @ kernel + bias
        right = logits[np.arange(len(labels)), labels]
        losses = scipy.special.logsumexp(logits, axis=1) - right
        total = weights @ losses + penalty * ((kernel - centre) ** 2).sum() / 2
        miss = scipy.special.softmax(logits, axis=1) - np.eye(classes)[labels]
        miss *= weights[:, np.newaxis]
        slope = inputs.T @ miss + penalty * (kernel - centre)
        return total, np.append(slope, miss.sum(0))

    start = np.append(centre, np.zeros(classes))
    found = scipy.optimize.minimize(loss, start, jac=True, tol=1e-9).x
    kernel, bias = found[:-classes].reshape(centre.shape), found[-classes:]
    return lambda x: x @ kernel + bias


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("balance", [True, False])
def test_the_classifier_is_a_regression_near_the_class_means(
    classes, mirrored, balance
):
    places = np.arange(120)
    seen = made(classes=classes).of(places % 10 < 9 - 4 * (places % classes))
    kernel, bias = classifier.fit(seen, classifier.Choice(50.0, mirrored), balance)
    assert kernel.shape == (20, classes) and bias.shape == (classes,)
    inputs, labels = seen.plain, seen.labels
    if mirrored:
        inputs, labels = np.concatenate([inputs, seen.mirrored]), np.tile(labels, 2)
    counts = np.bincount(labels)
    even, weighted = np.ones(len(labels)), len(labels) / classes / counts[labels]
    actual = tf.nn.softmax(seen.plain @ kernel + bias)
    expected, other = (
        tf.nn.softmax(independent(inputs, labels, 50.0, weights)(seen.plain))
        for weights in ((weighted, even) if balance else (even, weighted))
    )
    np.testing.assert_allclose(actual, expected, atol=1e-3)
    assert np.abs(other - expected).max() > 1e-2


def test_each_of_several_labels_has_a_regression_of_its_own():
    seen = made()
    seen = dataclasses.replace(seen, plain=3 * seen.plain + 1)  # any features
    targets = np.float32(np.eye(3)[seen.labels])
    targets[:40, 1] = 1.0
    targets = np.concatenate([targets, np.zeros((120, 1))], 1)  # nothing has it
    several = dataclasses.replace(seen, labels=targets)
    kernel, bias = classifier.fit(several, classifier.Choice(0.1, False))
    actual = tf.sigmoid(seen.plain @ kernel + bias).numpy()
    for label in range(3):
        scaler = StandardScaler().fit(seen.plain)
        model = LogisticRegression(C=0.1, max_iter=9999, tol=1e-6)
        model.fit(scaler.transform(seen.plain), targets[:, label] > 0.5)
        expected = model.predict_proba(scaler.transform(seen.plain))[:, 1]
        np.testing.assert_allclose(actual[:, label], expected, atol=2e-2)
    assert actual[:, 3].max() < 0.01


def test_mirror_images_are_learned_unless_they_mean_something_else():
    seen = made()
    assert classifier.choose(seen).mirrored
    turned = dataclasses.replace(seen, mirrored=np.roll(seen.mirrored, 1, axis=0))
    assert not classifier.choose(turned).mirrored


@pytest.mark.parametrize(
    "spread, expected",
    # The means are best where all channels are as noisy, and worst where some are not.
    [(3.0, 0.0), (np.geomspace(6, 0.2, 20), 5000.0)],
)
def test_a_weaker_penalty_must_be_better_beyond_chance(spread, expected):
    seen = made(number=150, spread=spread, seed=2)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    logits = np.empty((len(learning.STRENGTHS), 150, 3))
    for train, test in folds.split(seen.plain, seen.labels):
        for row, strength in enumerate(learning.STRENGTHS):
            fitted = classifier.fit(seen.of(train), classifier.Choice(strength, True))
            logits[row, test] = seen.plain[test] @ fitted[0] + fitted[1]

    def losses(logits):
        return min(
            (
                keras.losses.sparse_categorical_crossentropy(seen.labels, z, True)
                for z in (logits / t for t in np.geomspace(0.1, 10, 401))
            ),
            key=lambda losses: losses.numpy().mean(),
        ).numpy()

    best = 0
    for row in range(1, len(logits)):
        gain = losses(logits[best]) - losses(logits[row])
        right = [(logits[x].argmax(1) == seen.labels).sum() for x in (best, row)]
        if gain.mean() > gain.std() / 150**0.5 and right[1] > right[0]:
            best = row
    choice = classifier.choose(seen)
    assert choice.strength == learning.STRENGTHS[best] == expected
    order = np.lexsort(choice.logits.T)
    expected = logits[best][np.lexsort(logits[best].T)]
    np.testing.assert_allclose(choice.logits[order], expected, atol=0.02)


def test_losses_are_cross_entropies():
    logits = np.float32([[2.0, 0.0, -1.0], [0.0, 900.0, 0.0]])
    labels = np.int64([0, 2])
    losses = learning.losses(logits, labels)
    _, right = learning.calibrated_measures(logits, labels)
    expected = keras.losses.sparse_categorical_crossentropy(labels, logits, True)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert right.tolist() == [True, False]
    several = np.float32([[1, 0, 1], [0, 1, 0]])
    losses, right = classifier.measures(logits, several)
    expected = keras.losses.binary_crossentropy(several, logits, from_logits=True)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(right, [1 / 3, 1 / 3])  # 0 counts as yes


def test_better_is_a_loss_lower_by_a_standard_error_and_more_right():
    rng = np.random.default_rng(0)
    losses, noise = rng.uniform(size=400), rng.normal(0, 1, 400)
    noise = (noise - noise.mean()) / noise.std()  # a standard error of 0.05
    right = np.arange(400) < 300
    more = np.arange(400) < 301
    other = losses, right
    assert learning.is_better((losses + noise - 0.051, more), other)
    assert not learning.is_better((losses + noise - 0.049, more), other)
    assert not learning.is_better((losses + noise - 0.051, right), other)


def test_features_are_those_of_the_network_without_its_top(digits):
    split = datasets.subset(digits.held_out, datasets.spread_evenly(37, 360))
    network = keras_resnet.ResNet8(classes=4, weights=None)
    rest = keras_resnet.ResNet8(include_top=False, weights=None, pooling="avg")
    rest.set_weights(network.get_weights()[:-2])
    data = dataclasses.replace(digits, train=split)
    found = features.compute(network, data, SOME)
    pixels = [tf.image.decode_png(image, 3).numpy() for image, _ in split.read()]
    images = SOME.normalize(np.stack([SOME.resize_and_crop(x) for x in pixels]))
    for actual, views in ((found.plain, images), (found.mirrored, images[:, :, ::-1])):
        assert actual.shape == (37, 64)
        np.testing.assert_allclose(actual, rest.predict(views), atol=1e-4)
    assert found.labels.tolist() == [int(label) for _, label in split.read()]
    assert (found.classes, found.columns) == (10, 10)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    directory = tmp_path_factory.mktemp("head") / "run"
    return training.train(**FAST, freeze="backbone", model_dir=directory)


def test_a_frozen_backbone_stays_as_published(alone):
    model = alone.load_model()
    published = keras_resnet.ResNet8(weights="cifar10", include_top=False)
    for ours, theirs in zip(
        model.get_weights()[:-2], published.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert alone.metrics["epochs"] == 0 and alone.metrics["top1"] > 0.9
    assert alone.preprocessing.mean_rgb_255 == (128.0,) * 3
    found = training.evaluate(alone)
    for name in ("top1", "top1_with_unknown"):
        assert found[name] == alone.metrics[name]
    assert found["top1_with_unknown"] < found["top1"]


def test_a_run_of_the_classifier_alone_is_complete(alone, capsys):
    again = training.train(**FAST, freeze="backbone", model_dir=alone.directory)
    assert again.metrics == alone.metrics
    shown = capsys.readouterr()
    assert "complete" in shown.out
    assert "fine-tuning resnet8 from its weights cifar10" in shown.err


def test_another_run_is_refused_before_anything_is_tried(alone, monkeypatch, capsys):
    """Nor does a line say that anything began."""
    monkeypatch.setattr(features, "compute", None)
    for changes, message in (
        (dict(seed=1), "holds another run: .*seed=0 there, 1 received"),
        (dict(model_dir=alone.directory.parent), "holds files but no run"),
    ):
        arguments = dict(FAST, freeze="backbone", model_dir=alone.directory) | changes
        with pytest.raises(UserError, match=message):
            training.train(**arguments)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_all_layers_learn_at_a_given_rate_and_keep_their_statistics(
    tmp_path, monkeypatch
):
    changes = dict(learning_rate=1e-3, epochs=2, batch_size=359, checkpoint_steps=1)
    unbroken = training.train(**FAST, **changes, model_dir=tmp_path / "one")
    with monkeypatch.context() as patch:
        break_after(patch, 3, 6)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                training.train(**FAST, **changes, model_dir=tmp_path / "two")
    resumed = training.train(**FAST, **changes, model_dir=tmp_path / "two")
    assert_equal_ends(tmp_path / "two", tmp_path / "one", "step-00000008.npz")
    assert without_times(resumed.metrics) == without_times(unbroken.metrics)

    published = keras_resnet.ResNet8(weights="cifar10", include_top=False)
    model = resumed.load_model()
    for layer in published.layers:
        ours = model.get_layer(layer.name) if layer.weights else layer
        for mine, theirs in zip(ours.weights, layer.weights, strict=True):
            same = np.array_equal(mine, theirs)
            assert same == mine.name.startswith("moving"), mine.path


@pytest.mark.parametrize(
    "first, other, expected",
    [
        pytest.param(1e-3, "HIGHER", 1e-3, marks=pytest.mark.slow),
        (10.0, "LOWER", 0.0),
    ],
)
def test_trials_tell_whether_all_layers_shall_learn(
    first, other, expected, digits, monkeypatch, capsys
):
    monkeypatch.setattr(plan, "FIRST", first)
    monkeypatch.setattr(plan, other, 20.0)  # which destroys the network
    chosen = datasets.spread_evenly(300, digits.train.examples)
    train = datasets.subset(digits.train, chosen)
    # Nothing of the held-out pictures is needed.
    data = dataclasses.replace(digits, train=train, held_out=None)
    recipe = dataclasses.replace(recipes.RECIPES["finetune"], image_size=32, epochs=8)
    keras.utils.set_random_seed(0)
    network = keras_resnet.ResNet8(weights="cifar10", classifier_activation=None)
    before = network.get_weights()
    found = plan.best_trial(
        network,
        data,
        features.compute(network, data, SOME),
        SOME,
        plan.mirrored(recipe, False),
        tf.distribute.get_strategy(),
        rate=None,
        balance=False,
        seed=0,
    )
    assert found.rate == expected
    assert found.choice.logits.shape == (75, 10)
    for ours, theirs in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    said = capsys.readouterr().err
    assert said.count("75 training pictures that were put aside") == 3
    assert "learning rate 20:" in said


def by_default(photos, directory):
    return training.train(
        "resnet8", "folder", data_dir=photos, model_dir=directory, progress=silent
    )


def test_nothing_is_tried_where_the_classifier_alone_is_always_right(tmp_path, capsys):
    photos = discs(tmp_path / "photos", 72, 80, count=40)
    run = by_default(photos, tmp_path / "run")
    said = capsys.readouterr().err
    assert "classifier alone: loss" in said and "100.0% right of 24 training" in said
    assert "learning rate" not in said.replace("learning_rate", "")
    assert run.metrics["epochs"] == 0


def test_few_pictures_train_a_classifier_alone(tmp_path, capsys):
    photos = discs(tmp_path / "photos", 72, 80, count=5)
    run = by_default(photos, tmp_path / "run")
    assert "12 training pictures are too few" in capsys.readouterr().err
    assert run.metrics["epochs"] == 0
    config = json.loads((run.directory / "config.json").read_text())
    assert config["settings"]["weights"] == "cifar10"
    assert config["recipe"]["learning_rate"] == 0


def test_all_layers_see_small_classes_as_often_with_balance(tmp_path):
    photos = discs(tmp_path / "photos", 72, 80, count=3)
    discs(photos, 72, 80, count=12, names=["lime"])
    steps = []
    for balance in (False, True):
        run = training.train(
            "resnet8",
            "folder",
            data_dir=photos,
            balance=balance,
            learning_rate=1e-5,
            batch_size=3,
            epochs=1,
            model_dir=tmp_path / f"run{balance}",
            progress=lambda progress: steps.append(progress.steps),
        )
        assert run.metrics["epochs"] == 1
    # 3 and 3 of 4 pictures of two classes, 9 of the third.
    assert sorted(set(steps)) == [(2 + 2 + 9) // 3, 3 * 9 // 3]


def settings_of(**changes):
    names = [field.name for field in dataclasses.fields(Settings)]
    usual = dict.fromkeys(names) | dict(
        dataset="digits",
        width=1,
        strategy="one_device",
        cpu_replicas=0,
        precision="float32",
        evaluation_epochs=1,
        seed=0,
    )
    return Settings(**usual | changes)


@pytest.mark.parametrize(
    "changes, expected",
    [
        (dict(), ("resnet20", "digits", None)),
        (dict(dataset="cifar10"), ("resnet20", "cifar", None)),
        (dict(dataset="folder"), ("resnet20_224", "finetune", "imagenet")),
        (dict(dataset="beans"), ("resnet20_224", "finetune", "imagenet")),
        (
            dict(dataset="csv", model="resnet8"),
            ("resnet8", "finetune", "cifar10"),
        ),
        (
            dict(dataset="folder", model="resnet50"),
            ("resnet50", "finetune", "imagenet"),
        ),
        (dict(dataset="folder", weights="none"), ("resnet20_224", "imagenet", None)),
        (dict(dataset="folder", recipe="cifar"), ("resnet20_224", "cifar", None)),
        (dict(recipe="finetune"), ("resnet20", "finetune", "cifar10")),
    ],
)
def test_photographs_are_fine_tuned_by_default(changes, expected):
    settings = settings_of(**changes)
    assert (settings.model, settings.recipe, settings.weights) == expected


@pytest.mark.parametrize("model, size", [("resnet8", 32), ("resnet16_224", 224)])
def test_the_model_decides_on_the_size_of_the_pictures(model, size):
    settings = settings_of(dataset="folder", model=model)
    assert settings.completed_recipe().image_size == size
    settings = settings_of(dataset="folder", model=model, image_size=96)
    assert settings.completed_recipe().image_size == 96


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(freeze="head", recipe="finetune"), "freeze.*backbone"),
        (dict(freeze="backbone"), "--freeze=backbone needs --recipe=finetune"),
        (dict(recipe="finetune", weights="none"), "starts from published weights"),
        (dict(dataset="folder", model="plain20"), "none for --model=plain20"),
        (
            dict(recipe="finetune", strategy="multi_worker"),
            "one machine.*--strategy=mirrored",
        ),
    ],
)
def test_what_fine_tuning_cannot_do_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        settings_of(**changes)


def test_fewer_pictures_are_shown_more_often():
    assert [recipes.epochs_for(n) for n in (10, 243, 400, 5000)] == [15, 13, 8, 3]


def test_a_picture_that_is_gone_is_named(tmp_path, monkeypatch):
    photos = discs(tmp_path / "photos", 72, 80, count=5)
    load = sources.load

    def load_and_lose(*arguments):
        data = load(*arguments)
        (photos / "apple" / "002.png").unlink()
        return data

    monkeypatch.setattr(sources, "load", load_and_lose)
    with pytest.raises(UserError, match="apple/002.png was there .* and is gone"):
        training.train("resnet8", "folder", data_dir=photos, model_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
