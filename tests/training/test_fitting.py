"""A recipe for a dataset that is smaller than its batch."""

import dataclasses

import pytest
import tensorflow as tf

from keras_resnet import training
from keras_resnet.runner.errors import UserError
from keras_resnet.training import recipes
from keras_resnet.training.data.datasets import Dataset, Split
from keras_resnet.training.fitting import fitted
from tests.helpers.runs import silent, two_replicas

IMAGENET = recipes.RECIPES["imagenet"]  # 256 images at 0.1


def of(examples):
    return Dataset("folder", ("a", "b"), Split(examples, None), Split(9, None), {})


def fit(examples, recipe=IMAGENET, strategy=None, **given):
    return fitted(
        recipe, of(examples), strategy or tf.distribute.get_strategy(), **given
    )


@pytest.mark.parametrize(
    "examples, batch_size",
    [(255, 32), (128, 32), (127, 16), (96, 16), (29, 8), (8, 8), (7, 4), (2, 2)],
)
def test_a_small_dataset_gets_a_smaller_batch_and_rate(examples, batch_size, capsys):
    recipe = fit(examples)
    assert recipe.batch_size == batch_size
    assert recipe.learning_rate == pytest.approx(0.1 * batch_size / 256)
    rest = dataclasses.replace(recipe, batch_size=256, learning_rate=0.1)
    assert rest == IMAGENET
    assert capsys.readouterr().err == (
        f"batch_size is {batch_size} instead of 256, because there are {examples} "
        f"training images; learning_rate is {recipe.learning_rate:g}\n"
    )


def test_a_batch_that_fits_stays(capsys):
    assert fit(256) is IMAGENET
    assert capsys.readouterr().err == ""


def test_what_the_user_gave_is_not_changed(capsys):
    with pytest.raises(UserError, match="at most the 100 training images.*: 256"):
        fit(100, batch_size=256)
    assert fit(100, learning_rate=0.5).learning_rate == 0.5


def test_replicas_and_pairs_share_the_smaller_batch():
    mixed = dataclasses.replace(IMAGENET, mixup=0.2)
    assert fit(6, mixed, two_replicas()).batch_size == 4
    with pytest.raises(UserError, match="at most the 3"):
        fit(3, mixed, two_replicas())


def test_lambs_rate_is_scaled_by_the_root():
    recipe = recipes.RECIPES["strikes_back_a3"]  # 2048 at 0.008
    assert fit(128, recipe).learning_rate == pytest.approx(0.008 / 8)


def test_a_folder_trains_from_random_weights(photos, tmp_path, capsys):
    run = training.train(
        model="resnet8",
        dataset="folder",
        data_dir=photos,
        image_size=32,
        weights="none",
        epochs=1,
        model_dir=tmp_path / "run",
        progress=silent,
    )
    assert run.metrics["examples_evaluated"] == 2
    assert "batch_size is 8 instead of 256" in capsys.readouterr().err
    again = training.train(
        model="resnet8",
        dataset="folder",
        data_dir=photos,
        image_size=32,
        weights="none",
        epochs=1,
        model_dir=tmp_path / "run",
    )
    assert again.metrics == run.metrics
    (photos / "cat" / "0.png").unlink()
    (photos / "cat" / "1.png").unlink()  # 7 are left to train on
    with pytest.raises(UserError, match="the data has changed since: 10 images then"):
        training.train(
            model="resnet8",
            dataset="folder",
            data_dir=photos,
            image_size=32,
            weights="none",
            epochs=1,
            model_dir=tmp_path / "run",
        )
