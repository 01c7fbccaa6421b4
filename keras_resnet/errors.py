"""Errors that end a command in one line, and what raises the common ones."""

import difflib
import importlib

from keras_resnet.runner.errors import UserError


class Terminated(Exception):
    """The process received SIGTERM and has saved its work."""


class MissingExtra(UserError, ImportError):
    """An optional part of the package was used without what it needs."""


def require(module, extra, purpose):
    """Imports an optional package, which `purpose` needs, and returns it.

    If it is missing, the `MissingExtra` raised names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f'{purpose} needs {module}: pip install "keras-resnet-zoo[{extra}]" '
            f"({error})"
        ) from error


def first_line(error):
    """Returns what an exception says first, or the name of its class."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def unknown(kind, received, choices):
    """Returns a `UserError` about a name that is none of `choices`."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(received), choices, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        shown = choices if len(choices) <= 20 else choices[:20] + ["..."]
        hint = f"choose one of {', '.join(shown)}."
    return UserError(f"unknown {kind}: {hint} Received: {received!r}")
