"""The figures of bench/run --anchors in XLA, through JAX, and in NumPy. A figure's name starts with its engine."""

import concurrent.futures
import functools
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

import anchor_models as models
import timing

RANDOM = np.random.RandomState(0)
THREADS = len(os.sched_getaffinity(0))
POOL = concurrent.futures.ThreadPoolExecutor(THREADS)
ROWS = (1000, 10_000)


@functools.cache
def uniform(*shape):
    return RANDOM.random_sample(shape).astype(np.float32)


def xla(function, *shapes):
    """A call of a compiled function on numbers of these shapes, waited for."""
    compiled = jax.jit(function)
    arguments = [jnp.asarray(uniform(*shape)) for shape in shapes]
    return lambda: jax.block_until_ready(compiled(*arguments))


def numpy(function, *shapes):
    arguments = [uniform(*shape) for shape in shapes]
    return lambda: function(*arguments)


def transcendental(x):
    return jnp.tanh(jnp.maximum(jnp.exp(-x * x) * 0.5 + jnp.sin(x) * x, 0.1) - 0.3) / (1 + jnp.abs(x))


def cheap(x):
    return jnp.where(x > 0.5, x * 2.0 + 1.0, x - 3.0) * 0.25 + x


def convolution(strides, groups=1):
    return lambda image, kernel: jax.lax.conv_general_dilated(
        image, kernel, (strides, strides), "SAME", feature_group_count=groups
    )


def product(a, b):
    return a @ b


def top(x):
    return np.sort(np.partition(x, -10)[-10:])[::-1]


def read():
    """Reads 400 MB on all cores: NumPy's `dot` of a vector with itself waits for the memory alone."""
    parts = np.array_split(uniform(100_000_000), THREADS)
    return lambda: list(POOL.map(lambda part: np.dot(part, part), parts))


def add():
    a, b = jnp.asarray(uniform(8)), jnp.asarray(uniform(8))
    compiled = jax.jit(jnp.add)
    return lambda: compiled(a, b).block_until_ready()


MILLION, MANY = (1_000_000,), (10_000_000,)
FIGURES = {
    "xla add": add,
    "xla sum rows": lambda: xla(lambda m: m.sum(1), ROWS),
    "numpy sum rows": lambda: numpy(lambda m: m.sum(1), ROWS),
    "xla sum columns": lambda: xla(lambda m: m.sum(0), ROWS),
    "numpy sum columns": lambda: numpy(lambda m: m.sum(0), ROWS),
    "xla mean": lambda: xla(jnp.mean, MANY),
    "numpy mean": lambda: numpy(np.mean, MANY),
    "xla variance": lambda: xla(lambda m: m.var(1), ROWS),
    "numpy variance": lambda: numpy(lambda m: m.var(1), ROWS),
    "xla softmax": lambda: xla(lambda m: jax.nn.softmax(m, -1), ROWS),
    "xla chain functions": lambda: xla(transcendental, MANY),
    "xla chain cheap": lambda: xla(cheap, MANY),
    "xla cumulative sum": lambda: xla(jnp.cumsum, MANY),
    "numpy cumulative sum": lambda: numpy(np.cumsum, MANY),
    "xla sort": lambda: xla(jnp.sort, MILLION),
    "numpy sort": lambda: numpy(np.sort, MILLION),
    "xla argsort": lambda: xla(jnp.argsort, MILLION),
    "numpy argsort": lambda: numpy(np.argsort, MILLION),
    "xla top_k": lambda: xla(lambda x: jax.lax.top_k(x, 10)[0], MILLION),
    "numpy top_k": lambda: numpy(top, MILLION),
    "xla median": lambda: xla(jnp.median, MILLION),
    "numpy median": lambda: numpy(np.median, MILLION),
    "xla vector": lambda: xla(product, (1, 4096), (4096, 11008)),
    "numpy vector": lambda: numpy(product, (1, 4096), (4096, 11008)),
    "xla conv 3x3": lambda: xla(convolution(1), (8, 64, 56, 56), (64, 64, 3, 3)),
    "xla conv 7x7": lambda: xla(convolution(2), (8, 3, 224, 224), (64, 3, 7, 7)),
    "xla conv depthwise": lambda: xla(convolution(1, 64), (8, 64, 56, 56), (64, 1, 3, 3)),
    "numpy read": read,
    **models.FIGURES,
}
for size in (256, 1024, 2048):
    FIGURES[f"xla product {size}"] = functools.partial(xla, product, (size, size), (size, size))
    FIGURES[f"numpy product {size}"] = functools.partial(numpy, product, (size, size), (size, size))


@functools.cache
def figure(name):
    call = FIGURES[name]()
    return (100 if name == "xla add" else 1), call


def facts():
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Python {python}, JAX {jax.__version__}, NumPy {np.__version__}, {THREADS} threads each"


timing.serve(figure, {"facts": facts, **models.ANSWERS})
