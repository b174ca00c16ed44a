defmodule Bench.Operations do
  @moduledoc false
  # The rows of bench/run --sweep: Nx's call, what a user of Python's mlx writes for it, and for a
  # row that stays slow the reason. Both are code, run as they stand here, on the arrays of
  # inputs/1, which sweep.py has under the same names, shapes and types.

  same =
    ~w(exp expm1 log1p sigmoid sin cos tan cosh sinh tanh sqrt rsqrt erf abs ceil floor sign)
    |> Enum.map(&{"Nx.#{&1}(x)", "mx.#{&1}(x)"})

  inverse =
    for {nx, mx, of} <- [
          {"log", "log", "p"},
          {"acos", "arccos", "x"},
          {"asin", "arcsin", "x"},
          {"atan", "arctan", "x"},
          {"acosh", "arccosh", "g"},
          {"asinh", "arcsinh", "x"},
          {"atanh", "arctanh", "x"},
          {"erf_inv", "erfinv", "x"},
          {"negate", "negative", "x"},
          {"is_nan", "isnan", "x"},
          {"is_infinity", "isinf", "x"},
          {"bitwise_not", "bitwise_invert", "i"},
          {"conjugate", "conj", "z"},
          {"real", "real", "z"},
          {"imag", "imag", "z"},
          {"logical_not", "logical_not", "b"}
        ],
        do: {"Nx.#{nx}(#{of})", "mx.#{mx}(#{of})"}

  unary = [
    {"Nx.cbrt(x)", "mx.sign(x) * mx.power(mx.abs(x), 1 / 3)"},
    {"Nx.erfc(x)", "1 - mx.erf(x)"},
    {"Nx.round(x)", "mx.round(x)"},
    {"Nx.phase(z)", "mx.arctan2(mx.imag(z), mx.real(z))"},
    {"Nx.population_count(i)", "popcount(i.view(mx.uint32))"},
    {"Nx.count_leading_zeros(i)", "clz(i.view(mx.uint32))"},
    {"Nx.as_type(x, :s32)", "x.astype(mx.int32)"},
    {"Nx.as_type(x, :bf16)", "x.astype(mx.bfloat16)"},
    {"Nx.as_type(i, :f32)", "i.astype(mx.float32)"},
    {"Nx.bitcast(x, :s32)", "x.view(mx.int32)"}
  ]

  binary =
    for {nx, mx, left, right} <- [
          {"add", "add", "x", "y"},
          {"subtract", "subtract", "x", "y"},
          {"multiply", "multiply", "x", "y"},
          {"divide", "divide", "x", "y"},
          {"pow", "power", "p", "y"},
          {"pow", "power", "i", "k"},
          {"remainder", "remainder", "x", "y"},
          {"remainder", "remainder", "i", "j"},
          {"quotient", "floor_divide", "i", "j"},
          {"atan2", "arctan2", "x", "y"},
          {"min", "minimum", "x", "y"},
          {"max", "maximum", "x", "y"},
          {"bitwise_and", "bitwise_and", "i", "j"},
          {"bitwise_or", "bitwise_or", "i", "j"},
          {"bitwise_xor", "bitwise_xor", "i", "j"},
          {"left_shift", "left_shift", "i", "k"},
          {"right_shift", "right_shift", "i", "k"},
          {"equal", "equal", "x", "y"},
          {"not_equal", "not_equal", "x", "y"},
          {"greater", "greater", "x", "y"},
          {"less", "less", "x", "y"},
          {"greater_equal", "greater_equal", "x", "y"},
          {"less_equal", "less_equal", "x", "y"},
          {"logical_and", "logical_and", "b", "c"},
          {"logical_or", "logical_or", "b", "c"},
          {"logical_and", "logical_and", "x", "y"}
        ],
        do: {"Nx.#{nx}(#{left}, #{right})", "mx.#{mx}(#{left}, #{right})"}

  choice = [
    {"Nx.logical_xor(b, c)", "mx.logical_xor(b, c)"},
    {"Nx.select(b, x, y)", "mx.where(b, x, y)"},
    {"Nx.clip(x, -0.5, 0.5)", "mx.clip(x, -0.5, 0.5)"}
  ]

  reductions =
    for {nx, mx} <- [
          {"sum", "sum"},
          {"product", "prod"},
          {"reduce_max", "max"},
          {"reduce_min", "min"},
          {"all", "all"},
          {"any", "any"}
        ],
        {nx_axes, mx_axes} <- [{"x", "x"}, {"m, axes: [1]", "m, axis=1"}] do
      {"Nx.#{nx}(#{nx_axes})", "mx.#{mx}(#{mx_axes})"}
    end ++
      [
        {"Nx.sum(m, axes: [0])", "mx.sum(m, axis=0)"},
        {"Nx.sum(i)", "mx.sum(i)"},
        {"Nx.reduce(x, 0.0, &Nx.add/2)", "mx.sum(x)"},
        {"Nx.reduce(m, 0.0, [axes: [1]], &Nx.max/2)", "mx.maximum(mx.max(m, axis=1), 0.0)"},
        {"Nx.sum(h)", "mx.sum(h.astype(mx.float32)).astype(mx.bfloat16)"},
        {"Nx.argmax(x)", "mx.argmax(x)"},
        {"Nx.argmin(x)", "mx.argmin(x)"},
        {"Nx.argmax(m, axis: 1)", "mx.argmax(m, axis=1)"},
        {"Nx.argmax(i)", "mx.argmax(i)"},
        {"Nx.argmax(x, tie_break: :high)", "n - 1 - mx.argmax(x[::-1])"},
        {"Nx.cumulative_sum(x)", "mx.cumsum(x)"},
        {"Nx.cumulative_product(x)", "mx.cumprod(x)"},
        {"Nx.cumulative_max(x)", "mx.cummax(x)"},
        {"Nx.cumulative_min(x)", "mx.cummin(x)"},
        {"Nx.cumulative_sum(m, axis: 0)", "mx.cumsum(m, axis=0)"}
      ]

  sorting = [
    {"Nx.sort(x)", "mx.sort(x)"},
    {"Nx.sort(m, axis: 1)", "mx.sort(m, axis=1)"},
    {"Nx.sort(x, direction: :desc)", "mx.sort(x)[::-1]"},
    {"Nx.argsort(x)", "mx.argsort(x)"},
    {"Nx.top_k(x, k: 10)", "top_k(x, 10)"}
  ]

  shapes = [
    {"Nx.broadcast(Nx.tensor(1.5), x)", "mx.full((n,), 1.5)"},
    {"Nx.iota({n})", "mx.arange(n)"},
    {"Nx.iota({r, 100}, axis: 0)", "mx.broadcast_to(mx.arange(r)[:, None], (r, 100))"},
    {"Nx.eye(s)", "mx.eye(s)"},
    {"Nx.reshape(x, {r, 100})", "mx.reshape(x, (r, 100))"},
    {"Nx.squeeze(Nx.new_axis(x, 0))", "mx.squeeze(mx.expand_dims(x, 0))"},
    {"Nx.broadcast(v, {r, 100})", "mx.broadcast_to(v, (r, 100))"},
    {"Nx.transpose(m)", "mx.transpose(m)"},
    {"Nx.pad(x, 0.0, [{1, 1, 0}])", "mx.pad(x, (1, 1))"},
    {"Nx.pad(x, 0.0, [{0, 0, 1}])", "interior(x)"},
    {"Nx.reverse(x)", "x[::-1]"},
    {"Nx.concatenate([x, y])", "mx.concatenate([x, y])"},
    {"Nx.stack([x, y])", "mx.stack([x, y])"},
    {"Nx.slice(m, [1, 1], [r - 2, 98])", "m[1:-1, 1:-1]"},
    {"Nx.slice(m, [o, o], [r - 2, 98])", "mx.slice(m, mx.stack([o, o]), (0, 1), (r - 2, 98))"},
    {"Nx.put_slice(m, [1, 1], t)", "mx.slice_update(m, t, mx.array([1, 1]), (0, 1))"},
    {"Nx.to_batched(m, div(r, 2)) |> Enum.to_list() |> List.to_tuple()", "mx.split(m, 2)"}
  ]

  indices = [
    {"Nx.gather(x, Nx.new_axis(at, 1))", "x[at]"},
    {"Nx.gather(m, rc)", "m[rc[:, 0], rc[:, 1]]"},
    {"Nx.take(x, at)", "mx.take(x, at)"},
    {"Nx.take(m, rows)", "mx.take(m, rows, axis=0)"},
    {"Nx.take_along_axis(m, columns, axis: 1)", "mx.take_along_axis(m, columns, axis=1)"},
    {"Nx.indexed_add(x, Nx.new_axis(at, 1), y)", "x.at[at].add(y)"},
    {"Nx.indexed_add(m, rc, y)", "m.at[rc[:, 0], rc[:, 1]].add(y)"},
    {"Nx.indexed_put(x, Nx.new_axis(at, 1), y)", "put(x, at, y)"}
  ]

  windows = [
    {"Nx.window_sum(m, {2, 2}, strides: [2, 2])", "tiles(m).sum((1, 3))"},
    {"Nx.window_product(m, {2, 2}, strides: [2, 2])", "tiles(m).prod((1, 3))"},
    {"Nx.window_max(m, {2, 2}, strides: [2, 2])", "tiles(m).max((1, 3))"},
    {"Nx.window_min(m, {2, 2}, strides: [2, 2])", "tiles(m).min((1, 3))"},
    {"Nx.window_sum(m, {3, 3})", "windows(m).sum((2, 3))"},
    {"Nx.window_max(m, {3, 3})", "windows(m).max((2, 3))"},
    {"Nx.window_reduce(m, 0.0, {3, 3}, &Nx.add/2)", "windows(m).sum((2, 3))"},
    {"Nx.window_scatter_max(m, f, 0.0, {2, 2}, strides: [2, 2])", "unpool(m, f, mx.argmax)"},
    {"Nx.window_scatter_min(m, f, 0.0, {2, 2}, strides: [2, 2])", "unpool(m, f, mx.argmin)"}
  ]

  products = [
    {"Nx.dot(a, a)", "a @ a"},
    {"Nx.dot(m, v)", "m @ v"},
    {"Nx.dot(x, y)", "mx.inner(x, y)"},
    {"Nx.dot(ai, ai)", "(ai.astype(mx.float64) @ ai.astype(mx.float64)).astype(mx.int32)"},
    {"Nx.conv(image, kernel, padding: :same)", "mx.conv2d(image, kernel, padding=1)"},
    {"Nx.conv(signal, kernel1, padding: :same)", "mx.conv1d(signal, kernel1, padding=1)"}
  ]

  transforms = [
    {"Nx.fft(z)", "mx.fft.fft(z)"},
    {"Nx.ifft(z)", "mx.fft.ifft(z)"},
    {"Nx.fft(x)", "mx.fft.fft(x)"},
    {"Nx.fft2(zm)", "mx.fft.fft2(zm)"},
    {"Nx.ifft2(zm)", "mx.fft.ifft2(zm)"},
    {"Nx.rfft(x)", "mx.fft.rfft(x)"},
    {"Nx.irfft(z)", "mx.fft.irfft(z)"}
  ]

  linalg = [
    {"Nx.LinAlg.cholesky(spd)", "mx.linalg.cholesky(spd, stream=mx.cpu)"},
    {"Nx.LinAlg.qr(a)", "mx.linalg.qr(a, stream=mx.cpu)"},
    {"Nx.LinAlg.lu(a)", "lu(a)"},
    {"Nx.LinAlg.svd(a)", "mx.linalg.svd(a, stream=mx.cpu)"},
    {"Nx.LinAlg.eigh(spd)", "mx.linalg.eigh(spd, stream=mx.cpu)"},
    {"Nx.LinAlg.solve(spd, a)", "mx.linalg.solve(spd, a, stream=mx.cpu)"},
    {"Nx.LinAlg.determinant(spd)", "determinant(spd)"},
    {"Nx.LinAlg.triangular_solve(l, a)",
     "mx.linalg.solve_triangular(l, a, upper=False, stream=mx.cpu)"}
  ]

  compared =
    same ++
      inverse ++
      unary ++
      binary ++
      choice ++
      reductions ++ sorting ++ shapes ++ indices ++ windows ++ products ++ transforms ++ linalg

  # Why a row is above 1.5 x, where the wake of a thread is not the reason. Times are of MLX's own
  # operations on 1e5 elements, in microseconds, on the machine of RESULTS.md.
  @view "a view: neither side computes anything"
  @rounded "what is no larger than :eps becomes zero after each of the two transforms: a pass, twice"
  @reasons %{
    "Nx.slice(m, [1, 1], [r - 2, 98])" => @view,
    "Nx.reshape(x, {r, 100})" => @view,
    "Nx.squeeze(Nx.new_axis(x, 0))" => @view,
    "Nx.broadcast(v, {r, 100})" => @view,
    "Nx.transpose(m)" => @view,
    "Nx.reverse(x)" => @view,
    "Nx.bitcast(x, :s32)" => @view,
    "Nx.to_batched(m, div(r, 2)) |> Enum.to_list() |> List.to_tuple()" => @view,
    "Nx.fft2(zm)" => @rounded,
    "Nx.ifft2(zm)" => @rounded,
    "Nx.iota({r, 100}, axis: 0)" => "a view of r numbers, whose call is all wakes",
    "Nx.dot(m, v)" => "the same product, with two views around it that take as long",
    "Nx.dot(ai, ai)" =>
      "mlx's row is inexact beyond 53 bits: integers are cut in parts, several products in f64",
    "Nx.LinAlg.cholesky(spd)" =>
      "of what is not positive definite it is NaN, MLX's some numbers: the pivots are looked at, and all is chosen",
    "Nx.LinAlg.qr(a)" => "signs are those of Nx: both factors are multiplied by them"
  }

  # Matrices of 1e7 elements take LAPACK seconds to minutes.
  @largest %{"Nx.LinAlg" => 100_000}

  @doc "The rows: Nx's call and mlx's as text, the reason, and the most elements it is measured with."
  def all do
    for {{nx, mx}, at} <- Enum.with_index(unquote(compared)) do
      most = Enum.find_value(@largest, :infinity, fn {of, most} -> if nx =~ of, do: most end)
      %{nx: nx, mx: mx, at: at, why: @reasons[nx], most: most}
    end
  end

  @doc "Makes the call of a row."
  for {{nx, _mx}, at} <- Enum.with_index(compared) do
    call = Code.string_to_quoted!(nx)

    {_, names} =
      Macro.prewalk(call, MapSet.new(), fn
        {name, _, nil} = node, names -> {node, MapSet.put(names, name)}
        node, names -> {node, names}
      end)

    bound = for name <- names, do: {name, {name, [], nil}}
    def call(unquote(at), %{unquote_splicing(bound)}), do: unquote(call)
  end

  @doc "The inputs of about `n` elements."
  def inputs(n) do
    r = div(n, 100)
    s = n |> :math.sqrt() |> trunc()
    image = image(n)
    {x, y, a} = {uniform(1, {n}), uniform(2, {n}), uniform(3, {s, s})}
    m = Nx.reshape(x, {r, 100})
    z = Nx.complex(x, y)
    spd = Nx.add(Nx.dot(a, Nx.transpose(a)), Nx.multiply(Nx.eye(s), s))

    inputs = %{
      x: x,
      y: y,
      p: positive(x),
      g: Nx.add(positive(x), 1),
      z: z,
      zm: Nx.reshape(z, {r, 100}),
      h: Nx.as_type(x, :bf16),
      i: integer(x, 1, 1000),
      j: integer(y, 1, 100),
      k: integer(y, 0, 4),
      b: integer(x, 0, 2) |> Nx.as_type(:u8),
      c: integer(y, 0, 2) |> Nx.as_type(:u8),
      at: integer(y, 0, n),
      m: m,
      v: uniform(4, {100}),
      o: Nx.tensor(1),
      t: uniform(5, {r - 2, 98}),
      f: uniform(6, {div(r, 2), 50}),
      rows: uniform(7, {r}) |> integer(0, r),
      columns: Nx.reshape(integer(y, 0, 100), {r, 100}),
      rc: Nx.stack([integer(x, 0, r), integer(y, 0, 100)], axis: 1),
      a: a,
      ai: integer(a, -1000, 1000),
      spd: spd,
      l: Nx.add(Nx.tril(a), Nx.multiply(Nx.eye(s), s)),
      image: uniform(8, image),
      kernel: uniform(9, {10, 10, 3, 3}),
      signal: uniform(10, {1, 10, div(n, 10)}),
      kernel1: uniform(11, {10, 10, 3})
    }

    Emily.Native.eval(for {_, tensor} <- inputs, do: tensor.data.ref)
    Map.merge(inputs, %{n: n, r: r, s: s})
  end

  defp image(1_000), do: {1, 10, 10, 10}
  defp image(n), do: {div(n, 100_000), 10, 100, 100}

  defp uniform(seed, shape) do
    {tensor, _} = Nx.Random.uniform(Nx.Random.key(seed), -1.0, 1.0, shape: shape, type: :f32)
    tensor
  end

  defp positive(x), do: Nx.add(Nx.multiply(Nx.abs(x), 0.9), 0.1)

  # From low to high - 1.
  defp integer(x, low, high) do
    span = high - low

    x
    |> Nx.add(1)
    |> Nx.multiply(span / 2)
    |> Nx.floor()
    |> Nx.as_type(:s32)
    |> Nx.clip(0, span - 1)
    |> Nx.add(low)
  end
end
