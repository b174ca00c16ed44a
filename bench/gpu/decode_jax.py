"""Decoding with XLA, of the shapes and the lengths of decode.exs: a prompt and all its tokens are one jitted function with a
loop, as a generation of Bumblebee's on EXLA is. Tokens a second, the best of five; all weights are random."""

import sys
import time

import jax
import jax.numpy as jnp
from jax import lax

PROMPT, NEW = 32, 128
LENGTH = PROMPT + NEW
if "--qwen" in sys.argv:
    name, layers, width, inner, heads, groups, size, words, normed = "Qwen3-0.6B", 28, 1024, 3072, 16, 8, 128, 151936, True
else:
    name, layers, width, inner, heads, groups, size, words, normed = "SmolLM2-135M", 30, 576, 1536, 9, 3, 64, 49152, False

keys = iter(jax.random.split(jax.random.key(0), 8 * layers + 1))


def weight(*shape):
    return (jax.random.normal(next(keys), shape) * 0.02).astype(jnp.bfloat16)


ones = jnp.ones(width, jnp.bfloat16)
weights = {
    "words": weight(words, width),
    "last": ones,
    "layers": [
        {
            "q": weight(width, heads * size), "k": weight(width, groups * size), "v": weight(width, groups * size),
            "o": weight(heads * size, width), "gate": weight(width, inner), "up": weight(width, inner),
            "down": weight(inner, width), "before": ones, "between": ones,
            "of_q": jnp.ones(size, jnp.bfloat16), "of_k": jnp.ones(size, jnp.bfloat16),
        }
        for _ in range(layers)
    ],
}
frequencies = 10000.0 ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)


def norm(x, scale):
    square = jnp.mean(jnp.square(x.astype(jnp.float32)), -1, keepdims=True)
    return (x * lax.rsqrt(square + 1e-6)).astype(x.dtype) * scale


def rotate(x, position):
    angles = (position + jnp.arange(x.shape[1], dtype=jnp.float32))[:, None, None] * frequencies
    c, s = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * c - b * s, a * s + b * c], -1).astype(x.dtype)


def step(weights, caches, tokens, position):
    """The next token behind tokens at a position."""
    count = tokens.shape[1]
    seen = jnp.arange(LENGTH) <= position + jnp.arange(count)[:, None]
    x, new = weights["words"][tokens], []
    for w, (keys, values) in zip(weights["layers"], caches):
        h = norm(x, w["before"])
        q, k, v = (jnp.reshape(h @ w[n], (1, count, -1, size)) for n in "qkv")
        if normed:
            q, k = norm(q, w["of_q"]), norm(k, w["of_k"])
        q, k = rotate(q, position), rotate(k, position)
        keys = lax.dynamic_update_slice(keys, k, (0, position, 0, 0))
        values = lax.dynamic_update_slice(values, v, (0, position, 0, 0))
        new.append((keys, values))
        q = jnp.reshape(q, (1, count, groups, heads // groups, size))
        scores = jnp.einsum("bqghd,bkgd->bghqk", q, keys, preferred_element_type=jnp.float32) * size**-0.5
        scores = jax.nn.softmax(jnp.where(seen, scores, -1e30), -1).astype(x.dtype)
        attended = jnp.einsum("bghqk,bkgd->bqghd", scores, values)
        x = x + jnp.reshape(attended, (1, count, -1)) @ w["o"]
        h = norm(x, w["between"])
        x = x + (jax.nn.silu(h @ w["gate"]) * (h @ w["up"])) @ w["down"]
    logits = norm(x[:, -1], weights["last"]) @ weights["words"].T
    return new, jnp.argmax(logits, -1, keepdims=True).astype(jnp.int32)


@jax.jit
def generate(weights, prompt):
    empty = jnp.zeros((1, LENGTH, groups, size), jnp.bfloat16)
    caches, token = step(weights, [(empty, empty)] * layers, prompt, 0)
    tokens = jnp.zeros((1, NEW), jnp.int32).at[:, 0].set(token[0])

    def body(state):
        done, caches, token, tokens = state
        caches, token = step(weights, caches, token, PROMPT - 1 + done)
        return done + 1, caches, token, lax.dynamic_update_slice(tokens, token, (0, done))

    return lax.while_loop(lambda state: state[0] < NEW, body, (1, caches, token, tokens))[3]


def run():
    begin = time.perf_counter()
    jax.device_get(generate(weights, jnp.arange(PROMPT)[None]))
    return time.perf_counter() - begin


first = run()
print(f"{name}, XLA's loop: {NEW / min(run() for _ in range(5)):.1f} tokens/s, first call {first:.1f} s")
