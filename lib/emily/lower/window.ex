defmodule Emily.Lower.Window do
  @moduledoc false
  # Windows: a strided view with the windows' axes last, then a reduction over these.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]
  alias Emily.Lower.Shape

  def names do
    [:window_sum, :window_product, :window_max, :window_min] ++
      [:window_scatter_max, :window_scatter_min]
  end

  def lower(:window_sum, out, args), do: window(:sum, 0, out, args)
  def lower(:window_product, out, args), do: window(:prod, 1, out, args)
  def lower(:window_max, out, args), do: window(:max, least(out.type), out, args)
  def lower(:window_min, out, args), do: window(:min, greatest(out.type), out, args)
  def lower(:window_scatter_max, out, args), do: scatter(:argmax, out, args)
  def lower(:window_scatter_min, out, args), do: scatter(:argmin, out, args)

  defp window(op, start, %{type: type}, [tensor, window, opts]) do
    wide = if op in [:sum, :prod], do: accumulator(type), else: type

    # MLX adds no u64; wrapping sums do not depend on the sign.
    wide = if op in [:sum, :prod] and wide == {:u, 64}, do: {:s, 64}, else: wide
    {x, dims} = padded(tensor, wide, scalar(start, dtype(wide)), opts)
    {view, _, axes} = view(x, dims, Tuple.to_list(window), opts)
    reduced = {op, view, axes, false}
    if wide == type and op in [:max, :min], do: reduced, else: {:astype, reduced, dtype(type)}
  end

  # Each window's choice goes back to where it came from. What falls on the padding is cut away.
  defp scatter(op, %{type: type} = out, [tensor, source, init, window, opts]) do
    config = Enum.map(opts[:padding], &Tuple.insert_at(&1, 2, 0))

    if Enum.any?(config, fn {low, high, _} -> low < 0 or high < 0 end) do
      :fallback
    else
      init_value = cast(init, tensor.type)
      {x, dims} = padded(tensor, tensor.type, init_value, opts)
      size = Enum.product(dims)
      window = Tuple.to_list(window)
      inner = Enum.product(window)
      wide = accumulator(type)

      chosen =
        windows_flat(x, dims, window, opts, fn windows ->
          # The last of equals is chosen.
          {:subtract, scalar(inner - 1, :u32), {op, {:flip, windows, [-1]}, -1, true}}
        end)

      positions = {:reshape, {:arange, 0, size, 1, :s32}, dims}
      indices = windows_flat(positions, dims, window, opts, &{:take_along_axis, &1, chosen, -1})

      count = Tuple.product(source.shape)
      start = {:broadcast_to, {:reshape, cast(init, wide), [1]}, [size]}
      updates = {:reshape, cast(source, wide), [count, 1]}
      added = {:scatter_add, start, [{:reshape, indices, [count]}], updates, [0]}

      starts = Enum.map(config, &elem(&1, 0))
      stops = Enum.zip_with(starts, Tuple.to_list(out.shape), &+/2)
      ones = Enum.map(starts, fn _ -> 1 end)
      convert({:slice, {:reshape, added, dims}, starts, stops, ones}, wide, type)
    end
  end

  @doc "The windows of `x`, whose axes have the sizes `dims`, and how many there are on each axis."
  def all_windows(x, dims, window, opts) do
    {view, outer, _} = view(x, dims, window, Keyword.put(opts, :all_axes, true))
    {view, outer}
  end

  defp windows_flat(x, dims, window, opts, fun) do
    {view, outer} = all_windows(x, dims, window, opts)
    {:reshape, view, outer ++ [Enum.product(window)]} |> share(fun)
  end

  defp padded(%{shape: shape} = tensor, type, value, opts) do
    dims = Tuple.to_list(shape)
    config = Enum.map(opts[:padding], fn {low, high} -> {low, high, 0} end)
    padded = Enum.zip_with(dims, config, fn dim, {low, high, _} -> dim + low + high end)
    {Shape.pad(cast(tensor, type), dims, config, value), padded}
  end

  # The view's axes: one for each axis of the array, then one for each window axis longer than 1.
  defp view(x, dims, window, opts) do
    ones = Enum.map(dims, fn _ -> 1 end)
    strides = opts[:strides] || ones
    dilations = opts[:window_dilations] || ones
    steps = steps(dims)

    outer =
      Enum.zip_with([dims, window, strides, dilations], fn [dim, width, stride, dilation] ->
        div(dim - ((width - 1) * dilation + 1), stride) + 1
      end)

    outer_steps = Enum.zip_with(steps, strides, &*/2)

    inner =
      for {width, step, dilation} <- Enum.zip([window, steps, dilations]),
          width > 1 or opts[:all_axes],
          do: {width, step * dilation}

    {widths, inner_steps} = Enum.unzip(inner)
    rank = length(dims)
    axes = Enum.to_list(rank..(rank + length(inner) - 1)//1)
    {{:as_strided, x, outer ++ widths, outer_steps ++ inner_steps, 0}, outer, axes}
  end

  # How far apart neighbours on each axis are in a row-major array.
  defp steps(dims) do
    {steps, _} = dims |> Enum.reverse() |> Enum.map_reduce(1, &{&2, &1 * &2})
    Enum.reverse(steps)
  end

  defp least({kind, _}) when kind in [:f, :bf], do: :neg_infinity
  defp least({kind, bits}), do: kind |> integer_range(bits) |> elem(0)

  defp greatest({kind, _}) when kind in [:f, :bf], do: :infinity
  defp greatest({kind, bits}), do: kind |> integer_range(bits) |> elem(1)
end
