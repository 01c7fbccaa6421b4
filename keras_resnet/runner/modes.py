"""The modes: classify images, benchmark, evaluate, compare, show versions."""

import json
import os
import re
import sys
import time

from keras_resnet.runner.benchmark import benchmark, print_benchmark
from keras_resnet.runner.classifier import Classifier, Prediction
from keras_resnet.runner.delegates import check_edgetpu
from keras_resnet.runner.errors import (
    UserError,
    printable,
    result_or_error,
    user_errors,
)
from keras_resnet.runner.evaluation import evaluate, print_evaluation
from keras_resnet.runner.images import prepare
from keras_resnet.runner.learn import learn_classes, print_learned
from keras_resnet.runner.learning import KNOWN_SHARE
from keras_resnet.runner.output import (
    Messages,
    annotate,
    annotated_path,
    print_csv,
    print_csv_header,
    print_json,
    print_table,
    table_lines,
)
from keras_resnet.runner.pipeline import (
    classify_all,
    invoke,
    load_pixels,
    milliseconds_since,
)
from keras_resnet.runner.runtime import default_threads, load_runtime
from keras_resnet.runner.sources import camera_frames, find_images, watch

VERSION = "1.0"


def build_classifier(options, model=None, delegate=None):
    """Builds the classifier of the flags, or one with this model and delegate."""
    normalization = None
    if options.mean or options.std:
        normalization = (options.mean or (0.0,), options.std or (1.0,))
    return Classifier(
        model or options.model,
        options.labels,
        options.threads,
        delegate or options.delegate,
        {} if delegate else dict(options.delegate_options),
        normalization,
        options.bgr,
        # --learn replaces this file.
        None if options.learn is not None else options.classes,
    )


def print_versions():
    """Prints the version of everything that affects the result."""
    import numpy
    import PIL

    print(f"run_tflite.py {VERSION}, Python {sys.version.split()[0]}")
    print(f"numpy {numpy.__version__}, Pillow {PIL.__version__}")
    runtime = load_runtime()[1]
    print(f"runtime: {runtime}, {default_threads()} threads")
    for good, text in check_edgetpu(runtime):
        print(f"Edge TPU, {'ok' if good else 'missing'}: {printable(text)}")


def run_benchmark(classifier, options, messages, state):
    """Times a model and prints the times."""
    paths = find_images(options.images, messages)
    if options.images and not paths:  # find_images said why
        return
    state.begin(f"{options.model}: timing it")
    report = benchmark(classifier, paths, messages)
    print(json.dumps(report)) if options.json else print_benchmark(report)


def run_learning(classifier, options, messages, state):
    """Learns classes from folders of photographs, and prints what they are worth."""
    share = KNOWN_SHARE if options.known_share is None else options.known_share
    report = learn_classes(
        classifier, options.learn, options.classes, share, messages, state
    )
    print(json.dumps(report)) if options.json else print_learned(report)


def run_evaluation(classifier, options, messages, state):
    """Evaluates a model on a folder and prints its accuracy."""
    report = evaluate(classifier, options.evaluate, messages, state)
    print(json.dumps(report)) if options.json else print_evaluation(report)


def run_comparison(delegate, options, messages, state):
    """Runs images on the CPU and on a delegate, and prints the differences."""
    if delegate.delegate == "none":
        raise UserError("--compare needs --delegate=LIBRARY, or a compiled model")
    model = options.model
    if delegate.delegate.startswith("edgetpu"):  # Google's compiler adds _edgetpu
        model = re.sub(r"_edgetpu(\.tflite)$", r"\1", model)
    cpu = build_classifier(options, model, "none")
    if (cpu.input_shape, cpu.classes) != (delegate.input_shape, delegate.classes):
        raise UserError(
            f"{model} and {options.model} differ in input or classes; --compare needs "
            "one network"
        )
    for path in find_images(options.images, messages):
        state.begin(f"{path}: comparing on it")
        report = result_or_error(compare, path, cpu, delegate, options.top_k)
        if isinstance(report, UserError):
            messages.error(report)
            continue
        print(json.dumps(report)) if options.json else print_comparison(report)


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


def find_results(classifier, options, messages, state):
    """Yields (name, `Result` or UserError) of each image of the command line."""
    keep = bool(options.annotate)
    if options.camera is not None:
        for name, image, decode_milliseconds in camera_frames(options.camera):
            state.begin(f"{name}: running {options.model} on it")
            start = time.perf_counter()
            pixels = prepare(image, classifier)
            times = {"decode": decode_milliseconds, "resize": milliseconds_since(start)}
            yield name, invoke(classifier, pixels, times, image)
    elif options.watch is not None:
        for path in watch(options.watch):
            yield from classify_all([path], classifier, state, keep)
    else:
        # After a crash, the errors of the folders were printed already.
        folder_messages = Messages(quiet=True) if state.one_by_one else messages
        paths = find_images(options.images, folder_messages)
        state.resumable = True
        start = time.perf_counter()
        for pair in classify_all(paths[state.done :], classifier, state, keep):
            yield pair
            if len(paths) > 1 and not sys.stdout.isatty():
                messages.progress(state.done + 1, len(paths), start)


def run_images(classifier, options, messages, state):
    """Classifies images and prints the results."""
    write = print_json if options.json else print_csv if options.csv else print_table
    if options.csv and not state.one_by_one:
        print_csv_header()
    if options.annotate:
        with user_errors(options.annotate, OSError):
            os.makedirs(options.annotate, exist_ok=True)
    results = find_results(classifier, options, messages, state)
    for number, (path, result) in enumerate(results, state.done + 1):
        if isinstance(result, UserError):
            messages.error(result)
            continue
        top = classifier.top_k(result.scores, options.top_k)
        top = [one for one in top if one.score >= options.threshold]
        # The line comes last: if the process ends before it, it is not printed twice.
        if options.annotate:
            annotated = annotated_path(options.annotate, number, path)
            error = result_or_error(annotate, result.image, top, annotated)
            if error:
                messages.error(error)
        write(path, top, result.times)
