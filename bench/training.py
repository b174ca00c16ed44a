"""The figures of training.exs by XLA: a line `name value` or `name time` comes in, a number goes out."""

import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

RATE = 0.01


def uniform(shape, scale):
    count = int(np.prod(shape))
    numbers = (np.arange(count, dtype=np.int64) * 7919 % 2003 - 1001) * (scale / 1001)
    return jnp.array(numbers.astype(np.float32).reshape(shape))


def labels(batch):
    return jnp.array(np.eye(10, dtype=np.float32)[np.arange(batch) % 10])


def conv(x, w, stride=1, padding="SAME", groups=1):
    return lax.conv_general_dilated(x, w, (stride, stride), padding, feature_group_count=groups)


def loss(logits, labels):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * labels, axis=1))


def mlp(weights, x):
    w1, b1, w2, b2, w3, b3 = weights
    x = jax.nn.relu(x @ w1 + b1)
    x = jax.nn.relu(x @ w2 + b2)
    return x @ w3 + b3


def pool(x, size, padding="VALID"):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, size, size), (1, 1, 2, 2), padding)


def cnn(weights, x):
    c1, c2, c3, w = weights
    x = pool(jax.nn.relu(conv(x, c1)), 2)
    x = pool(jax.nn.relu(conv(x, c2)), 2)
    x = jax.nn.relu(conv(x, c3))
    return jnp.mean(x, axis=(2, 3)) @ w


def step(model):
    def run(weights, x, labels):
        value, grads = jax.value_and_grad(lambda w: loss(model(w, x), labels))(weights)
        return value, [w - RATE * g for w, g in zip(weights, grads)]

    return run


def lstm(x, w, u, b):
    def one(state, x):
        h, c = state
        i, f, g, o = jnp.split(x @ w + h @ u + b, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((32, 128), jnp.float32)
    return lax.scan(one, (zeros, zeros), x)[0][0]


FIGURES = {
    "conv3": (conv, lambda: [uniform((8, 64, 56, 56), 1.0), uniform((64, 64, 3, 3), 0.1)]),
    "conv7": (
        lambda x, w: conv(x, w, 2, [(3, 3), (3, 3)]),
        lambda: [uniform((8, 3, 224, 224), 1.0), uniform((64, 3, 7, 7), 0.1)],
    ),
    "depthwise": (
        lambda x, w: conv(x, w, groups=64),
        lambda: [uniform((8, 64, 56, 56), 1.0), uniform((64, 1, 3, 3), 0.1)],
    ),
    "max_pool": (lambda x: pool(x, 3, "SAME"), lambda: [uniform((8, 64, 112, 112), 1.0)]),
    "mlp": (
        step(mlp),
        lambda: [
            [
                uniform((784, 512), 0.05),
                uniform((512,), 0.01),
                uniform((512, 512), 0.05),
                uniform((512,), 0.01),
                uniform((512, 10), 0.05),
                uniform((10,), 0.01),
            ],
            uniform((128, 784), 1.0),
            labels(128),
        ],
    ),
    "cnn": (
        step(cnn),
        lambda: [
            [
                uniform((32, 3, 3, 3), 0.2),
                uniform((64, 32, 3, 3), 0.1),
                uniform((64, 64, 3, 3), 0.1),
                uniform((64, 10), 0.1),
            ],
            uniform((32, 3, 32, 32), 1.0),
            labels(32),
        ],
    ),
    "lstm": (
        lstm,
        lambda: [
            uniform((100, 32, 128), 1.0),
            uniform((128, 512), 0.1),
            uniform((128, 512), 0.1),
            uniform((512,), 0.1),
        ],
    ),
}
READY = {}


def ready(name):
    if name not in READY:
        run, args = FIGURES[name]
        READY[name] = (jax.jit(run), args())
    return READY[name]


def value(name):
    run, args = ready(name)
    result = run(*args)
    return float(result[0] if isinstance(result, tuple) else jnp.mean(jnp.abs(result)))


def median(name):
    run, args = ready(name)
    jax.block_until_ready(run(*args))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


for line in sys.stdin:
    name, what = line.split()
    print(f"{value(name) if what == 'value' else median(name):.9e}", flush=True)
