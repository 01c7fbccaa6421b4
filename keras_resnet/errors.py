"""Errors that end a command in one line, and the text about an unknown name."""

import difflib

from keras_resnet.runner.errors import UserError


class Terminated(Exception):
    """The process received SIGTERM and has saved its work."""


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
