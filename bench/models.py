"""The figures of bench/run --models that stand beside those of models.exs."""

import array

import mlx.core as mx

import minilm
import smollm2
from peer import serve, uniform

A, B = uniform(8), uniform(8)
STATE = uniform(64)
IDENTITY = mx.compile(lambda x: x)
LOADED = {}


def chain():
    x = A
    for _ in range(1000):
        x = mx.add(x, B)
    mx.async_eval(x)


def loop():
    i, x = mx.array(0), STATE
    while (i < 10_000).item():
        i, x = i + 1, x * 0.5 + 1.0
    mx.eval(i, x)


def decode():
    state = LOADED["decoding"]
    for _ in range(16):
        state, _ = smollm2.step(state, LOADED["smollm2"])
        state[0].item()


def embed():
    mx.eval(minilm.forward(LOADED["minilm"], LOADED["ids"], LOADED["mask"]))


FIGURES = {
    "chain": (1, chain, mx.synchronize),
    "empty": (1000, lambda: IDENTITY(A)),
    "loop": (1, loop),
    "decode": (1, decode),
    "minilm": (1, embed),
}


def numbers(text):
    return [int(number) for number in text.split(",")]


def write(x, path):
    """An f32 array's numbers as bytes, for the other side to compare."""
    with open(path, "wb") as file:
        array.array("f", x.reshape(-1).tolist()).tofile(file)


def load_smollm2(folder, ids):
    """The weights, and the state after a prompt, from which decoding is timed."""
    LOADED["smollm2"] = smollm2.load(folder)
    state, _ = smollm2.step(smollm2.start(numbers(ids)), LOADED["smollm2"])
    mx.eval(state)
    LOADED["decoding"] = state
    return "loaded"


def greedy(ids, count, path):
    """So many new tokens; the last logits go to a file."""
    state, tokens = smollm2.start(numbers(ids)), []
    for _ in range(int(count)):
        state, logits = smollm2.step(state, LOADED["smollm2"])
        tokens.append(state[0].item())
    write(logits, path)
    return ",".join(map(str, tokens))


def load_minilm(folder, batch, length, path):
    """The weights and a batch; the hidden states go to a file."""
    batch, length = int(batch), int(length)
    LOADED["minilm"] = minilm.load(folder)
    LOADED["ids"] = minilm.tokens(batch, length)
    LOADED["mask"] = mx.ones((batch, length))
    write(minilm.forward(LOADED["minilm"], LOADED["ids"], LOADED["mask"]), path)
    return "loaded"


ANSWERS = {"load_smollm2": load_smollm2, "greedy": greedy, "load_minilm": load_minilm}

serve(FIGURES.__getitem__, ANSWERS)
