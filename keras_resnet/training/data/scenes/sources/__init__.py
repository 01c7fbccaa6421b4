"""Where datasets for detection and segmentation come from: one module each."""

import sys

from keras_resnet.runner.errors import UserError
from keras_resnet.training.data import sources as class_sources
from keras_resnet.training.data.scenes.faults import Faults
from keras_resnet.training.data.scenes.sources import (
    coco,
    digit_scenes,
    labelme,
    masks,
    tfds,
    voc,
    yolo,
)
from keras_resnet.training.data.sources import pictures, whole_and_held_out

DETECT, SEGMENT = ("detect",), ("segment",)
# name: (function of (data_dir, task, faults), the tasks that it has).
OWN_PICTURES = {
    "voc_folder": (voc.load, DETECT),
    "coco_json": (coco.load, DETECT + SEGMENT),
    "yolo_folder": (yolo.load, DETECT + SEGMENT),
    "labelme_folder": (labelme.load, DETECT + SEGMENT),
    "mask_folder": (masks.load, SEGMENT),
}


def load(task, name, data_dir=None, hold_out=None, damaged_images=None):
    """Opens a `SceneDataset`.

    Of the user's own pictures, a line on stderr says how many there are and what was
    left out.

    Args:
        task: "detect" or "segment".
        name: "digit_scenes" (embedded), one of `OWN_PICTURES` or a dataset of
            tensorflow-datasets.
        data_dir: its folder; of "coco_json" it may be a file.
        hold_out: number of training pictures to evaluate on in the place of the
            held-out split.
        damaged_images: what to do about pictures and annotations that have a fault, as
            `Faults` takes it.

    Raises:
        UserError: there is no such dataset, it is not for this task, it has a fault
            that stops, or it is not on disk and cannot be downloaded.
    """
    check_task(name, task)
    if name in OWN_PICTURES:
        read, _ = OWN_PICTURES[name]
        with pictures.unreadable_named():
            dataset = read(data_dir, task, Faults(damaged_images))
    elif name == "digit_scenes":
        dataset = digit_scenes.load(task)
    else:
        dataset = tfds.load(name, data_dir, task, ["digit_scenes", *OWN_PICTURES])
    dataset = whole_and_held_out(dataset, hold_out, damaged_images)
    if name in OWN_PICTURES:
        print(f"{data_dir}: {dataset.summary()}", file=sys.stderr)
    return dataset


def check_task(name, task):
    """Raises `UserError` if a dataset is not for a task; those of tfds are not judged.

    Args:
        name: of the dataset.
        task: "detect" or "segment".
    """
    tasks = {name: tasks for name, (_, tasks) in OWN_PICTURES.items()}
    tasks |= dict.fromkeys(class_sources.NAMES, ("classify",))
    if task not in tasks.get(name, (task,)):
        fitting = [other for other, does in tasks.items() if task in does]
        raise UserError(
            f"--dataset={name} is for --task={tasks[name][0]}; for --task={task} there "
            f"are digit_scenes, {', '.join(fitting)}. Received: --task={task}"
        )
