"""Pictures that a csv file lists: single labels, several labels, what is refused."""

import shutil

import numpy as np
import pytest

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import sources
from tests.helpers.datasets import batches, equal


def listed(folder, text, name="labels.csv", **options):
    """Writes a csv file beside pictures and opens it."""
    path = folder / name
    path.write_text(text, **{"encoding": "utf-8", **options})
    return sources.load("csv", path)


def examples(split, root):
    """Returns {relative path: label} of a split."""
    return {
        name[len(str(root)) + 1 :]: label.numpy().tolist()
        for name, (_, label) in zip(split.names, split.read(), strict=True)
    }


ALL = [f"{label}/{index}.png" for label in ("cat", "dog") for index in range(5)]
SINGLE = "image,label\n" + "".join(f"{name},{name[:3]}\n" for name in reversed(ALL))
MULTI = """image,label
cat/0.png,cat
cat/1.png,cat;indoors
cat/2.png, cat ; indoors
cat/3.png,cat
cat/4.png,cat;indoors
dog/0.png,dog
dog/1.png,
dog/2.png,dog;indoors
dog/3.png,dog
dog/4.png,cat;dog;indoors
"""


def test_a_file_of_single_labels_is_the_dataset_of_its_folder(photos):
    ours, folder = listed(photos, SINGLE), sources.load("folder", photos)
    assert not ours.multi_label and ours.labels == folder.labels
    assert ours.train.names == folder.train.names
    assert ours.held_out.names == folder.held_out.names
    assert equal(batches(ours, batch_size=4), batches(folder, batch_size=4))
    assert next(iter(ours.train.read()))[1].dtype == np.int64


def test_a_file_of_several_labels_has_a_number_for_each(photos, capsys):
    dataset = listed(photos, MULTI)
    assert dataset.multi_label and dataset.labels == ("cat", "dog", "indoors")
    train, held_out = (examples(x, photos) for x in (dataset.train, dataset.held_out))
    assert (len(train), len(held_out)) == (8, 2)
    both = train | held_out
    assert len(both) == 10
    assert both["dog/1.png"] == [0, 0, 0] and both["dog/4.png"] == [1, 1, 1]
    assert both["cat/2.png"] == [1, 0, 1] and both["dog/0.png"] == [0, 1, 0]
    assert next(iter(dataset.train.read()))[1].dtype == np.float32
    assert capsys.readouterr().err.endswith(
        "10 pictures of 3 classes, 8 to train on and 2 held out; any number of "
        "labels for a picture, 1 have none\n"
    )


def test_a_label_of_one_picture_is_trained_on(photos):
    for index in range(10):
        rows = [f"{name},{name[:3]};all" for name in ALL]
        rows[index] += ";rare"
        dataset = listed(photos, "\n".join(["image,label", *rows]))
        assert examples(dataset.train, photos)[ALL[index]][-1] == 1


def test_the_column_split_decides(photos, capsys):
    splits = ["train", "Valid", "test", "train", "train"] * 2
    rows = [f"{x},{name},{name[:3]}" for x, name in zip(splits, ALL, strict=True)]
    dataset = listed(photos, "\n".join(["split,image,label", *rows]))
    assert set(examples(dataset.held_out, photos)) == {"cat/1.png", "dog/1.png"}
    assert dataset.train.examples == 6
    assert capsys.readouterr().err.endswith("left out: the split 'test'\n")


def test_quotes_bom_absolute_paths_and_other_columns_are_read(photos, capsys):
    name = photos / "cat" / 'a, "b".png'
    shutil.copy(photos / "cat" / "0.png", name)
    quoted = str(name).replace('"', '""')
    text = SINGLE.replace("image,label", "image,label,note").replace("\n", ",x\n")
    text = text.replace(",note,x", ",note") + f'"{quoted}","cat",""\n\n'
    dataset = listed(photos, text, encoding="utf-8-sig", newline="\r\n")
    assert dataset.train.examples + dataset.held_out.examples == 11
    assert str(name) in dataset.train.names + dataset.held_out.names
    assert capsys.readouterr().err.endswith("left out: the column 'note'\n")


def test_a_copy_has_the_same_fingerprint_and_other_labels_another(photos, tmp_path):
    before = listed(photos, SINGLE).fingerprint
    copy = shutil.copytree(photos, tmp_path / "copy")
    assert listed(copy, SINGLE).fingerprint == before
    other = SINGLE.replace("dog/3.png,dog", "dog/3.png,cat")
    assert listed(photos, other).fingerprint != before


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "line 1: the first line must be image,label"),
        ("cat/0.png,cat\n", "line 1: the first line must be.*Received: 'cat/0.png,"),
        ("image;label\ncat/0.png;cat\n", "line 1: .*commas, not semicolons"),
        ("image\tlabel\ncat/0.png\tcat\n", "line 1: .*commas, not tabs"),
        ("image,label\n", "lists no pictures"),
        ("image,label\ncat/0.png\n", "line 2: 2 columns expected, 1 received"),
        ("image,label\ncat/0.png,cat,dog\n", "line 2: 2 columns expected, 3"),
        ("image,label\n,cat\n", "line 2: the name of the picture is missing"),
        ("image,label\n\ncat/9.png,cat\n", "line 3: no such picture: .*cat/9.png"),
        ('image,label\n"cat/0.png,cat\n', "line 2: no valid csv"),
        (SINGLE + "./cat/0.png,dog\n", "line 12: ./cat/0.png is in line 11 already"),
        (SINGLE.replace("dog\n", "cat\n"), "at least 2 expected, 1 received .'cat'"),
        ("image,label,split\ncat/0.png,cat,dev\n", "line 2: the split must be one of"),
        ("image,label,split\ncat/0.png,cat,train\n", "must have 'train' and one of"),
        (
            "image,label,split\ncat/0.png,cat,train\ncat/1.png,cat,train\n"
            "dog/0.png,dog,val\n",
            "no picture to train on has the label 'dog'",
        ),
        ("image,label\ncat/0.png,cat\ndog/0.png,dog\n", "no held-out pictures"),
        ("image,label\ncat/0.png,\ndog/0.png,\n", "at least 1 expected, 0 received"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(photos, text, reason):
    with pytest.raises(UserError, match=reason):
        listed(photos, text)


def test_a_file_that_is_no_text_or_not_there_is_refused(photos):
    with pytest.raises(UserError, match="no UTF-8 text"):
        listed(photos, "image,label\ncat/0.png,chat é\n", encoding="latin-1")
    for data_dir, reason in (
        (None, "needs --data_dir=FILE.csv"),
        (photos / "gone.csv", "no such file"),
        (photos, "no file"),
    ):
        with pytest.raises(UserError, match=reason):
            sources.load("csv", data_dir)
