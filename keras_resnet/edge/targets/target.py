"""What a target asks of a .tflite, as data."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Target:
    """What a target asks of a file.

    Attributes:
        integer: whether every tensor must be an integer, whatever the export is.
        newest_runtime: the TensorFlow Lite that no operator may be newer than, or None.
        operators: names of the operators that the target has, or None for all of
            TensorFlow Lite's.
        compile: the target's compiler, or None. It takes the bytes of a file and
            returns (a summary of one line, the bytes of the compiled file). It raises
            `UserError` if it leaves an operator to the CPU.
        compiled_suffix: what the compiled file's name has behind the file's own.
    """

    integer: bool = False
    newest_runtime: str | None = None
    operators: frozenset | None = None
    compile: Callable[[bytes], tuple[str, bytes]] | None = None
    compiled_suffix: str = ""
