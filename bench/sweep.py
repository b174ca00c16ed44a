"""Python's side of bench/run --sweep: a name is a size, how often the call is evaluated at once,
and the call itself, from operations.exs. The inputs are those of operations.exs."""

import functools

import mlx.core as mx

from peer import serve, uniform


def integer(x, low, high):
    span = high - low
    return mx.clip(mx.floor((x + 1) * (span / 2)).astype(mx.int32), 0, span - 1) + low


@functools.lru_cache(maxsize=1)
def inputs(n):
    r, s = n // 100, int(n**0.5)
    image = (1, 10, 10, 10) if n == 1000 else (n // 100_000, 100, 100, 10)
    x, y, a = uniform(n), uniform(n), uniform(s, s)
    positive = mx.abs(x) * 0.9 + 0.1
    z = x + 1j * y
    arrays = dict(
        x=x,
        y=y,
        p=positive,
        g=positive + 1,
        z=z,
        zm=z.reshape(r, 100),
        h=x.astype(mx.bfloat16),
        i=integer(x, 1, 1000),
        j=integer(y, 1, 100),
        k=integer(y, 0, 4),
        b=integer(x, 0, 2).astype(mx.uint8),
        c=integer(y, 0, 2).astype(mx.uint8),
        at=integer(y, 0, n),
        m=x.reshape(r, 100),
        v=uniform(100),
        o=mx.array(1),
        t=uniform(r - 2, 98),
        f=uniform(r // 2, 50),
        rows=integer(uniform(r), 0, r),
        columns=integer(y, 0, 100).reshape(r, 100),
        rc=mx.stack([integer(x, 0, r), integer(y, 0, 100)], axis=1),
        a=a,
        ai=integer(a, -1000, 1000),
        spd=a @ a.T + s * mx.eye(s),
        l=mx.tril(a) + s * mx.eye(s),
        image=uniform(*image),
        kernel=uniform(10, 3, 3, 10),
        signal=uniform(1, n // 10, 10),
        kernel1=uniform(10, 3, 10),
    )
    mx.eval(list(arrays.values()))
    return dict(arrays, n=n, r=r, s=s)


def popcount(x):
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return (x * 0x01010101) >> 24


def clz(x):
    for shift in (1, 2, 4, 8, 16):
        x = x | (x >> shift)
    return popcount(~x)


def top_k(x, k):
    at = mx.argsort(-x)[:k]
    return x[at], at


def interior(x):
    padded = mx.pad(x[:, None], ((0, 0), (0, 1)))
    return padded.reshape(-1)[:-1]


def put(x, at, y):
    x = mx.array(x)
    x[at] = y
    return x


def tiles(m):
    rows, columns = m.shape
    return m.reshape(rows // 2, 2, columns // 2, 2)


def windows(m):
    rows, columns = m.shape
    return mx.as_strided(m, (rows - 2, columns - 2, 3, 3), (columns, 1, columns, 1))


def unpool(m, values, choose):
    rows, columns = m.shape
    flat = tiles(m).transpose(0, 2, 1, 3).reshape(rows // 2, columns // 2, 4)
    chosen = choose(flat, axis=-1, keepdims=True) == mx.arange(4)
    spread = mx.where(chosen, values[..., None], 0.0)
    return spread.reshape(rows // 2, columns // 2, 2, 2).transpose(0, 2, 1, 3).reshape(rows, columns)


def lu(a):
    order, lower, upper = mx.linalg.lu(a, stream=mx.cpu)
    return mx.eye(a.shape[0])[order].T, lower, upper


def determinant(a):
    factors, pivots = mx.linalg.lu_factor(a, stream=mx.cpu)
    swaps = mx.sum(pivots != mx.arange(a.shape[0]))
    return mx.prod(mx.diagonal(factors)) * (1 - 2 * (swaps % 2))


def figure(name):
    size, count, call = name.split(" ", 2)
    call = eval(f"lambda: {call}", globals() | inputs(int(size)))
    times = range(int(count))
    return 1, lambda: mx.eval([call() for _ in times])


serve(figure)
