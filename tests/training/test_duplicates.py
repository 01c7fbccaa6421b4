"""Pictures that are there twice: which ones are found, and what is said of them."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import duplicates, previews, sources, survey
from tests.helpers.datasets import as_file, photographs


def looks(encoded):
    found = [
        duplicates.look(previews.preview(content, duplicates.PREVIEW_SIDE)[0])
        for content in encoded
    ]
    return [np.stack(part) for part in zip(*found, strict=True)]


def are_same(one, other):
    return len(duplicates.groups(*looks([one, other]))) == 1


def opened(encoded):
    return ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")


def half(image):
    return as_file(np.asarray(image.resize([side // 2 for side in image.size])))


COPIES = {
    "the same file": lambda image: as_file(np.asarray(image), quality=95),
    "half the size": half,
    "recompressed": lambda image: as_file(np.asarray(image), quality=60),
    "as PNG": lambda image: as_file(np.asarray(image), "PNG"),
    "brighter": lambda image: as_file(
        np.asarray(ImageEnhance.Brightness(image).enhance(1.1))
    ),
}
LESS_RED = (0.6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
OTHERS = {
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "less red": lambda image: image.convert("RGB", LESS_RED),
    "cropped": lambda image: image.crop((image.width // 8, 0, *image.size)),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_photographs_are_the_same(how):
    for encoded in photographs(8):
        assert are_same(encoded, COPIES[how](opened(encoded))), how


@pytest.mark.parametrize("how", OTHERS)
def test_other_pictures_of_a_scene_are_not_the_same(how):
    for encoded in photographs(8):
        other = as_file(np.asarray(OTHERS[how](opened(encoded))), quality=95)
        assert not are_same(encoded, other), how


def test_different_photographs_are_not_the_same(shared_data):
    for folder in ("ants_bees", "imagenet_sample", "bccd"):
        paths = sorted((shared_data / folder).rglob("*.[jJ][pP]*[gG]"))
        assert len(paths) >= 100
        assert not duplicates.groups(*looks([path.read_bytes() for path in paths]))


def test_blank_pages_are_the_same_only_if_their_colours_are():
    pages = [np.full((60, 80, 3), level, np.uint8) for level in (250, 250, 240, 0, 5)]
    (group,) = duplicates.groups(*looks([as_file(page, "PNG") for page in pages]))
    assert group.tolist() == [0, 1]


def test_all_pairs_within_the_limit_are_found():
    """Beside a comparison of every picture with every other."""
    rng = np.random.default_rng(0)
    bits = rng.random((300, 256)) < 0.5
    bits[100:200] = bits[:100]
    for row, count in zip(bits[100:200], rng.integers(0, 41, 100), strict=True):
        row[rng.choice(256, count, replace=False)] ^= True
    bits[200:220] = bits[200]  # many equal ones
    colours = np.full((300, 192), rng.integers(0, 256, 192), np.uint8)
    found = {
        (a, b)
        for group in duplicates.groups(bits, colours)
        for a in group
        for b in group
        if a < b
    }
    distances = (bits[:, None] != bits).sum(-1)
    close = np.argwhere(np.triu(distances <= duplicates.MAX_BITS, 1))
    assert 190 < len(close) < 290  # of 20 equal ones, and about half of 100 copies
    assert found == {tuple(pair) for pair in close.tolist()}


def test_many_pictures_take_seconds():
    rng = np.random.default_rng(0)
    bits = rng.random((20_000, 256)) < 0.5
    colours = rng.integers(0, 256, (20_000, 192), np.uint8)
    bits[10_000:], colours[10_000:] = bits[0], colours[0]  # half are one picture
    (group,) = duplicates.groups(bits, colours)
    assert group.tolist() == [0, *range(10_000, 20_000)]


@pytest.fixture
def album(tmp_path):
    """Photographs of two classes, with one leak and one picture of two labels."""
    files = photographs(14)
    for number, encoded in enumerate(files):
        label = ("cat", "dog")[number % 2]
        split = "val" if number < 4 else "train"
        folder = tmp_path / "album" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.jpg").write_bytes(encoded)
    train = tmp_path / "album" / "train"
    (train / "cat" / "leak.png").write_bytes(COPIES["as PNG"](opened(files[2])))
    (train / "dog" / "slip.jpg").write_bytes(half(opened(files[6])))
    (train / "cat" / "harmless.jpg").write_bytes(files[4])  # a copy of cat/04.jpg
    return tmp_path / "album"


def test_leaks_and_slips_are_one_warning_and_one_file(album, tmp_path, capsys):
    dataset = sources.load("folder", album)
    capsys.readouterr()
    found = survey.examine(dataset, tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: 1 of 4 held-out pictures is among the training")
    assert "1 picture is there under different labels" in line
    for name in ("val/cat/02.jpg", "train/cat/leak.png", "train/dog/slip.jpg"):
        assert name in line
    assert "harmless" not in line and str(tmp_path / survey.FILE) in line
    written = json.loads((tmp_path / survey.FILE).read_text())
    assert written["pictures"] == len(found.pictures) == 17
    names = {
        key: [{picture["name"] for picture in group} for group in written[key]]
        for key in ("in_both_splits", "two_labels")
    }
    assert names == {
        "in_both_splits": [{"val/cat/02.jpg", "train/cat/leak.png"}],
        "two_labels": [{"train/cat/06.jpg", "train/dog/slip.jpg"}],
    }


def test_pictures_that_are_all_different_are_no_warning(tmp_path, capsys):
    for number, encoded in enumerate(photographs(10)):
        path = tmp_path / "album" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    dataset = sources.load("folder", tmp_path / "album")
    capsys.readouterr()
    survey.examine(dataset, tmp_path)
    assert capsys.readouterr().err == ""
    written = json.loads((tmp_path / survey.FILE).read_text())
    assert written == {"pictures": 10, "in_both_splits": [], "two_labels": []}


def test_sizes_are_those_of_the_upright_pictures(album):
    found = survey.of(sources.load("folder", album))
    for picture in found.pictures:
        with Image.open(album / picture.name) as image:
            assert picture.size == ImageOps.exif_transpose(image).size
        _, label, _ = picture.name.split("/")
        assert picture.labels == (label,)


def test_repeated_pictures_of_small_classes_are_no_copies(album):
    (album / "train" / "dog" / "05.jpg").unlink()
    dataset = sources.load("folder", album, balance=True)
    assert dataset.train.examples > 12
    found = survey.of(dataset)
    assert len(found.pictures) == 16
    assert len(found.in_both_splits) == len(found.two_labels) == 1


def test_damaged_pictures_are_not_the_same(album):
    for label in ("cat", "dog"):
        for split in ("train", "val"):
            (album / split / label / "broken.jpg").write_bytes(
                b"\xff\xd8\xff, no image"
            )
    found = survey.of(sources.load("folder", album))
    assert sum(picture.size is None for picture in found.pictures) == 4
    assert len(found.in_both_splits) == len(found.two_labels) == 1


def test_a_picture_that_disappeared_is_named(album, tmp_path):
    dataset = sources.load("folder", album)
    (album / "train" / "cat" / "08.jpg").unlink()
    with pytest.raises(UserError, match="cat/08.jpg was there"):
        survey.examine(dataset, tmp_path)
    assert not (tmp_path / survey.FILE).exists()


def test_data_without_names_are_not_surveyed(digits, tmp_path):
    assert survey.examine(digits, tmp_path) is None
    assert not list(tmp_path.iterdir())
