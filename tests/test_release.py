"""What must agree before a version is uploaded; `make release` runs it on dist/."""

import os
import pathlib
import re
import tarfile

import pytest

import keras_resnet
from tests.helpers.commands import ROOT

VERSION = re.escape(keras_resnet.__version__)


def test_changelog_and_citation_are_of_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\] - (\d{4}-\d\d-\d\d|Unreleased)$", changes, re.M)
    assert newest[1] == keras_resnet.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {VERSION}$", citation, re.M)


def test_the_issue_templates_and_workflows_are_readable():
    yaml = pytest.importorskip("yaml")
    paths = [*ROOT.glob(".github/**/*.yml"), ROOT / "CITATION.cff"]
    assert len(paths) > 4
    for path in paths:
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path


def test_workflows_call_only_what_the_makefile_has():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in ROOT.glob(".github/workflows/*.yml"):
        targets = re.findall(r"run: make (\S+)", path.read_text(encoding="utf-8"))
        assert targets
        for target in targets:
            assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.skipif("DIST" not in os.environ, reason="make release sets it")
def test_dist_holds_one_wheel_and_one_source_archive_of_this_version():
    names = sorted(path.name for path in pathlib.Path(os.environ["DIST"]).iterdir())
    wheel, archive = sorted(names, key=lambda name: name.endswith(".gz"))
    assert re.fullmatch(rf"keras_resnet_zoo-{VERSION}-py3-none-any\.whl", wheel)
    assert re.fullmatch(rf"keras_resnet_zoo-{VERSION}\.tar\.gz", archive)


@pytest.mark.skipif("DIST" not in os.environ, reason="make release sets it")
def test_the_source_archive_has_licences_and_no_data_of_a_run():
    (path,) = pathlib.Path(os.environ["DIST"]).glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"LICENSE", "README.md", "pyproject.toml"} <= set(names)
    assert any(name.endswith("imagenet.LICENSE") for name in names)
    for name in names:
        assert not name.startswith((".", "build", "dist", "runs", "tests")), name
