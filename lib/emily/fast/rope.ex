defmodule Emily.Fast.RoPE do
  @moduledoc false
  # Both rotary kernels: with a `base` the inverse frequencies follow from it, without one they are
  # the third tensor.

  @behaviour Emily.Fast.Node

  defstruct [:dims, :traditional, :base, :scale]

  alias Emily.Fast.Composed

  @impl true
  def callback(%{base: nil}), do: :fast_rope_with_freqs
  def callback(_kernel), do: :fast_rope

  @impl true
  def composed(%__MODULE__{} = kernel, [x, offset | freqs]) do
    type = Composed.compute_type(x.type)
    {cos, sin} = rotation(kernel, x, offset, freqs, type)

    x
    |> split(kernel)
    |> turn(cos, sin, type)
    |> join(kernel, x)
  end

  # cos and sin of every angle, {positions, dims / 2}, with an offset for each entry of the first
  # axis {batch, 1, ..., positions, dims / 2}.
  defp rotation(kernel, x, offset, freqs, type) do
    positions = Nx.axis_size(x, -2)

    angles =
      {positions, 1}
      |> Nx.iota(axis: 0, type: type)
      |> Nx.add(offset |> Nx.as_type(type) |> spread(x))
      |> Nx.multiply(kernel.scale)
      |> Nx.multiply(inverse_frequencies(kernel, freqs, type))

    {Nx.cos(angles), Nx.sin(angles)}
  end

  defp spread(%{shape: {}} = offset, _x), do: offset

  defp spread(offset, x),
    do: Nx.reshape(offset, 1 |> Tuple.duplicate(tuple_size(x.shape)) |> put_elem(0, :auto))

  defp inverse_frequencies(%{base: nil}, [freqs], type), do: Nx.as_type(freqs, type)

  defp inverse_frequencies(%{base: base, dims: dims}, [], type) do
    Nx.tensor(for(i <- 0..(div(dims, 2) - 1), do: :math.pow(base, -2 * i / dims)), type: type)
  end

  # The two halves of every rotated plane, {..., positions, dims / 2} each.
  defp split(x, %{traditional: false, dims: dims}) do
    half = div(dims, 2)
    {Nx.slice_along_axis(x, 0, half, axis: -1), Nx.slice_along_axis(x, half, half, axis: -1)}
  end

  defp split(x, %{traditional: true, dims: dims}) do
    pairs = x |> Nx.slice_along_axis(0, dims, axis: -1) |> Nx.reshape(paired(x, dims))

    {pairs |> Nx.slice_along_axis(0, 1, axis: -1) |> Nx.squeeze(axes: [-1]),
     pairs |> Nx.slice_along_axis(1, 1, axis: -1) |> Nx.squeeze(axes: [-1])}
  end

  defp turn({a, b}, cos, sin, type) do
    {a, b} = {Nx.as_type(a, type), Nx.as_type(b, type)}

    {Nx.subtract(Nx.multiply(a, cos), Nx.multiply(b, sin)),
     Nx.add(Nx.multiply(a, sin), Nx.multiply(b, cos))}
  end

  defp join({a, b}, %{traditional: traditional, dims: dims}, x) do
    {a, b} = {Nx.as_type(a, x.type), Nx.as_type(b, x.type)}

    rotated =
      if traditional,
        do: [a, b] |> Nx.stack(axis: -1) |> Nx.reshape(put_elem(x.shape, last(x), dims)),
        else: Nx.concatenate([a, b], axis: -1)

    case Nx.axis_size(x, -1) - dims do
      0 -> rotated
      rest -> Nx.concatenate([rotated, Nx.slice_along_axis(x, dims, rest, axis: -1)], axis: -1)
    end
  end

  defp paired(x, dims) do
    x.shape |> put_elem(last(x), div(dims, 2)) |> Tuple.insert_at(tuple_size(x.shape), 2)
  end

  defp last(x), do: tuple_size(x.shape) - 1
end
