"""The export of a detector or a segmenter: the wiring of its parts."""

import contextlib
import dataclasses
import json
import pathlib

from keras_resnet import files, heads
from keras_resnet.edge.convert import converter, scenes
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.page import held_out, writer
from keras_resnet.edge.report import page as report_page
from keras_resnet.edge.report import scene_comparison, summary
from keras_resnet.edge.targets import checks, edgetpu
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.preprocessing import BOXES
from keras_resnet.training.scenes import answers

# What a detector's second file has in its name, which ends with
# TFLite_Detection_PostProcess.
BOXES_SUFFIX = "_boxes"
# A segmenter's scores of all pixels end with these, which an Edge TPU does not run.
CPU_END = ("SOFTMAX", "QUANTIZE")


def export(
    source,
    output,
    about,
    *,
    anchors=None,
    quantize="int8",
    target="litert",
    calibration_examples=500,
    report_examples=1000,
    max_drop=1.0,
    page=False,
):
    """Converts a trained detector or segmenter for the device, and reports on it.

    Of a detector, two files come from one conversion: OUTPUT.tflite gives raw boxes and
    scores, OUTPUT_boxes.tflite the four outputs that pycoral and MediaPipe read. The
    reports are written beside them. If anything is wrong, no file is written.

    Args:
        source: `Source` of a functional `keras.Model` from preprocessed images to
            {"boxes", "scores"} or to softmax scores (batch, height, width, classes).
        output: path of the .tflite.
        about: `metadata.About`.
        anchors: of a detector that is not of `heads`, float32 (anchors, 4): y, x,
            height, width.
        quantize: one of `edge.QUANTIZATIONS`.
        target: what must be able to run the raw file.
        calibration_examples: training images to calibrate with.
        report_examples: held-out images to report on, at most.
        max_drop: points of mAP50 or of mean IoU that the file may lose.
        page: whether to write OUTPUT.html too, a web page that runs OUTPUT.tflite.

    Returns:
        `summary.Report`.

    Raises:
        UserError: the target cannot run the file, or it loses more than `max_drop`.
        OSError: a file cannot be written.
    """
    wanted = checks.find(target)
    detects = source.scores == BOXES
    if detects and anchors is None:
        anchors = heads.anchors(source.model)
    *folded, notes = source.folded()

    def convert(quantize):
        content = _convert(source, *folded, quantize, calibration_examples)
        if not detects:
            made = scenes.segmenter(content, source.labels, folded[1], about)
            return {"tflite": made}
        made = scenes.detector(content, anchors, source.labels, folded[1], about)
        return {"tflite": made.raw, "boxes": made.boxes}

    made = convert(quantize)
    layers = {layer.name for layer in source.model.layers}
    check = checks.check(made["tflite"], target, layers, () if detects else CPU_END)
    if check.problems:
        raise checks.refusal(check, quantize)
    report = {
        "model": source.model.name,
        "quantize": quantize,
        **dataclasses.asdict(check),
        "compared": None,
        "notes": source.notes + notes,
    }
    if detects:
        report["boxes"] = _boxes_report(made["boxes"])
    if source.dataset is not None:
        comparison = scene_comparison.Comparison(
            source.model,
            source.preprocessing,
            anchors,
            source.dataset,
            report_examples,
        )
        report["compared"] = comparison.compare(made)
    _check_drop(report, max_drop)
    if source.dataset is not None and quantize == "qat":
        # What fine-tuning has to be better than.
        plain = {"tflite": convert("int8")["tflite"]}
        report["post_training"] = comparison.compare(plain)
    samples = held_out.pictures(source.dataset) if page else None
    return _write(output, made, report, wanted, samples)


def _convert(source, model, preprocessing, quantize, calibration_examples):
    """Returns the bytes of a .tflite without metadata, as `scenes` takes it.

    Args:
        source: the `Source`.
        model: the float model with its normalization folded.
        preprocessing: what that model expects.
        quantize: one of `edge.QUANTIZATIONS`.
        calibration_examples: how many training images to calibrate with.
    """
    detects = source.scores == BOXES
    if quantize == "qat":
        path = source.aware / "saved_model"
        if detects:
            return converter.convert_saved_model(path)
        return converter.from_saved_model(path, preprocessing)
    calibration = None
    if quantize in converter.CALIBRATED:
        calibration = answers.images(
            source.dataset, source.preprocessing, calibration_examples
        )
    convert = converter.convert_keras if detects else converter.from_keras
    return convert(model, preprocessing, quantize, calibration)


def _boxes_report(content):
    """Returns what the report says of the file with TFLite_Detection_PostProcess."""
    rows = operators.summarize(tflite_graph.read(content))
    return {
        "file_bytes": len(content),
        "operators": sum(row.count for row in rows),
        "edgetpu_operators": edgetpu.check(content).mapped,
    }


def _check_drop(report, max_drop):
    """Raises `UserError` if a file loses more than `max_drop` points."""
    compared = report["compared"]
    if compared is None:
        report["gate_not_applied"] = "no --dataset was given"
        return
    name = summary.accuracy_name(compared)
    ours, of_keras = compared[name], compared[f"keras_{name}"]
    if of_keras is None:
        report["gate_not_applied"] = f"nothing is annotated in {compared['dataset']}"
        return
    drop = 100 * (of_keras - ours)
    # 0.99 - 0.98 is a little more than 0.01 in binary.
    if drop > max_drop + 1e-9:
        raise UserError(
            f"{report['quantize']} loses {drop:.2f} points of "
            f"{summary.ACCURACIES[name]} on {compared['images']} images ({ours:.2%}, "
            f"Keras model {of_keras:.2%}), --max_drop allows {max_drop:g}. Try more "
            "--calibration_examples, or --quantize=float16"
        )


def _write(output, made, report, wanted, samples):
    """Writes all files or none; returns the `summary.Report`.

    A web page is among them if its `samples` are not None.
    """
    suffixes = {"tflite": ".tflite", "boxes": f"{BOXES_SUFFIX}.tflite"}
    paths = {}
    with contextlib.ExitStack() as stack:

        def temporary(kind, suffix):
            path = paths[kind] = output.with_name(output.stem + suffix)
            return pathlib.Path(stack.enter_context(files.replacing(path)))

        for kind, content in made.items():
            file = temporary(kind, suffixes[kind])
            file.write_bytes(content)
            if kind == "tflite" and samples is not None:
                html = writer.html(file, name=output.stem, samples=samples)
                temporary("page", ".html").write_text(html, encoding="utf-8")
        if wanted.compile:
            report["npu"], compiled = wanted.compile(made["tflite"])
            suffix = f"{wanted.compiled_suffix}.tflite"
            temporary("compiled", suffix).write_bytes(compiled)
        text = json.dumps(report, indent=2) + "\n"
        temporary("json", ".report.json").write_text(text, encoding="utf-8")
        html = report_page.html(report)
        temporary("html", ".report.html").write_text(html, encoding="utf-8")
    return summary.Report(json.loads(text), paths)  # with lists for its tuples
