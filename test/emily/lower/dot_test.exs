defmodule Emily.Lower.DotTest do
  use Emily.BackendCase, async: true

  # Operands of a product over one to two axes, with up to one axis of batches.
  defp product(types, opts \\ []) do
    size = StreamData.member_of([1, 2, 3])

    gen all(
          left <- type(types),
          right <- type(types),
          Enum.sort([left, right]) != [{:c, 64}, {:f, 64}],
          batch <- StreamData.list_of(size, max_length: 1),
          inner <- StreamData.list_of(size, max_length: 2),
          rows <- StreamData.list_of(size, max_length: 2),
          columns <- StreamData.list_of(size, max_length: 2),
          x <- tensor(left, List.to_tuple(batch ++ rows ++ inner), opts),
          y <- tensor(right, List.to_tuple(batch ++ columns ++ Enum.reverse(inner)), opts)
        ) do
      b = Enum.to_list(0..(length(batch) - 1)//1)
      last = fn t -> Enum.take(Nx.axes(t), -length(inner)) end
      contract = if inner == [], do: {[], []}, else: {last.(x), Enum.reverse(last.(y))}
      {x, y, elem(contract, 0), elem(contract, 1), b}
    end
  end

  property "dot over any axes" do
    check all({x, y, c1, c2, b} <- product(all_types()), max_runs: 120) do
      # BinaryBackend has batches first only.
      fun = fn [x, y] -> Nx.dot(x, c1, b, y, c2, b) end
      assert_same([x, y], fun, accumulates: true)
    end
  end

  property "dot of integers of any size is exact" do
    check all({x, y, c1, c2, b} <- product(integers(), range: :full), max_runs: 60) do
      assert_same([x, y], fn [x, y] -> Nx.dot(x, c1, b, y, c2, b) end)
    end
  end

  test "large products of integers are exact" do
    for type <- [:u8, :s16, :s32, :s64, :u64] do
      {_, bits} = Nx.Type.normalize!(type)
      scale = Bitwise.bsl(1, bits - 8)

      [x, y] =
        for {rows, columns} <- [{130, 120}, {120, 80}] do
          for(_ <- 1..(rows * columns), do: (:rand.uniform(201) - 101) * (scale - 1))
          |> Nx.tensor(type: type)
          |> Nx.reshape({rows, columns})
        end

      # The sum over one row and column, in Elixir's integers.
      actual = Nx.dot(on_emily(x), on_emily(y))

      for {i, j} <- [{0, 0}, {17, 63}, {129, 79}] do
        expected =
          Enum.zip_with(Nx.to_list(x[i]), Nx.to_list(y[[0..119, j]]), &*/2)
          |> Enum.sum()
          |> Nx.tensor(type: type)

        assert Nx.to_number(actual[i][j]) == Nx.to_number(expected)
      end
    end
  end

  test "matrix products over batches" do
    x = Nx.iota({2, 3, 4, 5}, type: :f32) |> Nx.divide(50)
    y = Nx.iota({2, 3, 5, 6}, type: :f32) |> Nx.divide(50)
    assert_same([x, y], fn [x, y] -> Nx.dot(x, [3], [0, 1], y, [2], [0, 1]) end)
  end

  # Sums that both types hold exactly.
  test "products of matrices of f16 and bf16, of views and of batches" do
    for type <- [:f16, :bf16],
        {rows, inner, columns} <- [{1, 28, 70}, {9, 28, 40}, {40, 27, 30}, {70, 20, 1}] do
      array = fn shape ->
        Nx.iota(shape) |> Nx.remainder(7) |> Nx.subtract(3) |> Nx.as_type(type)
      end

      x = array.({2, rows, inner})
      y = array.({2, inner, columns})
      z = array.({2, columns, inner})
      assert_same([x, y], fn [x, y] -> Nx.dot(x, [2], [0], y, [1], [0]) end, tolerance: 0.0)
      assert_same([x, z], fn [x, z] -> Nx.dot(x, [2], [0], z, [2], [0]) end, tolerance: 0.0)
      assert_same([x, z], fn [x, z] -> Nx.dot(x[1], [1], z[0], [1]) end, tolerance: 0.0)
    end
  end

  test "products of f16 and bf16 add up in f32 and round once" do
    for {type, sum} <- [f16: 4100.0, bf16: 4096.0], rows <- [1, 20] do
      ones = &Nx.broadcast(Nx.tensor(1, type: type, backend: Emily.Backend), &1)
      product = Nx.dot(ones.({rows, 4099}), ones.({4099, 3}))
      assert Nx.to_flat_list(product) == List.duplicate(sum, 3 * rows)
    end
  end

  # Among them those that are too large for a kernel of their own.
  test "products of matrices of many sizes, and of views" do
    for {rows, inner, columns} <- [{1, 1, 1}, {5, 7, 3}, {8, 8, 8}, {1, 300, 1}, {9, 40, 30}] do
      matrix = fn shape -> Nx.iota(shape, type: :f32) |> Nx.remainder(23) |> Nx.subtract(11) end
      x = matrix.({rows, inner})
      y = matrix.({inner, columns})
      z = matrix.({columns, inner})
      assert_same([x, y], fn [x, y] -> Nx.dot(x, y) end, tolerance: 0.0)
      assert_same([x, z], fn [x, z] -> Nx.dot(x, [1], z, [1]) end, tolerance: 0.0)
      assert_same([x, z], fn [x, z] -> Nx.dot(x, Nx.transpose(z)) end, tolerance: 0.0)
      assert_same([x, y], fn [x, y] -> Nx.dot(x[[0..0]], Nx.reverse(y)) end, tolerance: 0.0)
    end
  end
end
