"""Python's side of bench/run: reads names of calls, answers with nanoseconds.

One line in, one line out. A name is answered with the median time of one call, "facts" with
versions and the libraries in use, and what a script adds with what it says.
"""

import statistics
import sys
import time

import mlx.core as mx

WARM_UP, WARM_UP_MS, SAMPLES, BUDGET_MS = map(int, sys.argv[2:])

mx.set_default_device(mx.Device(getattr(mx.DeviceType, sys.argv[1])))


def uniform(*shape):
    x = mx.random.uniform(-1.0, 1.0, shape)
    mx.eval(x)
    return x


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


def facts():
    """Versions, and the files that answer for MLX and BLAS as device:inode."""
    m = uniform(64, 64)
    mx.eval(m @ m)
    libraries = set()
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                fields = line.split(maxsplit=5)
                if len(fields) == 6 and any(name in fields[5] for name in ("libmlx", "blas")):
                    libraries.add(f"{fields[3]}:{fields[4]}")
    except FileNotFoundError:
        pass
    version = ".".join(map(str, sys.version_info[:3]))
    return " ".join([version, mx.__version__, *sorted(libraries)])


def serve(figure, answers={}):
    """Answers until the input ends.

    `figure` gives for a name the calls in one timing, the call, and perhaps what to do after each
    timing. A line whose first word is in `answers` goes there with the rest of its words.
    """
    answers = {"facts": facts, **answers}
    for line in sys.stdin:
        name = line.rstrip("\n")
        first, *words = name.split(" ")
        print(answers[first](*words) if first in answers else median(*figure(name)), flush=True)
