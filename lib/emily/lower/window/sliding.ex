defmodule Emily.Lower.Window.Sliding do
  @moduledoc false
  # Associative operations over windows, one axis at a time, because such a window is the windows of
  # its rows: 7 x 7 elements take 6 + 6 steps rather than 48. No window is ever copied as a whole.
  #
  # Along an axis, a step combines whole slices. Windows that overlap share their parts: those of
  # width 2 come from the elements, those of width 4 from these, and so on.

  alias Emily.Expr

  @steps [sum: :add, prod: :multiply, max: :maximum, min: :minimum] ++
           [bitwise_and: :bitwise_and, bitwise_or: :bitwise_or, bitwise_xor: :bitwise_xor] ++
           [all: :logical_and, any: :logical_or]

  # Of equal parts, one is enough.
  @idempotent [:max, :min, :bitwise_and, :bitwise_or, :all, :any]

  # MLX's own reduction, along an axis or over the whole array.
  @reductions [:sum, :prod, :max, :min]

  # From this width on it is faster than slices, as measured.
  @reduced 4

  # What it costs to start an operation, in elements.
  @overhead 4096

  @doc "How many windows there are on each axis."
  def counts(dims, window, strides, dilations) do
    Enum.zip_with([dims, window, strides, dilations], fn [dim, width, stride, dilation] ->
      div(dim - ((width - 1) * dilation + 1), stride) + 1
    end)
  end

  @doc """
  Combines the elements of each window of `x`, whose axes have the sizes `dims`. `:strides` and
  `:window_dilations` are Nx's options.

  Sums and products of integers narrower than 32 bits may come in a wider type.
  """
  def windows(op, x, dims, window, opts) do
    ones = Enum.map(dims, fn _ -> 1 end)
    strides = opts[:strides] || ones
    dilations = opts[:window_dilations] || ones
    {x, window} = whole(op, x, dims, window)
    dims = Enum.zip_with(dims, window, fn dim, width -> if width == :whole, do: 1, else: dim end)

    {x, _} =
      [window, strides, dilations]
      |> Enum.zip()
      |> Enum.with_index()
      |> Enum.reduce({x, dims}, fn {{width, stride, dilation}, axis}, {x, dims} ->
        if width == :whole or (width == 1 and stride == 1) do
          {x, dims}
        else
          [count] = counts([Enum.at(dims, axis)], [width], [stride], [dilation])
          slid = along(op, x, dims, axis, {width, stride, dilation, count})
          {slid, List.replace_at(dims, axis, count)}
        end
      end)

    x
  end

  # Windows as long as their axes are one reduction.
  defp whole(op, x, dims, window) do
    axes = for {{d, d}, axis} <- Enum.with_index(Enum.zip(dims, window)), d >= @reduced, do: axis

    if op in @reductions and axes != [] do
      {{op, x, axes, true}, Enum.reduce(axes, window, &List.replace_at(&2, &1, :whole))}
    else
      {x, window}
    end
  end

  # Neighbours that share nothing: the axis is split in two.
  defp along(op, x, dims, axis, {width, width, 1, count})
       when op in @reductions and width >= @reduced do
    split = dims |> List.replace_at(axis, [count, width]) |> List.flatten()
    {op, {:reshape, slice(x, dims, axis, 0, count * width, 1), split}, [axis + 1], false}
  end

  defp along(op, x, dims, axis, {width, stride, dilation, count} = windows) do
    step = Keyword.fetch!(@steps, op)
    dim = Enum.at(dims, axis)

    parts =
      Enum.min_by(
        [for(at <- 0..(width - 1), do: {1, at}), parts(width, op in @idempotent)],
        &cost(&1, dims, dim, windows)
      )

    {longest, _} = Enum.max(parts)

    pieces(step, x, {dims, axis, dilation, dim}, {1, longest}, %{}, fn pieces ->
      parts
      |> Enum.map(fn {length, at} ->
        start = at * dilation
        piece_dims = List.replace_at(dims, axis, dim - (length - 1) * dilation)
        slice(pieces[length], piece_dims, axis, start, start + (count - 1) * stride + 1, stride)
      end)
      |> Enum.reduce(&{step, &2, &1})
    end)
  end

  # A window as parts whose lengths are powers of two: pairs of length and place.
  defp parts(1, _idempotent?), do: [{1, 0}]

  defp parts(width, idempotent?) do
    half = Integer.pow(2, length(Integer.digits(width - 1, 2)) - 1)

    if idempotent? do
      [{half, 0}, {half, width - half}]
    else
      {parts, ^width} =
        for bit <- (length(Integer.digits(half, 2)) - 1)..0//-1, reduce: {[{half, 0}], half} do
          {parts, at} ->
            length = Integer.pow(2, bit)
            if at + length <= width, do: {[{length, at} | parts], at + length}, else: {parts, at}
        end

      Enum.reverse(parts)
    end
  end

  defp cost(parts, dims, dim, {_width, _stride, _dilation, count}) do
    others = div(Enum.product(dims), dim)
    {longest, _} = Enum.max(parts)
    doublings = length(Integer.digits(longest, 2)) - 1
    doublings * (others * dim + @overhead) + (length(parts) - 1) * (others * count + @overhead)
  end

  # The windows of each power of two up to the longest, at every place.
  defp pieces(step, x, along, {length, longest}, pieces, fun) do
    Expr.share(x, fn x ->
      pieces = Map.put(pieces, length, x)

      if length == longest do
        fun.(pieces)
      else
        {dims, axis, dilation, dim} = along
        dims = List.replace_at(dims, axis, dim - (length - 1) * dilation)
        count = dim - (2 * length - 1) * dilation
        first = slice(x, dims, axis, 0, count, 1)
        second = slice(x, dims, axis, length * dilation, length * dilation + count, 1)
        pieces(step, {step, first, second}, along, {2 * length, longest}, pieces, fun)
      end
    end)
  end

  defp slice(x, dims, axis, start, stop, stride) do
    if start == 0 and stride == 1 and stop == Enum.at(dims, axis) do
      x
    else
      starts = dims |> Enum.map(fn _ -> 0 end) |> List.replace_at(axis, start)
      strides = dims |> Enum.map(fn _ -> 1 end) |> List.replace_at(axis, stride)
      {:slice, x, starts, List.replace_at(dims, axis, stop), strides}
    end
  end
end
