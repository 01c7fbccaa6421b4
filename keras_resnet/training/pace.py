"""How many steps to make without a look at the device, and what they wait for."""

from keras_resnet import console
from keras_resnet.training.distribute import strategies

# Seconds between two looks at the device: for the progress bar, a loss that is no
# finite number any more, and signals.
LOOK = 1.0


class Pace:
    """Plans the number of steps until the next look, and times them."""

    def __init__(self, strategy):
        """Begins with a single step, to see how long it takes."""
        # Workers must make equally many: in a loop TensorFlow tells collective
        # operations apart by the number of the round.
        self._fixed = strategies.is_multi_worker(strategy)
        self._steps = 8 if self._fixed else 1
        self._waited = self._elapsed = 0.0
        self._started = False
        self._warned = False

    def steps(self, at_most):
        """Returns how many steps to make now."""
        return min(self._steps, at_most)

    def add(self, steps, waited, elapsed):
        """Notes the seconds that some steps took, and those of them without a batch."""
        if not self._fixed:
            self._steps = max(1, min(4 * self._steps, int(steps * LOOK / elapsed)))
        if self._started:  # the first call fills buffers and compiles
            self._waited += waited
            self._elapsed += elapsed
        self._started = True

    def warn_once(self):
        """Warns if a third of the time or more went into waiting for images."""
        share = self._waited / self._elapsed if self._elapsed else 0.0
        if share > 1 / 3 and not self._warned:
            console.warn(
                f"{share:.0%} of the time went into waiting for images: their reading "
                "and decoding limits the speed, not the model. More CPU cores, a "
                "faster disk or --cache help"
            )
            self._warned = True
