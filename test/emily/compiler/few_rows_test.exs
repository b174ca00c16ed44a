defmodule Emily.Compiler.FewRowsTest do
  # Products of a few rows with what a GPU computes in the same kernel: the norm of the rows before them, the gate, the sum or
  # the rotation behind them. Against Nx.BinaryBackend.
  use Emily.CompilerCase, async: true

  import Nx.Defn

  alias Emily.Fast

  defn normed(x, scale, first, second) do
    y = Fast.rms_norm(x, scale, eps: 1.0e-3)
    {Nx.dot(y, first), Nx.dot(y, second), Nx.sum(y)}
  end

  defn swiglu(x, scale, first, second) do
    y = Fast.rms_norm(x, scale)
    Fast.swiglu(Nx.dot(y, first), Nx.dot(y, second))
  end

  defn geglu(x, _scale, first, second), do: Fast.geglu(Nx.dot(x, first), Nx.dot(x, second))

  # Gates of products of different rows.
  defn apart(x, scale, first, second),
    do: Fast.swiglu(Nx.dot(Fast.rms_norm(x, scale), first), Nx.dot(x, second))

  defn summed(x, scale, first, second) do
    y = Nx.dot(x, first) + Nx.cos(Nx.dot(x, second))
    {y, Fast.rms_norm(y, y[0] * 0 + 1) |> Nx.sum(), Nx.sum(scale)}
  end

  defn biased(x, scale, first, second),
    do: Nx.sum(second) * scale[0] + (Nx.dot(x, first) + first[0])

  # A product that others read too, and one that is added to more rows than it has.
  defn shared(x, _scale, first, second) do
    y = Nx.dot(x, first)
    {y + Nx.dot(x, second), y * 2}
  end

  defn grown(x, _scale, first, _second) do
    y = Nx.dot(x, first)
    Nx.new_axis(y, 0) + Nx.iota({3, 1, 1})
  end

  # Heads of one position, turned by what each product is read for alone; the second two as no kernel of products does.
  deftransform turned(x, scale, first, second) do
    [first, second] = heads(x, scale, [first, second])

    {Fast.rope_with_freqs(first, 7, frequencies(), dims: 16),
     Fast.rope_with_freqs(second, -3, frequencies(), dims: 16, scale: -0.5)}
  end

  deftransform turned_apart(x, scale, first, second) do
    [first, second] = heads(x, scale, [first, second])

    {Fast.rope_with_freqs(first, 3, frequencies(), dims: 16, traditional: true),
     Fast.rope(second, 5, dims: 16)}
  end

  defp heads(x, scale, matrices) do
    rows = Fast.rms_norm(x, scale)

    for matrix <- matrices do
      {_, columns} = matrix.shape
      rows |> Nx.dot(matrix) |> Nx.reshape({:auto, div(columns, 16), 1, 16})
    end
  end

  defp frequencies, do: Nx.exp(Nx.negate(Nx.iota({8}, type: :f32)))

  @functions ~w(normed swiglu geglu apart summed biased shared grown)a

  defp random(shape, seed, type) do
    {x, _} = Nx.Random.normal(Nx.Random.key(seed), 0.0, 0.5, shape: shape, type: :f32)
    Nx.as_type(x, type)
  end

  # Numbers of the same rows and columns that lie otherwise.
  defp laid(w, :rows), do: w
  defp laid(w, :columns), do: w |> Nx.transpose() |> in_rows() |> Nx.transpose()

  # Not at a multiple of 16 bytes.
  defp laid(w, :part) do
    {rows, columns} = w.shape

    w
    |> Nx.pad(0, [{0, 0, 0}, {1, 2, 0}])
    |> in_rows()
    |> Nx.slice([0, 1], [rows, columns])
  end

  # By the host, which lays what it has in rows.
  defp in_rows(w), do: w |> Nx.backend_copy(Nx.BinaryBackend) |> Nx.backend_copy(Emily.Backend)

  defp check(fun, rows, [inner, columns], layout, type) do
    arguments = [
      random({rows, inner}, 1, type),
      random({inner}, 2, type),
      random({inner, columns}, 3, type),
      random({inner, columns}, 4, type)
    ]

    [x, scale | matrices] = Enum.map(arguments, &Nx.backend_copy(&1, Emily.Backend))
    on_emily = [x, scale | Enum.map(matrices, &laid(&1, layout))]
    fun = Function.capture(__MODULE__, fun, 4)
    actual = Nx.Defn.jit_apply(fun, on_emily, compiler: Emily.Compiler)
    # In f32, whose errors are far below the rounding of 16 bits.
    wide = Enum.map(arguments, &Nx.as_type(&1, :f32))
    expected = Nx.Defn.jit_apply(fun, wide, compiler: Nx.Defn.Evaluator)
    tolerance = %{f32: 2.0e-5, f16: 4.0e-3, bf16: 3.0e-2}[type]

    for {actual, expected} <- Enum.zip(leaves(actual), leaves(expected)) do
      assert actual.shape == expected.shape
      actual = actual |> Nx.backend_copy(Nx.BinaryBackend) |> Nx.as_type(:f32)
      # By the largest number: what is small may be a difference of what is large.
      error = Nx.subtract(actual, expected) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
      size = expected |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()

      assert error <= tolerance * (1 + size),
             "#{error} of #{size}, #{inspect({rows, layout, type})}"
    end
  end

  defp leaves(result), do: Nx.Defn.Composite.flatten_list([result])

  for fun <- @functions do
    test "#{fun}" do
      for layout <- [:rows, :columns, :part], {rows, type} <- [{1, :bf16}, {4, :f32}] do
        check(unquote(fun), rows, [64, 48], layout, type)
      end

      # More rows than are few, another type, and sizes that are no multiples of what is read at once.
      check(unquote(fun), 5, [64, 48], :rows, :bf16)
      check(unquote(fun), 1, [40, 24], :columns, :f16)
      check(unquote(fun), 1, [37, 21], :rows, :f32)
      check(unquote(fun), 3, [1, 1], :columns, :bf16)
    end
  end

  test "turned" do
    for fun <- [:turned, :turned_apart],
        layout <- [:rows, :columns, :part],
        {rows, type} <- [{1, :bf16}, {1, :f32}, {2, :f32}],
        do: check(fun, rows, [64, 48], layout, type)

    for layout <- [:rows, :columns], do: check(:turned, 1, [576, 576], layout, :bf16)
  end

  test "more columns, and longer ones, than are taken at once" do
    for layout <- [:rows, :columns], do: check(:swiglu, 2, [3000, 8], layout, :bf16)
    for layout <- [:rows, :columns], do: check(:normed, 1, [8, 20_000], layout, :f32)
  end
end
