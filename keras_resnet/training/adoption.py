"""Makes a run of a model that was trained elsewhere, for fine-tuning and export."""

import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_resnet import files, rewrite
from keras_resnet.model_metadata import read_labels
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import (
    accuracy,
    checks,
    fitting,
    formats,
    label_order,
    recipes,
    reporting,
    trials,
)
from keras_resnet.training.data import (
    augmentation,
    batching,
    damaged,
    datasets,
    decoding,
    sources,
    survey,
)
from keras_resnet.training.formats import custom_code
from keras_resnet.training.reporting.answers import Answers
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs import model_file
from keras_resnet.training.runs.run import Run
from keras_resnet.training.settings import absolute

SHOWN_TRIALS = 8
# Models that learned their training images by heart have less on new ones.
MAX_OVERCONFIDENCE = 0.25


def adopt(
    model: str | os.PathLike,
    dataset: str,
    model_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    normalization: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    bgr: bool = False,
    resize: str | None = None,
    crop_fraction: float | None = None,
    interpolation: str | None = None,
    antialias: bool | None = None,
    labels: Sequence[str] | str | os.PathLike | None = None,
    scores: str | None = None,
    expect_top1: float | None = None,
    batch_size: int | None = None,
    custom_objects: str | os.PathLike | None = None,
    allow_lambda: bool = False,
) -> Run:
    """Makes a run of a Keras model of your own, for `quantize_aware` and `edge.export`.

    The model must get its images as in its training. What you do not say of that is
    found out: the usual ways to preprocess are tried on training images, and the best
    one is taken and printed. Then the model is evaluated on the held-out images. If the
    labels fit better in another order, if something else fits better than what you
    said, or if the model is no better than chance, no run is made.

    Args:
        model: path of a `.keras` or `.h5` file, of Keras 3 or 2, of a classifier of RGB
            or grey images. The run gets it as layers alone that devices compute: see
            `keras_resnet.rewrite`.
        dataset: what it was trained on, a name as for `train`.
        model_dir: folder of the run to make. A complete run of the same settings is
            returned as it is.
        data_dir: folder of the dataset.
        normalization: how the pixels were normalized outside of the model: "zoo",
            "torch", "tf", "caffe" (as in keras.applications), "unit" (0..1) or "raw"
            (0..255).
        mean: instead of `normalization`, what was subtracted from the pixels, on the
            scale 0..255: a number, or three in the order of RGB.
        std: what they were divided by then, likewise.
        bgr: whether the model takes the channels in the order blue, green, red.
        resize: "crop", "stretch" or "pad"; see `keras_resnet.Preprocessing`.
        crop_fraction: likewise, in (0, 1].
        interpolation: likewise: "nearest", "bilinear", "bicubic" or "lanczos".
        antialias: likewise; False is the default of Keras's own loaders.
        labels: names of the classes in the order of the model's scores, or the path of
            a text file with one a line. `None` is the order of the dataset; the classes
            of a folder are sorted by name, as Keras does.
        scores: for a model that returns logits, "softmax" (an image has one class) or
            "independent" (it may have several).
        expect_top1: accuracy that you know, in percent: a lower one is refused.
        batch_size: images in one step of `quantize_aware`. `None` is that of the
            dataset's recipe, or less if there are fewer images.
        custom_objects: path of a Python file of your own, which is run, with the custom
            layers and functions of the model. The run records it, and needs it again.
        allow_lambda: whether to run the Python code of `Lambda` layers, which is inside
            of the model file; only for files that you trust.

    Returns:
        A `Run`.

    Raises:
        UserError: the model is no classifier of the dataset's images, an argument is
            wrong, or what you said does not fit. Nothing was written then.
    """
    said = checks.preprocessing_fields(
        normalization=normalization,
        mean=mean,
        std=std,
        bgr=bgr,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        antialias=antialias,
    )
    if expect_top1 is not None:
        expect_top1 = checks.positive_number("expect_top1", expect_top1, most=100)
    if batch_size is not None:
        batch_size = checks.whole_number("batch_size", batch_size, 1)
    path, directory = checks.path("model", model), checks.path("model_dir", model_dir)
    network = formats.open_model(path, custom_objects, allow_lambda)
    *size, channels = rewrite.input_shape(network)
    if channels == 1 and bgr:
        raise UserError(
            "--bgr is for models that take colours, and this one takes grey images: "
            "leave it out"
        )
    preprocessing = Preprocessing(size, **said)  # checks what the user said
    data = sources.load(dataset, data_dir)
    if labels is not None:
        data = datasets.reordered(data, read_labels(labels))
    # Under the names that runs of `train` have.
    settings = {
        "model": str(path),
        "model_sha256": files.sha256(path),
        "dataset": dataset,
        "data_dir": absolute("data_dir", data_dir),
        **said,
        "scores": scores,
        "seed": 0,
        **custom_code.settings(custom_objects, allow_lambda),
    }
    result = directory / "model.keras"

    fitted = fitting.fitted(
        _recipe(dataset, batch_size), data, tf.distribute.get_strategy(), batch_size
    )

    def opened(preprocessing, write):
        recipe = dataclasses.replace(
            fitted,
            image_size=max(preprocessing.input_size),
            crop_fraction=preprocessing.crop_fraction,
            interpolation=preprocessing.interpolation,
        )
        metrics = run_folder.open_run(
            directory, result, settings, recipe, preprocessing, data, write
        )
        return metrics and Run(directory, metrics, tuple(data.labels), preprocessing)

    if (directory / "config.json").exists():
        config = run_folder.read_config(directory)
        preprocessing = Preprocessing(**config["preprocessing"])
    run = opened(preprocessing, write=False)
    if run:
        return run
    raw = Preprocessing(size, **NORMALIZATIONS["raw"])
    rewritten = rewrite.for_device(network, raw, scores)
    accuracy.check_classes(rewritten.model.outputs[0].shape[-1], data)
    if data.multi_label and rewritten.scores == "softmax":
        raise UserError(
            f"images of dataset {data.name} have several labels, but the scores of the "
            "model are shares of 1 (softmax): pass --scores=independent if it returns "
            "logits, or give each image one label"
        )
    with damaged.damaged_images_named(data):
        found = found_preprocessing(
            rewritten, data, size, said, channels == 1, expect_top1
        )
        of_run = rewrite.for_device(network, found.preprocessing, scores)
        targets, answers = _answers(of_run, data)
    metrics = accuracy.of_answers(targets, answers, data.multi_label)
    problem = label_order.problem(
        np.concatenate([found.targets, targets]),
        np.concatenate([found.scores, answers]),
        data.labels,
        data.multi_label,
    )
    if problem:
        raise UserError(problem)
    if data.multi_label:
        _check_precision(found, metrics, targets)
    else:
        _check_expectation(metrics, expect_top1)
        _check_chance(found, targets, answers)
    for note in of_run.notes:
        print(note)
    run = opened(of_run.preprocessing, write=True)
    of_training = {"examples_per_second": 0.0, "epochs": 0}  # there was none here
    metrics = {**metrics, **of_training}
    looked_at = survey.examine(data, directory)
    licence = getattr(network, "licence", None)
    model_file.save(of_run.model, result, of_run.preprocessing, data.labels, licence)
    metrics = reporting.write(
        directory,
        reporting.title(path.name, dataset, settings["data_dir"]),
        data,
        Answers(tuple(data.labels), targets > 0.5, answers, data.multi_label),
        metrics,
        looked_at,
    )
    files.write_json(directory / "metrics.json", metrics)
    return Run(directory, metrics, tuple(data.labels), of_run.preprocessing)


