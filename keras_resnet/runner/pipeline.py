"""The pipeline: images are decoded by threads while the model runs on others."""

import collections
import sys
import time

from keras_resnet.runner.errors import UserError, result_or_error, user_errors
from keras_resnet.runner.images import prepare, read_image
from keras_resnet.runner.runtime import default_threads

# `answer` is what the model's `interpret` returns; `decoded` is the `DecodedImage`,
# without its pixels if nobody needs them.
Result = collections.namedtuple("Result", "answer times decoded")


def milliseconds_since(start):
    """Returns the time since `start`, a `time.perf_counter()`, to the microsecond."""
    return round(1000 * (time.perf_counter() - start), 3)


def load_pixels(path, model, keep=False):
    """Reads and prepares one image.

    Returns:
        (pixels for the model, {"decode" | "resize": milliseconds}, the `DecodedImage`,
        with all its pixels if `keep` is set, else without any).
    """
    start = time.perf_counter()
    decoded = read_image(path, None if keep else model)
    times = {"decode": milliseconds_since(start)}
    start = time.perf_counter()
    with user_errors(path, ValueError, MemoryError):
        pixels = prepare(decoded.image, model, decoded.box)
    times["resize"] = milliseconds_since(start)
    return pixels, times, decoded if keep else decoded._replace(image=None)


def invoke(model, pixels, times, decoded=None):
    """Returns the `Result` of a model, with its time added to `times`.

    That is "invoke", and "postprocess" where boxes or a mask are made of the outputs.
    """
    start = time.perf_counter()
    outputs = model.outputs(pixels)
    times = dict(times, invoke=milliseconds_since(start))
    start = time.perf_counter()
    answer = model.interpret(outputs)
    if model.task != "classify":
        times["postprocess"] = milliseconds_since(start)
    return Result(answer, times, decoded)


def run_all(paths, model, state, keep=False):
    """Yields (path, `Result` or UserError) of images in their order."""

    def load(path):
        return result_or_error(load_pixels, path, model, keep)

    for path, loaded in map_ahead(load, list(paths), state):
        state.begin(f"{path}: running {model.path} on it")
        if not isinstance(loaded, UserError):
            loaded = result_or_error(invoke, model, *loaded)
        yield path, loaded
        state.done += 1


def map_ahead(function, paths, state):
    """Yields (path, function(path)) in order; threads compute a few paths ahead."""
    if len(paths) < 2 or state.one_by_one:
        for path in paths:
            state.begin(f"{path}: reading it")
            yield path, function(path)
        return
    from concurrent.futures import ThreadPoolExecutor  # one image needs no 4 ms for it

    state.overlapping = True
    # How long the thread that runs the model waits for one that runs Python.
    sys.setswitchinterval(0.0005)
    workers = default_threads()
    pool, waiting = ThreadPoolExecutor(workers), collections.deque()
    try:
        for path in paths:
            waiting.append((path, pool.submit(function, path)))
            if len(waiting) > 2 * workers:
                path, future = waiting.popleft()
                yield path, future.result()
        for path, future in waiting:
            yield path, future.result()
    finally:
        pool.shutdown(wait=False)  # Ctrl-C: one may wait for the standard input
