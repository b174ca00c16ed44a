"""What the scripts that stand beside Emily share: medians, and answers line by line.

One line in, one line out. A name is answered with the median time of one call in nanoseconds, other words
with what the script says to them.
"""

import statistics
import sys
import time

WARM_UP, WARM_UP_MS, SAMPLES, BUDGET_MS = map(int, sys.argv[2:6])


def nothing():
    pass


def sample(calls, call, between):
    """Nanoseconds of one call. What the last call gives is freed outside of the timing."""
    result = None
    start = time.perf_counter_ns()
    for _ in range(calls):
        result = call()
    end = time.perf_counter_ns()
    del result
    between()
    return (end - start) / calls


def take(calls, call, between, least, ms):
    """At least so many samples, and more until the time is over."""
    samples, end = [], time.perf_counter_ns() + ms * 1_000_000
    while len(samples) < least or time.perf_counter_ns() < end:
        samples.append(sample(calls, call, between))
    return samples


def median(calls, call, between=nothing):
    take(calls, call, between, WARM_UP, WARM_UP_MS)
    return statistics.median(take(calls, call, between, SAMPLES, BUDGET_MS))


def serve(figure, answers={}):
    """Answers until the input ends.

    `figure` gives for a name the calls in one timing, the call, and perhaps what to do after each
    timing. A line whose first word is in `answers` goes there with the rest of its words.
    """
    for line in sys.stdin:
        name = line.rstrip("\n")
        first, *words = name.split(" ")
        print(answers[first](*words) if first in answers else median(*figure(name)), flush=True)
