"""What only some formats have: crowds, run lengths, circles, colours, layouts."""

import base64
import functools
import io
import json

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner.boxes import IGNORED
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes import shapes
from keras_resnet.training.data.scenes.sources import load
from tests.helpers.scenes import (
    LABELS,
    coco_content,
    made_scenes,
    targets_of,
    write_coco,
    write_labelme,
    write_masks,
    write_yolo,
)


@pytest.fixture(scope="module")
def scenes():
    return made_scenes()


def changed_json(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# --- COCO ---


def test_crowds_and_ignored_objects_are_marked(scenes, tmp_path):
    root = write_coco(tmp_path, scenes)
    two = next(number for number, x in enumerate(scenes) if len(x.classes) > 1)
    first = sum(len(scene.classes) for scene in scenes[:two])

    def change(content):
        content["annotations"][first]["iscrowd"] = 1
        content["annotations"][first + 1]["ignore"] = 1

    changed_json(root / "_annotations.coco.json", change)
    target = targets_of(load("detect", "coco_json", root))[scenes[two].name]
    rest = [False] * (len(scenes[two].classes) - 2)
    assert target.crowd.tolist() == [True, False, *rest]
    assert target.ignored.tolist() == [False, True, *rest]


def test_run_lengths_of_coco_are_masks(scenes, tmp_path):
    root = write_coco(tmp_path, scenes)

    def change(content):
        for annotation in content["annotations"]:
            scene = scenes[annotation["image_id"] - 7]
            left, top, width, height = annotation["bbox"]
            inside = np.zeros(scene.mask.shape, bool)
            inside[top : top + height, left : left + width] = True
            edges = np.flatnonzero(np.diff(inside.T.ravel(), prepend=False))
            counts = np.diff([0, *edges, inside.size]).tolist()
            size = list(inside.shape)
            annotation["segmentation"] = {"counts": counts, "size": size}

    changed_json(root / "_annotations.coco.json", change)
    found = targets_of(load("segment", "coco_json", root))
    for scene in scenes:
        np.testing.assert_array_equal(found[scene.name], scene.mask)


def test_run_lengths_need_no_size_of_the_picture(scenes, tmp_path):
    root = write_coco(tmp_path, scenes)
    whole = {"size": [60, 90], "counts": [0, 5400]}

    def change(content):
        for image in content["images"]:
            del image["width"], image["height"]
        content["annotations"] = content["annotations"][:1]
        content["annotations"][0]["segmentation"] = whole

    changed_json(root / "_annotations.coco.json", change)
    masks = targets_of(load("segment", "coco_json", root))
    assert sorted((mask == 1).mean() for mask in masks.values())[-2:] == [0, 1]


def test_names_of_classes_have_no_line_break(scenes, tmp_path):
    root = write_coco(tmp_path, scenes)

    def change(content):
        content["categories"][0]["name"] = "a\nb"

    changed_json(root / "_annotations.coco.json", change)
    with pytest.raises(UserError, match="has a line break"):
        load("segment", "coco_json", root)


def test_where_objects_of_two_classes_overlap_pixels_are_ignored(scenes, tmp_path):
    root = write_coco(tmp_path, scenes)

    def change(content):
        first = content["annotations"][0]
        other = dict(first, id=9999, category_id=7 - first["category_id"])
        content["annotations"].append(other)

    changed_json(root / "_annotations.coco.json", change)
    mask = targets_of(load("segment", "coco_json", root))["000"]
    top, left, bottom, right = scenes[0].boxes[0]
    assert (mask[top:bottom, left:right] == IGNORED).all()


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ([], "no mask, only a box"),
        ([[1, 2, 3, 4]], "a polygon needs 3 finite points"),
        ([[1, 2, 3]], "cannot reshape"),
        ({"size": [3, 3], "counts": [9]}, "run lengths do not fit"),
        ({"size": [60, 90], "counts": [5399]}, "run lengths do not fit"),
        ({"size": [60, 90], "counts": [5401, -1]}, "run lengths do not fit"),
        ({"size": [60, 90], "counts": "\u007f"}, "damaged run lengths"),
        # Their sum is 5400 once it has overflowed 64 bits.
        (
            {"size": [60, 90], "counts": [2**63 - 1, 2**63 - 1, 5402]},
            "run lengths do not fit",
        ),
        ({"size": [60, 90], "counts": [10**30]}, "OverflowError"),
        ([[10**400, 2, 3, 4, 5, 6]], "OverflowError"),
        ({"size": [60, 90]}, "KeyError"),
    ],
)
def test_a_bad_mask_of_coco_is_named(scenes, tmp_path, segmentation, message):
    root = write_coco(tmp_path, scenes)

    def change(content):
        content["annotations"][0]["segmentation"] = segmentation

    changed_json(root / "_annotations.coco.json", change)
    with pytest.raises(UserError, match=f"annotation 1: .*{message}"):
        load("segment", "coco_json", root)
    load("segment", "coco_json", root, damaged_images="skip")


