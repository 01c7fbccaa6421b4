"""Files from elsewhere: what is opened, and how much of it is read."""

import os

from keras_resnet.runner.errors import UserError


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