def _recipe(dataset, batch_size):
    """Returns the dataset's recipe, to derive fine-tuning from."""
    recipe = recipes.RECIPES[recipes.default_name(dataset, weights="none")]
    if not augmentation.takes_resized(recipe):
        # Fine-tuning sees images as the device will, whatever their geometry.
        recipe = dataclasses.replace(recipe, augmentation="pad_crop")
    batch_size = batch_size or recipe.batch_size
    rate = recipe.scaled_rate(batch_size)
    return dataclasses.replace(
        recipe, train_size=None, batch_size=batch_size, learning_rate=rate
    )


def found_preprocessing(rewritten, data, size, said, grey, expect_top1):
    """Tries how images were preprocessed, prints it, and returns the best `Trial`.

    Raises:
        UserError: another way than the said one is better beyond chance.
    """
    classes = len(data.labels)

    scores = _scorer(rewritten.model, data.multi_label)
    found = trials.run(
        trials.candidates(size, said, grey),
        _examples(data.train, classes),
        # What the model has in front was moved into its preprocessing.
        lambda images: scores(rewritten.preprocessing.normalize(images)),
        data.multi_label,
    )
    best, best_right = trials.pick(found)
    chosen, chosen_right = trials.pick([trial for trial in found if trial.said])
    print(_table(found, chosen))
    if expect_top1 is None and label_order.is_better(best_right, chosen_right):
        raise UserError(
            f"the model was trained on other pixels: {best_right.mean():.1%} of "
            f"{len(best_right)} training images are right with {best.flags()}, but "
            f"{chosen_right.mean():.1%} with what was said, {chosen.flags()}. Leave "
            "the wrong flags out, or pass the accuracy that you know as --expect_top1"
        )
    if expect_top1 is None and not data.multi_label:
        _check_certainty(chosen, chosen_right.mean())
    return chosen


