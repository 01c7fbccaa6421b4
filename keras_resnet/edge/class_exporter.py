"""The export of a classifier, or of its features: the wiring of its parts."""

import re

import keras

from keras_resnet.edge.convert import converter, metadata
from keras_resnet.edge.output_files import OutputFiles
from keras_resnet.edge.report import comparison, gate
from keras_resnet.edge.targets import checks
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.preprocessing import FEATURES


def export(
    source,
    output,
    about,
    *,
    quantize,
    target,
    calibration_examples,
    report_examples,
    max_drop,
    labels_must_fit,
    arena_bytes,
    page,
):
    """Converts a trained classifier for the device, and reports on it.

    The reports are written beside the file. If anything is wrong, no file is written.

    Args:
        source: `Source` of a model that gives scores of classes, or features.
        output: path of the .tflite.
        about: `metadata.About`.
        quantize: one of `edge.QUANTIZATIONS`.
        target: what must be able to run the file.
        calibration_examples: training images to calibrate with.
        report_examples: held-out images to report on, at most.
        max_drop: points of top-1 or of mean average precision that the file may lose.
        labels_must_fit: whether labels that cannot be right are an error, and not a
            note: a model of the zoo or in memory may have random weights.
        arena_bytes: the memory in bytes that a microcontroller has for the arena, or
            None.
        page: whether to write OUTPUT.html too, a web page that runs the model.

    Returns:
        `summary.Report`.

    Raises:
        UserError: the target cannot run the file, or it loses more than `max_drop`.
        OSError: a file cannot be written.
    """
    wanted = checks.find(target)
    gives_features = source.scores == FEATURES
    *folded, notes = source.folded()

    def convert(quantize):
        content = _convert(source, *folded, quantize, calibration_examples)
        gives = FEATURES if gives_features else None
        return metadata.with_metadata(
            content, source.labels, folded[1], about, source.threshold, gives
        )

    with OutputFiles(output) as out:
        # Fails now if the file cannot be written, and not after the conversion.
        file = out.temporary("tflite", ".tflite")
        content = convert(quantize)
        report = gate.check_target(source, quantize, content, target, notes)
        if wanted.compile:
            report["npu"] = out.write_compiled(wanted, content)
        if source.dataset:
            compared = comparison.Comparison(
                source.model, source.preprocessing, source.dataset, report_examples
            )
            compare = compared.features if gives_features else compared.scores
            report["compared"] = compare(content)
            if wanted.interpret:
                report["micro"] = wanted.interpret(content, compared.images)
                _check_arena(report["micro"], arena_bytes)
            if not gives_features and (problem := compared.label_problem()):
                if labels_must_fit:
                    raise UserError(problem)
                report["notes"].append(f"warning: {problem}")
        gate.check_drop(report, max_drop)
        if source.dataset:
            float_model = source.fine_tuned() if quantize == "qat" else folded[0]
            if isinstance(float_model, keras.Model):
                report["layers"] = compared.layers(content, float_model, folded[1])
            if quantize == "qat":  # what fine-tuning has to be better than
                report["post_training"] = compared.scores(convert("int8"))
        file.write_bytes(content)
        if page:
            out.write_page(file, source.dataset)
        written = out.write_report(report)
        if wanted.program:
            # The letters that Arduino allows in the name of a sketch.
            stem = re.sub(r"[^A-Za-z0-9_.-]", "_", output.stem)
            folder = output.with_name(f"{stem}_sketch")
            program = wanted.program(
                content,
                folder.name,
                report["micro"]["arena_bytes"],
                name=source.model.name,
                labels=source.labels,
                preprocessing=folded[1],
                threshold=source.threshold,
            )
            for name, code in program.items():
                out.replacing(folder / name).write_text(code, encoding="utf-8")
            out.paths["sketch"] = folder / f"{folder.name}.ino"
    return written


def _convert(source, model, preprocessing, quantize, calibration_examples):
    """Returns the bytes of a .tflite without metadata.

    Args:
        source: the `Source`.
        model: the float model with its normalization folded.
        preprocessing: what that model expects.
        quantize: one of `edge.QUANTIZATIONS`.
        calibration_examples: how many training images to calibrate with.
    """
    if quantize == "qat":
        return converter.from_saved_model(source.aware / "saved_model", preprocessing)
    calibration = source.calibration_images(quantize, calibration_examples)
    try:
        has_scores = source.scores != FEATURES
        return converter.from_keras(
            model, preprocessing, quantize, calibration, has_scores
        )
    except RuntimeError as error:
        # What stands at the end of a graph is only known now.
        if calibration is None or isinstance(model, keras.Model):
            raise
        raise UserError(
            f"{source.path} ends with neither a softmax nor a sigmoid, whose scores "
            f"--quantize={quantize} can hold. Use --quantize=float16, or save a "
            "SavedModel that returns logits and pass --scores"
        ) from error


def _check_arena(micro, allowed):
    """Raises `UserError` if a file needs more memory than the device has for it."""
    needed = micro["arena_bytes"] + micro["scratch_bytes"]
    if allowed is not None and needed > allowed:
        raise UserError(
            f"the file needs an arena of {needed:,} bytes ({micro['scratch_bytes']:,} "
            f"of them for CMSIS-NN), --arena_bytes allows {allowed:,}: use a narrower "
            "network (train.py --width=0.5), or smaller images"
        )
