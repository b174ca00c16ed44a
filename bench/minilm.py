"""all-MiniLM-L6-v2 in Python's mlx, with its fused kernels."""

import os

import mlx.core as mx

HEADS, LAYERS, EPS = 12, 6, 1e-12


def load(folder):
    weights = mx.load(os.path.join(folder, "model.safetensors"))
    mx.eval(weights)
    return weights


def tokens(batch, length):
    """Ids that any side can make: no text, but the same work."""
    return (mx.arange(batch * length).reshape(batch, length) * 7919) % 28_000 + 1_000


def forward(weights, ids, mask):
    """The last hidden states, {batch, length, width}. `mask` has ones for what is no padding."""

    def dense(x, name):
        return mx.addmm(weights[f"{name}.bias"], x, weights[f"{name}.weight"].T)

    def norm(x, name):
        return mx.fast.layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"], EPS)

    def table(name):
        return weights[f"embeddings.{name}_embeddings.weight"]

    batch, length = ids.shape
    x = table("word")[ids] + table("position")[:length] + table("token_type")[0]
    x = norm(x, "embeddings.LayerNorm")
    width = x.shape[-1]
    size = width // HEADS
    added = mx.where(mask[:, None, None] > 0, 0.0, mx.finfo(mx.float32).min)

    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            dense(x, f"{name}.attention.self.{part}")
            .reshape(batch, length, HEADS, size)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        attended = mx.fast.scaled_dot_product_attention(
            query, key, value, scale=size**-0.5, mask=added
        )
        attended = attended.transpose(0, 2, 1, 3).reshape(batch, length, width)
        x = norm(
            x + dense(attended, f"{name}.attention.output.dense"),
            f"{name}.attention.output.LayerNorm",
        )
        wide = dense(x, f"{name}.intermediate.dense")
        wide = wide * (1 + mx.erf(wide * 2**-0.5)) * 0.5
        x = norm(x + dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return x
