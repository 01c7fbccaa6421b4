"""The export of a detector or a segmenter: the wiring of its parts."""

from keras_resnet import heads
from keras_resnet.edge.convert import converter, scenes
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.output_files import OutputFiles
from keras_resnet.edge.report import gate, scene_comparison
from keras_resnet.edge.targets import checks, edgetpu
from keras_resnet.runner.preprocessing import BOXES

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

    with OutputFiles(output) as out:
        # Fails now if the file cannot be written, and not after the conversion.
        file = out.temporary("tflite", ".tflite")
        made = convert(quantize)
        cpu_end = () if detects else CPU_END
        report = gate.check_target(
            source, quantize, made["tflite"], target, notes, cpu_end
        )
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
        gate.check_drop(report, max_drop)
        if source.dataset is not None and quantize == "qat":
            # What fine-tuning has to be better than.
            plain = {"tflite": convert("int8")["tflite"]}
            report["post_training"] = comparison.compare(plain)
        file.write_bytes(made["tflite"])
        if page:
            out.write_page(file, source.dataset)
        if detects:
            boxes = out.temporary("boxes", f"{BOXES_SUFFIX}.tflite")
            boxes.write_bytes(made["boxes"])
        if wanted.compile:
            report["npu"] = out.write_compiled(wanted, made["tflite"])
        return out.write_report(report)


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
    calibration = source.calibration_images(quantize, calibration_examples)
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
