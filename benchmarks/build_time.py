"""Time to import the package, and to build ResNet-50 beside keras.applications.

python -m benchmarks.build_time
"""

import importlib
import statistics

import keras

from benchmarks import turns

RUNS = 15


def main():
    """Prints the medians and the ratio."""
    # The lazy package imports this module first.
    imported = turns.seconds(importlib.import_module, "keras_resnet.models")
    print(f"import keras_resnet, after keras: {imported:.3f} s")
    builders = {
        "keras.applications.ResNet50": keras.applications.ResNet50,
        "keras_resnet.ResNet50": importlib.import_module("keras_resnet").ResNet50,
    }
    found = turns.in_turns(
        lambda build: turns.seconds(build, weights=None), builders, RUNS, warm_up=1
    )
    for name, times in found.items():
        print(f"{name:<28} {statistics.median(times):.3f} s, median of {RUNS}")
    theirs, ours = found.values()
    print(f"ratio {turns.ratio(ours, theirs):.2f}, median of the pairs")


if __name__ == "__main__":
    main()
