"""Hyperparameters as data. The learning rates that follow are in `schedules`."""

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train on one kind of data."""

    epochs: int  # passes over the training split
    batch_size: int  # images in one step, over all replicas together
    # Peak learning rate at `batch_size`; `scaled_rate` gives that of another batch
    # size.
    learning_rate: float
    augmentation: str  # a name in `augmentation.AUGMENTATIONS`
    image_size: int  # side of the square input image, in pixels
    # With SGD the factor of half the sum of squares that is added to the loss (L2), as
    # in the paper and in torchvision; with LAMB and AdamW the factor of the weights
    # that is added to their step.
    weight_decay: float
    # Epochs in which the rate grows linearly to `learning_rate`.
    warmup_epochs: float = 0
    # Epochs after which the rate is divided by 10. If there are none, the rate falls to
    # 0 along a cosine.
    decay_epochs: tuple[float, ...] = ()
    optimizer: str = "sgd"  # "sgd", "lamb" or "adamw": see `optimizers`
    momentum: float = 0.9  # momentum of SGD
    nesterov: bool = False  # whether it is Nesterov momentum
    clip_norm: float = 0.0  # largest norm of all gradients together; 0 does not clip
    # Whether biases and batch normalization decay too, and not only the kernels of
    # convolutions and of the classifier.
    decay_all: bool = False
    # A name in `losses.LOSSES`, "multi_label" if and only if the data are; or
    # "detection" or "segmentation", whose augmentations are `scenes.augmentation`'s.
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0  # share of the target that is spread over all classes
    policy: str | None = None  # a name in `policies.POLICIES`, or None
    random_erasing: float = 0.0  # probability that a box of the image is erased
    mixup: float = 0.0  # alpha of mixup's beta distribution; 0 turns mixup off
    # The same for CutMix. If both are on, each pair of images draws one of the two,
    # with equal probability.
    cutmix: float = 0.0
    # How often an epoch uses an image, augmented differently each time. The epoch then
    # has that many times fewer different images (Hoffer et al., arXiv 1901.09335).
    repeats: int = 1
    # Time constant of the exponential moving average of the weights that is evaluated
    # and saved; 0 saves the weights themselves.
    average_epochs: float = 0.0
    # `image_size` of the training images, if that differs (Touvron et al., arXiv
    # 1906.06423).
    train_size: int | None = None
    # Probability that an image skips the last residual block in training; see
    # `stochastic_depth.with_stochastic_depth`.
    stochastic_depth: float = 0.0
    crop_fraction: float = 1.0  # see `keras_resnet.preprocessing.Preprocessing`
    interpolation: str = "bilinear"  # likewise
    shortcut: str = "B"  # option "A", "B" or "C" of the paper's section 3.3
    # Factor on the learning rate from each stage to the one before it; AdamW alone has
    # it. See `optimizers.rate_factors`.
    layer_decay: float = 1.0
    # Whether batch normalization keeps the statistics of the initial weights.
    frozen_statistics: bool = False
    # Whether the network starts from published weights and its classifier learns first,
    # alone. Then `transfer.plan` decides on `learning_rate` and `augmentation`, and the
    # number of pictures on `epochs`. The learning rate may be 0: the classifier is all
    # that learns.
    transfer: bool = False
    # How the final classifier of such a network is fitted, see `runner.learning.fit`,
    # and what `transfer.head.Calibration` found for it.
    strength: float = 0.0
    temperature: float = 1.0
    known_from: float | None = None
    # The same of detection and segmentation: the network starts from published weights,
    # and the number of pictures decides on `epochs`. All layers learn from the start,
    # but the backbone's batch normalization stays as it is.
    published: bool = False

    def __post_init__(self):
        """Turns a list, as JSON has it, into a tuple: equal recipes compare equal."""
        object.__setattr__(self, "decay_epochs", tuple(self.decay_epochs))

    @property
    def task(self):
        """What is learned: "classify", "detect" or "segment"."""
        return _TASKS.get(self.loss, "classify")

    def scaled_rate(self, batch_size):
        """Returns the peak learning rate for another batch size.

        It grows with the batch size under SGD (Goyal et al., arXiv 1706.02677, section
        2.1) and with its square root under LAMB (You et al., arXiv 1904.00962, section
        4).
        """
        ratio = batch_size / self.batch_size
        factor = ratio if self.optimizer == "sgd" else math.sqrt(ratio)
        return self.learning_rate * factor


# By the loss; all others classify.
_TASKS = {"detection": "detect", "segmentation": "segment"}

_SMALL = dict(learning_rate=0.1, warmup_epochs=1, nesterov=True, image_size=32)
_PHOTOGRAPHS = dict(batch_size=256, image_size=224, crop_fraction=0.875)
_CROPPED = dict(augmentation="random_resized_crop_flip", **_PHOTOGRAPHS)
_PAPER = dict(learning_rate=0.1, weight_decay=1e-4, decay_all=True)
# What the procedures of Wightman et al., "ResNet strikes back", arXiv 2110.00476, have
# in common: table 2, and the clipping that is the default of timm's LAMB. They are
# evaluated as timm publishes their weights.
_STRIKES_BACK = dict(
    batch_size=2048,
    warmup_epochs=5,
    optimizer="lamb",
    clip_norm=1.0,
    loss="bce",
    augmentation="random_resized_crop_flip",
    cutmix=1.0,
    image_size=224,
    crop_fraction=0.95,
    interpolation="bicubic",
)

# Detection and segmentation, our own: the optimizer of "finetune", with a higher rate,
# since heads start at random; pictures change as `scenes.augmentation` says.
_DIGIT_SCENES = dict(
    batch_size=16,
    warmup_epochs=1,
    optimizer="adamw",
    weight_decay=0.01,
    augmentation="scale_crop_colour",
    image_size=64,
)
_SCENES = dict(
    epochs=60,
    batch_size=8,
    learning_rate=1e-3,
    warmup_epochs=1,
    optimizer="adamw",
    weight_decay=0.01,
    layer_decay=0.5,
    published=True,
    augmentation="scale_crop_flip_colour",
    image_size=256,
)

RECIPES = {
    # scikit-learn's 1,797 digits, enlarged from 8x8. They are shifted but not flipped,
    # because a mirrored 2 is no 2. ResNet-20 takes less than a minute on two CPU cores.
    "digits": Recipe(
        epochs=10, batch_size=64, weight_decay=5e-5, augmentation="pad_crop", **_SMALL
    ),
    # Our own for CIFAR: augmentation and batch size of the paper (section 4.2), with
    # the cosine schedule and Nesterov momentum that became usual later.
    "cifar": Recipe(
        epochs=200,
        batch_size=128,
        weight_decay=5e-4,
        augmentation="pad_crop_flip",
        **_SMALL,
    ),
    # He et al., arXiv 1512.03385, section 4.2: 64k iterations of 128 images, the rate
    # divided by 10 at 32k and 48k, shortcuts without weights. Not taken over: a warm-up
    # of ResNet-110 at 0.01, and a mean for each pixel (we subtract 128).
    "paper_cifar": Recipe(
        epochs=164,
        batch_size=128,
        decay_epochs=(82, 123),
        augmentation="pad_crop_flip",
        image_size=32,
        shortcut="A",
        **_PAPER,
    ),
    # The 90-epoch practice for ImageNet (Goyal et al., arXiv 1706.02677, section 5.1),
    # with a cosine schedule.
    "imagenet": Recipe(
        epochs=90,
        learning_rate=0.1,
        warmup_epochs=5,
        nesterov=True,
        weight_decay=1e-4,
        **_CROPPED,
    ),
    # He et al., sections 3.4 and 4.1: 600k iterations of 256 images, the shorter side
    # resized to 256..480. The paper divides the rate when the error plateaus, which was
    # every 30 epochs. Its colour augmentation is left out.
    "paper_imagenet": Recipe(
        epochs=120,
        decay_epochs=(30, 60, 90),
        augmentation="random_scale_crop_flip",
        **_PHOTOGRAPHS,
        **_PAPER,
    ),
    # The defaults of torchvision's references/classification/train.py, which made the
    # weights IMAGENET1K_V1.
    "torchvision_v1": Recipe(epochs=90, decay_epochs=(30, 60), **_CROPPED, **_PAPER),
    # The recipe of torchvision's weights IMAGENET1K_V2: its references/classification,
    # and the blog post "How to train state-of-the-art models", 2021. torchvision
    # averages every 32nd step, with a decay that makes a time constant of 23.4 epochs.
    "torchvision_v2": Recipe(
        epochs=600,
        batch_size=1024,
        learning_rate=0.5,
        warmup_epochs=5,
        weight_decay=2e-5,
        label_smoothing=0.1,
        augmentation="random_resized_crop_flip",
        policy="trivial_augment",
        random_erasing=0.1,
        mixup=0.2,
        cutmix=1.0,
        repeats=4,
        average_epochs=23.4,
        train_size=176,
        image_size=224,
        crop_fraction=224 / 232,
    ),
    # ResNet-50 reaches 80.4% in the paper.
    "strikes_back_a1": Recipe(
        epochs=600,
        learning_rate=5e-3,
        weight_decay=0.01,
        label_smoothing=0.1,
        policy="rand_augment_7",
        mixup=0.2,
        repeats=3,
        stochastic_depth=0.05,
        **_STRIKES_BACK,
    ),
    # ResNet-50 reaches 78.1% in the paper, in a sixth of the epochs.
    "strikes_back_a3": Recipe(
        epochs=100,
        learning_rate=8e-3,
        weight_decay=0.02,
        policy="rand_augment_6",
        mixup=0.1,
        train_size=160,
        **_STRIKES_BACK,
    ),
    # Our own for some hundred photographs and published weights; BUILD_NOTES.md has the
    # measurements. What comes from others: the classifier learns first (Kumar et al.,
    # arXiv 2202.10054), lower stages learn more slowly (Clark et al., arXiv
    # 2003.10555), the number of pictures decides on the number of steps (Kolesnikov et
    # al., "Big Transfer", arXiv 1912.11370, section 3.3).
    "finetune": Recipe(
        epochs=8,
        batch_size=16,
        learning_rate=1e-4,
        warmup_epochs=1,
        optimizer="adamw",
        weight_decay=0.01,
        layer_decay=0.5,
        frozen_statistics=True,
        transfer=True,
        augmentation="random_resized_crop_flip_30",
        image_size=224,
        crop_fraction=0.875,
    ),
    # Our own for `digit_scenes`, of 1,000 scenes.
    "detect_digits": Recipe(
        loss="detection", epochs=20, learning_rate=2e-3, **_DIGIT_SCENES
    ),
    "segment_digits": Recipe(
        loss="segmentation", epochs=20, learning_rate=4e-3, **_DIGIT_SCENES
    ),
    # Our own for some hundred photographs and published weights.
    "detect": Recipe(loss="detection", **_SCENES),
    "segment": Recipe(loss="segmentation", **_SCENES),
}

# Of recipes that start from published weights: pictures that a training shows if there
# are few, mirrored and cut out differently each time, and the limits of its epochs.
_SHOWN = {"classify": 3200, "detect": 16_000, "segment": 16_000}
_EPOCHS = {"classify": (3, 15), "detect": (10, 100), "segment": (10, 100)}

# The recipe of each dataset that is known.
_DEFAULTS = {
    "digits": "digits",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "imagenet2012": "imagenet",
    "imagenette": "imagenet",
}


def default_name(dataset, weights=None, task="classify"):
    """Returns the name of the recipe for a dataset.

    All that have none of their own are fine-tuned, unless `weights` is "none".
    """
    if task != "classify":
        return f"{task}_digits" if dataset == "digit_scenes" else task
    other = "imagenet" if weights == "none" else "finetune"
    return _DEFAULTS.get(_base(dataset), other)


def default_model(dataset, task="classify"):
    """Returns the name of the model for a dataset."""
    if task != "classify":
        return "resnet14" if dataset == "digit_scenes" else "resnet16_224"
    return "resnet20" if _base(dataset) in _DEFAULTS else "resnet20_224"


def epochs_for(examples, task="classify"):
    """Returns how many epochs a number of pictures has, from published weights."""
    least, most = _EPOCHS[task]
    return min(max(round(_SHOWN[task] / examples), least), most)


def _base(dataset):
    return re.split("[:/]", dataset)[0]  # NAME/CONFIG:VERSION


def with_epochs(recipe, epochs):
    """Returns the recipe for another number of epochs.

    The decays and the moving average shrink or grow in proportion. The warm-up keeps
    its length, up to a tenth of the epochs.
    """
    share = epochs / recipe.epochs
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        decay_epochs=tuple(at * share for at in recipe.decay_epochs),
        average_epochs=recipe.average_epochs * share,
        warmup_epochs=min(recipe.warmup_epochs, epochs / 10),
    )


def recipe_warning(recipe, dataset):
    """Returns why a recipe hardly fits a dataset, or None.

    Only datasets with a recipe of their own are judged; nothing is known about the
    others.
    """
    if _base(dataset) not in _DEFAULTS:
        return None
    usual = RECIPES[default_name(dataset)]
    if "flip" in recipe.augmentation and "flip" not in usual.augmentation:
        return f"it mirrors images, and in {dataset} mirrored ones mean something else"
    sizes = [r.image_size for r in (recipe, usual)]
    if max(sizes) > 4 * min(sizes):
        theirs = "smaller" if sizes[0] > sizes[1] else "larger"
        return f"it is for images of {sizes[0]} pixels, those of {dataset} are {theirs}"
    return None
