defmodule Emily.Lower.Einsum do
  @moduledoc false
  # Einstein summation as einsums of MLX, one for each contraction, in the kernel's order.
  #
  # MLX has an order of its own, but multiplies all that is left out at once where every pair would
  # give more than the result and the operands hold, and its letters run out at 50 or so. Diagonals,
  # sums and products of two operands are as NumPy has them.

  alias Emily.Fast.Einsum
  alias Emily.Fast.Einsum.Equation
  alias Emily.Lower.Types

  @doc "The expression of the kernel over `operands`."
  def block(%Einsum{equation: equation} = kernel, out, operands) do
    {groups, output} = Equation.groups(equation)
    groups = Enum.zip_with(operands, groups, &Einsum.long(&1.shape, &2))
    output = Einsum.long(out.shape, output)
    type = type(out.type, groups, output)
    terms = Enum.zip_with(operands, groups, &{squeeze(Types.cast(&1, type), &1.shape, &2), &2})

    {expr, letters} = Einsum.contract(kernel, terms, output, &pair(&1, &2, &3, output))
    expr = if letters == output, do: expr, else: einsum([{expr, letters}], output)
    expr = if tuple_size(out.shape) == length(output), do: expr, else: reshape(expr, out.shape)
    Types.convert(expr, type, out.type)
  end

  # MLX adds 16 bits in 16 bits outside of its matrix products: 4097 ones make 256 in bf16.
  defp type({_, 16} = type, groups, output),
    do: if(Einsum.alone(groups, output) == [], do: type, else: {:f, 32})

  defp type(type, _groups, _output), do: type

  defp squeeze(expr, shape, letters) when tuple_size(shape) == length(letters), do: expr

  defp squeeze(expr, shape, _letters),
    do: {:reshape, expr, for(size <- Tuple.to_list(shape), size > 1, do: size)}

  defp reshape(expr, shape), do: {:reshape, expr, Tuple.to_list(shape)}

  # Left in the order of a matrix product, and at the end in that of the result.
  defp pair({_, xs} = x, {_, ys} = y, needed, output) do
    {batch, free} =
      xs |> Enum.uniq() |> Enum.filter(&(&1 in needed)) |> Enum.split_with(&(&1 in ys))

    kept = batch ++ free ++ (ys |> Enum.uniq() |> Enum.filter(&(&1 in needed and &1 not in xs)))
    kept = if Enum.sort(kept) == Enum.sort(output), do: output, else: kept
    {einsum([x, y], kept), kept}
  end

  defp einsum(terms, result) do
    {exprs, groups} = Enum.unzip(terms)
    {:einsum, Equation.text(groups, result), exprs}
  end
end
