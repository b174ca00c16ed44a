defmodule Emily.Lower.Index do
  @moduledoc false
  # Slices, gathers and scatters. Indices out of range are clamped, here or in the binding.

  import Emily.Lower.Types
  import Emily.Expr, only: [share: 2, scalar: 2]

  def names do
    [:slice, :put_slice, :gather, :take, :take_along_axis, :indexed_add, :indexed_put]
  end

  def lower(:slice, _out, [tensor, starts, lengths, strides]) do
    x = value(tensor)

    if Enum.all?(starts, &is_integer/1) do
      starts = clamp(starts, Tuple.to_list(tensor.shape), lengths)
      {:slice, x, starts, Enum.zip_with(starts, lengths, &+/2), strides}
    else
      {starts, axes} = dynamic(starts)
      sliced = {:slice_dynamic, x, starts, axes, lengths}

      if Enum.all?(strides, &(&1 == 1)) do
        sliced
      else
        {:slice, sliced, Enum.map(lengths, fn _ -> 0 end), lengths, strides}
      end
    end
  end

  def lower(:put_slice, %{type: type}, [%{shape: {}}, _starts, slice]), do: cast(slice, type)

  def lower(:put_slice, %{type: type}, [tensor, starts, slice]) do
    x = cast(tensor, type)
    update = cast(slice, type)
    lengths = Tuple.to_list(slice.shape)

    if Enum.all?(starts, &is_integer/1) do
      starts = clamp(starts, Tuple.to_list(tensor.shape), lengths)
      ones = Enum.map(starts, fn _ -> 1 end)
      {:slice_update, x, update, starts, Enum.zip_with(starts, lengths, &+/2), ones}
    else
      {starts, axes} = dynamic(starts)
      {:slice_update_dynamic, x, update, starts, axes}
    end
  end

  def lower(:take, _out, [tensor, indices, opts]) do
    {:take, value(tensor), value(indices), opts[:axis]}
  end

  def lower(:take_along_axis, _out, [tensor, indices, opts]) do
    {:take_along_axis, value(tensor), value(indices), opts[:axis]}
  end

  def lower(:gather, out, [tensor, indices, opts]) do
    axes = opts[:axes] || axes(tensor)
    sizes = for {dim, axis} <- dims(tensor), do: if(axis in axes, do: 1, else: dim)

    gathered =
      case axes do
        [0] -> {:take, value(tensor), column(indices), 0}
        _ -> columns(indices, &{:gather, value(tensor), &1, axes, sizes})
      end

    {:reshape, gathered, Tuple.to_list(out.shape)}
  end

  # What is added rounds once, at the end.
  def lower(:indexed_add, %{type: type} = out, args) do
    wide = accumulator(type)
    convert(scatter(:scatter_add, %{out | type: wide}, args), wide, type)
  end

  def lower(:indexed_put, out, args), do: scatter(:scatter, out, args)

  defp scatter(op, %{type: type}, [target, indices, updates, opts]) do
    axes = opts[:axes] || axes(target)
    slice = for {dim, axis} <- dims(target), do: if(axis in axes, do: 1, else: dim)
    shape = index_shape(indices) ++ slice
    updates = {:reshape, cast(updates, type), shape}

    columns(indices, &{op, cast(target, type), &1, updates, axes})
  end

  defp index_shape(indices), do: indices.shape |> Tuple.to_list() |> Enum.drop(-1)

  # The only column of indices.
  defp column(indices), do: {:reshape, value(indices), index_shape(indices)}

  # One array of indices for each column of the last axis.
  defp columns(%{shape: shape} = indices, fun) do
    case elem(shape, tuple_size(shape) - 1) do
      1 ->
        fun.([column(indices)])

      count ->
        dims = index_shape(indices)
        zeros = Enum.map(dims, fn _ -> 0 end)
        ones = [1 | Enum.map(dims, fn _ -> 1 end)]

        share(value(indices), fn x ->
          fun.(
            for at <- 0..(count - 1) do
              {:reshape, {:slice, x, zeros ++ [at], dims ++ [at + 1], ones}, dims}
            end
          )
        end)
    end
  end

  defp clamp(starts, dims, lengths) do
    Enum.zip_with([starts, dims, lengths], fn [start, dim, length] ->
      start |> max(0) |> min(dim - length)
    end)
  end

  # One array of starts, and their axes. MLX starts at zero on the axes that are not named.
  defp dynamic(starts) do
    {starts, axes} =
      starts
      |> Enum.with_index()
      |> Enum.reject(fn {start, _} -> zero?(start) end)
      |> Enum.unzip()

    narrow? = Enum.all?(starts, &(is_integer(&1) or &1.type == {:s, 32}))
    type = if narrow?, do: {:s, 32}, else: {:s, 64}

    case Enum.map(starts, &start(&1, type)) do
      [] -> {{:full, [1], 0, :s32}, [0]}
      [start] -> {{:reshape, start, [1]}, axes}
      starts -> {{:stack, starts, 0}, axes}
    end
  end

  # A number among dynamic starts arrives as a tensor, often one whose value is still known.
  defp zero?(%{data: %{ref: {:full, [], number, _}}}), do: number == 0
  defp zero?(start), do: start == 0

  defp start(start, type) when is_integer(start), do: scalar(start, dtype(type))

  # MLX wraps u64 starts beyond s64; no axis is that long, so they may saturate first.
  defp start(%{type: {:u, 64}} = start, type) do
    greatest = scalar(0x7FFFFFFFFFFFFFFF, :u64)
    {:astype, {:minimum, value(start), greatest}, dtype(type)}
  end

  defp start(start, type), do: cast(start, type)

  defp axes(%{shape: shape}), do: Enum.to_list(0..(tuple_size(shape) - 1)//1)
  defp dims(%{shape: shape}), do: shape |> Tuple.to_list() |> Enum.with_index()
end
