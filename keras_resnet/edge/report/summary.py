"""The report of an export as a dict, and as readable lines."""

import pathlib
from collections.abc import Mapping
from typing import Any

from keras_resnet.edge.inspect import operators as tflite_operators
from keras_resnet.edge.targets import edgetpu, tflite_runtime

# Accuracies that a comparison may have, those that decide first.
ACCURACIES = {
    "top1": "top-1",
    "mean_average_precision": "mean AP",
    "label_accuracy": "label accuracy",
    "ap50": "mAP50",
    "ap": "mAP",
    "ap75": "mAP75",
    "miou": "mean IoU",
}


class Report(dict):
    """What an export is worth: the content of `report.json`.

    `str(report)` is the text that `export.py` prints.

    Attributes:
        paths: {"tflite" | "json" | "html" | "compiled" | "sketch" | "page": path of the
            file}. "compiled" is there if the target has a compiler, "sketch" for a
            microcontroller, and "page" if it was asked for.
    """

    def __init__(
        self, values: Mapping[str, Any], paths: dict[str, pathlib.Path]
    ) -> None:
        """Makes a report of a dict and of the paths that were written."""
        super().__init__(values)
        self.paths = paths

    def __str__(self) -> str:
        """Returns the path of the .tflite and the report as lines."""
        lines = [f"  {name:<14} {value}" for name, value in rows(self)]
        return "\n".join([str(self.paths["tflite"]), *lines])


def rows(report):
    """Returns the report as a list of (name, text)."""
    operators = report["operators"]
    lines = [
        ("model", f"{report['model']}, quantize={report['quantize']}"),
        ("size", f"{report['file_bytes']:,} bytes"),
        ("operators", ", ".join(f"{op['name']} {op['count']}" for op in operators)),
        ("multiply-adds", f"{report['multiply_adds']:,}"),
        ("float part", float_text(report)),
        ("runtime", runtime_text(report["oldest_runtime"])),
        ("Edge TPU", f"estimate: {edgetpu_text(report)}"),
    ]
    if "boxes" in report:
        boxes = report["boxes"]
        mapped = edgetpu.totals(boxes["edgetpu_operators"], boxes["operators"])
        text = f"{boxes['file_bytes']:,} bytes; Edge TPU estimate: {mapped}"
        lines.append(("with boxes", text))
    lines += [("note", note) for note in report["notes"]]
    if "npu" in report:
        lines.append((report["target"], report["npu"]))
    if "micro" in report:
        lines += _micro_rows(report["micro"])
    compared = report["compared"]
    if compared is None:
        lines.append(("compared", "not at all: no --dataset was given"))
    else:
        maximum, mean = compared["max_difference"], compared["mean_difference"]
        what = "yes or no to a label" if "multi_label" in compared else "top-1"
        lines += [
            ("images", f"{compared['images']} held-out of {compared['dataset']}"),
            ("difference", f"max {maximum:.4f}, mean {mean:.6f}"),
        ]
        if "agreement" in compared:
            text = f"{compared['agreement']:.2%} {what} with the Keras model"
            lines.append(("agreement", text))
        elif "mean_cosine" in compared:
            lowest, mean = compared["lowest_cosine"], compared["mean_cosine"]
            text = (
                f"mean {mean:.4f}, lowest {lowest:.4f}, to the Keras model's features"
            )
            lines.append(("cosine", text))
        for key, name in ACCURACIES.items():
            if compared.get(key) is not None:
                value, expected = compared[key], compared[f"keras_{key}"]
                lines.append((name, f"{value:.2%}; Keras model {expected:.2%}"))
    if "gate_not_applied" in report:
        lines.append(("accuracy gate", f"not applied: {report['gate_not_applied']}"))
    if report.get("layers"):
        worst = [f"{row['layer']} {decibels(row)}" for row in report["layers"][:3]]
        lines.append(("worst layers", f"{', '.join(worst)} (signal to noise)"))
    if accuracy_name(report.get("post_training") or {}):
        lines.append(("advice", advice(report)))
    return lines


def _micro_rows(micro):
    """Returns what TFLM's interpreter found as a list of (name, text)."""
    arena, scratch = micro["arena_bytes"], micro["scratch_bytes"]
    text = f"{arena:,} bytes in TFLM's interpreter; CMSIS-NN may take {scratch:,} more"
    lines = [("arena", text)]
    for key, name in (("with_reference", "reference"), ("with_default", "XNNPACK")):
        found, images = micro[key], micro["images"]
        text = (
            f"equal to LiteRT's {name} kernels on {found['equal_images']} of {images} "
            f"images, at most {found['max_steps']} steps of 1/256 apart; "
            f"{found['top1_agreement']:.2%} of top-1 equal"
        )
        lines.append(("TFLM scores", text))
    return lines


def accuracy_name(compared):
    """Returns the name of the accuracy that decides, or None if none was measured."""
    return next((name for name in ACCURACIES if name in compared), None)


def float_text(report):
    """Returns which part of a file computes in floating point, as text."""
    in_float = [
        tflite_operators.FloatOperators(**row) for row in report["float_operators"]
    ]
    if not in_float:
        return "conversions alone" if report["float_tensors"] else "none"
    rows = [tflite_operators.Operators(**row) for row in report["operators"]]
    return tflite_operators.float_text(in_float, tflite_operators.computing(rows))


def edgetpu_text(report):
    """Returns what an Edge TPU would run of a file, as text."""
    total = sum(operator["count"] for operator in report["operators"])
    mapped = report["edgetpu_operators"]
    text = edgetpu.totals(mapped, total, report["edgetpu_likely"])
    if not report["on_chip_bytes_high"]:  # nothing maps, or only what has no weights
        return text
    memory = edgetpu.memory(report["on_chip_bytes_low"], report["on_chip_bytes_high"])
    return f"{text}; on the chip {memory}"


def runtime_text(oldest):
    """Returns which runtimes compute a file, and from which on that was tested."""
    if oldest is None:
        return "unknown"
    tested = tflite_runtime.OLDEST_TESTED
    return f"TensorFlow Lite {oldest} or newer (tested from {tested})"


def decibels(row):
    """Returns the signal-to-noise ratio of a layer alone, as text."""
    own = row["own_snr_db"]
    return f"{row['snr_db'] if own is None else own:.1f} dB"


def advice(report):
    """Returns whether quantization-aware training is better than int8 without it."""
    name = accuracy_name(report["compared"])
    aware, plain = report["compared"][name], report["post_training"][name]
    if aware > plain:
        return f"keep QAT: int8 without it has {plain:.2%}"
    better = "better" if plain > aware else "as good"
    return f"--quantize=int8 is {better}: {plain:.2%} without QAT"
