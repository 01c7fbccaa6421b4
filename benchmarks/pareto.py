r"""Accuracy against latency of the shipped networks and of others: a table, a picture.

    python -m benchmarks.pareto --data_dir=DIR \
        --others=mlperf_tiny_resnet8_int8.tflite --picture=pareto.png

Takes every int8 file in models/, and --others, any .tflite classifiers of CIFAR-10 that
take raw pixels (or, as int8, pixel - 128). Their accuracy is measured on the test split
in --data_dir; without it that of the cards is shown, and none for the others. Latencies
are those of this machine: one interpreter for each file and number of threads, all of
them in one process and in turns, so that other work on the machine hits all alike.
Prints Markdown.
"""

import pathlib
import statistics
import sys
import time

from absl import flags

from benchmarks import ship, turns
from keras_resnet import console, files
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]

FLAGS = flags.FLAGS

THREADS = (1, 2)
HEADER = (
    "Model",
    "Parameters",
    "Multiply-adds (M)",
    "Float top-1 (%)",
    "int8 top-1 (%)",
    "Bytes",
    *(f"ms, {count} thread{'s' * (count > 1)}" for count in THREADS),
)


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_list("others", [], "More .tflite files, separated by commas.")
    flags.DEFINE_string("data_dir", None, "Where CIFAR-10 lies; see above.")
    flags.DEFINE_string("picture", None, "A .png to draw.")
    flags.DEFINE_integer("rounds", 51, "Turns of each.", lower_bound=1)


def main():
    """Measures as the flags say."""
    console.import_tensorflow()
    paths = sorted((ROOT / "models").glob("*.tflite"))
    paths += map(pathlib.Path, FLAGS.others)
    if not paths:
        raise UserError("models/ is empty: give some .tflite files as --others")
    models = [describe(path) for path in paths]
    if FLAGS.data_dir:
        measure_accuracies(models, FLAGS.data_dir)
    measure_latencies(models, FLAGS.rounds)
    print(table(models))
    if FLAGS.picture:
        with files.replacing(FLAGS.picture) as temporary:
            picture(models).savefig(temporary, dpi=120)


def describe(path):
    """Returns what a .tflite and its card tell, as a dict.

    "float" and "int8" are accuracies as in a card, or None. A file that is damaged or
    no classifier of CIFAR-10 raises `UserError`.
    """
    from keras_resnet.edge.inspect import graph as tflite_graph
    from keras_resnet.edge.targets import checks as targets
    from keras_resnet.runner import Classifier

    try:
        content = path.read_bytes()
        classifier = Classifier(path)
        graph = tflite_graph.read(content)
    except ValueError as error:
        raise UserError(str(error)) from error
    if (*classifier.input_shape, classifier.classes) != (1, 32, 32, 3, 10):
        raise UserError(
            f"{path} must take 32x32 images and tell 10 classes apart. Received: "
            f"{classifier.input_shape[1:3]}, {classifier.classes}"
        )
    card = _card(path)
    return {
        "name": path.name.removesuffix(".tflite"),
        "path": path,
        "bytes": len(content),
        "parameters": parameters(graph),
        "multiply_adds": targets.check(content).multiply_adds,
        "float": card and card["float"]["accuracy"],
        "int8": card and card["int8"]["accuracy"],
    }


def _card(path):
    """Returns the card of a shipped file, None of any other."""
    from keras_resnet.weights import registry

    name = path.name.removesuffix(".int8.tflite")
    card = files.read_json(registry.PACKAGE / registry.SHIPPED / f"{name}.json")
    of_this_file = card and card["int8"]["sha256"] == files.sha256(path)
    return card if of_this_file else None


def parameters(graph):
    """Returns the number of weights and biases, batch normalization folded in."""
    constants = {
        tensor.index: tensor.elements
        for operator in graph.operators
        if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
        for tensor in operator.inputs
        if tensor is not None and tensor.constant
    }
    return sum(constants.values())


# --- Measuring ----------------------------------------------------------------


def measure_accuracies(models, data_dir):
    """Puts the int8 accuracy on CIFAR-10's test split into each model."""
    from keras_resnet.preprocessing import Preprocessing
    from keras_resnet.training.data import sources

    dataset = sources.load("cifar10", data_dir)
    images, labels = ship.arrays(dataset.held_out, Preprocessing((32, 32)))
    for model in models:
        model["int8"] = ship.accuracy(ship.int8_scores(model["path"], images), labels)


def measure_latencies(models, rounds, seconds=0.02):
    """Gives each `describe` its "milliseconds": {threads: median of an inference}.

    A turn lasts about `seconds`.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    runs = {}
    for place, model in enumerate(models):
        for threads in THREADS:
            interpreter = Interpreter(str(model["path"]), num_threads=threads)
            interpreter.allocate_tensors()
            (given,) = interpreter.get_input_details()
            random = np.random.default_rng(0).integers(0, 128, given["shape"])
            interpreter.set_tensor(given["index"], random.astype(given["dtype"]))
            interpreter.invoke()
            count = max(1, round(seconds / _milliseconds((interpreter, 10)) * 1000))
            runs[place, threads] = interpreter, count
    for (place, threads), found in turns.in_turns(_milliseconds, runs, rounds).items():
        median = statistics.median(found)
        models[place].setdefault("milliseconds", {})[threads] = median


def _milliseconds(run):
    """Returns the mean time of (an interpreter, number of inferences)."""
    interpreter, count = run
    started = time.perf_counter()
    for _ in range(count):
        interpreter.invoke()
    return 1000 * (time.perf_counter() - started) / count


# --- Showing ------------------------------------------------------------------


def table(models):
    """Returns the models as a Markdown table, the fastest first."""
    rows = [HEADER, ("---",) * len(HEADER)]
    for model in _by_latency(models):
        rows.append(
            (
                model["name"],
                f"{model['parameters']:,}",
                f"{model['multiply_adds'] / 1e6:.1f}",
                _percent(model["float"]),
                _percent(model["int8"]),
                f"{model['bytes']:,}",
                *(f"{model['milliseconds'][threads]:.3f}" for threads in THREADS),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _by_latency(models):
    return sorted(models, key=lambda model: model["milliseconds"][THREADS[0]])


def _percent(accuracy):
    if accuracy is None:
        return "-"
    return f"{100 * accuracy['top1']:.2f} ± {100 * accuracy['standard_error']:.2f}"


def picture(models):
    """Returns a figure of int8 top-1, with standard error, by single-thread latency."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for model in _by_latency(models):
        if model["int8"] is None:
            continue
        place = (model["milliseconds"][THREADS[0]], 100 * model["int8"]["top1"])
        error = 100 * model["int8"]["standard_error"]
        axes.errorbar(*place, yerr=error, fmt="o", capsize=3, label=model["name"])
    axes.set(xlabel="ms an image, int8, one thread", ylabel="CIFAR-10 top-1, %")
    axes.grid(alpha=0.3)
    if axes.containers:
        axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    app.run(sys.modules[__name__])
