"""Errors that the user can fix, text that is safe to print, and files to read."""

import contextlib
import os


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


def open_file(path):
    """Opens a regular file in binary; a device or a pipe could block or never end.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a directory" if os.path.isdir(path) else "a device or pipe"
        raise UserError(f"{path}: expected a file, received {kind}")
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from error


def read_at_most(file, limit):
    """Reads a whole file; ValueError if it has more than `limit` bytes."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{file.name} is larger than {limit} bytes")
    return data
