"""Datasets that several modules of tests read."""

import pytest

from keras_resnet.training.data.scenes import sources
from tests.helpers.scenes import made_scenes, write_labelme


@pytest.fixture(scope="session")
def digit_scenes():
    """{task: the embedded dataset}."""
    return {task: sources.load(task, "digit_scenes") for task in ("detect", "segment")}


@pytest.fixture(scope="session")
def annotated(tmp_path_factory):
    """Made scenes of many sizes in files, and {task: their dataset}."""
    scenes = made_scenes(13)
    root = write_labelme(tmp_path_factory.mktemp("scenes"), scenes)
    return scenes, {
        task: sources.load(task, "labelme_folder", root)
        for task in ("detect", "segment")
    }
