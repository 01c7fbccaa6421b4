"""--compare: the difference between a delegate and the CPU."""

from keras_resnet.runner.classifier import Prediction
from keras_resnet.runner.errors import printable
from keras_resnet.runner.output import table_lines
from keras_resnet.runner.pipeline import invoke, load_pixels


def compare(path, cpu, delegate, k):
    """Runs one image on two classifiers; returns the dict of the JSON output."""
    import numpy as np

    pixels = load_pixels(path, cpu)[0]
    results = [invoke(classifier, pixels, {}) for classifier in (cpu, delegate)]
    one, other = (result.scores for result in results)
    report = {
        "file": path,
        "same_top": bool(one.argmax() == other.argmax()),
        "max_difference": float(np.abs(one - other).max()),
    }
    for name, result in zip(("cpu", "delegate"), results):
        top = [one._asdict() for one in cpu.top_k(result.scores, k)]
        report[name] = {"top": top, "invoke": result.times["invoke"]}
    return report


def print_comparison(report):
    """Prints the result of `compare` for people."""
    same = "the same" if report["same_top"] else "ANOTHER"
    print(
        f"{printable(report['file'])}  ({same} top class, scores differ by at most "
        f"{report['max_difference']:.4f})"
    )
    for name in ("cpu", "delegate"):
        print(f"  {name} ({report[name]['invoke']:.1f} ms)")
        top = [Prediction(**found) for found in report[name]["top"]]
        print("\n".join(table_lines(top)), flush=True)
