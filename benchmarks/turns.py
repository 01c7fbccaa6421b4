"""Measures several things in turns: other work on the machine then hits all alike."""

import statistics
import time


def in_turns(measure, things, rounds, warm_up=0):
    """Measures each of {name: thing} once in a round; returns {name: [results]}.

    The results of `warm_up` more rounds at the beginning are left out.
    """
    results = {name: [] for name in things}
    for number in range(-warm_up, rounds):
        for name, thing in things.items():
            result = measure(thing)
            if number >= 0:
                results[name].append(result)
    return results


def seconds(function, *arguments, **options):
    """Returns the seconds that a call takes."""
    started = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - started


def ratio(some, others):
    """Returns the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(some, others, strict=True))
