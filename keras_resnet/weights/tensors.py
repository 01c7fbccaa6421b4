"""What the readers of weight files have in common: tensors, named as in the zoo."""

import dataclasses
from collections.abc import Callable

import numpy as np

CLASSIFIER = "predictions"
# Layer in front of the classifier of a fine-tuned network: it scales features to
# length 1.
DIRECTIONS = "unit_features"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One array of a weight file."""

    name: str  # its name in the file, for messages
    shape: tuple[int, ...]  # its shape, in Keras' layout
    # Returns it in Keras' layout, as float32. It is called when the array is needed, so
    # that no more than one is in memory.
    read: Callable[[], np.ndarray]
