"""What an export is worth: its operators, its targets, its accuracy."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from keras_resnet.edge.inspect import layer_error
from keras_resnet.edge.targets import checks as targets
from keras_resnet.edge.targets import edgetpu
from keras_resnet.edge.targets import ethos_u as vela
from keras_resnet.runner import Classifier, UserError
from keras_resnet.training.data import batching, damaged

# Held-out images for the error of each layer: a layer has thousands of values.
LAYER_IMAGES = 8


def check(name, quantize, content, target, integer):
    """Checks a file against its target.

    Args:
        name: of the model.
        quantize: how.
        content: bytes of the file.
        target: one of `targets.TARGETS`.
        integer: whether no floating-point tensor may be left.

    Returns:
        (dict that JSON can hold, bytes that the target's compiler made or None).

    Raises:
        UserError: the target cannot run the file.
    """
    found = targets.check(content, target, integer)
    if found.problems:
        raise UserError(
            f"--target={target} cannot run this: {'; '.join(found.problems[:3])}"
            + ("; ..." if len(found.problems) > 3 else "")
        )
    report = {"model": name, "quantize": quantize, **dataclasses.asdict(found)}
    report["compared"] = compiled = None
    if target in vela.ACCELERATORS:
        summary, compiled = vela.compile_model(content, target)
        if summary.cpu_operators:
            raise UserError(f"--target={target} leaves operators out: {summary.text}")
        report["npu"] = summary.text
    return report, compiled


class Comparison:
    """Held-out images, and what the Keras model says of them."""

    def __init__(self, source, examples):
        """Reads the images.

        Args:
            source: the `export.Source`.
            examples: images, at most.
        """
        held_out = batching.images(source.dataset.held_out, source.preprocessing)
        with damaged.damaged_images_named(source.dataset):
            pairs = list(held_out.take(examples).as_numpy_iterator())
        self._images, self._labels = zip(*pairs, strict=True)
        self._dataset = source.dataset
        self._expected = source.model.predict(
            source.preprocessing.normalize(np.stack(self._images)), verbose=0
        )

    def of(self, content):
        """Compares the scores of a file, as the device would compute them.

        Args:
            content: bytes of the file.

        Returns:
            dict that JSON can hold.

        Raises:
            UserError: the runner refuses the file.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.tflite"
            path.write_bytes(content)
            try:
                classifier = Classifier(path)
            except UserError as error:
                raise UserError(
                    f"the runner would refuse this file: {error}"
                ) from error
            actual = np.stack([classifier.scores(image) for image in self._images])
        difference = np.abs(actual - self._expected)
        best, expected = actual.argmax(-1), self._expected.argmax(-1)
        compared = {
            "dataset": self._dataset.name,
            "images": len(self._images),
            "max_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
            "agreement": float(np.mean(best == expected)),
        }
        if len(self._dataset.labels) == actual.shape[-1]:
            compared["top1"] = float(np.mean(best == self._labels))
            compared["keras_top1"] = float(np.mean(expected == self._labels))
        return compared

    def layers(self, content, model, preprocessing):
        """Returns `layer_error.measure` of some of the images, as dicts."""
        errors = layer_error.measure(
            model, preprocessing, content, self._images[:LAYER_IMAGES]
        )
        return [dataclasses.asdict(error) for error in errors]


def refuse_drop(report, max_drop):
    """Raises `UserError` where more top-1 was lost than `max_drop` points.

    Args:
        report: dict; where top-1 was not measured, `gate_not_applied` says why.
        max_drop: points.
    """
    compared = report["compared"]
    if compared is None:
        report["gate_not_applied"] = "no --dataset was given"
        return
    if "top1" not in compared:
        report["gate_not_applied"] = (
            f"dataset {compared['dataset']} has other classes than the model"
        )
        return
    drop = 100 * (compared["keras_top1"] - compared["top1"])
    if drop > max_drop + 1e-9:  # 99% - 98% is a little more than 1 point in binary
        raise UserError(
            f"{report['quantize']} loses {drop:.2f} points of top-1 on "
            f"{compared['images']} images ({compared['top1']:.2%}, Keras model "
            f"{compared['keras_top1']:.2%}), --max_drop allows {max_drop:g}. Try "
            "training/qat.py, more --calibration_examples, or --quantize=float16"
        )


def text(report):
    """Returns the report as readable lines."""
    return "\n".join(f"  {name:<14} {value}" for name, value in rows(report))


def rows(report):
    """Returns the report as (what, text) pairs."""
    operators = report["operators"]
    runtime = report["oldest_runtime"]
    lines = [
        ("model", f"{report['model']}, quantize={report['quantize']}"),
        ("size", f"{report['file_bytes']:,} bytes"),
        ("operators", ", ".join(f"{op['name']} {op['count']}" for op in operators)),
        ("multiply-adds", f"{report['multiply_adds']:,}"),
        ("float tensors", len(report["float_tensors"]) or "none"),
        ("runtime", runtime_text(runtime)),
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
        worst = ", ".join(
            f"{row['layer']} {decibels(row)}" for row in report["layers"][:3]
        )
        lines.append(("worst layers", f"{worst} (signal to noise)"))
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
    """Returns the runtimes that read a file, as text: no promise beyond the tests."""
    if oldest is None:
        return "unknown"
    return f"TensorFlow Lite {oldest} or newer (tested from {targets.OLDEST_TESTED})"


def decibels(row):
    """Returns the error of a layer alone, as text."""
    own = row["own_snr_db"]
    return f"{row['snr_db'] if own is None else own:.1f} dB"


def advice(report):
    """Returns whether quantization-aware training was worth it, as text."""
    aware = report["compared"]["top1"]
    plain = report["post_training"]["top1"]
    if aware > plain:
        return f"keep QAT: int8 without it has {plain:.2%}"
    better = "better" if plain > aware else "as good"
    return f"--quantize=int8 is {better}: {plain:.2%} without QAT"