LAYOUTS = {  # name: (JSON files, folders of their pictures)
    "coco": (
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        ("train2017", "val2017"),
    ),
    "cvat": (
        ("annotations/instances_Train.json", "annotations/instances_Validation.json"),
        ("images/Train", "images/Validation"),
    ),
    "roboflow": (
        ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
        ("train", "valid"),
    ),
    "one": (("annotations/instances_default.json",), ("images",)),
    "label studio": (("result.json",), ("images",)),
}


@pytest.mark.parametrize("files, folders", LAYOUTS.values(), ids=LAYOUTS)
def test_the_layouts_of_tools_are_found(scenes, tmp_path, files, folders, capsys):
    parts = (scenes[:7], scenes[7:]) if len(files) == 2 else (scenes,)
    for file, folder, part in zip(files, folders, parts, strict=True):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / file).parent.mkdir(exist_ok=True)
        for scene in part:
            Image.fromarray(scene.pixels).save(tmp_path / folder / f"{scene.name}.png")
        content = coco_content(part)
        if file == "result.json":
            for entry in content["images"]:
                entry["file_name"] = "images\\" + entry["file_name"]
        (tmp_path / file).write_text(json.dumps(content))
    dataset = load("detect", "coco_json", tmp_path)
    assert dataset.train.examples == (7 if len(files) == 2 else 8)
    assert dataset.held_out.examples == 10 - dataset.train.examples
    if len(files) == 2:  # another split is not looked at, and that is said
        other = tmp_path / files[0].replace("train", "test").replace("Train", "test")
        other.parent.mkdir(exist_ok=True)
        other.write_text("{}")
        capsys.readouterr()
        load("detect", "coco_json", tmp_path)
        assert f"the file {other.relative_to(tmp_path)}" in capsys.readouterr().err


def test_a_folder_without_a_coco_file_is_named(tmp_path):
    with pytest.raises(UserError, match="needs one COCO file.* Received: .* with none"):
        load("detect", "coco_json", tmp_path)


def test_a_coco_file_is_enough(scenes, tmp_path):
    file = write_coco(tmp_path, scenes) / "_annotations.coco.json"
    assert load("detect", "coco_json", file).labels == LABELS


# --- YOLO ---


def test_yolo_folders_as_roboflow_writes_them(scenes, tmp_path):
    """Each split has its "images" and "labels"; paths begin with one "../" too many."""
    root = write_yolo(tmp_path, scenes)
    for part in ("train", "val"):
        (root / part).mkdir()
        for kind in ("images", "labels"):
            (root / kind / part).rename(root / part / kind)
    text = (root / "data.yaml").read_text()
    for part in ("train", "val"):
        text = text.replace(f"images/{part}", f"../{part}/images")
    (root / "data.yaml").write_text(text)
    found = targets_of(load("detect", "yolo_folder", root))
    assert sum(len(x.classes) for x in found.values()) == sum(
        len(scene.classes) for scene in scenes
    )


def test_yolo_pictures_may_be_listed_and_names_numbered(scenes, tmp_path):
    root = write_yolo(tmp_path, scenes)
    pictures = sorted((root / "images" / "train").glob("*.png"))[:6]
    lines = [str(path.relative_to(root)) for path in pictures]
    (root / "some.txt").write_text("\n".join(lines))
    (root / "other.yaml").write_text(
        "train: some.txt\nval: [images/val]\nnames: {0: cup, 1: plate}"
    )
    dataset = load("detect", "yolo_folder", root / "other.yaml")
    assert (dataset.train.examples, dataset.held_out.examples) == (6, 2)


def test_paths_may_be_relative(scenes, tmp_path, monkeypatch):
    write_yolo(tmp_path, scenes)
    monkeypatch.chdir(tmp_path)
    found = targets_of(load("detect", "yolo_folder", "."))
    assert len(found["000"].classes) == len(scenes[0].classes)


def test_boxes_are_no_masks(scenes, tmp_path):
    root = write_yolo(tmp_path, scenes)
    with pytest.raises(UserError, match="a box, but --task=segment needs outlines"):
        load("segment", "yolo_folder", root)


# --- LabelMe ---


def test_circles_and_bitmaps_of_labelme_are_shapes(scenes, tmp_path):
    """The later hides the earlier, as in LabelMe."""
    root = write_labelme(tmp_path, scenes)
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    drawn = [
        {"label": "cup", "shape_type": "circle", "points": [[40, 30], [60, 30]]},
        {
            "label": "plate",
            "shape_type": "mask",
            "points": [[37, 28], [43, 32]],
            "mask": encoded,
        },
    ]
    content = {"imageWidth": 90, "imageHeight": 60, "shapes": drawn}
    (root / "000.json").write_text(json.dumps(content))
    mask = targets_of(load("segment", "labelme_folder", root))["000"]
    assert (mask[28:32, 37:43] == 2).all() and (mask == 2).sum() == 24
    assert (mask == 1).sum() == pytest.approx(np.pi * 20**2 - 24, rel=0.01)
    target = targets_of(load("detect", "labelme_folder", root))["000"]
    boxes = target.boxes * np.array([60, 90, 60, 90])
    np.testing.assert_allclose(boxes, [(10, 20, 50, 60), (28, 37, 32, 43)], atol=1e-4)


