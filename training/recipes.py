"""Hyperparameters as data, and learning rates as pure functions."""

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train on one kind of data.

    Attributes:
        epochs: passes over the training split.
        batch_size: examples in one step, over all replicas.
        learning_rate: highest learning rate, for `batch_size` examples; it
            scales linearly with another batch size (Goyal et al., arXiv
            1706.02677, section 2.1).
        warmup_epochs: epochs of linear growth from 0 to `learning_rate`; a
            cosine to 0 follows.
        momentum: of SGD with Nesterov momentum.
        weight_decay: decoupled, times the learning rate, on convolution and
            classifier kernels only, not on biases and batch normalization.
        label_smoothing: share of the target spread over all classes.
        augmentation: a name of `input_pipeline.AUGMENTATIONS`.
        image_size: side of the square image, in pixels.
        crop_fraction: see `keras_resnet.preprocessing.Preprocessing`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: float
    weight_decay: float
    augmentation: str
    image_size: int
    crop_fraction: float = 1.0
    momentum: float = 0.9
    label_smoothing: float = 0.0


RECIPES = {
    # scikit-learn's 1,797 digits, enlarged from 8x8; shifts, but no flips: a
    # mirrored 2 is no 2. About a minute for ResNet-20 on two CPU cores.
    "digits": Recipe(
        epochs=10,
        batch_size=64,
        learning_rate=0.1,
        warmup_epochs=1,
        weight_decay=5e-4,
        augmentation="pad_crop",
        image_size=32,
    ),
    # CIFAR: augmentation and batch of the paper (section 4.2) with the cosine
    # schedule and Nesterov momentum that are common since.
    "cifar": Recipe(
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        warmup_epochs=1,
        weight_decay=5e-3,
        augmentation="pad_crop_flip",
        image_size=32,
    ),
    # Photographs: the 90-epoch practice for ImageNet (Goyal et al.), cosine.
    "imagenet": Recipe(
        epochs=90,
        batch_size=256,
        learning_rate=0.1,
        warmup_epochs=5,
        weight_decay=1e-3,
        augmentation="random_resized_crop_flip",
        image_size=224,
        crop_fraction=0.875,
    ),
}

# Datasets that have a recipe of their own; all others take "imagenet".
_DEFAULTS = {"digits": "digits", "cifar10": "cifar", "cifar100": "cifar"}


def default_name(dataset):
    """Returns the name of the recipe for a dataset."""
    return _DEFAULTS.get(re.split("[:/]", dataset)[0], "imagenet")


def learning_rates(recipe, steps_per_epoch):
    """Returns the learning rate of every step of a run, as a list."""
    return [
        learning_rate(
            step,
            recipe.learning_rate,
            int(recipe.warmup_epochs * steps_per_epoch),
            recipe.epochs * steps_per_epoch,
        )
        for step in range(recipe.epochs * steps_per_epoch)
    ]


def learning_rate(step, peak, warmup_steps, total_steps):
    """Returns the learning rate of one step: linear warm-up, cosine to 0.

    Args:
        step: number of the step, from 0.
        peak: highest learning rate.
        warmup_steps: steps until it is reached.
        total_steps: steps of the whole run.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
