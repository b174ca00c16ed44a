defmodule Emily.Lower.Dot do
  @moduledoc false
  # Products over named axes, as matrix products of `{batch, rows, inner}` and
  # `{batch, inner, columns}`.

  import Emily.Lower.Types
  import Emily.Device, only: [is_gpu: 1]
  import Emily.Expr, only: [share: 2, scalar: 2]

  # Up to this many products integers are multiplied one by one, which any device does exactly.
  @few_products 1_048_576

  def names, do: [:dot]

  def lower(:dot, %{type: half} = out, [left, axes1, batch1, right, axes2, batch2]) do
    type = operands(half, [left, right])
    {x, [batch, rows, inner]} = left_matrix(left, type, axes1, batch1)
    {y, [_, _, columns]} = right_matrix(right, type, axes2, batch2)
    gpu? = on_gpu?(left) or on_gpu?(right)
    product = convert(product(x, y, [batch, rows, inner, columns], type, gpu?), type, half)

    # The product has the batch only where there is one.
    dims = if batch == 1, do: [rows, columns], else: [batch, rows, columns]
    out_dims = Tuple.to_list(out.shape)
    if dims == out_dims, do: product, else: {:reshape, product, out_dims}
  end

  @doc """
  The product of `{batch, rows, inner}` and `{batch, inner, columns}`, both of `type`; the sums of
  integers wrap as in Nx.
  """
  def product(x, y, [batch, rows, inner, columns], type, gpu?) do
    cond do
      not is_integer_type(type) -> {:matmul, x, y}
      batch * rows * inner * columns <= @few_products or gpu? -> multiply_and_add(x, y, type)
      true -> exact(x, y, inner, type)
    end
  end

  @doc "Whether a tensor is on a GPU, which has no f64."
  def on_gpu?(%{data: %{device: device}}) when is_gpu(device), do: true
  def on_gpu?(_tensor), do: false

  defp left_matrix(tensor, type, axes, batch) do
    free = free_axes(tensor, axes, batch)
    dims = dims(tensor, [batch, free, axes])
    {arrange(tensor, type, batch ++ free ++ axes, dims), dims}
  end

  defp right_matrix(tensor, type, axes, batch) do
    free = free_axes(tensor, axes, batch)
    dims = dims(tensor, [batch, axes, free])
    {arrange(tensor, type, batch ++ axes ++ free, dims), dims}
  end

  defp free_axes(%{shape: shape}, axes, batch) do
    for axis <- 0..(tuple_size(shape) - 1)//1, axis not in axes, axis not in batch, do: axis
  end

  defp dims(%{shape: shape}, groups) do
    for group <- groups, do: Enum.reduce(group, 1, &(elem(shape, &1) * &2))
  end

  # A batch of one is left out: MLX's product of two matrices is its fastest.
  defp arrange(%{shape: shape} = tensor, type, order, [batch | matrix]) do
    x = cast(tensor, type)
    x = if sorted?(order, 0), do: x, else: {:transpose, x, order}
    dims = if batch == 1, do: matrix, else: [batch | matrix]
    same? = dims == for axis <- order, do: elem(shape, axis)
    if same?, do: x, else: {:reshape, x, dims}
  end

  defp sorted?([at | rest], at), do: sorted?(rest, at + 1)
  defp sorted?(rest, _at), do: rest == []

  # MLX multiplies matrices of floats only. Sums of integers wrap, as in Nx.
  defp multiply_and_add(x, y, type) do
    products = {:multiply, {:expand_dims, x, [-1]}, {:expand_dims, y, [-3]}}
    dtype = dtype(type)

    case type do
      {:u, 64} -> {:view, {:sum, {:view, products, :s64}, [-2], false}, :u64}
      _ -> {:astype, {:sum, products, [-2], false}, dtype}
    end
  end

  # Integers are cut into digits so small that f64 holds every sum of their products; the digits'
  # products are then shifted and added in 64 bits. Digits beyond the type's width only wrap.
  defp exact(x, y, inner, {_, bits} = type) do
    width = digit_bits(inner, bits)
    digits = div(bits + width - 1, width)

    share_all(digits(x, type, width, digits), fn left ->
      share_all(digits(y, type, width, digits), fn right ->
        terms =
          for {a, i} <- Enum.with_index(left), {b, j} <- Enum.with_index(right), i + j < digits do
            product = {:astype, {:matmul, a, b}, :s64}
            shift = (i + j) * width
            if shift == 0, do: product, else: {:left_shift, product, scalar(shift, :s64)}
          end

        {:astype, Enum.reduce(terms, &{:add, &2, &1}), dtype(type)}
      end)
    end)
  end

  # Two digits and the sum of `inner` products must stay below 2^53.
  defp digit_bits(inner, bits) do
    room = div(53 - ceil(:math.log2(max(inner, 2))), 2)
    max(min(room, bits), 1)
  end

  defp digits(x, {_, bits}, width, count) do
    unsigned = dtype({:u, 64})
    wide = {:astype, {:view, x, dtype({:u, bits})}, unsigned}
    mask = scalar(Bitwise.bsl(1, width) - 1, unsigned)

    for at <- 0..(count - 1) do
      shifted = if at == 0, do: wide, else: {:right_shift, wide, scalar(at * width, unsigned)}
      {:astype, {:bitwise_and, shifted, mask}, :f64}
    end
  end

  defp share_all(exprs, fun), do: share_all(exprs, [], fun)
  defp share_all([], names, fun), do: fun.(Enum.reverse(names))

  defp share_all([expr | rest], names, fun) do
    share(expr, &share_all(rest, [&1 | names], fun))
  end
end
