"""What annotation tools write is read as the same objects and masks."""

import functools
import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import survey
from keras_resnet.training.data.scenes.sources import OWN_PICTURES, load
from tests.helpers.scenes import (
    LABELS,
    WRITERS,
    Made,
    made_scenes,
    targets_of,
    write_masks,
    write_voc,
    write_yolo,
)

BOXES = [name for name, (_, tasks) in OWN_PICTURES.items() if "detect" in tasks]


@pytest.fixture(scope="module")
def scenes():
    return made_scenes()


def assert_objects_are(dataset, scenes):
    found = targets_of(dataset)
    assert sorted(found) == [scene.name for scene in scenes]
    for scene in scenes:
        target = found[scene.name]
        sides = np.array(scene.pixels.shape[:2] * 2)
        np.testing.assert_allclose(
            target.boxes * sides, np.reshape(scene.boxes, (-1, 4)), atol=1e-4
        )
        labels = [dataset.labels[index] for index in target.classes]
        assert labels == [LABELS[index] for index in scene.classes]
        assert not target.ignored.any() and not target.crowd.any()
        assert [part.dtype for part in target] == [np.float32, np.int32, bool, bool]


@pytest.mark.parametrize("name", BOXES)
def test_boxes_of_every_format_are_the_same(name, scenes, tmp_path, capsys):
    dataset = load("detect", name, WRITERS[name](tmp_path, scenes))
    assert_objects_are(dataset, scenes)
    assert dataset.labels == LABELS and dataset.task == "detect"
    counts = [len(scene.classes) for scene in scenes]
    assert dataset.most_objects == max(counts)
    assert (dataset.train.examples, dataset.held_out.examples) == (8, 2)
    said = capsys.readouterr().err
    assert f"{sum(counts)} objects" in said
    assert "1 without objects, kept as negative ones" in said


@pytest.mark.parametrize("colours", [False, True])
def test_masks_of_both_kinds_are_the_same(colours, scenes, tmp_path):
    dataset = load("segment", "mask_folder", write_masks(tmp_path, scenes, colours))
    assert_masks_are(dataset, scenes)


def assert_masks_are(dataset, scenes):
    assert dataset.labels == ("background", *LABELS)
    found = targets_of(dataset)
    for scene in scenes:
        np.testing.assert_array_equal(found[scene.name], scene.mask)
        assert found[scene.name].dtype == np.uint8


@pytest.mark.parametrize("name", ["coco_json", "yolo_folder", "labelme_folder"])
def test_masks_of_outlines_are_the_same(name, scenes, tmp_path):
    write = WRITERS[name]
    if name == "yolo_folder":
        write = functools.partial(write_yolo, outlines=True)
    assert_masks_are(load("segment", name, write(tmp_path, scenes)), scenes)


def test_yolo_outlines_are_boxes_too(scenes, tmp_path):
    root = write_yolo(tmp_path, scenes, outlines=True)
    assert_objects_are(load("detect", "yolo_folder", root), scenes)


@pytest.mark.parametrize("name", BOXES)
def test_a_changed_annotation_changes_the_fingerprint(name, scenes, tmp_path):
    def fingerprint(folder, scenes):
        return load("detect", name, WRITERS[name](folder, scenes)).fingerprint

    before = fingerprint(tmp_path / "before", scenes)
    assert before == fingerprint(tmp_path / "copy", scenes)
    first = scenes[0]._replace(classes=[1 - index for index in scenes[0].classes])
    assert before != fingerprint(tmp_path / "after", [first, *scenes[1:]])


def test_folders_of_splits_are_taken_as_they_are(scenes, tmp_path):
    for name, part in (("train", scenes[:4]), ("valid", scenes[4:9])):
        write_voc(tmp_path / name, part)
    dataset = load("detect", "voc_folder", tmp_path)
    assert (dataset.train.examples, dataset.held_out.examples) == (4, 5)
    assert {pathlib.Path(name).parent.name for name in dataset.train.names} == {"train"}


def test_the_folders_and_lists_of_pascal_voc_are_read(scenes, tmp_path):
    write_voc(tmp_path / "JPEGImages", scenes)
    (tmp_path / "Annotations").mkdir()
    for path in (tmp_path / "JPEGImages").glob("*.xml"):
        path.rename(tmp_path / "Annotations" / path.name)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(x.name for x in scenes[:6]))
    (lists / "val.txt").write_text("\n".join(x.name for x in scenes[6:]))
    dataset = load("detect", "voc_folder", tmp_path)
    assert_objects_are(dataset, scenes)
    names = sorted(pathlib.Path(name).stem for name in dataset.held_out.names)
    assert names == [scene.name for scene in scenes[6:]]


def test_difficult_objects_are_ignored(scenes, tmp_path):
    write_voc(tmp_path, scenes)
    file = tmp_path / "000.xml"
    text = file.read_text()
    file.write_text(text.replace("</name>", "</name><difficult>1</difficult>", 1))
    target = targets_of(load("detect", "voc_folder", tmp_path))["000"]
    assert target.ignored.tolist() == [True] + [False] * (len(target.classes) - 1)
    assert not target.crowd.any()


def test_boxes_lie_in_the_upright_picture(tmp_path):
    """A phone stores pixels lying on their side, and the tools show them upright."""
    (scene,) = made_scenes(1)
    upright = Made(scene.name, scene.pixels, scene.boxes, scene.classes, scene.mask)
    others = [upright._replace(name=f"{number}") for number in range(5)]
    write_voc(tmp_path, others)
    stored = Image.fromarray(np.rot90(scene.pixels))  # orientation 6 turns it back
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "0.png", exif=exif)
    assert_objects_are(load("detect", "voc_folder", tmp_path), others)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_pictures_in_both_splits_are_found(task, scenes, tmp_path):
    """As of pictures without boxes; "labels" are the classes that a picture shows."""
    copy = scenes[0]._replace(name="copy")
    for name, part in (("train", scenes), ("val", [scenes[3], copy])):
        WRITERS["labelme_folder"](tmp_path / name, part)
    found = survey.of(load(task, "labelme_folder", tmp_path))
    names = {picture.name for group in found.in_both_splits for picture in group}
    assert names == {f"{x}.png" for x in ("train/000", "val/copy")} | {
        f"{x}/003.png" for x in ("train", "val")
    }
    assert not found.two_labels
    labels = {picture.name[-7:-4]: picture.labels for picture in found.pictures}
    for scene in scenes:
        shown = tuple(LABELS[index] for index in sorted(set(scene.classes)))
        expected = shown if task == "detect" else ("background", *shown)
        assert labels[scene.name] == expected


def test_a_dataset_for_another_task_is_refused(tmp_path):
    with pytest.raises(UserError, match="voc_folder is for --task=detect; for --task="):
        load("segment", "voc_folder", tmp_path)
    with pytest.raises(UserError, match="mask_folder is for --task=segment"):
        load("detect", "mask_folder", tmp_path)


@pytest.mark.parametrize("name", OWN_PICTURES)
def test_a_missing_folder_is_named(name, tmp_path):
    task = OWN_PICTURES[name][1][0]
    with pytest.raises(UserError, match=f"--dataset={name} needs"):
        load(task, name)
    with pytest.raises(UserError, match="needs .*nowhere"):
        load(task, name, tmp_path / "nowhere")
