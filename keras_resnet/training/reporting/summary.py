"""The accuracy of the classes as one line."""

from keras_resnet.training.data.sources.pictures import is_uneven


def line(metrics):
    """Returns the accuracy by class of a run as one line.

    It names the class with the lowest recall, or the label with the lowest average
    precision, and where classes are uneven the balanced accuracy. Of boxes and masks it
    names the class with the lowest AP50 or IoU. Runs of older versions have none of
    these: "".
    """
    by_class = metrics.get("by_class", {})
    for key, name in (("ap50", "AP50"), ("iou", "IoU")):
        known = {
            label: found[key]
            for label, found in by_class.items()
            if found.get(key) is not None
        }
        if known:
            worst = min(known, key=known.get)
            return f"worst class {worst!r}: {name} {known[worst]:.2%}"
    classes = {
        label: found for label, found in by_class.items() if found.get("examples")
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
