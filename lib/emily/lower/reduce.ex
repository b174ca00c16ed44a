defmodule Emily.Lower.Reduce do
  @moduledoc false
  # Reductions and cumulative operations.

  import Emily.Lower.Types

  @cumulative [
    cumulative_sum: :cumsum,
    cumulative_product: :cumprod,
    cumulative_max: :cummax,
    cumulative_min: :cummin
  ]

  def names do
    [:sum, :product, :reduce_max, :reduce_min, :all, :any, :argmax, :argmin] ++
      Keyword.keys(@cumulative)
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

  for {name, op} <- @cumulative do
    def lower(unquote(name), %{type: type}, [tensor, opts]) do
      wide = accumulator(type)
      cumulative = {unquote(op), cast(tensor, wide), opts[:axis], opts[:reverse] || false}
      convert(cumulative, wide, type)
    end
  end

  defp accumulate(op, %{type: type}, tensor, opts) do
    wide = accumulator(type)

    # Wrapping sums do not depend on the sign, and MLX adds no u64.
    {wide, view} = if wide == {:u, 64}, do: {{:s, 64}, true}, else: {wide, false}
    reduced = {op, cast(tensor, wide), axes(tensor, opts), keep(opts)}

    cond do
      view -> {:view, reduced, :u64}
      # MLX gives 32 bits for the narrower integers.
      is_integer_type(type) -> {:astype, reduced, dtype(type)}
      true -> convert(reduced, wide, type)
    end
  end

  defp extreme(op, _out, tensor, opts), do: {op, value(tensor), axes(tensor, opts), keep(opts)}

  # MLX passes over NaN, where Nx answers the last NaN, and takes the first of equals.
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
