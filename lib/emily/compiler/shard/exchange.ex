defmodule Emily.Compiler.Shard.Exchange do
  @moduledoc false
  # What partitions exchange: each takes the tensors of the others of its group to its device, and adds them up, or puts
  # them together, itself, in the order of their numbers, so that all have the same bits.

  alias Emily.Backend
  alias Emily.Compiler.Shard.Mesh
  alias Nx.Tensor, as: T

  @doc "What a partition has of an exchange, of the partitions with their slots."
  def run(exchange, %{device: device, coordinates: own}, all, mesh) do
    exchanged = exchange.sum ++ Enum.flat_map(exchange.gather, &elem(&1, 1))

    parts =
      for {%{coordinates: coordinates}, slots} <- all,
          without(coordinates, exchanged) == without(own, exchanged),
          do: {coordinates, on(Map.fetch!(slots, exchange.from), device)}

    parts =
      together(parts, exchange.sum, fn parts -> Enum.reduce(parts, &Nx.add(&2, &1)) end, mesh)

    [{_coordinates, result}] =
      Enum.reduce(exchange.gather, parts, fn {axis, axes}, parts ->
        together(parts, axes, &Nx.concatenate(&1, axis: axis), mesh)
      end)

    result
  end

  # Those that differ by mesh axes alone, as one.
  defp together(parts, [], _fun, _mesh), do: parts

  defp together(parts, axes, fun, mesh) do
    parts
    |> Enum.group_by(fn {coordinates, _part} -> without(coordinates, axes) end)
    |> Enum.map(fn {rest, group} ->
      group =
        Enum.sort_by(group, fn {coordinates, _part} -> Mesh.part(mesh, axes, coordinates) end)

      {rest, group |> Enum.map(&elem(&1, 1)) |> fun.()}
    end)
  end

  # Coordinates of which some do not count.
  defp without(coordinates, axes) do
    Enum.with_index(coordinates, fn coordinate, axis ->
      if axis in axes, do: 0, else: coordinate
    end)
  end

  @doc "A tensor on a device."
  def on(%T{data: %Backend{device: at}} = tensor, device) when at in [device, :host], do: tensor
  def on(%T{} = tensor, device), do: Nx.backend_copy(tensor, {Backend, device: device})
end
