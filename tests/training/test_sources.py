"""Datasets by their names: what is in them, and what is refused."""

import collections
import os
import shutil
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import batching, damaged, sources
from tests.helpers.datasets import SMALL, batches, prepare, train_batches, write_photos


def test_digits_are_split_once_and_for_all(digits):
    assert digits.labels == tuple("0123456789")
    assert (digits.train.examples, digits.held_out.examples) == (1437, 360)
    seen = [
        (tf.io.decode_png(encoded).numpy().tobytes(), int(label))
        for split in (digits.train, digits.held_out)
        for encoded, label in split.read()
    ]
    images, labels = load_digits(return_X_y=True)
    scanned = [
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(images, labels, strict=True)
    ]
    assert collections.Counter(seen) == collections.Counter(scanned)


def test_what_is_held_out_is_spread_and_not_trained_on(digits):
    """A source may be sorted by class."""
    dataset = sources.load("digits", hold_out=400)
    whole, train, held_out = (
        [(image.numpy(), int(label)) for image, label in split.read()]
        for split in (digits.train, dataset.train, dataset.held_out)
    )
    assert (len(train), len(held_out)) == (1037, 400)
    assert sorted(train + held_out) == sorted(whole)
    assert [whole.index(pair) for pair in held_out[:4]] == [0, 3, 7, 10]


def arrays(split):
    return batching.images(split, SMALL).as_numpy_iterator()


def test_a_folder_of_classes_holds_out_a_fifth(photos):
    dataset = sources.load("folder", photos)
    assert dataset.labels == ("cat", "dog")
    assert (dataset.train.examples, dataset.held_out.examples) == (8, 2)
    parts = [
        {i.tobytes() for i, _ in arrays(s)} for s in (dataset.train, dataset.held_out)
    ]
    assert len(parts[0]) == 8 and len(parts[1]) == 2 and not parts[0] & parts[1]
    assert sorted(label for _, label in arrays(dataset.held_out)) == [0, 1]
    images, labels = next(
        iter(
            train_batches(
                dataset, augmentation="random_resized_crop_flip", batch_size=4
            )
        )
    )
    assert images.shape == (4, 32, 32, 3) and labels.shape == (4, 2)


def test_a_folder_with_splits_keeps_them(photos):
    (photos / "train").mkdir()
    (photos / "val").mkdir()
    for name in ("cat", "dog"):
        (photos / "val" / name).mkdir()
        (photos / name / "0.png").rename(photos / "val" / name / "0.png")
        (photos / name).rename(photos / "train" / name)
    dataset = sources.load("folder", photos)
    assert dataset.labels == ("cat", "dog")
    assert (dataset.train.examples, dataset.held_out.examples) == (8, 2)


def test_a_class_of_one_image_is_trained_on(photos):
    for index in range(1, 5):
        (photos / "cat" / f"{index}.png").unlink()
    dataset = sources.load("folder", photos)
    assert (dataset.train.examples, dataset.held_out.examples) == (5, 1)
    assert {int(label) for _, label in dataset.train.read()} == {0, 1}


def test_folders_are_read_in_the_order_of_tensorflow_datasets(photos):
    """Which read them in version 0.1: a run that it began goes on with its batches."""
    val = shutil.copytree(photos, photos / "train").rename(photos / "val")
    for label in ("cat", "dog"):
        (photos / "train" / label).mkdir(parents=True)
        (photos / label).rename(photos / "train" / label)
        shutil.rmtree(val / label / "train", ignore_errors=True)
    ours = sources.load("folder", photos)
    theirs = tfds.ImageFolder(str(photos))
    for split, name in ((ours.train, "train"), (ours.held_out, "val")):
        expected = theirs.as_dataset(split=name).as_numpy_iterator()
        for (encoded, label), path, example in zip(
            split.read(), split.names, expected, strict=True
        ):
            assert path == example["image/filename"].decode()
            assert label == example["label"]
            assert encoded == open(path, "rb").read()


