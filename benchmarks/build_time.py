"""Time to build ResNet-50: ours beside keras.applications', in turn.

python benchmarks/build_time.py
"""

import statistics
import time

import keras

import keras_resnet

RUNS = 15


def main():
    """Prints the medians and the ratio."""
    builders = {
        "keras.applications.ResNet50": keras.applications.ResNet50,
        "keras_resnet.ResNet50": keras_resnet.ResNet50,
    }
    seconds = {name: [] for name in builders}
    for _ in range(RUNS + 1):
        for name, build in builders.items():
            keras.backend.clear_session()
            started = time.perf_counter()
            build(weights=None)
            seconds[name].append(time.perf_counter() - started)
    # The first of each warms up.
    theirs, ours = (statistics.median(times[1:]) for times in seconds.values())
    for name, value in zip(builders, (theirs, ours), strict=True):
        print(f"{name:<28} {value:.3f} s, median of {RUNS}")
    print(f"ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
