"""What an export is worth: its operators, its targets, its accuracy."""

import dataclasses

import numpy as np

import input_pipeline
import run_tflite
import targets
import vela
from command_line import UserError


def measure(source, quantize, content, path, target, examples):
    """Measures an exported file.

    Args:
        source: the `export.Source` that it was made from.
        quantize: how.
        content: bytes of the file.
        path: where they lie.
        target: one of `targets.TARGETS`.
        examples: held-out images to compare it with the Keras model on, at most.

    Returns:
        dict that JSON can hold.

    Raises:
        UserError: the target cannot run the file.
    """
    check = targets.check(content, target, integer=quantize in ("qat", "int8"))
    if check.problems:
        raise UserError(
            f"--target={target} cannot run this: {'; '.join(check.problems[:3])}"
            + ("; ..." if len(check.problems) > 3 else "")
        )
    report = {
        "model": source.model.name,
        "quantize": quantize,
        **dataclasses.asdict(check),
        "compared": source.dataset and _compare(source, path, examples),
    }
    if target in vela.ACCELERATORS:
        summary, _ = vela.compile_model(content, target)
        if summary.cpu_operators:
            raise UserError(f"--target={target} leaves operators out: {summary.text}")
        report["npu"] = summary.text
    return report


def _compare(source, path, examples):
    held_out = input_pipeline.images(source.dataset.held_out, source.preprocessing)
    with input_pipeline.damaged_images_named(source.dataset):
        pairs = list(held_out.take(examples).as_numpy_iterator())
    images, labels = zip(*pairs, strict=True)
    expected = source.model.predict(
        source.preprocessing.normalize(np.stack(images)), verbose=0
    )
    try:
        classifier = run_tflite.Classifier(path)
    except run_tflite.UserError as error:
        raise UserError(f"the runner would refuse this file: {error}") from error
    actual = np.stack([classifier.scores(image) for image in images])
    difference = np.abs(actual - expected)
    compared = {
        "dataset": source.dataset.name,
        "images": len(images),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "agreement": float(np.mean(actual.argmax(-1) == expected.argmax(-1))),
    }
    if len(source.dataset.labels) == expected.shape[-1]:
        compared["top1"] = float(np.mean(actual.argmax(-1) == labels))
        compared["keras_top1"] = float(np.mean(expected.argmax(-1) == labels))
    return compared


def refuse_drop(report, max_drop):
    """Raises `UserError` where more top-1 was lost than `max_drop` points."""
    compared = report["compared"] or {}
    drop = 100 * (compared.get("keras_top1", 0) - compared.get("top1", 0))
    if drop > max_drop:
        raise UserError(
            f"{report['quantize']} loses {drop:.2f} points of top-1 on "
            f"{compared['images']} images ({compared['top1']:.2%}, Keras model "
            f"{compared['keras_top1']:.2%}), --max_drop allows {max_drop:g}. Try "
            "training/qat.py, more --calibration_examples, or --quantize=float16"
        )


def text(report):
    """Returns the report as readable lines."""
    operators = report["operators"]
    runtime = report["oldest_runtime"]
    fits = "fits" if report["fits_on_chip"] else "is streamed over, which is slower"
    lines = [
        ("model", f"{report['model']}, quantize={report['quantize']}"),
        ("size", f"{report['file_bytes']:,} bytes"),
        ("operators", ", ".join(f"{op['name']} {op['count']}" for op in operators)),
        ("multiply-adds", f"{report['multiply_adds']:,}"),
        ("float tensors", len(report["float_tensors"]) or "none"),
        ("runtime", f"TensorFlow Lite {runtime} or newer" if runtime else "unknown"),
        (
            "Edge TPU",
            f"{report['edgetpu_operators']} of "
            f"{sum(op['count'] for op in operators)} operators map; on the chip's 8 MB "
            f"it {fits}",
        ),
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
    return "\n".join(f"  {name:<14} {value}" for name, value in lines)
