"""SmolLM2-135M in Python's mlx: the graph of smollm2.exs, operation by operation.

Run as a script it writes the weights of a GGUF file as f32 into a folder, under the names and in the
layout of the original checkpoint, with its config.json:

    python3 smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf folder
"""

import json
import os
import sys

import mlx.core as mx

HEADS, KV_HEADS, SIZE, LAYERS, CACHE, EPS, BASE = 9, 3, 64, 30, 256, 1e-5, 100000.0

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": HEADS * SIZE,
    "intermediate_size": 1536,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
    "rms_norm_eps": EPS,
    "rope_theta": BASE,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "torch_dtype": "float32",
}

# GGUF's names, those of the checkpoint, and the heads whose rows GGUF has in another order.
NAMES = [
    ("attn_norm", "input_layernorm", None),
    ("attn_q", "self_attn.q_proj", HEADS),
    ("attn_k", "self_attn.k_proj", KV_HEADS),
    ("attn_v", "self_attn.v_proj", None),
    ("attn_output", "self_attn.o_proj", None),
    ("ffn_norm", "post_attention_layernorm", None),
    ("ffn_gate", "mlp.gate_proj", None),
    ("ffn_up", "mlp.up_proj", None),
    ("ffn_down", "mlp.down_proj", None),
]


def convert(gguf, folder):
    packed = mx.load(gguf)

    def weight(name, heads=None):
        w = packed[f"{name}.weight"]
        if w.dtype == mx.uint32:
            scales, biases = (packed[f"{name}.{kind}"] for kind in ("scales", "biases"))
            # Groups of 32 values.
            bits = w.shape[1] // scales.shape[1]
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
            w = mx.dequantize(w, scales, biases, group_size=32, bits=bits)
        if heads:
            # GGUF pairs neighbours for the rotation, the checkpoint halves.
            w = w.reshape(heads, SIZE // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)
        return w.astype(mx.float32)

    weights = {
        "model.embed_tokens.weight": weight("token_embd"),
        "model.norm.weight": weight("output_norm"),
    }
    for layer in range(LAYERS):
        for name, own, heads in NAMES:
            weights[f"model.layers.{layer}.{own}.weight"] = weight(f"blk.{layer}.{name}", heads)

    mx.save_safetensors(os.path.join(folder, "model.safetensors"), weights, {"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(CONFIG, file, indent=2)


def load(folder):
    weights = mx.load(os.path.join(folder, "model.safetensors"))
    mx.eval(weights)
    return weights


def start(ids):
    """The tokens, their position, and an empty cache."""
    empty = mx.zeros((1, KV_HEADS, CACHE, SIZE))
    mx.eval(empty)
    return mx.array([ids]), mx.array(0), [(empty, empty)] * LAYERS


def step(state, weights):
    """The next state, whose token is the likeliest one, and the logits."""
    tokens, position, cache = state
    count = tokens.shape[1]
    mask = causal(position, count)
    x = mx.take(weights["model.embed_tokens.weight"], tokens, axis=0)
    kept = []
    for at in range(LAYERS):
        x, pair = layer(x, position, mask, cache[at], weights, f"model.layers.{at}")
        kept.append(pair)
    x = mx.fast.rms_norm(x[:, -1:], weights["model.norm.weight"], EPS)
    logits = x @ weights["model.embed_tokens.weight"].T
    token = mx.argmax(logits, axis=-1).astype(mx.int32)
    return (token, position + count, kept), logits


def causal(position, count):
    last = position + mx.arange(count)[:, None]
    visible = mx.arange(CACHE)[None] <= last
    return mx.where(visible, 0.0, mx.finfo(mx.float32).min)[None, None]


def layer(x, position, mask, cache, weights, name):
    def linear(x, part):
        return x @ weights[f"{name}.{part}.weight"].T

    def norm(x, part):
        return mx.fast.rms_norm(x, weights[f"{name}.{part}.weight"], EPS)

    def split(x, heads):
        return x.reshape(1, -1, heads, SIZE).transpose(0, 2, 1, 3)

    def rotate(x):
        return mx.fast.rope(x, SIZE, traditional=False, base=BASE, scale=1.0, offset=position)

    keys, values = cache
    h = norm(x, "input_layernorm")
    query = rotate(split(linear(h, "self_attn.q_proj"), HEADS))
    key = rotate(split(linear(h, "self_attn.k_proj"), KV_HEADS))
    value = split(linear(h, "self_attn.v_proj"), KV_HEADS)

    place = position[None]
    keys = mx.slice_update(keys, key, place, (2,))
    values = mx.slice_update(values, value, place, (2,))

    attended = mx.fast.scaled_dot_product_attention(
        query, keys, values, scale=SIZE**-0.5, mask=mask
    )
    attended = attended.transpose(0, 2, 1, 3).reshape(1, -1, HEADS * SIZE)
    x = x + linear(attended, "self_attn.o_proj")

    h = norm(x, "post_attention_layernorm")
    gate = linear(h, "mlp.gate_proj")
    wide = gate * mx.sigmoid(gate) * linear(h, "mlp.up_proj")
    return x + linear(wide, "mlp.down_proj"), (keys, values)


if __name__ == "__main__":
    convert(*sys.argv[1:])
