"""Hyperparameters as data, and learning rates as pure functions."""

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train on one kind of data, with SGD.

    Attributes:
        epochs: passes over the training split.
        batch_size: examples in one step, over all replicas.
        learning_rate: highest learning rate, for `batch_size` examples; it
            scales linearly with another batch size (Goyal et al., arXiv
            1706.02677, section 2.1).
        warmup_epochs: epochs of linear growth from 0 to `learning_rate`.
        decay_epochs: epochs at whose end the rate is divided by 10; where there
            are none, it falls to 0 along a cosine.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: factor of half the sum of squares in the loss (L2), as in
            the paper and in torchvision.
        decay_all: whether biases and batch normalization decay too, and not
            only the kernels of convolutions and the classifier.
        label_smoothing: share of the target spread over all classes.
        policy: a name of `policies.POLICIES`, or none.
        random_erasing: probability that a box of the image is blanked.
        mixup: parameter of the beta distribution of the shares, 0 for none.
        cutmix: likewise; where both are there, each is as likely.
        augmentation: a name of `augmentation.AUGMENTATIONS`.
        image_size: side of the square image, in pixels.
        crop_fraction: see `keras_resnet.preprocessing.Preprocessing`.
        shortcut: option "A", "B" or "C" of the paper's section 3.3.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: str
    image_size: int
    weight_decay: float
    warmup_epochs: float = 0
    decay_epochs: tuple[float, ...] = ()
    momentum: float = 0.9
    nesterov: bool = False
    decay_all: bool = False
    label_smoothing: float = 0.0
    policy: str | None = None
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop_fraction: float = 1.0
    shortcut: str = "B"

    def __post_init__(self):
        """Turns a list (from JSON) into a tuple, so that equality works."""
        object.__setattr__(self, "decay_epochs", tuple(self.decay_epochs))


_PHOTOGRAPHS = dict(image_size=224, crop_fraction=0.875)

RECIPES = {
    # scikit-learn's 1,797 digits, enlarged from 8x8; shifts, but no flips: a
    # mirrored 2 is no 2. Less than a minute for ResNet-20 on two CPU cores.
    "digits": Recipe(
        epochs=10,
        batch_size=64,
        learning_rate=0.1,
        warmup_epochs=1,
        nesterov=True,
        weight_decay=5e-5,
        augmentation="pad_crop",
        image_size=32,
    ),
    # CIFAR, ours: augmentation and batch of the paper (section 4.2) with the
    # cosine schedule and Nesterov momentum that are common since.
    "cifar": Recipe(
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        warmup_epochs=1,
        nesterov=True,
        weight_decay=5e-4,
        augmentation="pad_crop_flip",
        image_size=32,
    ),
    # He et al., arXiv 1512.03385, section 4.2: 64k iterations of 128 images, the
    # rate divided at 32k and 48k, identity shortcuts. (The paper warms ResNet-110 up
    # at 0.01 and subtracts the mean of each pixel, where we subtract 128.)
    "paper_cifar": Recipe(
        epochs=164,
        batch_size=128,
        learning_rate=0.1,
        decay_epochs=(82, 123),
        weight_decay=1e-4,
        decay_all=True,
        augmentation="pad_crop_flip",
        image_size=32,
        shortcut="A",
    ),
    # Photographs: the 90-epoch practice for ImageNet (Goyal et al.), with a cosine.
    "imagenet": Recipe(
        epochs=90,
        batch_size=256,
        learning_rate=0.1,
        warmup_epochs=5,
        nesterov=True,
        weight_decay=1e-4,
        augmentation="random_resized_crop_flip",
        **_PHOTOGRAPHS,
    ),
    # He et al., sections 3.4 and 4.1: 600k iterations of 256 images, the shorter
    # side resized to 256..480. The paper divides the rate when the error plateaus:
    # that was every 30 epochs. (Without its colour augmentation.)
    "paper_imagenet": Recipe(
        epochs=120,
        batch_size=256,
        learning_rate=0.1,
        decay_epochs=(30, 60, 90),
        weight_decay=1e-4,
        decay_all=True,
        augmentation="random_scale_crop_flip",
        **_PHOTOGRAPHS,
    ),
    # torchvision's references/classification/train.py with its defaults, which
    # made the weights IMAGENET1K_V1.
    "torchvision_v1": Recipe(
        epochs=90,
        batch_size=256,
        learning_rate=0.1,
        decay_epochs=(30, 60),
        weight_decay=1e-4,
        decay_all=True,
        augmentation="random_resized_crop_flip",
        **_PHOTOGRAPHS,
    ),
}

# Datasets that have a recipe of their own; all others take "imagenet".
_DEFAULTS = {"digits": "digits", "cifar10": "cifar", "cifar100": "cifar"}


def default_name(dataset):
    """Returns the name of the recipe for a dataset."""
    return _DEFAULTS.get(re.split("[:/]", dataset)[0], "imagenet")


def with_epochs(recipe, epochs):
    """Returns the recipe for another number of epochs, its decays in proportion."""
    scaled = tuple(at * epochs / recipe.epochs for at in recipe.decay_epochs)
    return dataclasses.replace(recipe, epochs=epochs, decay_epochs=scaled)


def learning_rates(recipe, steps_per_epoch):
    """Returns the learning rate of every step of a run, as a list."""
    return [
        learning_rate(recipe, step / steps_per_epoch, 1 / steps_per_epoch)
        for step in range(recipe.epochs * steps_per_epoch)
    ]


def learning_rate(recipe, epoch, step):
    """Returns the learning rate of one step.

    Args:
        recipe: a `Recipe`.
        epoch: where the step begins, in epochs from the start, with fraction.
        step: length of a step, in epochs.
    """
    peak, warmup = recipe.learning_rate, recipe.warmup_epochs
    if epoch < warmup:
        return peak * min(1.0, (epoch + step) / warmup)
    if recipe.decay_epochs:
        return peak * 0.1 ** sum(epoch >= at for at in recipe.decay_epochs)
    done = (epoch - warmup) / max(step, recipe.epochs - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
