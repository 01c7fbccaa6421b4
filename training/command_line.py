"""What the command lines share: one-line errors, exit codes, a quiet start."""

import contextlib
import difflib
import math
import os
import sys
import tempfile

from absl import flags

flags.disclaim_key_flags()  # the scripts' help lists what is defined here for them


class UserError(Exception):
    """Something that the user can correct; its message says how."""


class Terminated(Exception):
    """The process received SIGTERM and has saved its work."""


def unknown(kind, received, choices):
    """Returns a `UserError` about a name that is none of `choices`."""
    choices = sorted(choices)
    near = difflib.get_close_matches(received, choices, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        shown = choices if len(choices) <= 20 else choices[:20] + ["..."]
        hint = f"choose one of {', '.join(shown)}."
    return UserError(f"unknown {kind}: {hint} Received: {received!r}")


def define_training_flags(default_epochs, default_learning_rate):
    """Defines the flags that training and quantization-aware training share.

    Args:
        default_epochs: what the help says of --epochs without a value.
        default_learning_rate: likewise.
    """
    flags.DEFINE_enum(
        "strategy",
        "one_device",
        ["one_device", "mirrored", "multi_worker", "tpu"],
        "Devices.",
    )
    flags.DEFINE_integer(
        "cpu_replicas", 0, "With mirrored: train on this many parts of the CPU."
    )
    flags.DEFINE_integer("epochs", None, f"Default: {default_epochs}.", lower_bound=1)
    flags.DEFINE_float(
        "learning_rate",
        None,
        f"Highest; default: {default_learning_rate}.",
        lower_bound=1e-9,
    )
    flags.DEFINE_integer(
        "checkpoint_steps", 1000, "Steps between checkpoints.", lower_bound=1
    )
    flags.register_validator(
        "learning_rate",
        lambda rate: rate is None or math.isfinite(rate),
        "must be a finite number",
    )


def run(main):
    """Parses the flags, calls `main()` and exits as all our commands do.

    Exit codes: 0 done, 2 the user can correct it (one line on stderr), 130
    interrupted, 143 terminated. Anything else is a bug of ours and shows its traceback.
    """
    try:
        _parse_flags(sys.argv)
        main()
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except Terminated:
        print("terminated; the same command continues", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _parse_flags(argv):
    if any(argument in ("--help", "-help", "-h") for argument in argv[1:]):
        print(sys.modules["__main__"].__doc__.strip())
        print(flags.FLAGS.main_module_help())
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise UserError(f"{error} (--help lists the flags)") from error
    if rest:
        raise UserError(f"takes flags only (--name=value). Received: {rest[0]!r}")


@contextlib.contextmanager
def hidden_output(*descriptors):
    """Hides what is printed inside the block, C++ libraries included.

    Args:
        *descriptors: 1 for standard output, 2 for standard error.

    Raises:
        Exception: what the block raises, after printing what was hidden,
            unless it is a `UserError`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as hidden:
        saved = {number: os.dup(number) for number in descriptors}
        try:
            for number in descriptors:
                os.dup2(hidden.fileno(), number)
            yield
        except UserError:
            raise
        except BaseException:
            hidden.seek(0)
            os.write(saved[descriptors[-1]], hidden.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)


def import_tensorflow():
    """Imports TensorFlow and Keras without their start-up messages on stderr.

    They print notes on oneDNN and CUDA before any log level is read. Whoever sets
    TF_CPP_MIN_LOG_LEVEL=0 wants to see them.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") == "0":
        return
    with hidden_output(2):
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
