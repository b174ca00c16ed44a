defmodule Emily.Lower.ShapeTest do
  use Emily.BackendCase, async: true

  defp any_tensor(ranks \\ 0..4) do
    gen all(type <- type(all_types()), shape <- shape(ranks), x <- tensor(type, shape)) do
      x
    end
  end

  property "new tensors" do
    check all(type <- type(all_types()), shape <- shape(0..3), max_runs: 60) do
      backend = {Emily.Backend, device: :cpu}

      for new <- [&Nx.iota(shape, &1), &Nx.broadcast(Nx.tensor(3, &1), shape)] do
        assert_equal(new.(type: type, backend: backend), new.(type: type), [])
      end

      for axis <- 0..(tuple_size(shape) - 1)//1 do
        opts = [type: type, axis: axis]
        assert_equal(Nx.iota(shape, opts ++ [backend: backend]), Nx.iota(shape, opts))
      end

      if tuple_size(shape) >= 2 do
        assert_equal(Nx.eye(shape, type: type, backend: backend), Nx.eye(shape, type: type))
      end
    end
  end

  property "reshape, flatten, squeeze and new_axis" do
    check all(x <- any_tensor(), max_runs: 50) do
      assert_same([x], fn [x] -> Nx.flatten(x) end)
      assert_same([x], fn [x] -> Nx.squeeze(x) end)
      assert_same([x], fn [x] -> Nx.new_axis(x, 0) end)
      assert_same([x], fn [x] -> Nx.reshape(x, {1, Nx.size(x)}) end)
    end
  end

  # What is column-major is no longer so once an axis is split.
  property "a transposed tensor with a split axis meets another transposed tensor" do
    check all(
            type <- type(all_types()),
            [a, b, c] <- StreamData.list_of(StreamData.integer(1..4), length: 3),
            x <- tensor(type, {c, a * b}),
            y <- tensor(type, {c, b, a}),
            max_runs: 60
          ) do
      split = fn x, y -> {Nx.reshape(Nx.transpose(x), {a, b, c}), Nx.transpose(y)} end

      for fun <- [&Nx.add/2, &Nx.subtract/2, &Nx.equal/2, &Nx.select(Nx.equal(&1, 0), &2, &1)] do
        assert_same([x, y], fn [x, y] ->
          {x, y} = split.(x, y)
          fun.(x, y)
        end)
      end
    end
  end

  property "broadcast" do
    check all(
            type <- type(all_types()),
            shape <- shape(),
            other <- broadcastable(shape),
            x <- tensor(type, other),
            max_runs: 50
          ) do
      assert_same([x], fn [x] -> Nx.broadcast(x, shape) end)
    end
  end

  property "broadcast along named axes" do
    check all(
            type <- type(all_types()),
            shape <- shape(1..4),
            axes <- some_axes(tuple_size(shape)),
            x <- tensor(type, axes |> Enum.map(&elem(shape, &1)) |> List.to_tuple()),
            max_runs: 50
          ) do
      assert_same([x], fn [x] -> Nx.broadcast(x, shape, axes: axes) end)
    end
  end

  property "transpose" do
    check all(
            x <- any_tensor(1..4),
            axes <- StreamData.constant(Nx.axes(x)) |> StreamData.map(&Enum.shuffle/1),
            max_runs: 50
          ) do
      assert_same([x], fn [x] -> Nx.transpose(x, axes: axes) end)
      assert_same([x], fn [x] -> Nx.transpose(x) end)
    end
  end

  property "reverse" do
    check all(
            x <- any_tensor(1..4),
            axes <- some_axes(Nx.rank(x)),
            max_runs: 50
          ) do
      assert_same([x], fn [x] -> Nx.reverse(x, axes: axes) end)
    end
  end

  property "pad: low, high and interior" do
    check all(
            x <- any_tensor(1..3),
            value <- tensor(x.type, {}),
            config <-
              StreamData.list_of(
                StreamData.tuple(
                  {StreamData.integer(0..2), StreamData.integer(0..2), StreamData.integer(0..2)}
                ),
                length: Nx.rank(x)
              ),
            max_runs: 60
          ) do
      assert_same([x, value], fn [x, value] -> Nx.pad(x, value, config) end)
    end
  end

  property "pad by less than nothing" do
    check all(
            x <- tensor({:s, 32}, {5, 6}),
            low <- StreamData.integer(-2..2),
            high <- StreamData.integer(-2..2),
            interior <- StreamData.integer(0..2),
            max_runs: 60
          ) do
      config = [{low, high, interior}, {high, low, 0}]
      assert_same([x], fn [x] -> Nx.pad(x, 7, config) end)
    end
  end

  property "concatenate and stack" do
    check all(
            types <- StreamData.list_of(type(real_types()), min_length: 2, max_length: 4),
            shape <- shape(1..3),
            axis <- StreamData.integer(0..(tuple_size(shape) - 1)),
            sizes <- StreamData.list_of(StreamData.integer(1..3), length: length(types)),
            tensors <-
              types
              |> Enum.zip(sizes)
              |> Enum.map(fn {type, size} -> tensor(type, put_elem(shape, axis, size)) end)
              |> StreamData.fixed_list(),
            max_runs: 50
          ) do
      assert_same(tensors, fn tensors -> Nx.concatenate(tensors, axis: axis) end)

      same = Enum.map(tensors, &Nx.slice_along_axis(&1, 0, 1, axis: axis))
      assert_same(same, fn tensors -> Nx.stack(tensors, axis: axis) end)
    end
  end

  property "to_batched" do
    check all(
            rows <- StreamData.integer(1..7),
            batch <- StreamData.integer(1..rows),
            leftover <- StreamData.member_of([:repeat, :discard]),
            x <- tensor({:f, 32}, {rows, 2}),
            max_runs: 40
          ) do
      expected = x |> Nx.to_batched(batch, leftover: leftover) |> Enum.to_list()
      actual = x |> on_emily() |> Nx.to_batched(batch, leftover: leftover) |> Enum.to_list()
      assert length(actual) == length(expected)
      Enum.zip_with(actual, expected, &assert_equal(&1, &2))
    end
  end

  test "names and vectorised axes stay" do
    x = Nx.iota({2, 3, 4}, names: [:a, :b, :c])
    assert_same([x], fn [x] -> Nx.transpose(x, axes: [:c, :a, :b]) end)
    assert_same([x], fn [x] -> Nx.sum(x, axes: [:b]) end)
    assert_same([x], fn [x] -> x |> Nx.vectorize(:a) |> Nx.add(1) |> Nx.sum() end)
  end
end
