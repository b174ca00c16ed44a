"""Decoding with mlx-lm, of the shape and the lengths of decode.exs: tokens a second, the best of five."""

import time

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.generate import generate_step
from mlx_lm.models.llama import Model, ModelArgs

PROMPT, NEW = 32, 128
model = Model(ModelArgs(
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
print(f"decode mlx-lm\t{NEW / min(generate() for _ in range(5)):.1f} tokens/s")
