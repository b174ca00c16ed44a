defmodule Emily.Compiler.Shard.Mesh do
  @moduledoc false
  # A mesh of partitions, which are numbered in row-major order of their coordinates, and how tensors are split over it.
  #
  # A *split* has a list of mesh axes for each axis of a tensor: `[[0], []]` is a matrix whose rows are split over the first
  # axis of the mesh. Over several mesh axes the first is the outer one.

  alias Nx.Tensor, as: T

  @type split :: [[non_neg_integer]]

  @doc "How many partitions a mesh has."
  def size(shape), do: Tuple.product(shape)

  @doc "The coordinates of each partition."
  def coordinates(shape) do
    for partition <- 0..(size(shape) - 1) do
      {coordinates, 0} =
        shape
        |> Tuple.to_list()
        |> Enum.reverse()
        |> Enum.map_reduce(partition, fn size, rest -> {rem(rest, size), div(rest, size)} end)

      Enum.reverse(coordinates)
    end
  end

  @doc "Among how many partitions mesh axes divide."
  def factor(shape, axes), do: Enum.reduce(axes, 1, &(elem(shape, &1) * &2))

  @doc "The part of an axis that coordinates have, of those that mesh axes divide it into."
  def part(shape, axes, coordinates) do
    Enum.reduce(axes, 0, &(Enum.at(coordinates, &1) + elem(shape, &1) * &2))
  end

  @doc "The shape of a part."
  def local(shape, split, mesh) do
    shape
    |> Tuple.to_list()
    |> Enum.zip_with(split, fn size, axes -> div(size, factor(mesh, axes)) end)
    |> List.to_tuple()
  end

  @doc "The shape of the whole."
  def global(shape, split, mesh) do
    shape
    |> Tuple.to_list()
    |> Enum.zip_with(split, fn size, axes -> size * factor(mesh, axes) end)
    |> List.to_tuple()
  end

  @doc "A split of nothing."
  def whole(shape), do: List.duplicate([], tuple_size(shape))

  @doc "The split that a user names for a tensor: a map of its axes, by number or name, to lists of mesh axes."
  @spec split!(term, %T{}, tuple) :: split
  def split!(sharding, %T{} = tensor, mesh) when is_map(sharding) and not is_struct(sharding) do
    named =
      for {axis, axes} <- sharding do
        if not (is_list(axes) and Enum.all?(axes, &is_integer/1)),
          do: refuse!("a list of mesh axes for axis #{inspect(axis)}", axes)

        {Nx.axis_index(tensor, axis), axes}
      end

    for {axis, [_, _ | _]} <- Enum.group_by(named, &elem(&1, 0)) do
      raise ArgumentError,
            "Emily.Compiler: axis #{axis} of a tensor was given twice in #{inspect(sharding)}"
    end

    for axis <- Enum.flat_map(named, &elem(&1, 1)), axis not in 0..(tuple_size(mesh) - 1) do
      raise ArgumentError,
            "Emily.Compiler: a mesh of #{tuple_size(mesh)} axes has no axis #{axis}"
    end

    all = Enum.flat_map(named, &elem(&1, 1))

    with [axis | _] <- all -- Enum.uniq(all) do
      raise ArgumentError,
            "Emily.Compiler: two axes of a tensor cannot both be split over axis #{axis} of the mesh, " <>
              inspect(sharding)
    end

    # An axis of one partition divides nothing.
    named =
      Map.new(named, fn {axis, axes} -> {axis, Enum.reject(axes, &(elem(mesh, &1) == 1))} end)

    for axis <- 0..(tuple_size(tensor.shape) - 1)//1, do: Map.get(named, axis, [])
  end

  def split!(sharding, _tensor, _mesh),
    do: refuse!("a map of axes to lists of mesh axes as input sharding", sharding)

  @spec refuse!(String.t(), term) :: no_return
  defp refuse!(what, got) do
    raise ArgumentError, "Emily.Compiler: expected #{what}, got: #{inspect(got, limit: 10)}"
  end
end
