defmodule Emily.Lower.Shape do
  @moduledoc false
  # New arrays, and operations that move elements without looking at them.

  import Emily.Lower.Types

  def names do
    [:constant, :iota, :eye, :reshape, :squeeze, :broadcast, :transpose, :pad, :reverse] ++
      [:concatenate, :stack]
  end

  def lower(:constant, %{shape: shape, type: type}, [number]) do
    number(Tuple.to_list(shape), number, type)
  end

  def lower(:iota, %{shape: shape} = out, [nil]) do
    size = Tuple.product(shape)
    range = range(size, out.type)
    if tuple_size(shape) == 1, do: range, else: {:reshape, range, Tuple.to_list(shape)}
  end

  def lower(:iota, %{shape: {size}} = out, [0]), do: range(size, out.type)

  def lower(:iota, %{shape: shape} = out, [axis]) do
    size = elem(shape, axis)
    along = for at <- 0..(tuple_size(shape) - 1), do: if(at == axis, do: size, else: 1)
    {:broadcast_to, {:reshape, range(size, out.type), along}, Tuple.to_list(shape)}
  end

  def lower(:eye, %{shape: shape, type: type}, []) do
    dims = Tuple.to_list(shape)
    [rows, columns] = Enum.take(dims, -2)
    eye = {:eye, rows, columns, 0, dtype(type)}
    if tuple_size(shape) == 2, do: eye, else: {:broadcast_to, eye, dims}
  end

  def lower(:reshape, %{shape: shape}, [tensor]), do: reshape(value(tensor), shape)
  def lower(:squeeze, %{shape: shape}, [tensor, _axes]), do: reshape(value(tensor), shape)

  def lower(:broadcast, %{shape: out_shape}, [tensor, shape, axes]) do
    x = value(tensor)
    dims = Tuple.to_list(shape)
    rank = tuple_size(tensor.shape)

    cond do
      tensor.shape == shape ->
        x

      # MLX aligns the last axes by itself.
      axes == Enum.to_list((length(dims) - rank)..(length(dims) - 1)//1) ->
        {:broadcast_to, x, Tuple.to_list(out_shape)}

      true ->
        sizes = axes |> Enum.zip(Tuple.to_list(tensor.shape)) |> Map.new()
        aligned = for at <- 0..(length(dims) - 1)//1, do: Map.get(sizes, at, 1)
        {:broadcast_to, {:reshape, x, aligned}, Tuple.to_list(out_shape)}
    end
  end

  def lower(:transpose, _out, [tensor, axes]), do: {:transpose, value(tensor), axes}

  def lower(:pad, %{type: type}, [tensor, value, config]) do
    pad(cast(tensor, type), Tuple.to_list(tensor.shape), config, cast(value, type))
  end

  def lower(:reverse, _out, [tensor, axes]), do: {:flip, value(tensor), axes}

  def lower(:concatenate, %{type: type}, [tensors, axis]) do
    {:concatenate, Enum.map(tensors, &cast(&1, type)), axis}
  end

  def lower(:stack, %{type: type}, [tensors, axis]) do
    {:stack, Enum.map(tensors, &cast(&1, type)), axis}
  end

  @doc "An expression in another shape of as many elements."
  def reshape(expr, shape), do: {:reshape, expr, Tuple.to_list(shape)}

  # The numbers that narrow types cannot count to wrap or round as numbers of the caller's code.
  defp range(size, type) do
    wide = if size < 2_147_483_648, do: {:s, 32}, else: {:s, 64}
    range = {:arange, 0, size, 1, dtype(wide)}
    if type == {:bf, 16}, do: cut(range, wide), else: convert(range, wide, type)
  end

  @doc """
  Pads `x`, whose axes have the sizes `dims`, by `{low, high, interior}` for each axis. Negative
  widths cut, after all else is padded.
  """
  def pad(x, dims, config, value) do
    {x, dims} = pad_interior(x, dims, config, value)
    {x, dims} = pad_edges(x, dims, config, value)
    cut(x, dims, config)
  end

  @doc "The sizes of the axes after `pad/4`."
  def padded(dims, config) do
    Enum.zip_with(dims, config, fn dim, {low, high, interior} ->
      dim + (dim - 1) * interior + low + high
    end)
  end

  # Each element gets an axis of its own, which is padded, joined again, and cut after the last.
  defp pad_interior(x, dims, config, value) do
    if Enum.all?(config, fn {_, _, interior} -> interior == 0 end) do
      {x, dims}
    else
      split = Enum.flat_map(dims, &[&1, 1])
      high = Enum.flat_map(config, fn {_, _, interior} -> [0, interior] end)
      low = Enum.map(high, fn _ -> 0 end)
      axes = Enum.to_list(0..(length(split) - 1))
      padded = {:pad, {:reshape, x, split}, axes, low, high, value}

      joined = Enum.zip_with(dims, config, fn dim, {_, _, k} -> dim * (k + 1) end)
      kept = Enum.zip_with(dims, config, fn dim, {_, _, k} -> dim * (k + 1) - k end)
      {slice({:reshape, padded, joined}, Enum.map(dims, fn _ -> 0 end), kept), kept}
    end
  end

  defp pad_edges(x, dims, config, value) do
    low = Enum.map(config, fn {low, _, _} -> max(low, 0) end)
    high = Enum.map(config, fn {_, high, _} -> max(high, 0) end)

    if Enum.all?(low ++ high, &(&1 == 0)) do
      {x, dims}
    else
      padded = {:pad, x, Enum.to_list(0..(length(dims) - 1)), low, high, value}
      {padded, Enum.zip_with([dims, low, high], &Enum.sum/1)}
    end
  end

  defp cut(x, dims, config) do
    starts = Enum.map(config, fn {low, _, _} -> max(-low, 0) end)
    stops = Enum.zip_with(dims, config, fn dim, {_, high, _} -> dim - max(-high, 0) end)
    if Enum.all?(starts, &(&1 == 0)) and stops == dims, do: x, else: slice(x, starts, stops)
  end

  defp slice(x, starts, stops), do: {:slice, x, starts, stops, Enum.map(starts, fn _ -> 1 end)}
end
