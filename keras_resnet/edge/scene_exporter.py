"""The export of a detector or a segmenter: the wiring of its parts."""

import contextlib
import dataclasses
import json
import pathlib

import keras

from keras_resnet import files, rewrite
from keras_resnet.edge.convert import converter, metadata, scenes
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.report import page, scene_comparison, summary
from keras_resnet.edge.targets import checks, edgetpu
from keras_resnet.runner.errors import UserError

# What a detector's second file has in its name, which ends with
# TFLite_Detection_PostProcess.
BOXES_SUFFIX = "_boxes"


def export(
    model,
    output,
    preprocessing,
    labels,
    *,
    anchors=None,
    dataset=None,
    quantize="int8",
    target="litert",
    calibration_examples=500,
    report_examples=1000,
    max_drop=1.0,
    about=None,
):
    """Converts a trained detector or segmenter for the device, and reports on it.

    Of a detector, two files come from one conversion: OUTPUT.tflite gives raw boxes and
    scores, OUTPUT_boxes.tflite the four outputs that pycoral and MediaPipe read. The
    reports are written beside them. If anything is wrong, no file is written.

    Args:
        model: functional `keras.Model` from preprocessed images to {"boxes", "scores"}
            or to softmax scores (batch, height, width, classes).
        output: path of the .tflite.
        preprocessing: the `Preprocessing` that it expects.
        labels: names of its classes.
        anchors: of a detector, float32 (anchors, 4): y, x, height, width.
        dataset: `SceneDataset` to calibrate and report with, or None.
        quantize: one of `edge.QUANTIZATIONS` but "qat".
        target: what must be able to run the raw file.
        calibration_examples: training images to calibrate with.
        report_examples: held-out images to report on, at most.
        max_drop: points of mAP50 or of mean IoU that the file may lose.
        about: `metadata.About`; by default the name of the model alone.

    Returns:
        `summary.Report`.

    Raises:
        UserError: the target cannot run the file, or it loses more than `max_drop`.
        OSError: a file cannot be written.
    """
    wanted = checks.find(target)
    about = about or metadata.About(model.name)
    if quantize in converter.CALIBRATED and dataset is None:
        raise UserError(
            f"--quantize={quantize} needs images to calibrate with: pass --dataset "
            "and --data_dir"
        )
    folded, uniform, notes = rewrite.fold_normalization(model, preprocessing)
    # The rewriting keeps the order of the outputs, and not their names.
    outputs = keras.tree.pack_sequence_as(model.output, folded.outputs)
    folded = keras.Model(folded.inputs, outputs)
    calibration = None
    if quantize in converter.CALIBRATED:
        calibration = scene_comparison.images(
            dataset, dataset.train, preprocessing, calibration_examples
        )
    convert = converter.from_keras if anchors is None else converter.convert_keras
    content = convert(folded, uniform, quantize, calibration)
    if anchors is None:
        made = {"tflite": scenes.segmenter(content, labels, uniform, about)}
    else:
        found = scenes.detector(content, anchors, labels, uniform, about)
        made = {"tflite": found.raw, "boxes": found.boxes}
    layers = {layer.name for layer in model.layers}
    check = checks.check(made["tflite"], target, layers)
    if check.problems:
        raise checks.refusal(check, quantize)
    report = {
        "model": model.name,
        "quantize": quantize,
        **dataclasses.asdict(check),
        "compared": None,
        "notes": list(notes),
    }
    if "boxes" in made:
        report["boxes"] = _boxes_report(made["boxes"])
    if dataset is not None:
        report["compared"] = scene_comparison.compare(
            model, preprocessing, anchors, dataset, report_examples, made
        )
    _check_drop(report, max_drop)
    return _write(pathlib.Path(output), made, report, wanted)


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


def _write(output, made, report, wanted):
    """Writes all files or none; returns the `summary.Report`."""
    suffixes = {"tflite": ".tflite", "boxes": f"{BOXES_SUFFIX}.tflite"}
    paths = {}
    with contextlib.ExitStack() as stack:

        def temporary(kind, suffix):
            path = paths[kind] = output.with_name(output.stem + suffix)
            return pathlib.Path(stack.enter_context(files.replacing(path)))

        for kind, content in made.items():
            temporary(kind, suffixes[kind]).write_bytes(content)
        if wanted.compile:
            report["npu"], compiled = wanted.compile(made["tflite"])
            suffix = f"{wanted.compiled_suffix}.tflite"
            temporary("compiled", suffix).write_bytes(compiled)
        text = json.dumps(report, indent=2) + "\n"
        temporary("json", ".report.json").write_text(text, encoding="utf-8")
        html = page.html(report)
        temporary("html", ".report.html").write_text(html, encoding="utf-8")
    return summary.Report(json.loads(text), paths)  # with lists for its tuples
