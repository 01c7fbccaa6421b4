"""What a run leaves in its folder, whole or damaged."""

import json

import keras
import pytest

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import Run, recipes, tasks
from keras_resnet.training.data import datasets
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs import model_file

METRICS = dict.fromkeys(tasks.TASKS["cross_entropy"].metrics(), 1)
FOLDER = {"images": 120, "sha256": "a"}
TFDS = {"name": "cifar10/3.0.2", "train_images": 50000, "held_out_images": 10000}


def open_run(directory, fingerprint=FOLDER, labels=("a", "b")):
    dataset = datasets.Dataset("folder", labels, None, None, fingerprint)
    recipe = recipes.RECIPES["digits"]
    return run_folder.open_run(
        directory,
        directory / "model.keras",
        {"seed": 0},
        recipe,
        Preprocessing((8, 8)),
        dataset,
    )


@pytest.fixture
def opened(tmp_path):
    assert open_run(tmp_path) is None
    return tmp_path


@pytest.fixture
def complete(opened):
    (opened / "metrics.json").write_text(json.dumps(METRICS))
    (opened / "model.keras").touch()
    return opened


def change_config(directory, **sections):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | sections))


DAMAGED = ("", "[]", '{"settings": {}}', "{", "[" * 9999)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_config_is_refused(tmp_path, damage):
    (tmp_path / "config.json").write_text(damage)
    with pytest.raises(UserError, match="config.json is damaged"):
        run_folder.read_config(tmp_path)


@pytest.mark.parametrize(
    "section, value",
    [
        ("settings", []),
        ("recipe", 1),
        ("recipe", {"epochs": 3}),
        ("recipe", {"pace": 3}),
        ("preprocessing", {"input_size": "x"}),
        ("preprocessing", None),
        ("labels", 7),
        ("labels", [1, 2]),
    ],
)
def test_a_config_with_a_damaged_section_is_refused(opened, section, value):
    change_config(opened, **{section: value})
    with pytest.raises(UserError, match="config.json is damaged"):
        run_folder.read_config(opened)


def test_a_run_of_the_same_settings_and_data_is_complete(complete, capsys):
    before = (complete / "config.json").read_bytes()
    assert open_run(complete) == METRICS
    assert "is complete; nothing to do" in capsys.readouterr().out
    assert (complete / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "before, now, difference",
    [
        (FOLDER, FOLDER | {"images": 150, "sha256": "b"}, "120 images then, 150 now"),
        (FOLDER, FOLDER | {"sha256": "b"}, "as many images, but other ones"),
        (TFDS, TFDS | {"name": "cifar10/4"}, "cifar10/3.0.2 then, cifar10/4 now"),
        (TFDS, TFDS | {"train_images": 9}, "50000 train images then, 9 now"),
    ],
)
def test_other_data_under_the_same_settings_is_another_run(
    complete, before, now, difference
):
    change_config(complete, data=before)
    message = f"{difference}. Use another --model_dir"
    with pytest.raises(UserError, match=message):
        open_run(complete, now)
    with pytest.raises(UserError, match=message):
        run_folder.recipe_of_begun(complete, {}, now)


def test_a_run_without_a_checkpoint_takes_the_new_data(opened):
    more = FOLDER | {"images": 150}
    assert open_run(opened, more) is None
    assert run_folder.read_config(opened)["data"] == more


def test_other_classes_are_another_run(complete):
    with pytest.raises(UserError, match="its classes are others. Use another"):
        open_run(complete, labels=("a", "c"))


def test_a_run_of_version_0_1_is_complete_too(complete):
    """It did not write what it was trained on."""
    config = json.loads((complete / "config.json").read_text())
    del config["data"]
    (complete / "config.json").write_text(json.dumps(config))
    assert open_run(complete) == METRICS


def test_a_run_is_continued_under_other_versions_with_a_warning(opened, capsys):
    versions = run_folder.versions() | {"keras": "3.0.0", "tf_keras": "9"}
    change_config(opened, versions=versions)
    assert open_run(opened) is None
    (warning,) = capsys.readouterr().err.splitlines()
    assert f"keras 3.0.0 then, {keras.__version__} now" in warning
    assert "tf_keras 9 then" in warning and "numpy" not in warning


def test_a_run_is_opened_once_it_has_ended(complete):
    run = Run.open(str(complete))
    assert run == Run.open(run)
    assert (run.directory, run.metrics) == (complete, METRICS)
    assert (run.labels, run.preprocessing) == (("a", "b"), Preprocessing((8, 8)))
    (complete / "metrics.json").unlink()
    with pytest.raises(UserError, match="has not ended: start it again"):
        Run.open(complete)
    with pytest.raises(UserError, match="holds no run"):
        Run.open(complete / "none")
    with pytest.raises(UserError, match="--model_dir must be a path. Received: 7"):
        Run.open(7)


@pytest.mark.parametrize("damage", (*DAMAGED, '{"a": 1}'))
def test_damaged_metrics_are_refused(tmp_path, damage):
    (tmp_path / "metrics.json").write_text(damage)
    with pytest.raises(UserError, match="metrics.json is damaged"):
        run_folder.read_metrics(tmp_path)


def test_keras_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "text.keras").write_text("no archive")
    for name in ("text.keras", "none.keras"):
        with pytest.raises(UserError, match=name):
            model_file.load(tmp_path / name)
