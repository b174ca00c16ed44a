"""Decoding with mlx-lm, of the shapes and the lengths of decode.exs: tokens a second, the best of five."""

import sys
import time

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.generate import generate_step
from mlx_lm.models import llama, qwen3

PROMPT, NEW = 32, 128
if "--qwen" in sys.argv or "--qwen-4b" in sys.argv:
    name, width, layers, inner, heads = "Qwen3-0.6B", 1024, 28, 3072, 16
    if "--qwen-4b" in sys.argv:
        name, width, layers, inner, heads = "Qwen3-4B", 2560, 36, 9728, 32
    model = qwen3.Model(qwen3.ModelArgs(
        model_type="qwen3", hidden_size=width, num_hidden_layers=layers, intermediate_size=inner, num_attention_heads=heads,
        num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-6, vocab_size=151936, tie_word_embeddings=True,
        max_position_embeddings=2048, rope_theta=1e6, rope_scaling=None))
else:
    name, model = "SmolLM2-135M", llama.Model(llama.ModelArgs(
        model_type="llama", hidden_size=576, num_hidden_layers=30, intermediate_size=1536, num_attention_heads=9,
        num_key_value_heads=3, rms_norm_eps=1e-5, vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=2048))
model.update(tree_map(lambda x: x.astype(mx.bfloat16), model.parameters()))
mx.eval(model.parameters())


def generate():
    begin = time.perf_counter()
    for _token, _ in generate_step(mx.arange(PROMPT), model, max_tokens=NEW):
        pass
    return time.perf_counter() - begin


generate()
print(f"{name}, mlx-lm: {NEW / min(generate() for _ in range(5)):.1f} tokens/s")
