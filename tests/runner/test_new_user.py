"""From photographs to a classifier with `unknown`, under every Python of a device."""

import shutil
import sys

import pytest

from tests.helpers import lessons
from tests.helpers.runner import ENVIRONMENTS, python_environment

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("python", ["here", *ENVIRONMENTS])
def test_a_new_user_learns_classifies_and_adds_a_class(photographed, python, tmp_path):
    folder = shutil.copytree(photographed, tmp_path / "home")
    found = sys.executable if python == "here" else python_environment(python)
    lessons.learn_as_a_new_user([found], folder)


@pytest.mark.parametrize("python", ENVIRONMENTS)
def test_the_runner_is_a_module_of_their_own_program(
    photographed, models, python, tmp_path
):
    home = photographed
    photo, mine = home / "new" / "palace.jpg", tmp_path / "mine.json"
    first, *others, pictures, label = lessons.answers_of_the_module(
        [python_environment(python)],
        models["full"],
        home / "features.tflite",
        photo,
        home / "photos",
        mine,
    )
    assert others == [first, first] and label == "palace"
    assert "'palace': 20" in pictures
