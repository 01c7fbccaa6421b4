"""--benchmark: the time of each stage, and the memory."""

import collections
import sys

from keras_resnet.runner.errors import UserError, printable
from keras_resnet.runner.pipeline import invoke, load_pixels

BENCHMARK_INVOKES = 50
WARM_UP_INVOKES = 5


def peak_memory_mib():
    """Returns the peak memory of this process; None where it is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def measure_stages(classifier, path):
    """Runs a classifier on an image, or on random pixels; returns milliseconds."""
    import numpy as np

    if path:
        times = invoke(classifier, *load_pixels(path, classifier)).times
        return dict(times, total=sum(times.values()))
    noise = np.random.RandomState(0).randint(0, 256, classifier.input_shape[1:])
    return invoke(classifier, noise.astype(np.uint8), {}).times


def benchmark(classifier, paths, messages):
    """Times a model on images, each at least once, or without any on random pixels.

    A bad image is reported once and left out.

    Returns:
        dict of the JSON output, as the help describes it.
    """
    import numpy as np

    queue, samples = collections.deque(paths or [None]), []
    while queue and len(samples) < WARM_UP_INVOKES + max(BENCHMARK_INVOKES, len(queue)):
        path = queue.popleft()
        try:
            samples.append(measure_stages(classifier, path))
            queue.append(path)
        except UserError as error:
            messages.error(error)
    if not queue:
        raise UserError("nothing to time: none of the images can be read")
    report = {
        "model": classifier.path,
        "runtime": classifier.runtime,
        "delegate": classifier.delegate,
        "threads": classifier.threads,
        "images": len(queue) if paths else 0,
        "invokes": len(samples) - WARM_UP_INVOKES,
        "peak_memory_mib": peak_memory_mib(),
        "model_load": classifier.load_milliseconds,
        "first_inference": samples[0]["invoke"],
    }
    for stage in samples[0]:
        times = [sample[stage] for sample in samples[WARM_UP_INVOKES:]]
        values = np.percentile(times, (50, 90, 99)).round(3).tolist()
        report[stage] = dict(zip(("median", "p90", "p99"), values))
    return report


def print_benchmark(report):
    """Prints a benchmark as a table."""
    stages = {name: value for name, value in report.items() if isinstance(value, dict)}
    units = {"peak_memory_mib": " MiB", "model_load": " ms", "first_inference": " ms"}
    for name in report:
        if name not in stages:
            title = name.replace("_mib", "").replace("_", " ")
            print(f"{title:16}  {printable(report[name])}{units.get(name, '')}")
    print(f"{'milliseconds':16}{'median':>12}{'p90':>12}{'p99':>12}")
    for name, values in stages.items():
        numbers = "".join(f"{value:12.3f}" for value in values.values())
        print(f"{name:16}{numbers}")
