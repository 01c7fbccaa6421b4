"""The report of an export as a dict, and as readable lines."""

from keras_resnet.edge.targets import edgetpu, tflite_runtime


class Report(dict):
    """What an export is worth: the content of `report.json`.

    `str(report)` is the text that `export.py` prints.

    Attributes:
        paths: {"tflite" | "json" | "html" | "compiled": path of the file}. "compiled"
            is there if the target has a compiler.
    """

    def __init__(self, values, paths):
        """Makes a report of a dict and of the paths that were written."""
        super().__init__(values)
        self.paths = paths

    def __str__(self):
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
        ("float tensors", len(report["float_tensors"]) or "none"),
        ("runtime", runtime_text(report["oldest_runtime"])),
        ("Edge TPU", f"estimate: {edgetpu_text(report)}"),
    ]
    if "npu" in report:
        lines.append((report["target"], report["npu"]))
    compared = report["compared"]
    if compared is None:
        lines.append(("compared", "not at all: no --dataset was given"))
    else:
        maximum, mean = compared["max_difference"], compared["mean_difference"]
        lines += [
            ("images", f"{compared['images']} held-out of {compared['dataset']}"),
            ("difference", f"max {maximum:.4f}, mean {mean:.6f}"),
            ("agreement", f"{compared['agreement']:.2%} top-1 with the Keras model"),
        ]
        if "top1" in compared:
            top1, keras_top1 = compared["top1"], compared["keras_top1"]
            lines.append(("top-1", f"{top1:.2%}; Keras model {keras_top1:.2%}"))
    if "gate_not_applied" in report:
        lines.append(("accuracy gate", f"not applied: {report['gate_not_applied']}"))
    if report.get("layers"):
        worst = [f"{row['layer']} {decibels(row)}" for row in report["layers"][:3]]
        lines.append(("worst layers", f"{', '.join(worst)} (signal to noise)"))
    if "top1" in report.get("post_training", {}):
        lines.append(("advice", advice(report)))
    return lines


def edgetpu_text(report):
    """Returns what an Edge TPU would run of a file, as text."""
    total = sum(operator["count"] for operator in report["operators"])
    mapped = report["edgetpu_operators"]
    text = edgetpu.totals(mapped, total, report["edgetpu_likely"])
    if not mapped:
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
    aware = report["compared"]["top1"]
    plain = report["post_training"]["top1"]
    if aware > plain:
        return f"keep QAT: int8 without it has {plain:.2%}"
    better = "better" if plain > aware else "as good"
    return f"--quantize=int8 is {better}: {plain:.2%} without QAT"
