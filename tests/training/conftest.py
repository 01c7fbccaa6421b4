"""Datasets that several modules of tests read."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_resnet.training.data import batching, sources
from tests.helpers.datasets import prepare, write_photos


@pytest.fixture(scope="session")
def digits():
    return sources.load("digits")


@pytest.fixture
def photos(tmp_path):
    """A folder of ten pictures of cats and dogs."""
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def in_files(tmp_path_factory):
    """The folder of a dataset of tensorflow-datasets: 400 images in four files."""
    images = np.random.default_rng(0).integers(0, 256, (402, 32, 32, 3), np.uint8)
    folder = tmp_path_factory.mktemp("tfds")
    examples = [(image, index % 3) for index, image in enumerate(images)]
    prepare("noise", folder, shards=4, train=examples[:400], test=examples)
    return folder


@pytest.fixture
def streamed(in_files, monkeypatch):
    """The dataset, as if it were too large for the memory."""
    monkeypatch.setattr(batching, "CACHE_BYTES", 0)
    monkeypatch.setattr(tfds, "list_builders", lambda **_: ["noise"])
    return sources.load("noise", in_files)
