"""Opens the dataset of any task: pictures with classes, boxes or masks."""

from keras_resnet.training.data import sources
from keras_resnet.training.data.scenes import sources as scene_sources

CLASSIFY = "classify"


def load(task, name, data_dir=None, hold_out=None, damaged_images=None, balance=None):
    """Opens a `Dataset` to classify or a `SceneDataset`; see `train` for the arguments.

    `balance` is for classes alone.

    Raises:
        UserError: there is no such dataset, it is not for this task, it has a fault
            that stops, or it is not on disk and cannot be downloaded.
    """
    if task == CLASSIFY:
        return sources.load(name, data_dir, hold_out, damaged_images, balance)
    return scene_sources.load(task, name, data_dir, hold_out, damaged_images)
