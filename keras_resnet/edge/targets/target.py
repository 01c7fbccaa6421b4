"""What a target asks of a .tflite, as data."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Target:
    """What a target asks of a file."""

    # Whether every tensor must be an integer, whatever the export is.
    integer: bool = False
    # The TensorFlow Lite that no operator may be newer than, or None.
    newest_runtime: str | None = None
    # Names of the operators that the target has, or None for all of TensorFlow Lite's.
    operators: frozenset | None = None
    # The target's compiler, or None. It takes the bytes of a file and returns (a
    # summary of one line, the bytes of the compiled file). It raises `UserError` if it
    # leaves an operator to the CPU.
    compile: Callable[[bytes], tuple[str, bytes]] | None = None
    compiled_suffix: str = ""  # what the compiled file's name has behind the file's own
    # The target's own interpreter, or None, as `tflite_micro.interpret`. It takes (the
    # bytes of a file, uint8 images (images, height, width, 3)) and returns what it
    # measured. It raises `UserError` if it cannot run the file.
    interpret: Callable[[bytes, np.ndarray], dict] | None = None
    # What writes a program for the device, or None: `tflite_micro.program`.
    program: Callable[..., dict] | None = None
