defmodule Emily.Bounds do
  @moduledoc """
  Indices out of range.

  `Nx.take/3`, `Nx.take_along_axis/3`, `Nx.gather/3`, `Nx.indexed_add/4` and `Nx.indexed_put/4` clamp
  indices into their axis, negative ones to 0. To find a wrong index,

      config :emily, check_bounds: true

  makes them raise `ArgumentError`, as `Nx.BinaryBackend` does. Each such call then reads its indices,
  which computes what they depend on.
  """

  @indexed [:take, :take_along_axis, :gather, :indexed_add, :indexed_put]

  @doc false
  def check(name, [tensor, indices | rest]) when name in @indexed do
    if enabled?() do
      opts = List.last(rest)
      each = Nx.to_flat_list(indices)
      axes = axes(name, tensor, opts)

      each
      |> Enum.zip(Stream.cycle(axes))
      |> Enum.each(fn {index, axis} ->
        if index < 0 or index >= elem(tensor.shape, axis) do
          raise ArgumentError,
                "#{name}: index #{index} is out of bounds for axis #{axis} in shape " <>
                  "#{inspect(tensor.shape)}, with indices of shape #{inspect(indices.shape)}"
        end
      end)
    end

    :ok
  end

  def check(_name, _args), do: :ok

  @doc "Whether an operation, or a block of Nx, reads its indices to check them."
  def checked?(name) when is_atom(name), do: name in @indexed and enabled?()
  def checked?(%{__struct__: Nx.Block.Take}), do: enabled?()
  def checked?(%{__struct__: Nx.Block.TakeAlongAxis}), do: enabled?()
  def checked?(_block), do: false

  @doc "Whether indices are checked."
  def enabled?, do: Application.get_env(:emily, :check_bounds, false)

  defp axes(name, _tensor, opts) when name in [:take, :take_along_axis], do: [opts[:axis]]

  defp axes(_name, tensor, opts),
    do: opts[:axes] || Enum.to_list(0..(tuple_size(tensor.shape) - 1))
end
