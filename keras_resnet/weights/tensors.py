"""What the readers of weight files have in common: tensors, named as in the zoo."""

import dataclasses
from collections.abc import Callable

import numpy as np

CLASSIFIER = "predictions"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One array of a weight file.

    Attributes:
        name: its name in the file, for messages.
        shape: its shape, in Keras' layout.
        read: returns it in Keras' layout, as float32. It is called when the array is
            needed, so that no more than one is in memory.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
