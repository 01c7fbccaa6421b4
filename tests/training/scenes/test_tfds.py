"""Detection and segmentation sets of tensorflow-datasets, which the tests prepare."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_resnet.runner.boxes import IGNORED
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes.sources import load
from tests.helpers.scenes import LABELS, made_scenes


def prepare(folder, dataset_name, features, splits):
    """Prepares a dataset from {name of a split: list of examples}."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset_name
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {name: enumerate(splits[name]) for name in splits}

        def _generate_examples(self):
            raise NotImplementedError

    Builder(data_dir=folder).download_and_prepare()


def box_of(scene, box):
    height, width = scene.mask.shape
    top, left, bottom, right = box
    return tfds.features.BBox(
        top / height, left / width, bottom / height, right / width
    )


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A function that prepares a dataset and opens it."""

    def open_it(task, features, splits, **arguments):
        monkeypatch.setattr(tfds, "list_builders", lambda **_: ["made"])
        features = {"image": tfds.features.Image(), **features}
        prepare(tmp_path, "made", features, splits)
        return load(task, "made", tmp_path, **arguments)

    return open_it


OBJECTS = {
    "objects": tfds.features.Sequence(
        {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=LABELS),
            "pose": tfds.features.ClassLabel(names=["left", "right"]),
            "is_crowd": np.bool_,
            "is_difficult": np.bool_,
        }
    )
}


def objects_of(scene, **more):
    """An example; the first object is a crowd, and each plate is difficult."""
    found = [
        {
            "bbox": box_of(scene, box),
            "label": index,
            "pose": 0,
            "is_crowd": number == 0,
            "is_difficult": index == 1,
        }
        for number, (box, index) in enumerate(
            zip(scene.boxes, scene.classes, strict=True)
        )
    ]
    return {"image": scene.pixels, "objects": found, **more}


def test_boxes_labels_and_flags_are_read(prepared):
    scenes = made_scenes()
    parts = {"train": scenes[:7], "validation": scenes[7:]}
    splits = {name: list(map(objects_of, part)) for name, part in parts.items()}
    dataset = prepared("detect", OBJECTS, splits)
    assert dataset.labels == LABELS and dataset.task == "detect"
    assert (dataset.train.examples, dataset.held_out.examples) == (7, 3)
    assert dataset.most_objects == max(len(scene.classes) for scene in scenes)
    for split, part in ((dataset.train, scenes[:7]), (dataset.held_out, scenes[7:])):
        found = [target for _, target in split.read().as_numpy_iterator()]
        by_boxes = {len(x.classes): x for x in found}
        assert sorted(by_boxes) == sorted({len(scene.classes) for scene in part})
        for scene in part:
            sides = np.array(scene.mask.shape * 2)
            expected = np.reshape(scene.boxes, (-1, 4)) / sides
            (target,) = (
                x
                for x in found
                if x.boxes.shape == expected.shape and np.allclose(x.boxes, expected)
            )
            assert target.classes.tolist() == scene.classes
            crowd = np.arange(len(scene.classes)) == 0
            assert target.crowd.tolist() == crowd.tolist()
            assert target.ignored.tolist() == [index == 1 for index in scene.classes]


def test_a_fifth_is_held_out(prepared):
    splits = {"train": list(map(objects_of, made_scenes()))}
    dataset = prepared("detect", OBJECTS, splits)
    assert (dataset.train.examples, dataset.held_out.examples) == (8, 2)


def test_boxes_of_no_area_are_left_out_and_counted(prepared):
    (first, *others) = map(objects_of, made_scenes())
    flat = dict(first["objects"][0], bbox=tfds.features.BBox(0.2, 0.3, 0.2, 0.5))
    first["objects"].append(flat)
    dataset = prepared("detect", OBJECTS, {"train": [first, *others]})
    assert "left out: 1 boxes of no area" in dataset.note
    for split in (dataset.train, dataset.held_out):
        for _, target in split.read().as_numpy_iterator():
            assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()
            assert len(target.classes) == len(target.crowd) == len(target.boxes)


def test_objects_without_a_known_class_are_refused(prepared):
    (first, *others) = map(objects_of, made_scenes())
    first["objects"][0]["label"] = -1
    with pytest.raises(UserError, match="objects without a known class"):
        prepared("detect", OBJECTS, {"train": [first, *others]})


def test_masks_are_read_with_the_indices_that_occur(prepared):
    """As in oxford_iiit_pet: 1, 2 and 3, without names."""
    mask = {"mask": tfds.features.Image(shape=(None, None, 1))}
    scenes = made_scenes()
    examples = []
    for scene in scenes:
        values = np.where(scene.mask == 2, 7, scene.mask)
        values[0, 0] = IGNORED
        examples.append({"image": scene.pixels, "mask": values[..., None]})
    dataset = prepared("segment", mask, {"train": examples[:8], "test": examples[8:]})
    assert dataset.labels == ("0", "1", "7") and dataset.task == "segment"
    found = [target for _, target in dataset.train.read().as_numpy_iterator()]
    assert all(target[0, 0] == IGNORED for target in found)
    expected = sorted((scene.mask.shape, scene.mask.sum()) for scene in scenes[:8])
    assert sorted((x.shape, x.sum() - IGNORED) for x in found) == expected
    # A worker reads its part.
    part = list(dataset.train.part(2, 5).as_numpy_iterator())
    assert len(part) == 3
    np.testing.assert_array_equal(part[0][1], found[2])


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_dataset_without_objects_or_masks_is_refused(prepared, task):
    label = {"label": tfds.features.ClassLabel(names=LABELS)}
    pixels = np.zeros((9, 9, 3), np.uint8)
    splits = {"train": [{"image": pixels, "label": 0}] * 5}
    with pytest.raises(UserError, match=f"--task={task} needs a dataset with an image"):
        prepared(task, label, splits)


def test_an_unknown_dataset_is_named():
    with pytest.raises(UserError, match="unknown dataset: .*voc_folder"):
        load("detect", "voc_foldr")
