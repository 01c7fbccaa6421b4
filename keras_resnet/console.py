"""What a command prints: a quiet start of TensorFlow, hidden output of libraries."""

import contextlib
import os
import sys
import tempfile

from keras_resnet import errors
from keras_resnet.runner.errors import UserError


@contextlib.contextmanager
def hidden_output(*descriptors):
    """Hides what is printed inside the block, C++ libraries included.

    Descriptor 1 is standard output, 2 is standard error. Where the block raises
    anything but a `UserError`, what was hidden is printed after all.
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


def warn(text):
    """Prints a warning on standard error."""
    print(f"warning: {text}", file=sys.stderr)


def import_tensorflow():
    """Imports TensorFlow, and Keras on it whatever the environment says.

    For commands, to whom the process belongs; see `require_tensorflow`.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    require_tensorflow("this command")


def require_tensorflow(purpose):
    """Imports TensorFlow and Keras without their start-up messages on stderr.

    They print notes on oneDNN and CUDA before any log level is read. Whoever sets
    TF_CPP_MIN_LOG_LEVEL=0 wants to see them. If TensorFlow is not installed, or Keras
    uses another backend, the `MissingExtra` raised says what `purpose` needs.
    """
    is_quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") != "0"
    with hidden_output(2) if is_quiet else contextlib.nullcontext():
        tf = errors.require("tensorflow", "train", purpose)
        import keras

        tf.config.list_physical_devices()
    if keras.config.backend() != "tensorflow":
        raise errors.MissingExtra(
            f"{purpose} needs Keras on TensorFlow: set KERAS_BACKEND=tensorflow before "
            f"Keras is imported. Received: {keras.config.backend()}"
        )
