defmodule Emily.Lower.Window do
  @moduledoc false
  # Windows. Sums and extremes go one axis at a time (Emily.Lower.Window.Sliding). To choose an element of
  # a window needs all of it: a strided view with the windows' axes last.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]
  import Emily.Lower.Dot, only: [on_gpu?: 1]
  alias Emily.Lower.{Shape, Window.Sliding}

  def names do
    [:window_sum, :window_product, :window_max, :window_min] ++
      [:window_scatter_max, :window_scatter_min]
  end

  def lower(:window_sum, out, args), do: window(:sum, 0, out, args)
  def lower(:window_product, out, args), do: window(:prod, 1, out, args)
  def lower(:window_max, out, args), do: window(:max, least(out.type), out, args)
  def lower(:window_min, out, args), do: window(:min, greatest(out.type), out, args)
  def lower(:window_scatter_max, out, args), do: scatter(:window_argmax, out, args)
  def lower(:window_scatter_min, out, args), do: scatter(:window_argmin, out, args)

  # Complex numbers are added up part by part, and rounded once where there is f64.
  defp window(:sum, start, %{type: {:c, 64} = type, shape: shape}, [tensor, window, opts]) do
    wide = if on_gpu?(tensor), do: :f32, else: :f64
    {x, dims} = padded(tensor, type, scalar(start, :c64), opts)
    parts = {:contiguous, {:astype, parts(x, dims), wide}}
    ones = &if &1, do: &1 ++ [1]
    opts = [strides: ones.(opts[:strides]), window_dilations: ones.(opts[:window_dilations])]
    slid = Sliding.windows(:sum, parts, dims ++ [2], Tuple.to_list(window) ++ [1], opts)
    whole({:astype, slid, :f32}, Tuple.to_list(shape)) |> from_zero(type)
  end

  defp window(op, start, %{type: type}, [tensor, window, opts]) do
    sum? = op in [:sum, :prod]
    wide = if sum?, do: accumulator(type), else: type
    {x, dims} = padded(tensor, wide, scalar(start, dtype(wide)), opts)
    x = if sum?, do: in_order(x, wide), else: x
    slid = Sliding.windows(op, x, dims, Tuple.to_list(window), opts)

    case op do
      :sum -> {:astype, from_zero(slid, wide), dtype(type)}
      :prod -> {:astype, slid, dtype(type)}
      _ -> slid
    end
  end

  # Each window's choice goes back to where it came from. What falls on the padding is cut away, and
  # what negative padding had cut away is there again, as the initial value.
  defp scatter(op, %{type: type}, [tensor, source, init, window, opts]) do
    {x, dims} = padded(tensor, tensor.type, cast(init, tensor.type), opts)
    size = Enum.product(dims)
    window = Tuple.to_list(window)
    wide = accumulator(type)

    {outer, outer_steps, inner_steps} = places(dims, window, opts)
    {count, inner} = {Enum.product(outer), Enum.product(window)}
    {view, _} = all_windows(x, dims, window, opts)
    chosen = {:reshape, {op, {:reshape, view, [count, inner]}, -1}, [count]}

    # Where a window begins, and how far from there its elements are.
    at = fn sizes, steps ->
      places = {:as_strided, {:arange, 0, size, 1, :s32}, sizes, steps, 0}
      {:reshape, places, [Enum.product(sizes)]}
    end

    starts = at.(outer, outer_steps)
    indices = {:add, starts, {:take, at.(window, inner_steps), chosen, 0}}
    updates = {:reshape, cast(source, wide), [count, 1]}

    share(cast(init, wide), fn init ->
      start = {:broadcast_to, {:reshape, init, [1]}, [size]}
      added = {:scatter_add, start, [indices], updates, [0]}
      back = Enum.map(opts[:padding], fn {low, high} -> {-low, -high, 0} end)
      Shape.pad({:reshape, added, dims}, dims, back, init)
    end)
    |> convert(wide, type)
  end

  @doc """
  The windows of `x`, whose axes have the sizes `dims`, and how many there are on each axis. The
  view has one axis for each axis of `x`, then one for each axis of the window.
  """
  def all_windows(x, dims, window, opts) do
    {outer, outer_steps, inner_steps} = places(dims, window, opts)
    {{:as_strided, x, outer ++ window, outer_steps ++ inner_steps, 0}, outer}
  end

  # How many windows there are on each axis, and how far apart windows, and the elements of a window, are.
  defp places(dims, window, opts) do
    ones = Enum.map(dims, fn _ -> 1 end)
    strides = opts[:strides] || ones
    dilations = opts[:window_dilations] || ones
    steps = steps(dims)
    outer = Sliding.counts(dims, window, strides, dilations)
    {outer, Enum.zip_with(steps, strides, &*/2), Enum.zip_with(steps, dilations, &*/2)}
  end

  defp padded(%{shape: shape} = tensor, type, value, opts) do
    dims = Tuple.to_list(shape)
    config = Enum.map(opts[:padding], fn {low, high} -> {low, high, 0} end)
    padded = Enum.zip_with(dims, config, fn dim, {low, high, _} -> dim + low + high end)
    {Shape.pad(cast(tensor, type), dims, config, value), padded}
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
