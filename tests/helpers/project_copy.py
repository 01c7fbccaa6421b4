"""Copies of what ships, for tests that ship weights of their own."""

import contextlib
import shutil

import pytest

from keras_resnet.weights import registry
from tests.helpers.commands import ROOT


def copy_project(root):
    """Copies the registry and its page, without the weights that ship.

    Returns:
        The copy of the folder `keras_resnet/weights`.
    """
    (root / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "weights.md", root / "docs")
    package = root / "keras_resnet" / "weights"
    ignored = shutil.ignore_patterns("__pycache__", "pretrained")
    shutil.copytree(registry.PACKAGE, package, ignore=ignored)
    table = package / "weights.tsv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(row for row in rows if "\tpretrained/" not in row))
    return package


@contextlib.contextmanager
def in_the_place_of_ours(package):
    """Lets the registry read the tables and files of a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "PACKAGE", package)
        registry.weight_files.cache_clear()
        yield package
    registry.weight_files.cache_clear()
