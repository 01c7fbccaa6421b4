"""The export of a trained model: what its settings mean, before anything is converted.

`source` opens the model. `class_exporter` and `scene_exporter` wire the rest: `convert`
makes the file, `targets` and `report` judge it, `output_files` writes all at the end.
"""

import os
import pathlib
from collections.abc import Sequence

import keras

from keras_resnet import edge, model_metadata
from keras_resnet.edge import class_exporter, scene_exporter
from keras_resnet.edge import source as sources
from keras_resnet.edge.convert import converter, metadata
from keras_resnet.edge.page import runtime
from keras_resnet.edge.report import summary
from keras_resnet.edge.targets import checks
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.preprocessing import BOXES, MASKS
from keras_resnet.training import checks as settings
from keras_resnet.training.formats import saved_model
from keras_resnet.training.runs.run import Run

MAX_DROP = 1.0  # percentage points


def export(
    model: Run | keras.Model | str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    quantize: str | None = None,
    target: str = "litert",
    weights: str | os.PathLike | None = None,
    dataset: str | None = None,
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
    custom_objects: str | os.PathLike | None = None,
    allow_lambda: bool = False,
    calibration_examples: int = 500,
    report_examples: int = 1000,
    max_drop: float = MAX_DROP,
    author: str | None = None,
    license: str | None = None,
    features: bool = False,
    arena_bytes: int | None = None,
    page: bool = False,
) -> summary.Report:
    """Converts a trained model to a .tflite for the device, and reports on it.

    The file takes one image of raw uint8 RGB pixels, (1, height, width, 3), and returns
    uint8 scores of scale 1/256, (1, classes), or with `features` what the classifier
    reads, (1, channels). Labels and preprocessing are inside. The
    report is written beside it, as OUTPUT.report.json and OUTPUT.report.html. If
    anything is wrong, no file is written.

    Of a run that learned boxes, two files are written: OUTPUT.tflite gives raw boxes
    and scores, all of which an Edge TPU can run, and OUTPUT_boxes.tflite the four
    outputs of TFLite_Detection_PostProcess, which pycoral and MediaPipe read. Of one
    that learned masks, the file gives uint8 scores (1, rows, columns, classes).

    Args:
        model: a `Run` or the path of its folder, the name of a model of the zoo, the
            path of a `.keras` or `.h5` file of Keras 3 or 2, that of a SavedModel
            folder, or a `keras.Model`.
        output: path of the .tflite. It may be left out for a run, and is then
            `model-<quantize>.tflite` in its folder.
        quantize: "qat" (quantization-aware training of the run), "int8" (post-training;
            weights and activations), "int16x8" (int8 weights, int16 activations),
            "dynamic" (int8 weights), "float16" (weights) or "none". By default "qat" if
            the run has it, else "int8".
        target: what must be able to run the file: "litert", "tflite_runtime" (2.14),
            "edgetpu", "tflite_micro" (microcontrollers; a sketch is written beside the
            file), or a configuration of Arm's Vela such as "ethos-u55-128".
        weights: with a model of the zoo, the name or the file of its weights.
        dataset: name of the dataset to calibrate and report with; by default that of
            the run.
        data_dir: where the dataset lies; by default where the training found it.
        normalization: the normalization that a model was trained with, if the model
            does not know it: "zoo", "torch", "tf", "caffe" (as in keras.applications),
            "unit" (0..1) or "raw" (0..255).
        mean: instead of `normalization`, what was subtracted from the pixels, on the
            scale 0..255: a number, or three in the order of RGB.
        std: what they were divided by then, likewise.
        bgr: whether the model takes the channels in the order blue, green, red.
        resize: "crop", "stretch" or "pad", by default what the model knows, else
            "crop"; see `keras_resnet.Preprocessing`.
        crop_fraction: likewise, in (0, 1].
        interpolation: likewise: "nearest", "bilinear", "bicubic" or "lanczos".
        antialias: likewise; False is the default of Keras's own loaders.
        labels: names of the classes, or the path of a text file with one a line; by
            default what the model knows, else those of the dataset if their number
            fits.
        scores: for a model that returns logits, "softmax" (an image has one class) or
            "independent" (it may have several).
        custom_objects: path of a Python file of your own, which is run, with the custom
            layers and functions of the model.
        allow_lambda: whether to run the Python code of `Lambda` layers, which is inside
            of the model file; only for files that you trust.
        calibration_examples: training images to calibrate "int8" and "int16x8" with.
        report_examples: held-out images to report on, at most.
        max_drop: percentage points of top-1 that the file may lose, of mean average
            precision where images may have several labels, of mAP50 of boxes or of the
            mean IoU of masks. Two images of top-1 never count, since they may be
            chance.
        author: person or organization, for the metadata.
        license: name of the licence, for the metadata; by default that of published
            weights.
        features: whether the file gives the pooled features instead of scores. From
            such a file, `edge.Classifier.learn` learns classes on the device. It has
            no labels, and `max_drop` does not apply.
        arena_bytes: for "tflite_micro", the memory in bytes that the device has for the
            arena. A file that needs more is refused.
        page: whether to write OUTPUT.html too, a web page that runs the model by
            itself, with held-out pictures as samples; see `edge.write_page`.

    Returns:
        `Report`: a dict of what `report.json` holds, and the `paths` of the files.

    Raises:
        UserError: an argument is wrong, the target cannot run the file, or the file
            loses more accuracy than `max_drop` allows.
        OSError: a file cannot be written.
    """
    wanted = checks.find(target)
    if features:
        _check_features(quantize, labels, scores, max_drop, page)
    _check_micro(wanted, target, features, arena_bytes)
    if page:
        runtime.read()  # fails now where it is missing
    if quantize is not None:
        settings.choice("quantize", quantize, edge.QUANTIZATIONS)
    settings.whole_number("calibration_examples", calibration_examples, 1)
    settings.whole_number("report_examples", report_examples, 1)
    settings.number_from_0("max_drop", max_drop)
    if crop_fraction is not None:
        settings.positive_number("crop_fraction", crop_fraction, 1)
    for flag, value in (("output", output), ("data_dir", data_dir)):
        if value is not None:
            settings.path(flag, value)
    if labels is not None and not isinstance(labels, str | os.PathLike):
        settings.names("labels", labels)
    for flag, value in (
        ("weights", weights),
        ("dataset", dataset),
        ("normalization", normalization),
        ("author", author),
        ("license", license),
    ):
        settings.text(flag, value)
    if output is not None and pathlib.Path(output).suffix != ".tflite":
        raise UserError(f"--output must end in .tflite. Received: {str(output)!r}")
    said = dict(
        normalization=normalization,
        mean=mean,
        std=std,
        bgr=bgr,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        antialias=antialias,
    )
    code = dict(custom_objects=custom_objects, allow_lambda=allow_lambda)
    if sources.is_run(model):
        of_run = dict(weights=weights, labels=labels, scores=scores, **said, **code)
        given = [
            f"--{name}" for name, value in of_run.items() if value not in (None, False)
        ]
        if given:
            raise UserError(f"{', '.join(given)} need --model: a run knows its own")
        with_aware = quantize in (None, "qat") and not features
        source = sources.of_run(model, dataset, data_dir, with_aware)
        if source.scores in (BOXES, MASKS):
            _check_scenes(source, wanted, target, features)
    elif output is None:
        raise UserError("--model needs --output=PATH.tflite")
    else:
        source = sources.of_model(
            model,
            weights,
            dataset,
            data_dir,
            labels,
            scores,
            features=features,
            **said,
            **code,
        )
    if features:
        source = source.of_features()
    quantize = quantize or ("qat" if source.aware else "int8")
    _check_source(source, quantize, license)
    output = pathlib.Path(output or source.path.with_name(f"model-{quantize}.tflite"))
    about = metadata.About(
        source.model.name,
        author=author,
        license=license or source.licence,
        run_sha256=source.sha256(quantize),
    )
    settings_of_both = dict(
        quantize=quantize,
        target=target,
        calibration_examples=calibration_examples,
        report_examples=report_examples,
        max_drop=max_drop,
        page=page,
    )
    if source.scores in (BOXES, MASKS):
        return scene_exporter.export(source, output, about, **settings_of_both)
    is_file = source.path is not None and not sources.is_run(model)
    return class_exporter.export(
        source,
        output,
        about,
        labels_must_fit=is_file,
        arena_bytes=arena_bytes,
        **settings_of_both,
    )


