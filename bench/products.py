# The other side of bench/products.exs: a line names a library, a type, the two shapes, whether the right one lies
# transposed, and how many calls; the answer is the least time of one in microseconds.
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

JAX = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}
PRODUCTS = {"0": jax.jit(jnp.matmul), "1": jax.jit(lambda a, b: jnp.matmul(a, jnp.swapaxes(b, -1, -2)))}


def shape(text):
    return tuple(int(size) for size in text.split(","))


def product(library, kind, a, b, transposed):
    if library == "xla":
        x, y, function = jnp.full(a, 0.5, JAX[kind]), jnp.full(b, 0.5, JAX[kind]), PRODUCTS[transposed]
        return lambda: function(x, y).block_until_ready()
    if library == "read":
        x = np.full(25_000_000, 0.5, np.float32)
        return lambda: np.dot(x, x)
    x, y = np.full(a, 0.5, np.float32), np.full(b, 0.5, np.float32)
    y = np.swapaxes(y, -1, -2) if transposed == "1" else y
    return lambda: np.matmul(x, y)


made = {}
for line in sys.stdin:
    *name, calls = line.split()
    library, kind, a, b, transposed = name
    if tuple(name) not in made:
        made = {key: value for key, value in made.items() if key[1:] == tuple(name[1:])}
        made[tuple(name)] = product(library, kind, shape(a), shape(b), transposed)
        made[tuple(name)]()
    times = []
    for _ in range(int(calls)):
        start = time.perf_counter()
        made[tuple(name)]()
        times.append(time.perf_counter() - start)
    print(1e6 * sorted(times)[len(times) // 2], flush=True)
