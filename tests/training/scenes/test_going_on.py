"""`--weights=RUN` for boxes and masks: what is taken over, and what is refused."""

import json

import numpy as np
import pytest

from keras_resnet.runner.errors import UserError
from tests.helpers.scenes import made_scenes, train, write_labelme


@pytest.mark.slow
def test_a_run_goes_on_with_the_weights_of_a_run(scene_runs, scene_folder, tmp_path):
    """At a rate of almost 0, the scores are those of the first run."""
    before = scene_runs["detect"]
    settings = dict(weights=str(before.directory), model=None, learning_rate=1e-12)
    run = train("detect", scene_folder, tmp_path, epochs=1, **settings)
    models = [each.load_model() for each in (before, run)]
    for layer in filter(lambda layer: layer.trainable_weights, models[0].layers):
        pairs = zip(
            layer.trainable_weights,
            models[1].get_layer(layer.name).trainable_weights,
            strict=True,
        )
        for one, other in pairs:
            np.testing.assert_allclose(one, other, atol=1e-6)
    assert run.preprocessing == before.preprocessing


def test_new_classes_begin_anew_and_known_ones_stay(scene_runs, tmp_path, capsys):
    before = scene_runs["segment"]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    write_labelme(pictures, made_scenes(8))
    for path in pictures.glob("*.json"):  # the order of classes is that of names
        path.write_text(path.read_text().replace("cup", "a jug"))
    settings = dict(weights=str(before.directory), model=None, learning_rate=1e-12)
    run = train("segment", pictures, tmp_path / "run", epochs=1, **settings)
    assert "does not know a jug: their scores" in capsys.readouterr().err
    assert run.metrics == json.loads((run.directory / "metrics.json").read_text())
    assert run.labels == ("background", "a jug", "plate")
    kernels = [
        each.load_model().get_layer("logits").get_weights()[0] for each in (before, run)
    ]
    known = [(before.labels.index(x), run.labels.index(x)) for x in run.labels[::2]]
    for old, new in known:
        np.testing.assert_allclose(kernels[0][..., old], kernels[1][..., new])
    assert np.abs(kernels[0][..., 1] - kernels[1][..., 1]).max() > 1e-3


@pytest.mark.parametrize(
    ("task", "changes", "text"),
    [
        ("segment", {}, "--weights is a run of --task=detect, and one goes on with"),
        ("classify", dict(dataset="digits"), "--weights is a run of --task=detect"),
    ],
)
def test_a_run_of_another_task_is_refused(
    task, changes, text, scene_runs, scene_folder, tmp_path
):
    settings = dict(weights=str(scene_runs["detect"].directory), model=None)
    with pytest.raises(UserError, match=text):
        train(task, scene_folder, tmp_path / "run", **settings, **changes)
    assert not (tmp_path / "run").exists()