def test_bad_folders_are_refused(tmp_path, photos):
    for data_dir, reason in (
        (None, "needs --data_dir"),
        (tmp_path / "none", "no folder"),
        (photos / "cat" / "0.png", "no folder"),
        (photos / "cat", "at least two"),
    ):
        with pytest.raises(UserError, match=reason):
            sources.load("folder", data_dir)
    for picture in (photos / "dog").iterdir():
        picture.unlink()
    (photos / "dog").rmdir()
    with pytest.raises(UserError, match="at least two.*'cat'"):
        sources.load("folder", photos)
    for picture in (photos / "cat").iterdir():
        picture.unlink()
    with pytest.raises(UserError, match="at least two"):
        sources.load("folder", photos)


@pytest.mark.parametrize("name", ["empty", "a[b]"])
def test_a_folder_without_images_is_no_class(photos, name):
    (photos / name).mkdir()
    with pytest.raises(UserError, match="has no images.*remove it or fill it"):
        sources.load("folder", photos)


def test_a_class_that_is_only_held_out_is_refused(photos, tmp_path):
    root = tmp_path / "split"
    shutil.copytree(photos, root / "train")
    shutil.copytree(photos, root / "val")
    (root / "val" / "cow").mkdir()
    with pytest.raises(UserError, match="'cow' has no images"):
        sources.load("folder", root)


def test_a_link_to_nowhere_is_named(photos):
    (photos / "cat" / "5.png").symlink_to(photos / "gone.png")
    with pytest.raises(UserError, match="cat/5.png cannot be read: No such file"):
        sources.load("folder", photos)


def fingerprint(*arguments):
    return sources.load(*arguments).fingerprint


def test_a_copy_of_a_folder_has_the_same_fingerprint(photos, tmp_path):
    before = fingerprint("folder", photos)
    copy = shutil.copytree(photos, tmp_path / "copy")
    os.utime(copy / "cat" / "0.png", (0, 0))
    assert fingerprint("folder", copy) == before
    assert before["images"] == 10


@pytest.mark.parametrize("change", ["added", "longer", "renamed", "removed", "moved"])
def test_other_photographs_have_another_fingerprint(photos, change):
    before = fingerprint("folder", photos)
    image = photos / "cat" / "3.png"
    if change == "added":
        shutil.copy(image, photos / "cat" / "5.png")
    elif change == "longer":
        image.write_bytes(image.read_bytes() + b"\0")
    elif change == "renamed":
        image.rename(photos / "cat" / "3b.png")
    elif change == "removed":
        image.unlink()
    else:
        image.rename(photos / "dog" / "5.png")
    assert fingerprint("folder", photos) != before


def test_what_moves_from_training_to_validation_changes_the_fingerprint(tmp_path):
    for part in ("train", "val"):
        write_photos(tmp_path / part)
    before = fingerprint("folder", tmp_path)
    assert before["images"] == 20
    for label in ("cat", "dog"):
        image = tmp_path / "train" / label / "4.png"
        image.rename(tmp_path / "val" / label / "5.png")
    assert fingerprint("folder", tmp_path) != before


def test_the_fingerprint_of_a_prepared_dataset_is_its_version(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "list_builders", lambda **_: ["noise"])
    image = np.zeros((32, 32, 3), np.uint8)
    found = []
    for folder, version, examples in (
        ("a", "1.0.0", 5),
        ("b", "1.0.0", 5),
        ("c", "1.0.1", 5),
        ("d", "1.0.0", 6),
    ):
        splits = {"train": [(image, 0)] * examples, "test": [(image, 0)]}
        prepare("noise", tmp_path / folder, version=version, **splits)
        found.append(fingerprint("noise", tmp_path / folder))
    assert found[0] == found[1]
    assert found[0] == {"name": "noise/1.0.0", "images": 6}
    assert found[0] not in found[2:]


