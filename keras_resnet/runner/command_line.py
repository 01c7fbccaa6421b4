"""Runs a TensorFlow Lite model on images: one file, for the device.

    python3 run_tflite.py --model=resnet20.tflite photo.jpg
    python3 run_tflite.py --model=resnet20.tflite --top_k=1 --json photos/ a.png
    python3 run_tflite.py --model=mobilenet.tflite --labels=labels.txt photo.jpg
    python3 run_tflite.py --model=mobilenet_edgetpu.tflite photo.jpg
    python3 run_tflite.py --model=float.tflite --mean=127.5 --std=127.5 photo.jpg
    python3 run_tflite.py --model=resnet20.tflite --evaluate=photos/
    python3 run_tflite.py --model=resnet20.tflite --benchmark --threads=2
    python3 run_tflite.py --model=resnet20.tflite --camera=0 --top_k=1
    python3 run_tflite.py --model=detector.tflite --annotate=out/ photos/
    python3 run_tflite.py --model=segmenter.tflite --masks=out/ photo.jpg
    python3 run_tflite.py --model=features.tflite --learn=photos/ --classes=mine.json
    python3 run_tflite.py --model=features.tflite --classes=mine.json photo.jpg

The device needs this file, the model, Python 3.7 or newer, numpy, Pillow, and one of
ai-edge-litert, tflite-runtime and tensorflow.

Pixels
    The model receives raw RGB pixels: 0 to 255 for a uint8 or float input, pixel - 128
    for an int8 input. Normalization is part of the model, or its TFLite metadata ask
    for it, if the input is float. For any other model, pass --mean and --std on the
    scale of pixels; the input is then (pixel - mean) / std, quantized with the model's
    own scale and zero point if it is not float. Scores are dequantized likewise.
Resizing
    A model that was written by our export contains `preprocessing.json`, which says how
    to resize: in proportion, then the centre is cropped, as torchvision and timm
    evaluate (`crop`); whatever its proportions (`stretch`); or padded with black
    (`pad`). Without `antialias`, pixels are interpolated as tf.image.resize and Keras's
    image_dataset_from_directory do. For any other model, the image is stretched to the
    input size, as in pycoral's classify_image.py.
    EXIF orientation is applied, alpha is dropped, 16-bit grey keeps its high byte, and
    an animation is represented by its first frame. A JPEG much larger than needed is
    decoded at a half, quarter or eighth of its size, except with --annotate and without
    `antialias`.
Labels
    Labels come from --labels or, without it, from the model. If neither has any, the
    output shows class numbers alone.
Boxes and masks
    The file tells what it gives. A detector's boxes are listed with their places in
    pixels of the upright image, if their score is 0.4 or more (--threshold=SCORE). It
    may give raw boxes and scores, or end with TFLite_Detection_PostProcess, as Coral's
    files do. A segmenter's classes are listed with their shares of the image's pixels;
    --masks=DIR writes PNG files of class numbers, 255 where no class reaches
    --threshold. --annotate=DIR draws either on the images.
Delegates
    --delegate=auto, the default, uses the Edge TPU for a model that is compiled for it
    and the CPU for any other model. `none` uses the CPU. `edgetpu` uses any Edge TPU,
    and `edgetpu:usb`, `edgetpu:pci` or `edgetpu:usb:0` a particular one. Anything else
    is the path of an external delegate.
Learning
    --learn=DIR learns the subfolders of DIR as classes, here on the device, in little
    more time than the model runs on each photograph. The model is one of
    `edge/export.py --features`; --classes=FILE is written, and used later with the same
    model. Each class needs 2 photographs or more, better 20. Class means and logistic
    regressions are compared in a cross-validation: each photograph is answered by a
    classifier that has not seen it, and the accuracy of the best is printed.
    What resembles none of the classes is answered with `unknown`: an image whose cosine
    to the nearest class mean is low. --known_share=0.95 says which share of new images
    of the classes must not be answered so; 1 leaves `unknown` out. A folder DIR/_none
    of pictures of nothing is learned as `unknown` too.
    To add photographs or a class, add them to DIR and learn again. FILE is replaced at
    the end; if anything is wrong, it stays as it was.
Evaluation
    For a classifier, --evaluate=DIR expects one subfolder per class in DIR. Name the
    subfolders by label or by class number. If there are as many as classes, any names
    will do: their sorted order is the order of the classes, as in training. With a
    label `unknown`, its subfolder may be called `_none` too, and `known` is the share
    of the images of the other classes that are not answered with it.
    For a detector, DIR holds images with Pascal VOC's XML files beside them or in
    folders `Annotations` beside theirs. The result is COCO's average precision: `ap`
    over IoU 0.5 to 0.95, `ap50`, `ap75`. For a segmenter, DIR holds images with masks,
    NAME_mask.png beside NAME.jpg or NAME.png in a folder `masks`, and the names of the
    classes in `classes.txt`, one a line, or in `labelmap.txt` or `_classes.csv`. The
    result is the mean IoU. Names must be labels of the model.
JSON
    --json prints one object per line and image, in the given order. Times are in
    milliseconds:
    {"file": str, "top": [{"index": int, "label": str or null, "score": float}, ...],
     "milliseconds": {"decode": float, "resize": float, "invoke": float}}
    Instead of "top", a detector has "objects", a segmenter "classes", and both have a
    fourth time, "postprocess":
    "objects": [{"index": int, "label": str or null, "score": float,
      "box": {"left": float, "top": float, "right": float, "bottom": float}}, ...]
    "classes": [{"index": int, "label": str or null, "share": float}, ...]
    For an image that cannot be read, there is a line on stderr instead.
    With --compare:
    {"file": str, "same_top": bool, "max_difference": float,
     "cpu" | "delegate": {"top": [...], "invoke": float}}
    With --evaluate, one object in all, shares from 0 to 1, the worst class first:
    {"model": str, "images": int, "failed": int, "top1": float, "top5": float or null,
     "known": float or null,
     "classes": [{"index": int, "label": str or null, "images": int, "top1": float,
       "taken_for": {"index": int, "label": str or null, "images": int} or null}, ...],
     "mistakes": [{"file": str, "expected": int, "index": int, "score": float}, ...],
     "failures": [{"file": str, "error": str}, ...]}
    for a detector or a segmenter, null for a class that is not there:
    {"model": str, "images": int, "failed": int,
     "ap" | "ap50" | "ap75": float, or "miou": float,
     "classes": [{"index": int, "label": str, "objects": int, "ap" | "ap50" | "ap75":
       float} or {"index": int, "label": str, "pixels": int, "iou": float}, ...],
     "failures": [{"file": str, "error": str}, ...]}
    With --learn, one object in all. "accuracy" and "known", the share of photographs of
    classes that are not answered with `unknown`, are those of the cross-validation:
    {"model": str, "classes": str, "strength": float (0: class means alone),
     "accuracy": float, "known": float or null, "pictures": {label: int, ...},
     "nothing": int, "failures": [{"file": str, "error": str}, ...], "seconds": float}
    With --benchmark, one object in all. Without images, the model is timed on random
    pixels and "decode", "resize" and "total" are absent. The memory is the peak of the
    process:
    {"model": str, "runtime": str, "delegate": str, "threads": int, "images": int,
     "invokes": int, "peak_memory_mib": float or null, "model_load": float,
     "first_inference": float,
     "decode" | "resize" | "invoke" | "total":
       {"median": float, "p90": float, "p99": float}}
    A detector and a segmenter have "postprocess" too.
Exit codes
    0: done. 1: a bug of ours. 2: an error that you can fix, described by one line
    `error: ...` on stderr; a bad image does not stop the others. 130: Ctrl-C.
    The work is done in a child process, so that even a crash of native code is reported
    as an error.
"""

