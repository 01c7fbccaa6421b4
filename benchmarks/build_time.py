"""Time to import the package, and to build ResNet-50 beside keras.applications.

python -m benchmarks.build_time
"""

import statistics
import time

import keras

_started = time.perf_counter()
import keras_resnet.models  # noqa: E402  what the lazy package imports first

IMPORT_SECONDS = time.perf_counter() - _started
RUNS = 15


def main():
    """Prints the medians and the ratio."""
    print(f"import keras_resnet, after keras: {IMPORT_SECONDS:.3f} s")
    builders = {
        "keras.applications.ResNet50": keras.applications.ResNet50,
        "keras_resnet.ResNet50": keras_resnet.ResNet50,
    }
    seconds = {name: [] for name in builders}
    for _ in range(RUNS + 1):
        for name, build in builders.items():
            started = time.perf_counter()
            build(weights=None)
            seconds[name].append(time.perf_counter() - started)
    # The first of each warms up. The machine's speed drifts: pairs are compared.
    theirs, ours = (times[1:] for times in seconds.values())
    for name, times in zip(builders, (theirs, ours), strict=True):
        print(f"{name:<28} {statistics.median(times):.3f} s, median of {RUNS}")
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    print(f"ratio {statistics.median(ratios):.2f}, median of the pairs")


if __name__ == "__main__":
    main()
