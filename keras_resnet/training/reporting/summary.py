"""The accuracy of the classes as one line."""

from keras_resnet.training.data.sources.pictures import is_uneven


def line(metrics):
    """Returns the accuracy by class of a run as one line.

    It names the class with the lowest recall, or the label with the lowest average
    precision, and where classes are uneven the balanced accuracy. Runs of older
    versions have none of these: "".
    """
    classes = {
        label: found
        for label, found in metrics.get("by_class", {}).items()
        if found.get("examples")
    }
    if not classes:
        return ""
    if "balanced_accuracy" not in metrics:
        worst = min(classes, key=lambda label: classes[label]["average_precision"])
        found = classes[worst]
        return (
            f"worst label {worst!r}: average precision "
            f"{found['average_precision']:.2%}, {found['examples']} images have it"
        )
    worst = min(classes, key=lambda x: classes[x]["right"] / classes[x]["examples"])
    text = "worst class {!r}: {right} of {examples} right".format(
        worst, **classes[worst]
    )
    if is_uneven([found["examples"] for found in classes.values()]):
        text = f"balanced accuracy {metrics['balanced_accuracy']:.2%}, {text}"
    return text
