"""The figures of bench/run --models that stand beside those of generation.exs: mlx-lm and MiniLM."""

import pathlib

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model

import minilm
from peer import serve

LOADED = {}


def numbers(text):
    return [int(number) for number in text.split(",")]


def load_llama(folder):
    LOADED["llama"], _ = load_model(pathlib.Path(folder))
    return "loaded"


def load_minilm(folder, batch, length):
    LOADED["minilm"] = minilm.load(folder)
    LOADED["ids"] = minilm.tokens(int(batch), int(length))
    LOADED["mask"] = mx.ones((int(batch), int(length)))
    return "loaded"


def prompt(ids):
    LOADED["prompt"] = mx.array(numbers(ids))
    return "taken"


def generate(count):
    steps = generate_step(LOADED["prompt"], LOADED["llama"], max_tokens=count)
    return [token if isinstance(token, int) else token.item() for token, _ in steps]


def generated(count):
    return ",".join(map(str, generate(int(count))))


def embed():
    """The mean over the tokens, of length one."""
    mask = LOADED["mask"][..., None]
    x = minilm.forward(LOADED["minilm"], LOADED["ids"], LOADED["mask"])
    x = (x * mask).sum(1) / mask.sum(1)
    mx.eval(x / mx.linalg.norm(x, axis=-1, keepdims=True))


def figure(name):
    if name == "texts":
        return 1, embed
    return 1, lambda: generate(int(name))


ANSWERS = {
    "load_llama": load_llama,
    "load_minilm": load_minilm,
    "prompt": prompt,
    "generated": generated,
}

serve(figure, ANSWERS)
