"""The learning rate of every step."""

import dataclasses
import math

import pytest

from keras_resnet.training import recipes
from keras_resnet.training.schedules import learning_rates

COSINE = dataclasses.replace(
    recipes.RECIPES["cifar"], learning_rate=0.4, epochs=26, warmup_epochs=1
)


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = learning_rates(COSINE, 4)
    assert len(rates) == 104
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[54] == pytest.approx(0.2)  # half of the cosine
    assert all(one >= other for one, other in zip(rates[4:], rates[5:], strict=False))
    assert 0 < rates[-1] < 0.001


def test_the_rate_falls_along_a_cosine():
    """Loshchilov and Hutter, arXiv 1608.03983, equation 5, with a lowest rate of 0."""
    rates = learning_rates(COSINE, 100)[100:]
    assert rates == pytest.approx(
        [
            0.2 * (1 + math.cos(step / len(rates) * math.pi))
            for step in range(len(rates))
        ]
    )


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_the_rate_grows_linearly_for_the_epochs_of_the_warm_up(name):
    recipe = recipes.RECIPES[name]
    rates = learning_rates(recipe, 10)
    warmup = recipe.warmup_epochs * 10
    expected = [recipe.learning_rate * (step + 1) / warmup for step in range(warmup)]
    assert rates[:warmup] == pytest.approx(expected)
    assert rates[warmup] == recipe.learning_rate == max(rates)


def test_learning_rate_without_warm_up_starts_at_its_peak():
    recipe = dataclasses.replace(COSINE, warmup_epochs=0)
    assert learning_rates(recipe, 4)[0] == 0.4


@pytest.mark.parametrize(
    "name, steps_per_epoch, steps, decays",
    [
        # He et al., section 4.2: "divide it by 10 at 32k and 48k iterations, and
        # terminate training at 64k iterations", of 50,000 images in batches of 128.
        ("paper_cifar", 50_000 // 128, 64_000, (32_000, 48_000)),
        # Section 3.4: "up to 60 x 10^4 iterations", of 256 of ImageNet's images; the
        # rate was divided where the error had stopped falling, three times (figure 4).
        ("paper_imagenet", 1_281_167 // 256, 600_000, (150_000, 300_000, 450_000)),
    ],
)
def test_the_paper_divides_the_rate_at_its_iterations(
    name, steps_per_epoch, steps, decays
):
    rates = learning_rates(recipes.RECIPES[name], steps_per_epoch)
    assert len(rates) == pytest.approx(steps, rel=0.002)
    starts = (0, *decays)
    for rate, start, end in zip(
        (0.1, 0.01, 0.001, 0.0001), starts, (*decays, steps), strict=False
    ):
        margin = steps // 500
        part = rates[start + margin * (start > 0) : end - margin]
        assert (min(part), max(part)) == pytest.approx((rate, rate))


def test_fewer_epochs_move_the_decays_in_proportion():
    short = recipes.with_epochs(recipes.RECIPES["torchvision_v1"], 9)
    assert learning_rates(short, 1) == pytest.approx(
        [0.1] * 3 + [0.01] * 3 + [0.001] * 3
    )


@pytest.mark.parametrize("name", recipes.RECIPES)
@pytest.mark.parametrize("epochs", [1, 5, 20])
def test_a_short_run_warms_up_no_longer_than_a_tenth_and_ends_low(name, epochs):
    recipe = recipes.RECIPES[name]
    rates = learning_rates(recipes.with_epochs(recipe, epochs), 100)
    assert rates.index(max(rates)) <= 10 * epochs
    assert rates[-1] <= 0.1 * recipe.learning_rate


def test_a_run_of_many_epochs_warms_up_as_long_as_its_recipe_says():
    assert recipes.with_epochs(recipes.RECIPES["cifar"], 80).warmup_epochs == 1
