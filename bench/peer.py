"""Python's mlx beside bench/run: its device, its numbers, and which files answer for it."""

import sys

import mlx.core as mx

import timing

mx.set_default_device(mx.Device(getattr(mx.DeviceType, sys.argv[1])))


def uniform(*shape):
    x = mx.random.uniform(-1.0, 1.0, shape)
    mx.eval(x)
    return x


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
    """Answers as timing.serve does, "facts" with versions and the libraries in use."""
    timing.serve(figure, {"facts": facts, **answers})
