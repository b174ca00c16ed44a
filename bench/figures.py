"""The figures of bench/run that stand beside those of figures.exs."""

import ctypes
import mmap

import mlx.core as mx

from peer import serve, uniform


def chain():
    x = A
    for _ in range(100):
        x = mx.add(x, B)
    return bytes(memoryview(x))


def evaluated(function, *arguments, **options):
    return 1, lambda: mx.eval(function(*arguments, **options))


def norm(shape):
    return uniform(*shape), uniform(shape[-1]), uniform(shape[-1])


def rms_norm(shape):
    x, w, _ = norm(shape)
    return evaluated(mx.fast.rms_norm, x, w, 1e-6)


def layer_norm(shape):
    x, w, b = norm(shape)
    return evaluated(mx.fast.layer_norm, x, w, b, 1e-5)


def rope(shape):
    x = uniform(*shape)
    options = dict(traditional=False, base=10000.0, scale=1.0, offset=0)
    return evaluated(mx.fast.rope, x, shape[-1], **options)


def attention(shape, mask):
    q, k, v = uniform(*shape), uniform(*shape), uniform(*shape)
    options = dict(scale=shape[-1] ** -0.5, mask=mask)
    return evaluated(mx.fast.scaled_dot_product_attention, q, k, v, **options)


def einsum(equation, *shapes):
    return evaluated(mx.einsum, equation, *[uniform(*shape) for shape in shapes])


def copy_to_fresh_memory():
    """A memcpy into pages that nobody has touched, as a new array of this size takes them."""
    target = mmap.mmap(-1, SIZE)
    target[:] = BYTES
    return target


def copy_to_warm_memory():
    ctypes.memmove(WARM, BYTES, SIZE)


A, B = uniform(8), uniform(8)
M = uniform(512, 512)
SIZE = 16 * 1024 * 1024
BYTES = bytes(range(256)) * (SIZE // 256)
WARM = ctypes.create_string_buffer(SIZE)
LARGE = uniform(SIZE // 4)
HEADS, ROWS = (1, 8, 128, 64), (1, 128, 1024)

# The number of calls in one timing, and the call.
FIGURES = {
    "eager_add": (1000, lambda: mx.add(A, B)),
    "chain": (1, chain),
    "eval_add": evaluated(mx.add, A, B),
    "rms_norm heads": rms_norm(HEADS),
    "rms_norm rows": rms_norm(ROWS),
    "layer_norm heads": layer_norm(HEADS),
    "layer_norm rows": layer_norm(ROWS),
    "rope heads": rope(HEADS),
    "rope rows": rope(ROWS),
    "attention heads": attention(HEADS, None),
    "attention causal heads": attention(HEADS, "causal"),
    "attention rows": attention((1, 16, 128, 64), None),
    "attention causal rows": attention((1, 16, 128, 64), "causal"),
    **{
        f"einsum {equation}": einsum(equation, *shapes)
        for equation, shapes in [
            ("bhid,bhjd->bhij", [HEADS] * 2),
            ("ij,jk,kl->il", [(256, 16), (16, 256), (256, 16)]),
            ("abc,ai,bj,ck->ijk", [(48, 48, 48)] + [(48, 16)] * 3),
            ("ia,ib,ic->abc", [(400, 40)] * 3),
        ]
    },
    "dot": evaluated(mx.matmul, M, M),
    "to_binary": (100, lambda: memoryview(LARGE)),
    "from_binary": (1, lambda: mx.array(memoryview(BYTES).cast("f"))),
    "memcpy_fresh": (1, copy_to_fresh_memory),
    "memcpy_warm": (1, copy_to_warm_memory),
}

serve(FIGURES.__getitem__)
