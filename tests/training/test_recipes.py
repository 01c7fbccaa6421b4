"""Recipes against what their sources publish."""

import argparse
import dataclasses
import shlex

import pytest

from keras_resnet.training import losses, recipes, tasks
from keras_resnet.training.data import augmentation, policies
from keras_resnet.training.data.scenes import augmentation as of_scenes

# Wightman et al., arXiv 2110.00476, table 2.
TABLE_2 = """
                    A1      A3
train_size          224     160
image_size          224     224
epochs              600     100
batch_size          2048    2048
learning_rate       5e-3    8e-3
weight_decay        0.01    0.02
warmup_epochs       5       5
label_smoothing     0.1     0
stochastic_depth    0.05    0
rand_augment        7       6
mixup               0.2     0.1
cutmix              1.0     1.0
random_erasing      0       0
crop_fraction       0.95    0.95
"""
# The table only ticks repeated augmentation; timm's command has --aug-repeats=3.
REPEATS = {"A1": 3, "A3": 1}

# torchvision's references/classification/README.md: the command of ResNet-50, V2.
TORCHVISION_V2 = """
torchrun --nproc_per_node=8 train.py --model resnet50 --batch-size 128 --lr 0.5
--lr-scheduler cosineannealinglr --lr-warmup-epochs 5 --lr-warmup-method linear
--auto-augment ta_wide --epochs 600 --random-erase 0.1 --weight-decay 0.00002
--norm-weight-decay 0.0 --label-smoothing 0.1 --mixup-alpha 0.2 --cutmix-alpha 1.0
--train-crop-size 176 --model-ema --val-resize-size 232 --ra-sampler --ra-reps 4
"""


def settings(recipe):
    """Returns what a recipe sets, without what is as it is by default."""
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(recipe)
        if field.default is not dataclasses.MISSING
    }
    recipe = dataclasses.asdict(recipe)
    return {k: v for k, v in recipe.items() if k not in defaults or v != defaults[k]}


@pytest.mark.parametrize("name", ["A1", "A3"])
def test_strikes_back_is_as_in_its_table(name):
    header, *lines = TABLE_2.strip().splitlines()
    column = header.split().index(name) + 1
    table = {line.split()[0]: float(line.split()[column]) for line in lines}
    expected = dict(
        {key: value for key, value in table.items() if value},
        policy=f"rand_augment_{table['rand_augment']:.0f}",
        optimizer="lamb",
        loss="bce",
        clip_norm=1.0,  # the default of timm's LAMB
        augmentation="random_resized_crop_flip",
        interpolation="bicubic",
    )
    del expected["rand_augment"]
    if expected["train_size"] == expected["image_size"]:
        del expected["train_size"]
    if REPEATS[name] > 1:
        expected["repeats"] = REPEATS[name]
    assert settings(recipes.RECIPES[f"strikes_back_{name.lower()}"]) == expected


def test_torchvision_v2_is_as_in_its_command():
    parser = argparse.ArgumentParser()
    arguments = shlex.split(TORCHVISION_V2)
    for argument in arguments:
        if argument.startswith("--") and "=" not in argument:
            flag = argument in ("--model-ema", "--ra-sampler")
            parser.add_argument(argument, **({"action": "store_true"} if flag else {}))
    parser.add_argument("--nproc_per_node", type=int)
    command, rest = parser.parse_known_args(arguments)
    assert rest == ["torchrun", "train.py"]
    batch_size = int(command.batch_size) * command.nproc_per_node
    epochs = int(command.epochs)
    # `train.py`: an average every 32 steps, with a decay of 0.99998 for a batch of one
    # image and an epoch.
    assert command.model_ema
    moved = (1 - 0.99998) * batch_size * 32 / epochs
    steps_per_epoch = 1_281_167 / batch_size
    assert settings(recipes.RECIPES["torchvision_v2"]) == dict(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=float(command.lr),
        warmup_epochs=int(command.lr_warmup_epochs),
        weight_decay=float(command.weight_decay),
        label_smoothing=float(command.label_smoothing),
        augmentation="random_resized_crop_flip",
        policy="trivial_augment",  # ta_wide
        random_erasing=float(command.random_erase),
        mixup=float(command.mixup_alpha),
        cutmix=float(command.cutmix_alpha),
        repeats=int(command.ra_reps),
        average_epochs=pytest.approx(32 / moved / steps_per_epoch, rel=0.01),
        train_size=int(command.train_crop_size),
        image_size=224,
        crop_fraction=224 / int(command.val_resize_size),
    )


