import dataclasses

import pytest

from keras_resnet.training import losses, recipes
from keras_resnet.training.data import augmentation, policies

COSINE = dataclasses.replace(
    recipes.RECIPES["cifar"], learning_rate=0.4, epochs=26, warmup_epochs=1
)


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = recipes.learning_rates(COSINE, 4)
    assert len(rates) == 104
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[54] == pytest.approx(0.2)  # half of the cosine
    assert all(one >= other for one, other in zip(rates[4:], rates[5:], strict=False))
    assert 0 < rates[-1] < 0.001


def test_learning_rate_without_warm_up_starts_at_its_peak():
    recipe = dataclasses.replace(COSINE, warmup_epochs=0)
    assert recipes.learning_rates(recipe, 4)[0] == 0.4


def test_the_paper_divides_the_rate_at_32k_and_48k_of_64k_iterations():
    rates = recipes.learning_rates(recipes.RECIPES["paper_cifar"], 50_000 // 128)
    assert len(rates) == pytest.approx(64_000, abs=100)
    for first, last, rate in ((0, 31_900, 0.1), (32_100, 47_900, 0.01)):
        assert rates[first:last] == pytest.approx([rate] * (last - first))
    assert rates[48_100:] == pytest.approx([0.001] * len(rates[48_100:]))


def test_fewer_epochs_move_the_decays_in_proportion():
    short = recipes.with_epochs(recipes.RECIPES["torchvision_v1"], 9)
    assert recipes.learning_rates(short, 1) == pytest.approx(
        [0.1] * 3 + [0.01] * 3 + [0.001] * 3
    )


def test_a_short_run_warms_up_no_longer_than_a_tenth_and_ends_low():
    for name, recipe in recipes.RECIPES.items():
        for epochs in (1, 5, 20):
            short = recipes.with_epochs(recipe, epochs)
            rates = recipes.learning_rates(short, 100)
            assert rates.index(max(rates)) <= 10 * epochs, name
            assert rates[-1] <= 0.1 * recipe.learning_rate, name
    assert recipes.with_epochs(recipes.RECIPES["cifar"], 80).warmup_epochs == 1


def test_fewer_epochs_average_over_fewer():
    short = recipes.with_epochs(recipes.RECIPES["torchvision_v2"], 60)
    assert short.average_epochs == pytest.approx(2.34)


def test_recipes_that_hardly_fit_are_told():
    def misfit(recipe, dataset):
        return recipes.misfit(recipes.RECIPES[recipe], dataset)

    assert "mirrors images" in misfit("strikes_back_a3", "digits")
    assert misfit("paper_cifar", "imagenet2012") == (
        "it is for images of 32 pixels, those of imagenet2012 are larger"
    )
    assert "224 pixels, those of cifar10 are smaller" in misfit("imagenet", "cifar10")
    for recipe, dataset in (
        ("digits", "digits"),
        ("paper_cifar", "cifar100"),
        ("strikes_back_a1", "imagenet2012"),
        ("torchvision_v2", "imagenette/320px-v2"),
        ("cifar", "mnist"),  # of which nothing is known
        ("paper_cifar", "folder"),
    ):
        assert misfit(recipe, dataset) is None


def test_every_recipe_names_an_augmentation():
    for recipe in recipes.RECIPES.values():
        assert recipe.augmentation in augmentation.AUGMENTATIONS


def test_datasets_have_a_recipe():
    assert recipes.default_name("digits") == "digits"
    assert recipes.default_name("cifar10:3.0.2") == "cifar"
    assert recipes.default_name("imagenette/320px-v2") == "imagenet"
    assert recipes.default_name("folder") == "imagenet"


def test_rates_scale_with_the_batch_by_the_optimizer_s_rule():
    assert recipes.RECIPES["imagenet"].scaled_rate(1024) == pytest.approx(0.4)
    assert recipes.RECIPES["strikes_back_a3"].scaled_rate(512) == pytest.approx(4e-3)


def test_every_recipe_names_what_exists():
    for recipe in recipes.RECIPES.values():
        assert recipe.loss in losses.LOSSES
        assert recipe.policy is None or recipe.policy in policies.POLICIES
        assert recipe.optimizer in ("sgd", "lamb")