@pytest.mark.parametrize("corner", [(-4, -3), (58, 88), (61, 20), (20, 95)])
def test_a_bitmap_of_labelme_may_reach_beyond_the_picture(corner):
    top, left = corner
    found = shapes.bitmap(np.ones((6, 5), bool), top, left)(60, 90)
    expected = np.zeros((80, 120), bool)
    expected[10 + top : 16 + top, 10 + left : 15 + left] = True
    np.testing.assert_array_equal(found, expected[10:70, 10:100])


# --- Masks ---


def test_masks_with_a_palette_hold_indices(scenes, tmp_path):
    root = write_masks(tmp_path, scenes)
    for scene in scenes:
        image = Image.fromarray(scene.mask, "P")
        image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
        image.save(root / "masks" / f"{scene.name}.png")
    found = targets_of(load("segment", "mask_folder", root))
    for scene in scenes:
        np.testing.assert_array_equal(found[scene.name], scene.mask)


def test_pixels_of_no_class_are_ignored(scenes, tmp_path):
    """Index 255, and a class that is called so."""
    root = write_masks(tmp_path, scenes)
    (root / "classes.txt").write_text("void\n\ncup\nplate\n")
    for scene in scenes:  # the empty line names no class
        indices = np.where(scene.mask > 0, scene.mask + 1, 0).astype(np.uint8)
        if scene.name == "000":
            indices[0, 0] = 255
        Image.fromarray(indices).save(root / "masks" / f"{scene.name}.png")
    dataset = load("segment", "mask_folder", root)
    assert dataset.labels == LABELS
    expected = np.where(scenes[0].mask == 0, IGNORED, scenes[0].mask - 1)
    np.testing.assert_array_equal(targets_of(dataset)["000"], expected)


def test_masks_as_roboflow_writes_them(scenes, tmp_path):
    """Beside the pictures, in a folder for each split, and a table of the indices."""
    for name, part in (("train", scenes[:6]), ("valid", scenes[6:])):
        (tmp_path / name).mkdir()
        for scene in part:
            Image.fromarray(scene.pixels).save(tmp_path / name / f"{scene.name}.png")
            mask = Image.fromarray(scene.mask)
            mask.save(tmp_path / name / f"{scene.name}_mask.png")
        table = "Pixel Value, Class\n0, background\n1, cup\n2, plate\n"
        (tmp_path / name / "_classes.csv").write_text(table)
    dataset = load("segment", "mask_folder", tmp_path)
    assert dataset.labels == ("background", *LABELS)
    assert (dataset.train.examples, dataset.held_out.examples) == (6, 4)
    found = targets_of(dataset)
    for scene in scenes:
        np.testing.assert_array_equal(found[scene.name], scene.mask)


def test_an_unlisted_colour_is_named(scenes, tmp_path):
    root = write_masks(tmp_path, scenes, colours=True)
    path = root / "masks" / "003.png"
    mask = np.array(Image.open(path))
    mask[:2, 0] = 7, 8, 9
    Image.fromarray(mask).save(path)
    message = r"003.png: colour 7,8,9 is none of the classes \(2 pixels\)"
    with pytest.raises(UserError, match=message):
        load("segment", "mask_folder", root)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("classes.txt", "", "no classes in it"),
        ("classes.txt", "one", "2 to 255 classes"),
        ("classes.txt", "\n".join(map(str, range(256))), "2 to 255 .*Received: 256"),
        ("labelmap.txt", "cup 1,2,3", "expected name:red,green,blue"),
        ("labelmap.txt", "cup:1,2,300::", "expected name:red,green,blue"),
        ("_classes.csv", "Pixel Value, Class\nx, y", "invalid literal"),
        ("_classes.csv", "Pixel Value, Class\n0", "_classes.csv: list index"),
        ("_classes.csv", "Pixel Value, Class\n0, a\n255, b", "255 .* is the class 'b'"),
        ("_classes.csv", "Pixel Value, Class\n0, a\n99999999, b", "out of range"),
    ],
)
def test_bad_names_of_classes_are_named(scenes, tmp_path, name, content, message):
    root = write_masks(tmp_path, scenes)
    (root / "classes.txt").unlink()
    with pytest.raises(UserError, match="nothing names the classes"):
        load("segment", "mask_folder", root)
    (root / name).write_text(content)
    skip = functools.partial(load, damaged_images="skip")
    with pytest.raises(UserError, match=message):
        skip("segment", "mask_folder", root)