# Sentence by sentence.
PUBLISHED = {
    # He et al., section 4.2: "a weight decay of 0.0001 and momentum of 0.9 ... a
    # mini-batch size of 128 ... a learning rate of 0.1", and "identity shortcuts in all
    # cases (i.e., option A)".
    "paper_cifar": dict(
        batch_size=128,
        learning_rate=0.1,
        weight_decay=0.0001,
        momentum=0.9,
        nesterov=False,
        image_size=32,
        shortcut="A",
        optimizer="sgd",
        decay_all=True,
        warmup_epochs=0,
    ),
    # Sections 3.4 and 4.1: "SGD with a mini-batch size of 256. The learning rate starts
    # from 0.1 ... a weight decay of 0.0001 and a momentum of 0.9."
    "paper_imagenet": dict(
        batch_size=256,
        learning_rate=0.1,
        weight_decay=0.0001,
        momentum=0.9,
        nesterov=False,
        image_size=224,
        optimizer="sgd",
        decay_all=True,
        warmup_epochs=0,
        augmentation="random_scale_crop_flip",
    ),
    # torchvision's references/classification/README.md: 8 GPUs with 32 images each, 90
    # epochs, a rate of 0.1, times 0.1 every 30 epochs, momentum 0.9, decay 1e-4.
    "torchvision_v1": dict(
        epochs=90,
        batch_size=8 * 32,
        learning_rate=0.1,
        decay_epochs=(30, 60),
        momentum=0.9,
        nesterov=False,
        weight_decay=1e-4,
        decay_all=True,
        image_size=224,
        crop_fraction=224 / 256,
        optimizer="sgd",
        augmentation="random_resized_crop_flip",
        warmup_epochs=0,
    ),
    # Goyal et al., section 5.1: Nesterov momentum of 0.9, decay of 0.0001, 90 epochs;
    # section 2.1: a rate of 0.1 for 256 images; section 2.2: 5 epochs of warm-up.
    "imagenet": dict(
        epochs=90,
        batch_size=256,
        learning_rate=0.1,
        warmup_epochs=5,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.0001,
        image_size=224,
        crop_fraction=224 / 256,
        optimizer="sgd",
        augmentation="random_resized_crop_flip",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_as_published(name):
    recipe = dataclasses.asdict(recipes.RECIPES[name])
    assert {key: recipe[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    # Nothing else is set: no label smoothing, no mixup and so on.
    others = {"epochs", "decay_epochs", "augmentation", "crop_fraction"}
    assert set(settings(recipes.RECIPES[name])) <= others.union(PUBLISHED[name])


def test_fewer_epochs_average_over_fewer():
    short = recipes.with_epochs(recipes.RECIPES["torchvision_v2"], 60)
    assert short.average_epochs == pytest.approx(2.34)


def test_recipes_that_hardly_fit_are_told():
    def warning(recipe, dataset):
        return recipes.recipe_warning(recipes.RECIPES[recipe], dataset)

    assert "mirrors images" in warning("strikes_back_a3", "digits")
    assert warning("paper_cifar", "imagenet2012") == (
        "it is for images of 32 pixels, those of imagenet2012 are larger"
    )
    assert "224 pixels, those of cifar10 are smaller" in warning("imagenet", "cifar10")
    for recipe, dataset in (
        ("digits", "digits"),
        ("paper_cifar", "cifar100"),
        ("strikes_back_a1", "imagenet2012"),
        ("torchvision_v2", "imagenette/320px-v2"),
        ("cifar", "mnist"),  # of which nothing is known
        ("paper_cifar", "folder"),
    ):
        assert warning(recipe, dataset) is None


def test_datasets_have_a_recipe():
    assert recipes.default_name("digits") == "digits"
    assert recipes.default_name("cifar10:3.0.2") == "cifar"
    assert recipes.default_name("imagenette/320px-v2") == "imagenet"
    assert recipes.default_name("folder") == "finetune"
    assert recipes.default_name("folder", weights="none") == "imagenet"
    assert recipes.default_model("digits") == "resnet20"
    assert recipes.default_model("imagenette/320px-v2") == "resnet20"
    assert recipes.default_model("folder") == "resnet20_224"
    for task in ("detect", "segment"):
        assert recipes.default_name("voc_folder", task=task) == task
        assert recipes.default_name("digit_scenes", task=task) == f"{task}_digits"
        assert recipes.default_model("digit_scenes", task) == "resnet14"
        assert recipes.default_model("coco_json", task) == "resnet16_224"
    assert recipes.epochs_for(400, "detect") == 40


def test_rates_scale_with_the_batch_by_the_optimizer_s_rule():
    assert recipes.RECIPES["imagenet"].scaled_rate(1024) == pytest.approx(0.4)
    assert recipes.RECIPES["strikes_back_a3"].scaled_rate(512) == pytest.approx(4e-3)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_names_what_exists(name):
    recipe = recipes.RECIPES[name]
    if recipe.task == "classify":
        assert recipe.augmentation in augmentation.AUGMENTATIONS
        assert recipe.loss in losses.LOSSES
    else:
        assert recipe.augmentation in of_scenes.AUGMENTATIONS
        assert recipe.loss in tasks.TASKS
    assert recipe.policy is None or recipe.policy in policies.POLICIES
    assert recipe.optimizer in ("sgd", "lamb", "adamw")