def _check_certainty(chosen, right):
    """Raises `UserError` where a model is sure of training images and yet wrong.

    Of images that it was trained on, a model is about as often right as it is sure.
    """
    sure = chosen.scores.max(1).mean()
    if sure - right > MAX_OVERCONFIDENCE:
        raise UserError(
            f"the model was trained on other pixels or pictures: it is {sure:.0%} sure "
            f"of the training images on average, but {right:.0%} of them are right "
            f"with {chosen.flags()}, the best of what was tried. Say with --mean, "
            "--std, --bgr, --resize, --crop_fraction and --interpolation how the "
            "pictures were preprocessed, or pass the accuracy that you know as "
            "--expect_top1"
        )


def _examples(split, classes):
    """Returns (image, one-hot target) of some images, the classes taking turns."""
    count = min(trials.MAX_IMAGES, split.examples)
    wanted = datasets.spread_evenly(count, split.examples)
    turns, found = np.zeros(classes, int), []
    for encoded, label in datasets.subset(split, wanted).read():
        target = label_order.as_targets(label.numpy(), classes)
        turns += target.astype(int)
        turn = turns[target.argmax()]
        found.append((turn, decoding.decode(encoded).numpy(), target))
    return [example for _, *example in sorted(found, key=lambda each: each[0])]


def _scorer(model, multi_label):
    """Returns a function of images -> probabilities (images, classes).

    Those of one image add up to 1 unless it may have several labels.
    """
    signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]))]
    compiled = tf.function(functools.partial(model, training=False), signature)

    def scores(images):
        parts = range(0, len(images), 32)
        answers = np.concatenate([compiled(images[i : i + 32]) for i in parts])
        if not np.isfinite(answers).all():
            raise UserError(
                "the model returns numbers that are not finite (NaN): its training "
                "diverged. Train it again, with a lower learning rate"
            )
        if multi_label:
            return answers
        return answers / np.maximum(answers.sum(1, keepdims=True), 1e-7)

    return scores


def _answers(rewritten, data):
    """Returns (targets, probabilities), both (images, classes), of held-out images."""
    split = data.held_out
    scores = _scorer(rewritten.model, data.multi_label)
    answers, labels = batching.over_split(
        lambda images: scores(images.numpy()),
        split,
        rewritten.preprocessing,
        min(32, split.examples),
    )
    return label_order.as_targets(labels, answers.shape[1]), answers


def _table(found, chosen):
    shown = sorted(found, key=lambda trial: -trial.fit)[:SHOWN_TRIALS]
    if chosen not in shown:
        shown.append(chosen)
    lines = [
        f"{trial.right.mean():7.1%} {trial.fit:11.3f}  {trial.flags()}"
        + ("  <- taken" if trial is chosen else "")
        for trial in shown
    ]
    return "\n".join(
        [
            f"The best ways to preprocess, on {len(chosen.right)} training images:",
            "  right  likelihood  flags",
            *lines,
        ]
    )


def _check_precision(found, metrics, targets):
    """Raises `UserError` where several labels are found no better than by chance."""
    precision = metrics["mean_average_precision"]
    by_chance = targets.mean(0)[targets.any(0)].mean()
    if precision <= by_chance:
        raise UserError(
            f"the model is no better than chance: its mean average precision is "
            f"{precision:.1%} on {len(targets)} held-out images, that of chance "
            f"{by_chance:.1%}, with {found.flags()}, the best of what was tried. Are "
            "these the images and the labels that it was trained on?"
        )


def _check_expectation(metrics, expect_top1):
    if expect_top1 is None:
        return
    count = metrics["examples_evaluated"]
    missing = expect_top1 / 100 * count - metrics["top1"] * count
    if missing > accuracy.TOLERATED_IMAGES:
        raise UserError(
            f"the model has {metrics['top1']:.2%} top-1 on {count} held-out images, "
            f"less than --expect_top1={expect_top1:g}. The table above shows what was "
            "tried; --normalization, --mean, --std, --bgr, --resize, --crop_fraction, "
            "--interpolation and --antialias say something else"
        )


def _check_chance(found, targets, answers):
    """Raises `UserError` where the classes are right no more often than by chance."""
    if label_order.is_chance(targets, answers):
        right = label_order.right(targets, answers)
        raise UserError(
            f"the model is no better than chance: {right.mean():.1%} of {len(right)} "
            f"held-out images of {len(answers[0])} classes are right, with "
            f"{found.flags()}, the best of what was tried. Are these the images and "
            "the classes that it was trained on?"
        )