import argparse
import contextlib
import gc
import importlib
import os
import re
import sys
import warnings

from keras_resnet.runner.detector import SHOWN_SCORE
from keras_resnet.runner.errors import UserError, user_errors
from keras_resnet.runner.learning import KNOWN_SHARE
from keras_resnet.runner.modes import (
    build_model,
    print_versions,
    run_benchmark,
    run_comparison,
    run_evaluation,
    run_images,
    run_learning,
)
from keras_resnet.runner.output import Messages
from keras_resnet.runner.showing import TOP_K
from keras_resnet.runner.supervisor import SharedState, supervise


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all others here."""

    def error(self, message):
        """Raises instead of printing the usage."""
        raise UserError(f"{message}; see --help")


def whole_number(lowest, highest):
    """Makes an argument type: an int within bounds."""

    def parse(text):
        if not re.match("[0-9]{1,9}$", text) or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {lowest} to {highest}, received {text!r}"
            )
        return int(text)

    return parse


def share(text):
    """Argument type: a float from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 1, received {text!r}"
        )
    return value


def camera(text):
    """Argument type: a number of OpenCV's, or "picamera"."""
    if text == "picamera":
        return text
    if not re.match("[0-9]{1,2}$", text):
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 99 or picamera, received {text!r}"
        )
    return int(text)


