"""What a converted file has to pass before it is written."""

import dataclasses

from keras_resnet.edge.report import summary
from keras_resnet.edge.targets import checks
from keras_resnet.runner.errors import UserError
from keras_resnet.training import accuracy

REMEDY = "Try training/qat.py, more --calibration_examples, or --quantize=float16"
REMEDIES = {
    "qat": "Delete the folder qat of the run and call training/qat.py with a lower "
    "--learning_rate, or pass --quantize=int8"
}


def check_target(source, quantize, content, target, notes, cpu_end=()):
    """Checks that a target can run a file.

    Args:
        source: the `Source`.
        quantize: one of `edge.QUANTIZATIONS`.
        content: bytes of the .tflite.
        target: name of the target.
        notes: what the conversion has changed, sentences for the user.
        cpu_end: see `checks.check`.

    Returns:
        The beginning of the report, a dict.

    Raises:
        UserError: the target cannot run the file.
    """
    layers = {layer.name for layer in getattr(source.model, "layers", ())}
    found = checks.check(content, target, layers, cpu_end)
    if found.problems:
        raise checks.refusal(found, quantize)
    return {
        "model": source.model.name,
        "quantize": quantize,
        **dataclasses.asdict(found),
        "compared": None,
        "notes": source.notes + notes,
    }


def check_drop(report, max_drop):
    """Checks that a file does not lose more than `max_drop` points of accuracy.

    Two images of top-1 never count, since they may be chance.

    Args:
        report: dict of the report. If no accuracy was measured, it gets the reason as
            `gate_not_applied`.
        max_drop: percentage points.

    Raises:
        UserError: the file loses more.
    """
    compared = report["compared"]
    if reason := _nothing_measured(compared):
        report["gate_not_applied"] = reason
        return
    name = summary.accuracy_name(compared)
    ours, of_keras = compared[name], compared[f"keras_{name}"]
    drop = 100 * (of_keras - ours)
    if accuracy.is_drop(name, drop, compared["images"], max_drop):
        remedy = REMEDIES.get(report["quantize"], REMEDY)
        raise UserError(
            f"{report['quantize']} loses {drop:.2f} points of "
            f"{summary.ACCURACIES[name]} on {compared['images']} images ({ours:.2%}, "
            f"Keras model {of_keras:.2%}), --max_drop allows {max_drop:g}. {remedy}"
        )


def _nothing_measured(compared):
    """Returns why there is no accuracy to compare, or None if there is one."""
    if compared is None:
        return "no --dataset was given"
    if "mean_cosine" in compared:
        return "features have no accuracy"
    name = summary.accuracy_name(compared)
    if name is None:
        return (
            f"no image of dataset {compared['dataset']} has a label"
            if "multi_label" in compared
            else f"dataset {compared['dataset']} has other classes than the model"
        )
    if compared[f"keras_{name}"] is None:
        return f"nothing is annotated in {compared['dataset']}"
    return None
