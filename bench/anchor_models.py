"""MiniLM, SmolLM2 and training steps in JAX, the same graphs as Emily's side has."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

LOADED = {}
LAYERS = {"minilm": 6, "smollm2": 30}
CACHE = 256


def load(path, dtype):
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    return {
        name: jnp.asarray(value).astype(dtype)
        for name, value in tensors.items()
        if value.dtype.kind == "f"
    }


def ids(batch, length):
    return (jnp.arange(batch * length).reshape(batch, length) * 7919) % 28_000 + 1_000


def write(x, path):
    np.asarray(x, dtype=np.float32).tofile(path)


# MiniLM, a BERT: twelve heads, norms behind each part.


def layer_norm(x, weight, bias):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-12) * weight + bias


@jax.jit
def minilm(weights, ids, mask):
    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        return layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    batch, length = ids.shape
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][:length]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    hidden = jnp.where(mask[:, None, None] > 0, 0.0, jnp.finfo(x.dtype).min)

    for layer in range(LAYERS["minilm"]):
        name = f"encoder.layer.{layer}"

        def heads(part):
            split = dense(x, f"{name}.attention.self.{part}").reshape(batch, length, 12, -1)
            return split.transpose(0, 2, 1, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(query.shape[-1])) + hidden
        seen = jax.nn.softmax(scores, -1) @ value
        seen = seen.transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(seen, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        wide = jax.nn.gelu(dense(x, f"{name}.intermediate.dense"), approximate=False)
        x = norm(x + dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return x


def load_minilm(folder):
    LOADED["minilm"] = load(os.path.join(folder, "model.safetensors"), jnp.float32)
    return "loaded"


def hidden(batch, length, path):
    """The hidden states of a batch, into a file."""
    write(embed(int(batch), int(length))(), path)
    return "written"


def embed(batch, length):
    tokens, mask = ids(batch, length), jnp.ones((batch, length))
    return lambda: minilm(LOADED["minilm"], tokens, mask).block_until_ready()


# SmolLM2, a Llama: nine heads over three, rotary positions, the embedding for the output too.


def rms_norm(x, weight):
    squares = jnp.square(x.astype(jnp.float32)).mean(-1, keepdims=True)
    return (x * jax.lax.rsqrt(squares + 1e-5)).astype(x.dtype) * weight


def rotate(x, position):
    half = x.shape[-1] // 2
    rates = 100_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = (position + jnp.arange(x.shape[2], dtype=jnp.float32))[:, None] * rates
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos], -1)


def smollm2(cache, weights, tokens, position):
    count = tokens.shape[1]
    last = position + jnp.arange(count)[:, None]
    x = weights["model.embed_tokens.weight"][tokens]
    hidden = jnp.where(jnp.arange(CACHE)[None] <= last, 0.0, jnp.finfo(x.dtype).min)
    kept = []

    for layer in range(LAYERS["smollm2"]):

        def linear(x, name):
            return x @ weights[f"model.layers.{layer}.{name}.weight"].T

        def heads(x, name, number):
            return linear(x, f"self_attn.{name}").reshape(1, count, number, 64).transpose(0, 2, 1, 3)

        h = rms_norm(x, weights[f"model.layers.{layer}.input_layernorm.weight"])
        query = rotate(heads(h, "q_proj", 9), position).reshape(1, 3, 3, count, 64)
        start = (0, 0, position, 0)
        keys, values = cache[layer]
        keys = jax.lax.dynamic_update_slice(keys, rotate(heads(h, "k_proj", 3), position), start)
        values = jax.lax.dynamic_update_slice(values, heads(h, "v_proj", 3), start)
        kept.append((keys, values))
        scores = jnp.einsum("bhgnd,bhmd->bhgnm", query, keys) / 8 + hidden
        shares = jax.nn.softmax(scores.astype(jnp.float32), -1).astype(x.dtype)
        seen = jnp.einsum("bhgnm,bhmd->bhgnd", shares, values).reshape(1, 9, count, 64)
        x = x + linear(seen.transpose(0, 2, 1, 3).reshape(1, count, 576), "self_attn.o_proj")
        h = rms_norm(x, weights[f"model.layers.{layer}.post_attention_layernorm.weight"])
        wide = jax.nn.silu(linear(h, "mlp.gate_proj")) * linear(h, "mlp.up_proj")
        x = x + linear(wide, "mlp.down_proj")

    logits = rms_norm(x[:, -1:], weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T
    return kept, jnp.argmax(logits, -1).astype(jnp.int32)


STEP = jax.jit(smollm2, donate_argnums=0)


def empty(dtype):
    def zeros():
        return jnp.zeros((1, 3, CACHE, 64), dtype)

    return [(zeros(), zeros()) for _ in range(LAYERS["smollm2"])]


def load_smollm2(folder):
    path = os.path.join(folder, "model.safetensors")
    LOADED["f32"] = load(path, jnp.float32)
    LOADED["bf16"] = {name: value.astype(jnp.bfloat16) for name, value in LOADED["f32"].items()}
    return "loaded"


def generate(dtype, tokens, count):
    """The cache, and the tokens that follow those of a prompt, each read when it is there."""
    weights = LOADED[dtype]
    cache, token = STEP(empty(weights["model.norm.weight"].dtype), weights, tokens, 0)
    said = [token.item()]
    for step in range(count - 1):
        cache, token = STEP(cache, weights, token, tokens.shape[1] + step)
        said.append(token.item())
    return cache, said


def greedy(dtype, tokens, count):
    tokens = jnp.asarray([[int(token) for token in tokens.split(",")]])
    return ",".join(map(str, generate(dtype, tokens, int(count))[1]))


def decode(dtype):
    """32 tokens behind the same 32, again and again in the same cache, which each step takes over."""
    state = {}

    def call():
        cache, token = state["cache"], ids(1, 1)
        for step in range(32):
            cache, token = STEP(cache, LOADED[dtype], token, 32 + step)
            token.item()
        state["cache"] = cache

    state["cache"], _ = generate(dtype, ids(1, 32), 1)
    return call


def prompt(dtype):
    tokens = ids(1, 256)
    return lambda: generate(dtype, tokens, 1)


# Training: steps of gradient descent.


def parameters(*shapes):
    random = np.random.RandomState(0)
    return [jnp.asarray(random.randn(*shape).astype(np.float32) * 0.05) for shape in shapes]


def cross_entropy(logits, labels):
    return -(jax.nn.log_softmax(logits) * labels).sum(-1).mean()


def mlp(weights, x):
    w1, b1, w2, b2, w3, b3 = weights
    x = jax.nn.relu(x @ w1 + b1)
    return jax.nn.relu(x @ w2 + b2) @ w3 + b3


def cnn(weights, x):
    k1, k2, k3, w, b = weights
    for kernel in (k1, k2, k3):
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.reshape(x.shape[0], -1) @ w + b


def training(model, weights, shape):
    random = np.random.RandomState(1)
    x = jnp.asarray(random.random_sample(shape).astype(np.float32))
    labels = jnp.asarray(np.eye(10, dtype=np.float32)[random.randint(0, 10, shape[0])])

    @jax.jit
    def step(weights):
        gradients = jax.grad(lambda weights: cross_entropy(model(weights, x), labels))(weights)
        return [weight - 0.01 * gradient for weight, gradient in zip(weights, gradients)]

    return lambda: jax.block_until_ready(step(weights))


def lstm():
    """An LSTM of 128 over 100 steps of 128 numbers, batch 32: its last state."""
    inputs, states, bias = parameters((128, 512), (128, 512), (512,))
    x = jnp.asarray(np.random.RandomState(1).random_sample((100, 32, 128)).astype(np.float32))

    def cell(carry, x):
        hidden, memory = carry
        gates = x @ inputs + hidden @ states + bias
        enter, forget, candidate, leave = jnp.split(gates, 4, -1)
        memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return (jax.nn.sigmoid(leave) * jnp.tanh(memory), memory), None

    zeros = jnp.zeros((32, 128))
    run = jax.jit(lambda x: jax.lax.scan(cell, (zeros, zeros), x)[0])
    return lambda: jax.block_until_ready(run(x))


MLP = ((784, 512), (512,), (512, 512), (512,), (512, 10), (10,))
CNN = ((32, 3, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (1024, 10), (10,))
FIGURES = {
    "xla MLP": lambda: training(mlp, parameters(*MLP), (128, 784)),
    "xla CNN": lambda: training(cnn, parameters(*CNN), (32, 3, 32, 32)),
    "xla LSTM": lstm,
    "xla decode f32": lambda: decode("f32"),
    "xla decode bf16": lambda: decode("bf16"),
    "xla prompt f32": lambda: prompt("f32"),
    "xla generate": lambda: functools.partial(generate, "f32", ids(1, 32), 64),
}
for batch, length in ((1, 16), (1, 128), (32, 128), (64, 64)):
    FIGURES[f"xla minilm {batch}x{length}"] = lambda batch=batch, length=length: embed(batch, length)

ANSWERS = {"load_minilm": load_minilm, "hidden": hidden, "load_smollm2": load_smollm2, "greedy": greedy}
