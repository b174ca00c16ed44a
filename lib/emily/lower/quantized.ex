defmodule Emily.Lower.Quantized do
  @moduledoc false
  # Packed weights as expressions. Shapes and types have been checked by Emily.Quantization.

  alias Emily.Native
  alias Emily.Quantization.{Blocks, Dequantize, GatherMatmul, Matmul, Packing}

  import Emily.Lower, only: [cast: 2, dtype: 1, value: 1]
  import Emily.Lower.Dot, only: [on_gpu?: 1]

  @doc "The expression of a kernel over packed numbers."
  def block(%{packing: %{mode: "ggml_" <> _}} = kernel, tensors), do: blocks(kernel, tensors)

  def block(%Dequantize{packing: packing, type: type}, weight),
    do: dequantize(packing, weight, type)

  # MLX has no product of f64 with packed numbers.
  def block(%Matmul{type: {:f, 64}} = kernel, [x | weight]),
    do: {:matmul, cast(x, kernel.type), dense(kernel, weight)}

  def block(%Matmul{type: type} = kernel, [x | weight]) do
    List.to_tuple(
      [:quantized_matmul, cast(x, type)] ++ arrays(weight) ++ [kernel.transpose | packing(kernel)]
    )
  end

  def block(%GatherMatmul{type: {:f, 64}} = kernel, [x, left, right | weight]) do
    {:matmul, chosen(cast(x, kernel.type), x.shape, left),
     chosen(dense(kernel, weight), dense_shape(kernel, weight), right)}
  end

  def block(%GatherMatmul{type: type} = kernel, [x, left, right | weight]) do
    List.to_tuple(
      [:gather_qmm, cast(x, type)] ++
        arrays(weight) ++ [value(left), value(right), kernel.transpose | packing(kernel)]
    )
  end

  # Only a CPU's kernels take GGML's blocks.
  defp blocks(kernel, tensors) do
    if Native.kernels() == nil or Enum.any?(tensors, &on_gpu?/1),
      do: :default,
      else: blocks_on_cpu(kernel, tensors)
  end

  defp blocks_on_cpu(%Dequantize{packing: packing, type: type}, weight),
    do: dequantize(packing, weight, type)

  defp blocks_on_cpu(%Matmul{type: type} = kernel, [x, %{shape: {_, _}} = bytes])
       when type != {:f, 64} do
    {:blocks_matmul, cast(x, type), value(bytes), of(kernel.packing), kernel.transpose}
  end

  defp blocks_on_cpu(_kernel, _tensors), do: :default

  defp of(%{mode: mode}), do: mode |> Blocks.type() |> Atom.to_string()

  defp dequantize(%{mode: "ggml_" <> _} = packing, [bytes], type),
    do: {:dequantize_blocks, value(bytes), of(packing), dtype(type)}

  defp dequantize(packing, weight, type) do
    List.to_tuple(
      [:dequantize] ++ arrays(weight) ++ packing(%{packing: packing}) ++ [dtype(type)]
    )
  end

  defp dense(%{packing: packing, transpose: transpose, type: type}, [packed | _] = weight) do
    dense = {:astype, dequantize(packing, weight, {:f, 32}), dtype(type)}
    rank = tuple_size(packed.shape)
    axes = Enum.to_list(0..(rank - 1))
    swapped = Enum.take(axes, rank - 2) ++ [rank - 1, rank - 2]
    if transpose, do: {:transpose, dense, swapped}, else: dense
  end

  defp dense_shape(%{packing: packing, transpose: transpose}, [packed | _]) do
    shape = Packing.shape(packing, packed.shape)
    rank = tuple_size(shape)
    {rows, columns} = {elem(shape, rank - 2), elem(shape, rank - 1)}
    {rows, columns} = if transpose, do: {columns, rows}, else: {rows, columns}
    shape |> put_elem(rank - 2, rows) |> put_elem(rank - 1, columns)
  end

  # The matrices with these numbers.
  defp chosen(expr, shape, indices) do
    rank = tuple_size(shape)
    matrix = [elem(shape, rank - 2), elem(shape, rank - 1)]
    count = div(Tuple.product(shape), Enum.product(matrix))
    {:take, {:reshape, expr, [count | matrix]}, value(indices), 0}
  end

  defp arrays([packed, scales | biases]) do
    [value(packed), value(scales), if(biases == [], do: nil, else: value(hd(biases)))]
  end

  defp packing(%{packing: packing}), do: [packing.group_size, packing.bits, packing.mode]
end