def test_the_fingerprint_of_the_digits_is_of_their_split(monkeypatch):
    """Another version of scikit-learn might split or scale them differently."""
    before = fingerprint("digits")
    assert fingerprint("digits") == before
    monkeypatch.setattr(
        sources.digits,
        "train_test_split",
        lambda indices, **_: (indices[360:], indices[:360]),
    )
    assert fingerprint("digits") != before


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(UserError, match="cifar10.*Received: 'cifra10'"):
        sources.load("cifra10")


def test_a_dataset_of_no_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="text, label"):
        sources.load("imdb_reviews", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_dataset_without_network_says_what_to_do(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", no_network)
    with pytest.raises(UserError) as caught:
        sources.load("mnist", tmp_path / "data")
    for part in (str(tmp_path / "data"), "tfds build mnist", "--dataset=digits"):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_proxy_that_does_not_answer_is_no_network(tmp_path, monkeypatch):
    with socket.socket() as closed:  # bound, so nobody else answers
        closed.bind(("localhost", 0))
        proxy = f"http://localhost:{closed.getsockname()[1]}"
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(UserError, match="cannot be reached .*refused"):
            sources.load("mnist", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_prepared_cifar10_is_read_without_the_network(shared_data, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    dataset = sources.load("cifar10", shared_data / "tfds")
    assert dataset.train.examples == 50_000 and dataset.held_out.examples == 5_000
    assert dataset.labels[:2] == ("airplane", "automobile")
    labels = [int(label) for _, label in dataset.held_out.read()]
    assert collections.Counter(labels) == {label: 500 for label in range(10)}


def test_a_prepared_dataset_is_read_without_the_network(streamed, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert (streamed.train.examples, streamed.held_out.examples) == (400, 402)
    labels = [int(label) for _, label in streamed.held_out.read()]
    assert collections.Counter(labels) == {label: 134 for label in range(3)}


def test_a_dataset_with_one_split_holds_out_a_fifth(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "list_builders", lambda **_: ["single"])
    images = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
    prepare("single", tmp_path, train=[(image, 0) for image in images])
    dataset = sources.load("single", tmp_path)
    train, held_out = (
        {encoded.numpy() for encoded, _ in split.read()}
        for split in (dataset.train, dataset.held_out)
    )
    assert (len(train), len(held_out)) == (8, 3)
    assert len(train | held_out) == 11


def test_a_label_beyond_the_classes_is_refused(tmp_path, monkeypatch):
    """As in published test splits that have no labels."""
    image = np.zeros((32, 32, 3), np.uint8)
    splits = {"train": (0, 1, 2), "test": (0, -1)}
    examples = {name: [(image, n) for n in labels] for name, labels in splits.items()}
    prepare("unlabelled", tmp_path, **examples)
    monkeypatch.setattr(tfds, "list_builders", lambda **_: ["unlabelled"])
    dataset = sources.load("unlabelled", tmp_path)
    with damaged.damaged_images_named(dataset):
        assert len(batches(dataset, batch_size=3, epochs=1)) == 1
        with pytest.raises(UserError, match="of class -1, and classes 0 to 2 only"):
            with damaged.damaged_images_named(dataset):
                list(batching.evaluation_batches(dataset.held_out, SMALL, 2))
    with pytest.raises(UserError, match="of class -1, and classes 0 to 2 only"):
        sources.load("unlabelled", tmp_path, damaged_images="skip")


def test_a_part_is_read_from_the_files_that_hold_it(in_files, streamed, tmp_path):
    folder = shutil.copytree(in_files, tmp_path / "copy")
    files = sorted(folder.rglob("*train.tfrecord*"))
    assert len(files) == 4
    for path in files[2:]:
        path.unlink()
    split = sources.load("noise", folder).train
    with pytest.raises(tf.errors.NotFoundError):
        list(split.read())
    assert len(list(split.part(0, 200))) == 200
