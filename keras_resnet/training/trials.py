"""Finds out how the pictures of a model were preprocessed in its training, by trying.

A model does not know it, and a wrong guess costs accuracy without a word. The images
that it was trained on tell: there, the right preprocessing has the highest likelihood.
"""

import dataclasses
import itertools

import numpy as np

from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.training import label_order

# How published code normalizes, the commonest first: in the model itself, x / 255, as
# keras.applications, as this library.
NORMALIZED = ("raw", "unit", "tf", "torch", "caffe", "zoo")
# Those that are met with channels in the order in which OpenCV reads them, too.
BGR = ("raw", "unit", "tf", "torch")
# How published code resizes: torchvision, timm and this library; Keras's
# `image_dataset_from_directory` by default, with `crop_to_aspect_ratio` and with
# `pad_to_aspect_ratio`; Keras's `load_img`; Pillow's `Image.resize`; ImageNet.
GEOMETRIES = (
    dict(resize="crop"),
    dict(resize="stretch", antialias=False),
    dict(resize="crop", antialias=False),
    dict(resize="pad", antialias=False),
    dict(resize="stretch", interpolation="nearest"),
    dict(resize="stretch"),
    dict(resize="crop", crop_fraction=0.875),
)
FLAGS = ("resize", "crop_fraction", "interpolation", "antialias")
MAX_IMAGES = 120
# Nats of likelihood: what differs by less fits as well, and by less than the second
# if as many images are right.
MARGIN, MARGIN_IF_RIGHT = 0.02, 0.1
# Of a model of 224x224 pixels: images of a round, and how many trials remain after it.
ROUNDS = ((8, 12), (24, 4), (80, 4))


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One way to preprocess, and what a model answers then.

    Attributes:
        normalization: a name in `NORMALIZATIONS`, or another for other numbers.
        preprocessing: the `Preprocessing`.
        said: whether it is what the user said.
        targets: array (images, classes), 1 where an image has a label.
        scores: float array (images, classes).
        independent: whether an image may have several labels.
    """

    normalization: str
    preprocessing: Preprocessing
    said: bool
    targets: np.ndarray | None = None
    scores: np.ndarray | None = None
    independent: bool = False

    @property
    def fit(self):
        """Mean log likelihood of the labels, in nats."""
        return label_order.fit(self.targets, self.scores, self.independent)

    @property
    def right(self):
        """For each image the share of its answers that are right."""
        return label_order.right(self.targets, self.scores, self.independent)

    def in_best_order(self):
        """Returns this trial with its scores in the order that fits the labels best.

        That is the given order where there are too few images to judge another.
        """
        images, classes = self.targets.shape
        if images < 4 * classes:
            return self
        order = label_order.best_order(self.targets, self.scores, self.independent)
        ordered = dataclasses.replace(self, scores=self.scores[:, order])
        return max(self, ordered, key=lambda trial: trial.fit)

    @property
    def decided(self):
        """How certain and how various the answers are, in nats; needs no labels."""
        scores = np.maximum(self.scores, 1e-7)
        certain = (scores * np.log(scores)).sum(1).mean()
        return certain - (scores.mean(0) * np.log(scores.mean(0))).sum()

    def flags(self):
        """Returns the flags of `adopt` that say it."""
        given = self.preprocessing
        said = {"resize": given.resize, "antialias": str(given.antialias).lower()}
        if self.normalization in NORMALIZATIONS:
            said = {"normalization": self.normalization, **said}
        else:
            numbers = {"mean": given.mean_rgb_255, "std": given.std_rgb_255}
            order = {"bgr": str(given.channel_order == "bgr").lower()}
            said = {**{k: _as_text(v) for k, v in numbers.items()}, **order, **said}
        if given.interpolation != "bilinear":
            said["interpolation"] = given.interpolation
        if given.crop_fraction != 1:
            said["crop_fraction"] = f"{given.crop_fraction:g}"
        return " ".join(f"--{name}={value}" for name, value in said.items())


def candidates(input_size, said, grey=False):
    """Returns a `Trial` for each way to preprocess that is worth to be tried.

    Args:
        input_size: (height, width) of the model's input, in pixels.
        said: fields of `Preprocessing` that the user gave.
        grey: whether the model takes grey images, which have one mean.
    """
    normalizations = {
        name: NORMALIZATIONS[name]
        for name in NORMALIZED
        if not grey or len(set(NORMALIZATIONS[name]["mean_rgb_255"])) == 1
    }
    normalization_said = {
        name: said[name]
        for name in ("mean_rgb_255", "std_rgb_255", "channel_order")
        if name in said
    }
    is_named = normalization_said in map(_all_said, normalizations.values())
    if "mean_rgb_255" in normalization_said and not is_named:
        normalizations = {"given": normalization_said, **normalizations}
    in_bgr = {
        f"{name} in BGR": {**normalizations[name], "channel_order": "bgr"}
        for name in BGR
        if not grey
    }
    geometry_said = {name: said[name] for name in FLAGS if name in said}
    geometries = [dict(each) for each in GEOMETRIES]
    if geometry_said:
        geometries += [geometry_said, *(each | geometry_said for each in GEOMETRIES)]
    found = {}
    for (name, numbers), geometry in itertools.chain(
        itertools.product(normalizations.items(), geometries),
        # Rarer, so that two ways to resize must do.
        itertools.product(in_bgr.items(), geometries[:2]),
    ):
        if geometry.get("resize") == "pad" and geometry.get("crop_fraction", 1) != 1:
            continue
        preprocessing = Preprocessing(input_size, **numbers, **geometry)
        is_said = all(
            getattr(preprocessing, field) == value for field, value in said.items()
        )
        found.setdefault(preprocessing, Trial(name, preprocessing, is_said))
    return list(found.values())


def _as_text(numbers):
    """Returns the numbers of the channels as a flag takes them."""
    texts = [f"{number:g}" for number in numbers]
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)


def _all_said(numbers):
    return {"channel_order": "rgb", **numbers}


def run(trials, examples, answer, independent=False):
    """Tries all on some images, and the better ones on more.

    Args:
        trials: list of `Trial`.
        examples: list of (uint8 array (height, width, 3), target (classes,)), of which
            every beginning has all classes alike.
        answer: function of (images (number, height, width, 3) as the preprocessing
            makes them) -> scores (number, classes).
        independent: whether an image may have several labels.

    Returns:
        List of the last round's `Trial`s with their scores, the commonest first. Some
        of what the user said is among them.
    """
    height, width = trials[0].preprocessing.input_size
    resized = {}

    def tried(trial, count):
        done = 0 if trial.scores is None else len(trial.scores)
        images = np.stack(
            [
                _resized(resized, trial.preprocessing, examples, i)
                for i in range(done, count)
            ]
        )
        scores = answer(trial.preprocessing.normalize(images))
        if done:
            scores = np.concatenate([trial.scores, scores])
        targets = np.stack([target for _, target in examples[:count]])
        return dataclasses.replace(
            trial, targets=targets, scores=scores, independent=independent
        )

    for images, remain in ROUNDS:
        count = min(images * 224 * 224 // (height * width), MAX_IMAGES, len(examples))
        if trials[0].scores is not None and count == len(trials[0].scores):
            continue
        trials = _without_equal([tried(trial, count) for trial in trials])
        trials = _best(trials, remain)
    return trials


def _resized(known, preprocessing, examples, index):
    """Returns an example as the preprocessing resizes it; equal ones once."""
    key = (index, *(getattr(preprocessing, name) for name in FLAGS))
    if key not in known:
        known[key] = preprocessing.resize_and_crop(examples[index][0])
    return known[key]


def _without_equal(trials):
    """Leaves out trials with the answers of another one, but none that was said."""
    kept = []
    for trial in trials:
        equal = [other for other in kept if np.array_equal(trial.scores, other.scores)]
        if trial.said or not equal:
            kept.append(trial)
    return kept


def _best(trials, count):
    """Returns the better trials, in their order.

    Where the labels are in another order, likelihood alone would drop the right one.
    """
    rankings = (
        (count, lambda trial: trial.fit),
        (count // 3, lambda trial: trial.in_best_order().fit),
        (count // 3, lambda trial: trial.decided),
        (count // 3, lambda trial: (trial.said, trial.fit)),
    )
    wanted = []
    for number, key in rankings:
        wanted += sorted(trials, key=key, reverse=True)[:number]
    return [trial for trial in trials if any(trial is each for each in wanted)]


def pick(trials):
    """Returns the best of some trials, and whether each image is right with it.

    Of those that fit about as well it is the commonest. One that fits in another order
    of the labels alone is picked where it is better beyond chance.
    """
    best = max(trials, key=lambda trial: trial.fit)

    def fits_as_well(trial):
        is_as_right = trial.right.sum() >= best.right.sum()
        margin = MARGIN_IF_RIGHT if is_as_right else MARGIN
        return trial.fit >= best.fit - margin

    given = next(filter(fits_as_well, trials))
    other = max(trials, key=lambda trial: trial.in_best_order().fit)
    right = other.in_best_order().right
    if label_order.is_better(right, given.right):
        return other, right
    return given, given.right
