"""One table: Emily's figures (the command that is given prints them) beside Python's mlx, PyTorch and JAX, in
microseconds, medians of 30 calls, each read at its end. What is not installed has no column."""

import subprocess
import sys
import time

NAMES = ["small add", "matmul bf16 4096", "add bf16 16M", "sum bf16 1e7", "sum bf16 1e7 rows", "softmax bf16 1e7 rows",
         "attention causal bf16 2048", "rope bf16 2048", "rms norm bf16 4096"]


def median(fun):
    for _ in range(10):
        fun()
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        fun()
        times.append(time.perf_counter() - begin)
    return sorted(times)[15] * 1e6


def emily():
    lines = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return dict((name, float(time)) for name, time in (line.split("\t") for line in lines if "\t" in line))


def mlx():
    import mlx.core as mx

    big, wide = mx.random.normal((4096, 4096)).astype(mx.bfloat16), mx.random.normal((10000, 1000)).astype(mx.bfloat16)
    q, small = mx.random.normal((1, 16, 2048, 128)).astype(mx.bfloat16), mx.random.normal((8,))
    ones = mx.ones((4096,), dtype=mx.bfloat16)
    last = lambda x: x.flatten()[0].item()
    return dict(zip(NAMES, map(median, [
        lambda: last(small + 1), lambda: last(big @ big), lambda: last(big + big), lambda: wide.sum().item(),
        lambda: last(wide.sum(axis=1)), lambda: last(mx.softmax(wide, axis=-1)),
        lambda: last(mx.fast.scaled_dot_product_attention(q, q, q, scale=128**-0.5, mask="causal")),
        lambda: last(mx.fast.rope(q, 128, traditional=False, base=10000, scale=1.0, offset=0)),
        lambda: last(mx.fast.rms_norm(big, ones, 1e-6))])))


def torch():
    import torch as t
    from torch.nn import functional as F

    normal = lambda *shape: t.randn(*shape, device="cuda", dtype=t.bfloat16)
    big, wide, q, small = normal(4096, 4096), normal(10000, 1000), normal(1, 16, 2048, 128), t.randn(8, device="cuda")
    ones = t.ones(4096, device="cuda", dtype=t.bfloat16)
    last = lambda x: x.flatten()[0].item()
    return dict(zip(NAMES, map(median, [
        lambda: last(small + 1), lambda: last(big @ big), lambda: last(big + big), lambda: wide.sum().item(),
        lambda: last(wide.sum(1)), lambda: last(wide.softmax(-1)),
        lambda: last(F.scaled_dot_product_attention(q, q, q, is_causal=True)), lambda: None,
        lambda: last(F.rms_norm(big, (4096,), ones, 1e-6))])))


def jax():
    import jax as j
    import jax.numpy as jnp

    normal = lambda *shape: j.random.normal(j.random.key(1), shape, dtype=jnp.bfloat16)
    big, wide, q = normal(4096, 4096), normal(10000, 1000), normal(1, 2048, 16, 128)
    small = j.random.normal(j.random.key(1), (8,))
    last = lambda fun: j.jit(lambda x: fun(x).ravel()[0])
    add, dot, both = last(lambda x: x + 1), last(lambda x: x @ x), last(lambda x: x + x)
    rows, soft = last(lambda x: x.sum(1)), last(lambda x: j.nn.softmax(x, -1))
    attend = last(lambda x: j.nn.dot_product_attention(x, x, x, is_causal=True, implementation="cudnn"))
    norm = last(lambda x: x * j.lax.rsqrt((x.astype(jnp.float32) ** 2).mean(-1, keepdims=True) + 1e-6).astype(x.dtype))
    total = j.jit(lambda x: x.sum())
    return dict(zip(NAMES, map(median, [
        lambda: float(add(small)), lambda: float(dot(big)), lambda: float(both(big)), lambda: float(total(wide)),
        lambda: float(rows(wide)), lambda: float(soft(wide)), lambda: float(attend(q)), lambda: None,
        lambda: float(norm(big))])))


columns = {"Emily": emily()}
for name, measure in {"mlx": mlx, "PyTorch": torch, "JAX": jax}.items():
    try:
        columns[name] = measure()
    except Exception as error:  # What is not there, or does not run, has no column.
        print(f"{name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)

print("| us | " + " | ".join(columns) + " |")
print("|---|" + "---|" * len(columns))
for name in NAMES:
    figures = (column.get(name, 0) for column in columns.values())
    print(f"| {name} | " + " | ".join(f"{figure:.0f}" if figure > 1 else "" for figure in figures) + " |")
