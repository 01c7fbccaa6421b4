"""Errors that the user can fix, and text that is safe to print."""

import contextlib


class UserError(ValueError):
    """An error that the user can fix.

    Its text is one line: what is wrong, what was received and what to do. The commands
    print it as `error: ...` and exit with 2.
    """


@contextlib.contextmanager
def user_errors(subject, *types):
    """Turns exceptions of these types into a UserError that begins with `subject`.

    A UserError passes unchanged: it names its subject already.
    """
    try:
        yield
    except UserError:
        raise
    except types as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{subject}: {reason}") from error


def result_or_error(function, *arguments):
    """Returns what a function returns, or the UserError that it raises."""
    try:
        return function(*arguments)
    except UserError as error:
        return error


def printable(text):
    """Escapes line breaks and control characters, as labels and file names may hold."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)
    )
