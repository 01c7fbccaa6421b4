"""Bad annotations: each has one line, and the run stops or goes on as it is told."""

import json
import pathlib
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes.sources import load
from tests.helpers.scenes import WRITERS, made_scenes, targets_of, write_yolo


def set_corner(text, name, value):
    """Changes a corner of the first box of an XML file."""
    before, start, rest = text.partition(f"<{name}>")
    return before + start + value + rest[rest.index("<") :]


def in_xml(**corners):
    def change(root):
        file = root / "000.xml"
        text = file.read_text()
        for name, value in corners.items():
            text = set_corner(text, name, value)
        file.write_text(text)

    return change


def in_json(function):
    def change(root):
        file = root / "_annotations.coco.json"
        content = json.loads(file.read_text())
        function(content)
        file.write_text(json.dumps(content))

    return change


def set_item(*path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return in_json(change)


def written(name, content):
    return lambda root: (root / name).write_text(content)


def added_line(line):
    def change(root):
        with open(root / "labels" / "train" / "000.txt", "a") as file:
            file.write(f"\n{line}\n")

    return change


def mask_of_another_size(root):
    Image.new("L", (5, 5)).save(root / "masks" / "000.png")


def mask_with_index_9(root):
    path = root / "masks" / "000.png"
    mask = np.array(Image.open(path))
    mask[3, 4] = 9
    Image.fromarray(mask).save(path)


def colour_mask(root):
    path = root / "masks" / "000.png"
    Image.open(path).convert("RGB").save(path)


HOSTILE = """<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">%s]>
<annotation><object><name>&b;</name></object></annotation>"""
EXTERNAL = '<!ENTITY c SYSTEM "file:///etc/hostname">'

# What only costs a box: (dataset, what is changed, the line).
SLIGHT = {
    "no width": ("voc_folder", in_xml(xmin="7", xmax="7"), "000.xml: .* has no area"),
    "corners swapped": ("voc_folder", in_xml(ymin="50", ymax="3"), "has no area"),
    "outside": (
        "voc_folder",
        in_xml(xmin="500", xmax="600"),
        "lies outside of the picture of 90 x 60 pixels",
    ),
    "no area in COCO": (
        "coco_json",
        set_item("annotations", 0, "bbox", value=[3, 3, 0, 9]),
        "annotation 1|000.png: the box of .* has no area",
    ),
    "outside in YOLO": (
        "yolo_folder",
        added_line("1 2.5 2.5 0.1 0.1"),
        "000.txt: the box of plate .* lies outside of the picture",
    ),
}
# What costs a picture or an object that may be right.
GRAVE = {
    "no number": ("voc_folder", in_xml(xmin="seven"), "000.xml: could not convert"),
    "not finite": ("voc_folder", in_xml(xmax="nan"), "000.xml: .* no finite number"),
    "no XML": ("voc_folder", written("000.xml", "<annotation>"), "000.xml: no valid"),
    "no encoding": (
        "voc_folder",
        written("000.xml", '<?xml version="1.0" encoding="foo-bar"?><annotation/>'),
        "000.xml: no valid XML: .*foo-bar",
    ),
    "endless width": (
        "voc_folder",
        written(
            "000.xml",
            "<annotation><size><width>1e999</width><height>1</height></size>"
            "</annotation>",
        ),
        "000.xml: no size of a picture",
    ),
    "hostile XML": (
        "voc_folder",
        written("000.xml", HOSTILE % ""),
        "000.xml: it has a DOCTYPE",
    ),
    "external entity": (
        "voc_folder",
        written("000.xml", HOSTILE % EXTERNAL),
        "000.xml: it has a DOCTYPE",
    ),
    "other size": (
        "voc_folder",
        lambda root: Image.new("RGB", (60, 90)).save(root / "000.png"),
        "000.xml is for 90 x 60 pixels, but .*000.png has 60 x 90",
    ),
    "no picture": ("voc_folder", written("000.png", "text"), "000.png: .*identify"),
    "missing picture": (
        "coco_json",
        lambda root: (root / "000.png").unlink(),
        "_annotations.coco.json: no such picture: 000.png",
    ),
    "unknown category": (
        "coco_json",
        set_item("annotations", 0, "category_id", value=99),
        "an object of class 'id 99', which is none of the 2 classes",
    ),
    "no box": (
        "coco_json",
        set_item("annotations", 0, "bbox", value=[1, 2]),
        "annotation 1: ValueError",
    ),
    "unlisted picture": (
        "coco_json",
        set_item("annotations", 0, "image_id", value=12345),
        "1 annotations of image 12345, which is not listed",
    ),
    "annotation of no picture": (
        "coco_json",
        in_json(lambda content: content["annotations"].append(["cup"])),
        "annotation .*: TypeError",
    ),
    "id that is a list": (
        "coco_json",
        in_json(lambda content: content["annotations"].append({"image_id": []})),
        "annotation .*: TypeError",
    ),
    "same id": (
        "coco_json",
        set_item("images", 1, "id", value=7),  # the one without objects
        "image 1: ValueError.*another image has the id 7 too",
    ),
    "entry without a name": (
        "coco_json",
        in_json(lambda content: content["images"][3].pop("file_name")),
        "image 3: KeyError",
    ),
    "unknown index": (
        "yolo_folder",
        added_line("7 0.5 0.5 0.1 0.1"),
        "000.txt: an object of class 'number 7', which is none of the 2 classes",
    ),
    "three numbers": (
        "yolo_folder",
        added_line("1 0.5 0.5"),
        "000.txt, line .*: expected class x y width height",
    ),
    "words": ("yolo_folder", added_line("cup 0.5 0.5 1 1"), "000.txt, line .*invalid"),
    "no JSON": ("labelme_folder", written("000.json", "{"), "000.json is no file"),
    "a line": (
        "labelme_folder",
        written(
            "000.json",
            '{"shapes": [{"label": "cup", "shape_type": "line", "points": [[1, 2]]}]}',
        ),
        "000.json is no file of LabelMe: .*a line of 'cup' has no area",
    ),
    "no points": (
        "labelme_folder",
        written("000.json", '{"shapes": [{"label": "cup", "points": []}]}'),
        "000.json is no file of LabelMe",
    ),
    "a point beyond all numbers": (
        "labelme_folder",
        written(
            "000.json",
            '{"shapes": [{"label": "cup", "points": [[1%s, 2], [3, 4], [5, 6]]}]}'
            % ("0" * 400),
        ),
        "000.json is no file of LabelMe: OverflowError",
    ),
    "a bitmap that is none": (
        "labelme_folder",
        written(
            "000.json",
            '{"shapes": [{"label": "cup", "shape_type": "mask", "mask": "AAAA", '
            '"points": [[1, 2], [3, 4]]}]}',
        ),
        "000.json is no file of LabelMe: .*identify",
    ),
    "a circle of one point": (
        "labelme_folder",
        written(
            "000.json",
            '{"shapes": [{"label": "cup", "shape_type": "circle", '
            '"points": [[1, 2], [1, 2]]}]}',
        ),
        "a circle of 'cup' has no area",
    ),
    "mask of another size": (
        "mask_folder",
        mask_of_another_size,
        "masks/000.png is for 5 x 5 pixels, but .*000.png has 90 x 60",
    ),
    "unlisted mask index": (
        "mask_folder",
        mask_with_index_9,
        r"masks/000.png: index 9 is none of the classes \(1 pixels\)",
    ),
    "colours without a map": (
        "mask_folder",
        colour_mask,
        "masks/000.png: a mask of class indices .* not RGB; .* labelmap.txt",
    ),
    "damaged mask": ("mask_folder", written("masks/000.png", ""), "000.png: cannot"),
}


@pytest.fixture
def opened(tmp_path, capsys):
    """A function that writes a dataset, damages it and opens it."""

    def open_it(name, change, damaged_images):
        root = WRITERS[name](tmp_path / str(damaged_images), made_scenes())
        change(root)
        task = "segment" if name == "mask_folder" else "detect"
        dataset = load(task, name, root, damaged_images=damaged_images)
        lines = capsys.readouterr().err.splitlines()
        return dataset, [line for line in lines if line.startswith("warning: ")]

    return open_it


@pytest.mark.parametrize("name, change, line", SLIGHT.values(), ids=SLIGHT)
def test_a_bad_box_is_named_and_left_out(opened, name, change, line):
    objects = sum(len(scene.classes) for scene in made_scenes())
    for damaged_images in (None, "skip"):
        dataset, warnings = opened(name, change, damaged_images)
        assert len(warnings) == 1 and warnings[0].endswith(": left out")
        assert_matches(line, warnings[0])
        found = targets_of(dataset)
        assert len(found) == 10
        left = sum(len(target.classes) for target in found.values())
        assert left == objects - (name != "yolo_folder")
    with pytest.raises(UserError, match=line) as raised:
        opened(name, change, "stop")
    assert "--damaged_images=skip goes on" in str(raised.value)


def assert_matches(pattern, text):
    assert re.search(pattern, text), text


@pytest.mark.parametrize("name, change, line", GRAVE.values(), ids=GRAVE)
def test_what_may_cost_a_right_answer_stops_unless_told_to_go_on(
    opened, name, change, line
):
    for damaged_images in (None, "stop"):
        with pytest.raises(UserError, match=line) as raised:
            opened(name, change, damaged_images)
        assert "\n" not in str(raised.value)
    dataset, warnings = opened(name, change, "skip")
    assert len(warnings) == 1
    assert_matches(line, warnings[0])
    assert dataset.train.examples + dataset.held_out.examples in (9, 10)


def test_what_reaches_beyond_the_picture_is_cut_off(opened):
    dataset, warnings = opened("voc_folder", in_xml(ymax="61.5"), None)
    assert len(warnings) == 1
    assert "reaches beyond the picture of 90 x 60 pixels: cut off" in warnings[0]
    target = targets_of(dataset)["000"]
    assert target.boxes[0, 2] == 1
    # Tools round: less than a pixel is no fault.
    dataset, warnings = opened("voc_folder", in_xml(ymax="60.9"), "stop")
    assert not warnings and targets_of(dataset)["000"].boxes[0, 2] == 1


def test_many_faults_of_one_kind_have_ten_lines_and_a_number(tmp_path, capsys):
    root = write_yolo(tmp_path, made_scenes())
    for _ in range(25):
        added_line("0 0.5 0.5 0 0.1")(root)
    load("detect", "yolo_folder", root)
    *lines, last = [
        line for line in capsys.readouterr().err.splitlines() if "warning" in line
    ]
    assert len(lines) == 10 and last == "warning: 15 more boxes of no area"


def test_pictures_without_an_annotation_are_left_out_and_counted(tmp_path, capsys):
    root = WRITERS["voc_folder"](tmp_path, made_scenes())
    for name in ("003", "004"):
        (root / f"{name}.xml").unlink()
    dataset = load("detect", "voc_folder", root)
    assert dataset.train.examples + dataset.held_out.examples == 8
    assert "left out: 2 pictures without an XML file" in capsys.readouterr().err


def test_classes_without_objects_to_train_on_are_left_out_and_named(tmp_path, capsys):
    root = write_yolo(tmp_path, made_scenes())
    config = yaml.safe_load((root / "data.yaml").read_text())
    config["names"] = ["saucer", "cup", "plate"]
    for text in (root / "labels").rglob("*.txt"):
        lines = [f"{int(x[0]) + 1}{x[1:]}" for x in text.read_text().splitlines()]
        text.write_text("\n".join(lines))
    (root / "data.yaml").write_text(yaml.safe_dump(config))
    dataset = load("detect", "yolo_folder", root)
    assert dataset.labels == ("cup", "plate")
    assert "classes without objects to train on: 'saucer'" in capsys.readouterr().err
    found = targets_of(dataset)
    assert found["000"].classes.tolist() == made_scenes()[0].classes


def test_held_out_objects_of_a_class_that_is_not_learned_are_a_fault(tmp_path, capsys):
    root = write_yolo(tmp_path, made_scenes())
    config = yaml.safe_load((root / "data.yaml").read_text())
    config["names"].append("fork")
    (root / "data.yaml").write_text(yaml.safe_dump(config))
    with open(root / "labels" / "val" / "009.txt", "a") as file:
        file.write("\n2 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UserError, match="009.txt: an object of class 'fork', which"):
        load("detect", "yolo_folder", root)
    dataset = load("detect", "yolo_folder", root, damaged_images="skip")
    assert dataset.labels == ("cup", "plate")
    assert len(targets_of(dataset)["009"].classes) == len(made_scenes()[9].classes)


@pytest.mark.parametrize(
    "content, message",
    [
        ("[", "is no data.yaml"),
        ("!!python/object/apply:os.system [id]", "is no data.yaml"),
        ("train: images", "lacks 'names'"),
        ("names: [a, a]\ntrain: x\nval: y", "a name of its own"),
        ("names: [a]\ntrain: images/train", "needs 'train' and 'val'"),
        ("names: [a]\ntrain: nowhere\nval: images/val", "no such folder: .*nowhere"),
    ],
)
def test_a_bad_data_yaml_is_named(tmp_path, content, message):
    root = write_yolo(tmp_path, made_scenes())
    (root / "data.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load("detect", "yolo_folder", root)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": 3}', "[" * 100_000])
def test_what_is_no_coco_file_is_named(tmp_path, content):
    file = pathlib.Path(tmp_path, "labels.json")
    file.write_text(content)
    with pytest.raises(UserError, match="labels.json is no COCO file"):
        load("detect", "coco_json", file)
