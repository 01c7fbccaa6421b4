"""The lowest versions that pyproject.toml declares, beside the newest of the others."""

import os
import re
import subprocess

import pytest

from tests.helpers.commands import ROOT
from tests.helpers.environments import ENVIRONMENTS, python_of

# What touches the interfaces of Keras most: building, training, saving, opening.
TESTS = (
    "tests/zoo/test_model_metadata.py",
    "tests/zoo/test_rewrite.py",
    "tests/zoo/test_rewrite_folding.py",
    "tests/zoo/test_rewrite_front.py",
    "tests/zoo/test_rewrite_heads.py",
    "tests/zoo/test_convert.py::test_every_format_comes_back_exactly",
    "tests/zoo/test_convert.py::test_half_precision_is_widened_and_integers_are_refused",
    "tests/zoo/test_convert.py::test_truncated_files_are_refused",
    "tests/zoo/test_models.py::test_resnet50_has_the_layers_of_keras_applications",
    "tests/zoo/test_models.py::test_every_parameter_gets_a_gradient",
    "tests/zoo/test_models.py::test_feature_maps_are_the_ends_of_the_stages",
    "tests/zoo/test_models.py::test_entry_points_begin_like_those_of_keras_applications",
)


def test_the_environment_has_the_lower_bounds_of_the_package():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("\ndependencies = [")[2].partition("]")[0]
    bounds = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', section))
    _, packages = ENVIRONMENTS["lowest-versions"]
    pinned = dict(package.split("==") for package in packages if "==" in package)
    assert "keras" in bounds and pinned == bounds


@pytest.mark.slow
def test_the_zoo_works_with_the_lowest_versions():
    done = subprocess.run(
        [
            *(python_of("lowest-versions"), "-m", "pytest", "-q", "-m", "not slow"),
            *("-p", "no:cacheprovider", *TESTS),
        ],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]