def one_or_three(text):
    """Argument type: one number, or three separated by commas."""
    with contextlib.suppress(ValueError):
        return tuple(map(float, text.split(",")))
    raise argparse.ArgumentTypeError(
        f"expected a number, or three as 1,2,3; received {text!r}"
    )


def key_and_value(text):
    """Argument type: KEY=VALUE, as a pair."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, received {text!r}")
    return key, value


def parse_arguments(argv, program):
    """Parses the command line; for an unknown flag, UserError names the nearest."""
    parser = Parser(
        prog=program,
        # argparse would show all flags in one line, and build it at every start.
        usage="%(prog)s --model=PATH [flags] IMAGE_OR_DIR...",
        description=__doc__.replace("python3 run_tflite.py", program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    number = {"metavar": "N", "type": whole_number(1, 10**6)}
    image = "image file, folder, pattern, or - for the standard input"
    add("images", nargs="*", metavar="IMAGE_OR_DIR", help=image)
    add("--model", metavar="PATH", help="the .tflite file")
    add("--top_k", help=f"show the N best classes (default: {TOP_K})", **number)
    lowest = {"metavar": "SCORE", "type": share}
    lowest["help"] = f"hide what has a lower score (default: 0, boxes {SHOWN_SCORE})"
    add("--threshold", **lowest)
    number["type"] = whole_number(1, 256)
    add("--threads", help="CPU threads (default: one per core, at most 4)", **number)
    add("--labels", metavar="FILE", help="labels, one per line or as `0  name`")
    add("--classes", metavar="FILE", help="what --learn writes, for a features model")
    known = f"share of photographs that --learn keeps known (default: {KNOWN_SHARE})"
    add("--known_share", metavar="SHARE", type=float, help=known)
    values = {"metavar": "X or X,Y,Z", "type": one_or_three}
    add("--mean", help="subtract X, or one per channel (default: 0)", **values)
    add("--std", help="then divide by X, or one per channel (default: 1)", **values)
    add("--bgr", action="store_true", help="the model expects blue first")
    add("--delegate", default="auto", help="auto, none, edgetpu[:DEVICE] or a library")
    option = {"action": "append", "default": [], "type": key_and_value}
    option["help"] = "pass an option to the delegate; may be repeated"
    add("--delegate_options", metavar="KEY=VALUE", **option)
    drawn = "write the images with labels, boxes or masks on them"
    add("--annotate", metavar="OUT_DIR", help=drawn)
    add("--masks", metavar="OUT_DIR", help="write masks as PNG of class numbers")
    add("--version", action="store_true", help="print the versions in use and exit")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--json", action="store_true", help="print JSON, one object per line")
    add("--csv", action="store_true", help="print CSV, one row per class or box")
    add = parser.add_mutually_exclusive_group().add_argument
    source = {"metavar": "N", "type": camera}
    source["help"] = "classify the frames of camera N (OpenCV), or of `picamera`"
    add("--camera", **source)
    add("--watch", metavar="DIR", help="classify each image that appears in DIR")
    add("--evaluate", metavar="DIR", help="measure accuracy on folders named by class")
    add("--learn", metavar="DIR", help="learn the folders of DIR as classes")
    add("--benchmark", action="store_true", help="measure the time of each stage")
    add("--compare", action="store_true", help="compare the delegate with the CPU")
    # argparse forgets what `--` meant when images and flags alternate.
    end = argv.index("--") if "--" in argv else len(argv)
    options, unknown = parser.parse_known_intermixed_args(argv[:end])
    options.images += argv[end + 1 :]
    if unknown:
        import difflib

        known = ["--help"] + [f"--{name}" for name in vars(options) if name != "images"]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {' '.join(known)}"
        raise UserError(f"unknown flag {unknown[0]}; {hint}")
    return options


def check_options(options):
    """Raises UserError for flags that do not go together."""
    if not options.model:
        raise UserError("no model given; add --model=PATH.tflite")
    flags = vars(options)
    given = {n for n, v in flags.items() if v is not None and v is not False}
    # Mostly unset variables of a shell.
    for name in ("labels", "annotate", "classes", "masks"):
        if flags[name] == "":
            raise UserError(f"--{name} is empty; give a path or leave it out")
    for mode in ("camera", "watch", "evaluate", "learn"):
        if mode in given and options.images:
            raise UserError(f"--{mode} takes no images; leave out {options.images[0]}")
    if "learn" in given and "classes" not in given:
        raise UserError("--learn needs --classes=FILE, the file to write")
    if "known_share" in given and "learn" not in given:
        raise UserError("--known_share needs --learn=DIR: the file has its own")
    modes = {"camera", "watch", "evaluate", "benchmark", "learn"}
    if not (options.images or modes & given):
        raise UserError("no image given; add image files or folders of them")
    for first, other in (("classes", "labels"), ("compare", "classes")):
        if {first, other} <= given:
            raise UserError(f"--{first} and --{other} do not go together; give one")
    for mode in ("evaluate", "benchmark", "compare", "learn"):
        for output in ("csv", "annotate", "masks"):
            if mode in given and output in given:
                raise UserError(f"--{mode} and --{output} do not go together; give one")
    if options.watch is not None and options.annotate:
        if os.path.realpath(options.watch) == os.path.realpath(options.annotate):
            raise UserError("--annotate and --watch need two folders, not one")


def run(options, messages, state):
    """Does what the flags ask for; UserError if nothing can be done at all."""
    gc.disable()  # at the start, it takes 3 ms of 60
    try:
        with user_errors("numpy and Pillow are needed (pip install)", ImportError):
            importlib.import_module("numpy")
            importlib.import_module("PIL.Image")
        if options.version:
            state.begin("--version: asking libedgetpu")
            print_versions()
            return
        check_options(options)
        state.begin(f"{options.model}: loading it (--delegate={options.delegate})")
        model = build_model(options)
    finally:
        gc.enable()
    if model.idle_delegate:
        messages.warning(
            f"{options.model}: delegate {model.delegate} runs no part of it; all "
            "of it runs on the CPU"
        )
    if options.learn is not None:
        run_learning(model, options, messages, state)
        return
    if model.task == "classify":
        model.check_classes()
    if options.benchmark:
        run_benchmark(model, options, messages, state)
    elif options.evaluate is not None:
        run_evaluation(model, options, messages, state)
    elif options.compare:
        run_comparison(model, options, messages, state)
    else:
        run_images(model, options, messages, state)


def run_command_line(argv, program, state):
    """Runs the command line in this process; returns the exit code."""
    messages = Messages()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # labels may exceed the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    # Pillow and the runtimes warn on stderr, which is kept for our error lines.
    warnings.simplefilter("ignore")
    try:
        try:
            if sys.stdout is None:  # the next file that is opened would take its place
                raise UserError("the standard output is closed: no result can be shown")
            run(parse_arguments(argv, program), messages, state)
        finally:
            print(end="", flush=True)
    except UserError as error:
        messages.error(error)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # Python flushes once more at its end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` just left
            messages.error(f"the results cannot be written: {error}")
    return 2 if messages.errors else 0


def main(argv=None, program=None):
    """Runs the command line under the supervisor.

    Args:
        argv: list of str, the arguments; None takes those of the process.
        program: str, what the user types to start it, for the help; None is the
            script that was started.

    Returns:
        the exit code.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    program = program or f"python3 {sys.argv[0]}"

    def work(state):
        return run_command_line(argv, program, state)

    return supervise(work) if hasattr(os, "fork") else work(SharedState())
