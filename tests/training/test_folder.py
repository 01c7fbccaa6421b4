"""Folders as people have them: formats, sub-folders, litter, names of splits."""

import collections
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import batching, sources
from tests.helpers.datasets import SMALL, as_file, batches, equal, seen


def write(path, value=0, file_format="JPEG"):
    """Writes a picture of one grey, whatever the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_file(np.full((40, 40, 3), value, np.uint8), file_format))


def names(dataset, root):
    """Returns {relative path of each picture: its label}."""
    return {
        str(name)[len(str(root)) + 1 :]: int(label)
        for split in (dataset.train, dataset.held_out)
        for name, (_, label) in zip(split.names, split.read(), strict=True)
    }


def summary(root, capsys):
    """Returns the one line that loading a folder prints, after its path."""
    capsys.readouterr()
    sources.load("folder", root)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{root}: ")
    return line.removeprefix(f"{root}: ")


@pytest.fixture
def mixed(tmp_path):
    """Every format, upper case, sub-folders and what programs leave behind."""
    root = tmp_path / "mixed"
    for index, (suffix, file_format) in enumerate(
        {
            "jpg": "JPEG",
            "JPEG": "JPEG",
            "Png": "PNG",
            "webp": "WEBP",
            "BMP": "BMP",
            "gif": "GIF",
            "tif": "TIFF",
            "TIFF": "TIFF",
        }.items()
    ):
        write(root / "apple" / f"{index}.{suffix}", 10 * index, file_format)
    write(root / "plum" / "0.jpg", 200)
    write(root / "plum" / "batch1" / "a" / "0.jpg", 210)
    write(root / "plum" / "batch2" / "0.jpg", 220)
    write(root / "plum" / "@eaDir" / "0.jpg")
    write(root / "plum" / "._0.jpg")
    write(root / "__MACOSX" / "plum" / "0.jpg")
    (root / ".ipynb_checkpoints").mkdir()
    (root / "apple" / "Thumbs.db").write_bytes(b"x")
    for index in range(3):
        (root / "apple" / f"{index}.TXT").write_bytes(b"x")
    (root / "apple" / "LICENCE").write_bytes(b"x")
    write(root / "beside.jpg")
    return root


def test_every_format_and_every_level_of_a_class_is_read(mixed):
    dataset = sources.load("folder", mixed)
    assert dataset.labels == ("apple", "plum")
    found = names(dataset, mixed)
    assert len(found) == 11 and sorted(found.values()) == [0] * 8 + [1] * 3
    assert {name for name, label in found.items() if label} == {
        "plum/0.jpg",
        "plum/batch1/a/0.jpg",
        "plum/batch2/0.jpg",
    }
    greys = [
        int(image.mean().round())
        for split in (dataset.train, dataset.held_out)
        for image, _ in batching.images(split, SMALL).as_numpy_iterator()
    ]
    expected = [*range(0, 80, 10), 200, 210, 220]
    np.testing.assert_allclose(sorted(greys), expected, atol=1)


def test_what_is_left_out_is_counted(mixed, capsys):
    assert summary(mixed, capsys) == (
        "11 pictures of 2 classes, 8 to train on and 3 held out; left out: "
        "3 .txt files, 3 hidden or system folders, 2 hidden or system files, "
        "1 file without a suffix, 1 picture outside of the class folders"
    )


def test_uneven_classes_are_named(photos, capsys):
    assert "uneven" not in summary(photos, capsys)
    for index in range(5, 14):
        shutil.copy(photos / "cat" / "0.png", photos / "cat" / f"{index}.png")
    assert "uneven" not in summary(photos, capsys)  # 14 of 5
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "14.png")
    line = summary(photos, capsys)
    assert line.endswith(
        "the classes are uneven, from 5 pictures ('dog') to 15 ('cat')"
    )


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_the_held_out_split_has_many_names(tmp_path, name, capsys):
    for part in ("train", name):
        for label in ("a", "b"):
            write(tmp_path / part / label / "0.jpg")
    assert summary(tmp_path, capsys) == (
        "4 pictures of 2 classes, 2 to train on and 2 held out"
    )


def test_a_split_that_is_not_used_is_named(tmp_path, capsys):
    for part in ("train", "valid", "test"):
        for label in ("a", "b"):
            write(tmp_path / part / label / f"{part}.jpg")
    assert summary(tmp_path, capsys).endswith("left out: the folder 'test'")
    held_out = sources.load("folder", tmp_path).held_out
    assert all(name.endswith("valid.jpg") for name in held_out.names)


def test_pictures_that_are_held_out_by_a_flag_are_counted_so(photos, capsys):
    sources.load("folder", photos, hold_out=3)
    assert "5 to train on and 3 held out" in capsys.readouterr().err


def test_links_are_followed_and_no_folder_is_read_twice(photos):
    elsewhere = photos.parent / "elsewhere"
    write(elsewhere / "more" / "x.jpg")
    (photos / "cat" / "linked").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(photos / "cat")
    dataset = sources.load("folder", photos)
    assert len(names(dataset, photos)) == 11


def test_heic_without_its_package_is_left_out_and_says_what_to_install(
    photos, capsys, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for index in range(2):
        (photos / "cat" / f"{index}.HEIC").write_bytes(b"x")
    line = summary(photos, capsys)
    assert line.endswith(
        'left out: 2 .heic files (pip install "keras-resnet-zoo[heic]" to read them)'
    )
    for picture in (photos / "cat").glob("*.png"):
        picture.unlink()
    with pytest.raises(UserError, match=r"'cat' has no images.*2 \.heic files"):
        sources.load("folder", photos)


def test_heic_is_read_where_its_package_is(photos):
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 48), (200, 0, 0))
    pillow_heif.from_pillow(image).save(photos / "cat" / "a.heic")
    dataset = sources.load("folder", photos)
    assert dataset.train.examples + dataset.held_out.examples == 11
    reddest = max(
        (image[..., 0].mean() - image[..., 1].mean())
        for split in (dataset.train, dataset.held_out)
        for image, _ in batching.images(split, SMALL).as_numpy_iterator()
    )
    assert reddest > 150


def test_a_csv_file_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label\n")
    with pytest.raises(UserError, match="--dataset=csv"):
        sources.load("folder", tmp_path / "labels.csv")


def test_balanced_classes_are_shown_equally_often(photos, capsys):
    for index in range(5, 15):
        write(photos / "dog" / f"{index}.jpg", 10 * index)
    whole = sources.load("folder", photos)
    dataset = sources.load("folder", photos, balance=True)
    assert dataset.held_out.names == whole.held_out.names
    labels = [int(label) for _, label in dataset.train.read()]
    assert labels.count(0) == labels.count(1) == 12
    assert dataset.train.examples == len(dataset.train.names) == 24
    copies = collections.Counter(dataset.train.names)
    assert copies.keys() == set(whole.train.names)
    assert {n for name, n in copies.items() if "/dog/" in name} == {1}
    assert {n for name, n in copies.items() if "/cat/" in name} == {3}
    for (encoded, _), name in zip(
        dataset.train.read(), dataset.train.names, strict=True
    ):
        assert encoded.numpy() == open(name, "rb").read()
    arguments = dict(batch_size=4, epochs=2)
    shown = batches(dataset, **arguments)
    assert equal(shown[7:], batches(dataset, first_step=7, **arguments))
    assert sum(target[0].sum() for _, *target in shown) == 48
    copy = seen(shown[:6])
    assert len(copy) > len(whole.train.names)  # the copies are shifted differently


def test_balance_needs_single_labels(photos):
    rows = "cat/0.png,a;b\ncat/1.png,a\ncat/2.png,b\n"
    (photos / "labels.csv").write_text("image,label\n" + rows)
    with pytest.raises(UserError, match="--balance needs pictures with one label"):
        sources.load("csv", photos / "labels.csv", balance=True)


def test_a_class_without_held_out_pictures_is_named(tmp_path):
    for split, name in (("train", "cat"), ("train", "dog"), ("val", "cat")):
        write(tmp_path / split / name / "0.png")
    note = sources.load("folder", tmp_path).note
    assert "class 'dog' in the evaluation (no held-out images)" in note
