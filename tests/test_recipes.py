import pytest

import input_pipeline
import recipes


def test_learning_rate_warms_up_and_ends_at_zero():
    def rate(step):
        return recipes.learning_rate(step, peak=0.4, warmup_steps=4, total_steps=104)

    assert [rate(step) for step in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rate(4) == 0.4
    assert rate(54) == pytest.approx(0.2)  # half of the cosine
    assert rate(104) == pytest.approx(0)
    assert all(rate(step) >= rate(step + 1) for step in range(4, 104))


def test_learning_rate_without_warm_up_starts_at_its_peak():
    assert recipes.learning_rate(0, 0.1, 0, 10) == 0.1


def test_every_recipe_names_an_augmentation():
    for recipe in recipes.RECIPES.values():
        assert recipe.augmentation in input_pipeline.AUGMENTATIONS


def test_datasets_have_a_recipe():
    assert recipes.default_name("digits") == "digits"
    assert recipes.default_name("cifar10:3.0.2") == "cifar"
    assert recipes.default_name("imagenette/320px-v2") == "imagenet"
    assert recipes.default_name("folder") == "imagenet"
