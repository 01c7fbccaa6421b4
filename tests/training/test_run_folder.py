"""What a run leaves in its folder, whole or damaged."""

import dataclasses
import json

import pytest

from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import recipes
from keras_resnet.training.runs import folder as run_folder


@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 0


@pytest.fixture
def claimed(tmp_path):
    recipe = recipes.RECIPES["digits"]
    run_folder.claim(
        tmp_path, tmp_path / "x", Settings(), recipe, Preprocessing((8, 8)), ("a", "b")
    )
    return tmp_path


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
def test_a_config_with_a_damaged_section_is_refused(claimed, section, value):
    config = run_folder.read_config(claimed)
    (claimed / "config.json").write_text(json.dumps({**config, section: value}))
    with pytest.raises(UserError, match="config.json is damaged"):
        run_folder.read_config(claimed)


def test_a_run_of_an_earlier_version_is_read(claimed):
    """What was added to the recipes since has its default."""
    config = run_folder.read_config(claimed)
    earlier = {k: v for k, v in config["recipe"].items() if k != "mixup"}
    (claimed / "config.json").write_text(json.dumps({**config, "recipe": earlier}))
    recipe = recipes.Recipe(**run_folder.read_config(claimed)["recipe"])
    assert recipe == recipes.RECIPES["digits"]


def test_a_run_of_an_earlier_version_goes_on(claimed):
    """What it could not be asked for, it did not use."""

    @dataclasses.dataclass(frozen=True)
    class Later(Settings):
        freeze: tuple = ()

    config = run_folder.read_config(claimed)
    earlier = {k: v for k, v in config["recipe"].items() if k != "interpolation"}
    (claimed / "config.json").write_text(json.dumps({**config, "recipe": earlier}))
    (claimed / "checkpoints").mkdir()
    (claimed / "checkpoints" / "step-00000001.npz").touch()

    def claim(settings):
        others = recipes.RECIPES["digits"], Preprocessing((8, 8)), ("a", "b")
        return run_folder.claim(claimed, claimed / "x", settings, *others)

    assert claim(Later()) is None
    with pytest.raises(UserError, match="freeze=.default. there, .'ranges'. received"):
        claim(Later(freeze=("ranges",)))


@pytest.mark.parametrize("damage", (*DAMAGED, '{"a": 1}'))
def test_damaged_metrics_are_refused(tmp_path, damage):
    (tmp_path / "metrics.json").write_text(damage)
    with pytest.raises(UserError, match="metrics.json is damaged"):
        run_folder.read_metrics(tmp_path)


def test_keras_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "text.keras").write_text("no archive")
    for name in ("text.keras", "none.keras"):
        with pytest.raises(UserError, match=name):
            run_folder.load_keras_file(tmp_path / name)
