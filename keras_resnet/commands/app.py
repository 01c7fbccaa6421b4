"""What the commands share: flags, one-line errors, exit codes."""

import inspect
import re
import sys

from absl import flags

from keras_resnet.errors import Terminated
from keras_resnet.runner.errors import UserError

CROP_FRACTION = (
    "Side of the centre crop relative to the resized image that it is cut from, in "
    "(0, 1]"
)
flags.disclaim_key_flags()  # the help of a command lists what is defined here for it


def define_training_flags(default_epochs, default_learning_rate):
    """Defines the flags that training and quantization-aware training share.

    The library checks their values, so that Python and the commands say the same. The
    help names the two defaults.
    """
    flags.DEFINE_string(
        "strategy",
        "one_device",
        "Devices to train on: one_device (the first GPU, or the CPU), mirrored (all "
        "GPUs of this machine), multi_worker (several machines) or tpu.",
    )
    flags.DEFINE_integer(
        "cpu_replicas",
        0,
        "With --strategy=mirrored: split the CPU into this many parts and train a "
        "replica on each.",
    )
    text = f"Passes over the training images; default: {default_epochs}."
    flags.DEFINE_integer("epochs", None, text)
    text = f"Highest learning rate; default: {default_learning_rate}."
    flags.DEFINE_float("learning_rate", None, text)
    text = "Training steps between two checkpoints."
    flags.DEFINE_integer("checkpoint_steps", 1000, text)


def define(kind, texts):
    """Defines flags without a default: `texts` is {name: help}.

    The kind is a function of absl, such as `flags.DEFINE_string`.
    """
    for name, text in texts.items():
        kind(name, None, text)


def define_preprocessing_flags(condition=""):
    """Defines how the images of a user's model were preprocessed in its training."""
    numbers = "on the scale 0..255: a number, or three (R,G,B)."
    define(
        flags.DEFINE_string,
        {
            "normalization": f"{condition}How pixels were normalized outside of the "
            "model: zoo, torch, tf, caffe (as in keras.applications), unit (0..1) or "
            "raw (0..255).",
            "resize": f"{condition}crop (the centre, after resizing the shorter side), "
            "stretch (the default of Keras's own loaders) or pad.",
            "interpolation": f"{condition}nearest, bilinear, bicubic or lanczos.",
            "scores": f"{condition}If the model returns logits: softmax (one class for "
            "an image) or independent (several).",
        },
    )
    define(
        flags.DEFINE_list,
        {
            "mean": f"Instead of --normalization: what was subtracted, {numbers}",
            "std": f"Instead of --normalization: the divisor after that, {numbers}",
        },
    )
    text = "Instead of --normalization: the order of channels was blue, green, red."
    flags.DEFINE_bool("bgr", False, text)
    flags.DEFINE_float("crop_fraction", None, f"{condition}{CROP_FRACTION}.")
    text = f"{condition}Whether resizing antialiased; Keras's own loaders do not."
    flags.DEFINE_bool("antialias", None, text)


def define_code_flags(condition=""):
    """Defines which Python code a user's model may bring."""
    flags.DEFINE_string(
        "custom_objects",
        None,
        f"{condition}A Python file of your own, which is run, with the custom layers "
        "and functions of the model.",
    )
    flags.DEFINE_bool(
        "allow_lambda",
        False,
        f"{condition}Runs the Python code of Lambda layers, which is inside of the "
        "model file: only for files that you trust.",
    )


def arguments(function, *left_out):
    """Returns the flags' values for a function's parameters, less those `left_out`."""
    names = inspect.signature(function).parameters.keys() - set(left_out)
    return {name: flags.FLAGS[name].value for name in names}


def accuracy_text(metrics):
    """Returns the accuracy of a run or an evaluation as text."""
    names = {"top1": "top-1", "top5": "top-5"} | {
        "mean_average_precision": "mean average precision",
        "label_accuracy": "label accuracy",
        "ap50": "mAP50",
        "ap": "mAP",
        "miou": "mean IoU",
    }
    text = ", ".join(
        f"{name} {metrics[key]:.2%}" for key, name in names.items() if key in metrics
    )
    if "top1_with_unknown" in metrics:
        share = metrics["top1_with_unknown"]
        text = f"top-1 {share:.2%} (without the label unknown {text})"
    return text


def run(command, argv=None, installed=False):
    """Parses the flags of a command, calls its `main()` and exits.

    Exit codes: 0 done, 2 the user can correct it (one line on stderr), 130
    interrupted, 143 terminated. Anything else is a bug of ours and shows its
    traceback.

    Args:
        command: a module of `keras_resnet.commands`: its docstring is the help,
            `define_flags()` defines its flags, `main()` does the work. It may have
            `REQUIRED`, the flags that it does not run without, and `POSITIONAL`, the
            flag that a first argument without one sets.
        argv: arguments, the program's name first; `None` takes `sys.argv`.
        installed: whether it was called as `keras-resnet COMMAND`, and the
            examples in the help say so.
    """
    try:
        command.define_flags()
        _parse_flags(command, sys.argv if argv is None else argv, installed)
        command.main()
    except UserError as error:
        fail(error)
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}")
    except Terminated:
        print("terminated; the same command continues", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def fail(error):
    """Prints an error as one line on stderr and exits with 2."""
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    sys.exit(2)


def _parse_flags(command, argv, installed):
    text = command.__doc__.strip()
    if installed:
        text = re.sub(r"python (training|edge)/(\w+)\.py", r"keras-resnet \2", text)
    if any(argument in ("--help", "-help", "-h") for argument in argv[1:]):
        print(text)
        print(flags.FLAGS.module_help(command.__name__).partition("\n")[2])
        sys.exit(0)
    argv = list(argv)
    positional = getattr(command, "POSITIONAL", None)
    if positional and argv[1:] and not argv[1].startswith("-"):
        argv[1] = f"--{positional}={argv[1]}"
    try:
        rest = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise UserError(f"{error} (--help lists the flags)") from error
    if rest:
        raise UserError(f"takes flags only (--name=value). Received: {rest[0]!r}")
    required = getattr(command, "REQUIRED", ())
    missing = [f"--{name}" for name in required if flags.FLAGS[name].value is None]
    if missing:
        # Of the help; a line may go on after a backslash.
        lines = re.findall(r"^ +(\S(?:\\\n|.)*)", text, re.MULTILINE)
        example = next(x for x in lines if all(f"{flag}=" in x for flag in missing))
        raise UserError(
            f"{' and '.join(missing)} must be given, for example: "
            + example.replace("\\\n", "")
        )
