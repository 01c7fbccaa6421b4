"""The modes: classify images, benchmark, evaluate, compare, show versions."""

import json
import os
import re
import sys
import time

from keras_resnet.runner.benchmark import benchmark, print_benchmark
from keras_resnet.runner.classifier import Prediction
from keras_resnet.runner.delegates import check_edgetpu
from keras_resnet.runner.errors import (
    UserError,
    printable,
    result_or_error,
    user_errors,
)
from keras_resnet.runner.evaluation import evaluate, print_evaluation
from keras_resnet.runner.image_model import TASKS, task_of
from keras_resnet.runner.images import DecodedImage, prepare
from keras_resnet.runner.learn import learn_classes, print_learned
from keras_resnet.runner.learning import KNOWN_SHARE
from keras_resnet.runner.model_file import read_model
from keras_resnet.runner.output import (
    Messages,
    output_path,
    print_csv,
    print_csv_header,
    print_json,
    print_table,
    save_image,
    table_lines,
)
from keras_resnet.runner.pipeline import (
    invoke,
    load_pixels,
    milliseconds_since,
    run_all,
)
from keras_resnet.runner.runtime import default_threads, load_runtime
from keras_resnet.runner.scene_evaluation import (
    evaluate_scenes,
    print_scene_evaluation,
)
from keras_resnet.runner.showing import MODELS, SHOWS, TOP_K, save_mask
from keras_resnet.runner.sources import camera_frames, find_images, watch

VERSION = "1.0"
# Which tasks flags are for, where they are not for all.
FLAG_TASKS = {
    "top_k": ("classify",),
    "learn": ("classify",),
    "classes": ("classify",),
    "compare": ("classify",),
    "masks": ("segment",),
}


def build_model(options, model=None, delegate=None):
    """Builds the model of the flags, or one with this path and delegate."""
    normalization = None
    if options.mean or options.std:
        normalization = (options.mean or (0.0,), options.std or (1.0,))
    start = time.perf_counter()
    file = read_model(model or options.model)
    read_milliseconds = milliseconds_since(start)
    task = task_of(file)
    check_task(options, task)
    more = {}
    if options.classes is not None and options.learn is None:  # which replaces it
        more["classes"] = options.classes
    built = MODELS[task](
        file,
        options.labels,
        options.threads,
        delegate or options.delegate,
        {} if delegate else dict(options.delegate_options),
        normalization,
        options.bgr,
        **more,
    )
    built.load_milliseconds = round(built.load_milliseconds + read_milliseconds, 3)
    return built


def check_task(options, task):
    """Raises UserError for flags that are not for what a model does."""
    for flag, tasks in FLAG_TASKS.items():
        if getattr(options, flag) not in (None, False) and task not in tasks:
            raise UserError(
                f"--{flag} is for a model that gives {TASKS[tasks[0]][0]}, and "
                f"{options.model} gives {TASKS[task][0]}; leave it out"
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


def run_evaluation(model, options, messages, state):
    """Evaluates a model on a folder and prints its accuracy."""
    measure, show = evaluate, print_evaluation
    if model.task != "classify":
        measure, show = evaluate_scenes, print_scene_evaluation
    report = measure(model, options.evaluate, messages, state)
    print(json.dumps(report)) if options.json else show(report)


def run_comparison(delegate, options, messages, state):
    """Runs images on the CPU and on a delegate, and prints the differences."""
    if delegate.delegate == "none":
        raise UserError("--compare needs --delegate=LIBRARY, or a compiled model")
    model = options.model
    if delegate.delegate.startswith("edgetpu"):  # Google's compiler adds _edgetpu
        model = re.sub(r"_edgetpu(\.tflite)$", r"\1", model)
    cpu = build_model(options, model, "none")
    if (cpu.input_shape, cpu.classes) != (delegate.input_shape, delegate.classes):
        raise UserError(
            f"{model} and {options.model} differ in input or classes; --compare needs "
            "one network"
        )
    for path in find_images(options.images, messages):
        state.begin(f"{path}: comparing on it")
        report = result_or_error(compare, path, cpu, delegate, options.top_k or TOP_K)
        if isinstance(report, UserError):
            messages.error(report)
            continue
        print(json.dumps(report)) if options.json else print_comparison(report)


def compare(path, cpu, delegate, k):
    """Runs one image on two classifiers; returns the dict of the JSON output."""
    import numpy as np

    pixels = load_pixels(path, cpu)[0]
    results = [invoke(classifier, pixels, {}) for classifier in (cpu, delegate)]
    one, other = (result.answer for result in results)
    report = {
        "file": path,
        "same_top": bool(one.argmax() == other.argmax()),
        "max_difference": float(np.abs(one - other).max()),
    }
    for name, result in zip(("cpu", "delegate"), results):
        top = [one._asdict() for one in cpu.top_k(result.answer, k)]
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


def find_results(model, options, messages, state):
    """Yields (name, `Result` or UserError) of each image of the command line."""
    keep = bool(options.annotate)
    if options.camera is not None:
        for name, image, decode_milliseconds in camera_frames(options.camera):
            state.begin(f"{name}: running {options.model} on it")
            start = time.perf_counter()
            decoded = DecodedImage(image, (0, 0, *image.size), 1)
            pixels = prepare(image, model)
            times = {"decode": decode_milliseconds, "resize": milliseconds_since(start)}
            yield name, invoke(model, pixels, times, decoded)
    elif options.watch is not None:
        for path in watch(options.watch):
            yield from run_all([path], model, state, keep)
    else:
        # After a crash, the errors of the folders were printed already.
        folder_messages = Messages(quiet=True) if state.one_by_one else messages
        paths = find_images(options.images, folder_messages)
        state.resumable = True
        start = time.perf_counter()
        for pair in run_all(paths[state.done :], model, state, keep):
            yield pair
            if len(paths) > 1 and not sys.stdout.isatty():
                messages.progress(state.done + 1, len(paths), start)


def run_images(model, options, messages, state):
    """Runs a model on images and prints the results."""
    show = SHOWS[model.task](model, options)
    if options.csv and not state.one_by_one:
        print_csv_header(show.columns, show.stages)
    for folder in (options.annotate, options.masks):
        if folder:
            with user_errors(folder, OSError):
                os.makedirs(folder, exist_ok=True)
    results = find_results(model, options, messages, state)
    for number, (path, result) in enumerate(results, state.done + 1):
        if isinstance(result, UserError):
            messages.error(result)
            continue
        shown = result_or_error(show.select, result)
        if isinstance(shown, UserError):
            messages.error(f"{path}: {shown}")
            continue
        # The line comes last: if the process ends before it, it is not printed twice.
        for save, folder, suffix in (
            (save_annotated, options.annotate, ".jpg"),
            (save_mask_of, options.masks, ".png"),
        ):
            if folder:
                target = output_path(folder, number, path, suffix)
                error = result_or_error(save, show, result, shown, target)
                if error:
                    messages.error(error)
        if options.json:
            print_json(path, show.record(shown), result.times)
        elif options.csv:
            rows = show.rows(shown)
            print_csv(path, rows, show.columns, result.times, show.stages)
        else:
            print_table(path, show.lines(shown), result.times)


def save_annotated(show, result, shown, path):
    """Writes an image as JPEG, with what was found in it drawn on it."""
    save_image(show.draw(result.decoded.image, shown), path, "JPEG", quality=90)


def save_mask_of(show, result, shown, path):
    """Writes the mask of an image as PNG."""
    save_mask(shown.mask, path)
