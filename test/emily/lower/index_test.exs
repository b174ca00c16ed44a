defmodule Emily.Lower.IndexTest do
  use Emily.BackendCase, async: true

  @index_types [{:s, 32}, {:s, 64}, {:u, 8}, {:u, 32}, {:s, 8}, {:u, 64}]

  defp any_tensor(ranks) do
    gen all(type <- type(all_types()), shape <- shape(ranks), x <- tensor(type, shape)) do
      x
    end
  end

  defp slice_of(shape) do
    dims = Tuple.to_list(shape)

    gen all(
          lengths <- StreamData.fixed_list(Enum.map(dims, &StreamData.integer(1..&1))),
          starts <- StreamData.fixed_list(Enum.map(dims, &StreamData.integer(-2..(&1 + 2)))),
          strides <- StreamData.fixed_list(Enum.map(dims, fn _ -> StreamData.integer(1..2) end))
        ) do
      {starts, lengths, strides}
    end
  end

  # Indices within the axes, one column an axis.
  defp indices(shape, axes, outer) do
    gen all(
          type <- type(@index_types),
          rows <-
            axes
            |> Enum.map(&StreamData.integer(0..(elem(shape, &1) - 1)))
            |> StreamData.fixed_list()
            |> StreamData.list_of(length: Tuple.product(outer))
        ) do
      rows
      |> Nx.tensor(type: type)
      |> Nx.reshape(Tuple.insert_at(outer, tuple_size(outer), length(axes)))
    end
  end

  property "slice clamps its starts" do
    check all(
            x <- any_tensor(1..4),
            {starts, lengths, strides} <- slice_of(x.shape),
            max_runs: 60
          ) do
      # Nx itself refuses negative starts that are numbers.
      static = Enum.map(starts, &max(&1, 0))
      assert_same([x], fn [x] -> Nx.slice(x, static, lengths, strides: strides) end)

      dynamic = Enum.map(starts, &Nx.tensor/1)

      assert_same([x | dynamic], fn [x | starts] ->
        Nx.slice(x, starts, lengths, strides: strides)
      end)

      assert_same([x | dynamic], fn [x, start | _] ->
        Nx.slice(x, [start | tl(static)], lengths, strides: strides)
      end)
    end
  end

  test "put_slice of most of an axis, at a start that is a tensor" do
    for type <- [{:u, 8}, {:bf, 16}, {:f, 32}, {:s, 64}],
        {outer, full, inner} <- [{1, 9, 8}, {2, 5, 16}, {3, 4, 1}, {2, 6, 3}],
        size <- [full, full - 1, div(full + 1, 2)],
        start <- [0, 1, full] do
      x = Nx.iota({outer, full, inner}, type: type, backend: Nx.BinaryBackend)
      slice = Nx.iota({outer, size, inner}, type: type, backend: Nx.BinaryBackend)
      start = Nx.tensor(start, backend: Nx.BinaryBackend)

      assert_same([x, Nx.multiply(slice, 2), start], fn [x, slice, start] ->
        Nx.put_slice(x, [0, start, 0], slice)
      end)
    end
  end

  property "put_slice clamps its starts" do
    check all(
            x <- any_tensor(1..4),
            {starts, lengths, _} <- slice_of(x.shape),
            type <- type(all_types()),
            Enum.sort([type, x.type]) != [{:c, 64}, {:f, 64}],
            slice <- tensor(type, List.to_tuple(lengths)),
            max_runs: 60
          ) do
      static = Enum.map(starts, &max(&1, 0))
      assert_same([x, slice], fn [x, slice] -> Nx.put_slice(x, static, slice) end)

      dynamic = Enum.map(starts, &Nx.tensor/1)

      assert_same([x, slice | dynamic], fn [x, slice | starts] ->
        Nx.put_slice(x, starts, slice)
      end)
    end
  end

  property "gather along any axes" do
    check all(
            x <- any_tensor(1..4),
            axes <- some_axes(Nx.rank(x)),
            outer <- shape(0..2),
            indices <- indices(x.shape, axes, outer),
            max_runs: 80
          ) do
      assert_same([x, indices], fn [x, indices] -> Nx.gather(x, indices, axes: axes) end)
    end
  end

  for name <- [:indexed_add, :indexed_put] do
    property "#{name} along any axes" do
      check all(
              x <- any_tensor(1..4),
              axes <- some_axes(Nx.rank(x)),
              count <- StreamData.integer(1..4),
              indices <- indices(x.shape, axes, {count}),
              type <- type(all_types()),
              Enum.sort([type, x.type]) != [{:c, 64}, {:f, 64}],
              rest = for(at <- Nx.axes(x), at not in axes, do: elem(x.shape, at)),
              updates <- tensor(type, List.to_tuple([count | rest])),
              max_runs: 80
            ) do
        assert_same(
          [x, indices, updates],
          fn [x, indices, updates] -> Nx.unquote(name)(x, indices, updates, axes: axes) end,
          accumulates: true
        )
      end
    end
  end

  property "take and take_along_axis" do
    check all(
            x <- any_tensor(1..4),
            axis <- StreamData.integer(0..(Nx.rank(x) - 1)),
            size = elem(x.shape, axis),
            type <- type(@index_types),
            outer <- shape(0..2),
            indices <- tensor(type, outer, range: {0, size - 1}),
            count <- StreamData.integer(1..3),
            along <- tensor(type, put_elem(x.shape, axis, count), range: {0, size - 1}),
            max_runs: 60
          ) do
      assert_same([x, indices], fn [x, indices] -> Nx.take(x, indices, axis: axis) end)
      assert_same([x, along], fn [x, i] -> Nx.take_along_axis(x, i, axis: axis) end)
    end
  end

  describe "indices out of range are clamped" do
    setup do
      %{x: Nx.tensor([[1, 2], [3, 4]], backend: Emily.Backend)}
    end

    test "gather, take and take_along_axis", %{x: x} do
      far = Nx.tensor([[100_000_000, -100_000_000]], backend: Emily.Backend)
      assert Nx.to_flat_list(Nx.gather(x, far)) == [3]
      assert Nx.to_flat_list(Nx.take(x, far)) == [3, 4, 1, 2]
      assert Nx.to_flat_list(Nx.take_along_axis(x, far)) == [3, 2]
    end

    test "indexed_add and indexed_put", %{x: x} do
      far = Nx.tensor([[100_000_000, -100_000_000]], backend: Emily.Backend)
      update = Nx.tensor([10])
      assert Nx.to_flat_list(Nx.indexed_add(x, far, update)) == [1, 2, 13, 4]
      assert Nx.to_flat_list(Nx.indexed_put(x, far, update)) == [1, 2, 10, 4]
    end

    test "starts of u64 beyond s64", %{x: x} do
      far = Nx.tensor(18_446_744_073_709_551_615, type: :u64)
      assert Nx.to_flat_list(Nx.slice(x, [far, 0], [1, 2])) == [3, 4]
    end
  end

  test "the last of several updates of one element stays" do
    x = Nx.iota({4})
    indices = Nx.tensor([[1], [1], [3], [1]])
    updates = Nx.tensor([10, 20, 30, 40])
    assert_same([x, indices, updates], fn [x, i, u] -> Nx.indexed_put(x, i, u) end)
    assert_same([x, indices, updates], fn [x, i, u] -> Nx.indexed_add(x, i, u) end)
  end
end
