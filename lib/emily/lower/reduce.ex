defmodule Emily.Lower.Reduce do
  @moduledoc false
  # Reductions.

  import Emily.Lower.Types

  def names do
    [:sum, :product, :reduce_max, :reduce_min, :all, :any, :argmax, :argmin]
  end

  def lower(:sum, out, [tensor, opts]), do: accumulate(:sum, out, tensor, opts)
  def lower(:product, out, [tensor, opts]), do: accumulate(:prod, out, tensor, opts)
  def lower(:reduce_max, out, [tensor, opts]), do: extreme(:max, out, tensor, opts)
  def lower(:reduce_min, out, [tensor, opts]), do: extreme(:min, out, tensor, opts)

  def lower(name, out, [tensor, opts]) when name in [:all, :any] do
    {name, value(tensor), axes(tensor, opts), keep(opts)} |> from_bool(out)
  end

  def lower(:argmax, out, [tensor, opts]), do: argument(:argmax_nan, out, tensor, opts)
  def lower(:argmin, out, [tensor, opts]), do: argument(:argmin_nan, out, tensor, opts)

  defp accumulate(:sum, %{type: {:c, 64} = type, shape: shape}, tensor, opts) do
    axes = axes(tensor, opts)
    parts = tensor |> cast(type) |> parts(Tuple.to_list(tensor.shape))
    sum = whole({:sum, parts, axes, keep(opts)}, Tuple.to_list(shape))
    if of_one?(tensor, axes), do: from_zero(sum, type), else: sum
  end

  defp accumulate(op, %{type: type}, tensor, opts) do
    axes = axes(tensor, opts)
    reduced = {op, in_order(cast(tensor, type), type), axes, keep(opts)}

    cond do
      # MLX gives 32 bits for the narrower integers.
      is_integer_type(type) -> {:astype, reduced, dtype(type)}
      op == :sum and of_one?(tensor, axes) -> from_zero(reduced, type)
      true -> reduced
    end
  end

  # MLX sums a single number to itself.
  defp of_one?(tensor, axes), do: Enum.all?(axes, &(elem(tensor.shape, &1) == 1))

  defp extreme(op, _out, tensor, opts), do: {op, value(tensor), axes(tensor, opts), keep(opts)}

  # MLX takes the first NaN and the first of equals, Nx the last NaN and, with `tie_break: :high`, the last of equals.
  defp argument(op, out, tensor, opts) do
    {x, axis} =
      case opts[:axis] do
        nil -> {{:reshape, value(tensor), [Tuple.product(tensor.shape)]}, 0}
        axis -> {value(tensor), axis}
      end

    found = {op, x, axis, opts[:tie_break] == :high}
    {:reshape, {:astype, found, dtype(out.type)}, Tuple.to_list(out.shape)}
  end

  defp axes(tensor, opts) do
    case opts[:axes] do
      nil -> Enum.to_list(0..(tuple_size(tensor.shape) - 1)//1)
      axes -> axes
    end
  end

  defp keep(opts), do: opts[:keep_axes] || false
end