def _check_features(quantize, labels, scores, max_drop, page):
    """Raises `UserError` for settings that a file of features has no use for."""
    said = {"labels": labels, "scores": scores}
    said["max_drop"] = None if max_drop == MAX_DROP else max_drop
    said["page"] = page or None
    for name, value in said.items():
        if value is not None:
            raise UserError(
                f"--features gives no scores of classes, to which --{name} belongs: "
                f"leave it out. Received: --{name}={value}"
            )
    if quantize == "qat":
        raise UserError(
            "--features and --quantize=qat do not go together: classes that are "
            "learned later were not in its training. Use --quantize=int8"
        )


def _check_scenes(source, wanted, target, features):
    """Raises `UserError` for settings that are for classifiers alone."""
    given = "--features" if features else f"--target={target}"
    if features or wanted.program:
        raise UserError(
            f"{given} is for classifiers, and {source.path.parent} is a run that "
            f"learned {source.scores}: leave it out"
        )


def _check_micro(wanted, target, features, arena_bytes):
    """Raises `UserError` for settings that do not go with the target."""
    if arena_bytes is not None:
        settings.whole_number("arena_bytes", arena_bytes, 1)
        if not wanted.interpret:
            raise UserError(
                "--arena_bytes is for --target=tflite_micro: leave it out. "
                f"Received: --target={target}"
            )
    if features and wanted.program:
        raise UserError(
            "--features are for edge.Classifier, which no microcontroller runs: leave "
            f"--features out, or use --target=litert. Received: --target={target}"
        )


def _check_source(source, quantize, license):
    """Raises `UserError` if a source cannot be exported as asked."""
    labels = model_metadata.checked_labels(source.labels)
    model_metadata.check_fit(source.model, source.preprocessing, labels)
    non_commercial = source.licence and "-nc" in source.licence
    if non_commercial and (license or source.licence).lower() != source.licence:
        raise UserError(
            f"the weights are under {source.licence}, and so is the file: leave "
            f"--license out. Received: --license={license}"
        )
    if quantize == "qat" and isinstance(source.model, saved_model.SavedModel):
        raise saved_model.has_no_layers(source.path)
    if quantize == "qat" and source.aware is None:
        raise UserError(
            "--quantize=qat needs a run that training/qat.py has finished. "
            f"Received: {source.path or source.model.name}"
        )
    if quantize in converter.CALIBRATED and source.dataset is None:
        raise UserError(
            f"--quantize={quantize} needs images to calibrate with: --dataset=folder "
            "--data_dir=DIR, or another dataset"
        )
