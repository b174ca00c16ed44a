defmodule Emily.Operations.Arguments do
  @moduledoc false
  # Tensors and options that several rows of Emily.Operations draw alike.

  use ExUnitProperties
  import Emily.BackendCase

  def types(:all), do: all_types()
  def types(:real), do: real_types()
  def types(:integer), do: integers()

  def any(types, ranks, opts \\ []) do
    gen all(type <- type(types), shape <- shape(ranks), x <- tensor(type, shape, opts)) do
      x
    end
  end

  def one(tensors, fun) do
    StreamData.map(tensors, fn x -> {[x], fn [x] -> fun.(x) end, []} end)
  end

  def pair(types, left, right, fun) do
    gen all(
          a <- type(types),
          b <- type(types),
          # Their common type is c128.
          Enum.sort([a, b]) != [{:c, 64}, {:f, 64}],
          shape <- shape(0..5),
          other <- broadcastable(shape),
          x <- tensor(a, shape, left),
          y <- tensor(b, other, right)
        ) do
      {[x, y], fun, []}
    end
  end

  def along(types, opts) do
    gen all(x <- any(types, 1..5, opts), axis <- StreamData.integer(0..(Nx.rank(x) - 1))) do
      {x, axis}
    end
  end

  def reduced(%{shape: {}}), do: StreamData.constant(axes: nil)

  def reduced(x) do
    gen all(
          axes <- some_axes(Nx.rank(x)),
          axes <- StreamData.member_of([nil, axes]),
          keep <- StreamData.boolean()
        ) do
      [axes: axes, keep_axes: keep]
    end
  end

  def together do
    gen all(
          shape <- shape(1..4),
          axis <- StreamData.integer(0..(tuple_size(shape) - 1)),
          types <- StreamData.list_of(type(real_types()), min_length: 1, max_length: 3),
          tensors <- StreamData.fixed_list(Enum.map(types, &tensor(&1, shape)))
        ) do
      {tensors, axis}
    end
  end

  def part(shape) do
    dims = Tuple.to_list(shape)

    gen all(
          lengths <- StreamData.fixed_list(Enum.map(dims, &StreamData.integer(1..&1))),
          starts <- StreamData.fixed_list(Enum.map(dims, &StreamData.integer(-2..(&1 + 2))))
        ) do
      {starts, lengths}
    end
  end

  def indices(shape, axes, outer) do
    gen all(
          type <- type(integers()),
          rows <-
            axes
            |> Enum.map(&StreamData.integer(0..(elem(shape, &1) - 1)))
            |> StreamData.fixed_list()
            |> StreamData.list_of(length: Tuple.product(outer))
        ) do
      rows
      |> Nx.tensor(type: type, backend: Nx.BinaryBackend)
      |> Nx.reshape(Tuple.insert_at(outer, tuple_size(outer), length(axes)))
    end
  end

  def windowed(types) do
    small = StreamData.integer(1..2)

    gen all(
          type <- type(types),
          dims <- StreamData.list_of(StreamData.integer(4..5), min_length: 1, max_length: 3),
          rank = length(dims),
          window <- StreamData.list_of(small, length: rank),
          strides <- StreamData.list_of(small, length: rank),
          dilations <- StreamData.list_of(small, length: rank),
          edges = StreamData.tuple({StreamData.integer(-1..1), StreamData.integer(0..2)}),
          pads <- StreamData.list_of(edges, length: rank),
          padding <- StreamData.member_of([:valid, :same, pads]),
          x <- tensor(type, List.to_tuple(dims), range: {-3, 3})
        ) do
      opts = [strides: strides, padding: padding, window_dilations: dilations]
      {x, List.to_tuple(window), opts}
    end
  end

  def signal(types, lengths, fun) do
    gen all(
          type <- type(types),
          outer <- shape(0..2),
          size <- StreamData.integer(2..5),
          length <- StreamData.member_of(lengths),
          x <- tensor(type, Tuple.insert_at(outer, tuple_size(outer), size))
        ) do
      opts = if length, do: [length: length], else: []
      {[x], fn [x] -> fun.(x, opts) end, tolerance: 2.0e-5}
    end
  end

  # Far from singular.
  def matrix(shapes \\ [{1, 1}, {2, 2}, {3, 3}, {2, 3, 3}]) do
    gen all(
          type <- type([{:f, 32}, {:f, 64}, {:s, 32}]),
          shape <- StreamData.member_of(shapes),
          x <- tensor(type, shape)
        ) do
      eye = Nx.eye(shape, type: type, backend: Nx.BinaryBackend)
      Nx.add(x, Nx.multiply(eye, Nx.tensor(24, type: type, backend: Nx.BinaryBackend)))
    end
  end

  def shuffled(list) do
    list
    |> Enum.map(fn _ -> StreamData.integer(0..1000) end)
    |> StreamData.fixed_list()
    |> StreamData.map(fn keys ->
      keys |> Enum.zip(list) |> Enum.sort_by(&elem(&1, 0)) |> Enum.map(&elem(&1, 1))
    end)
  end

  def matmul(x, y) do
    batch = Enum.drop(Nx.axes(x), -2)
    Nx.dot(x, [-1], batch, y, [-2], batch)
  end

  def transposed(x), do: Nx.transpose(x, axes: Enum.drop(Nx.axes(x), -2) ++ [-1, -2])
end
