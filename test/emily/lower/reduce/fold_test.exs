defmodule Emily.Lower.Reduce.FoldTest do
  use Emily.BackendCase, async: true

  alias Emily.Lower.Reduce.Fold

  @real [:add, :multiply, :max, :min]
  @bits [:bitwise_and, :bitwise_or, :bitwise_xor]

  # Nx's window_reduce hands the function numbers on Nx.BinaryBackend, so that only these types
  # come back as they went.
  @numbers [{:s, 32}, {:f, 32}]

  defp argument_order(name, true), do: &apply(Nx, name, [&1, &2])
  defp argument_order(name, false), do: &apply(Nx, name, [&2, &1])

  for name <- @real ++ @bits do
    property "reduce by #{name}" do
      types = if unquote(name in @bits), do: integers(), else: real_types()

      check all(
              type <- type(types),
              shape <- shape(1..4),
              x <- tensor(type, shape, range: {-3, 3}),
              acc <- tensor(type, {}, range: {-3, 3}),
              axes <- some_axes(tuple_size(shape)),
              axes <- StreamData.member_of([nil, axes]),
              keep_axes <- StreamData.boolean(),
              in_order? <- StreamData.boolean(),
              max_runs: 60
            ) do
        fun = argument_order(unquote(name), in_order?)
        opts = [axes: axes, keep_axes: keep_axes]
        assert_same([x, acc], fn [x, acc] -> Nx.reduce(x, acc, opts, fun) end, accumulates: true)
      end
    end

    property "window_reduce by #{name}" do
      types = if unquote(name in @bits), do: [{:s, 32}], else: @numbers

      check all(
              type <- type(types),
              size <- StreamData.integer(6..9),
              x <- tensor(type, {3, size}, range: {-3, 3}),
              acc <- tensor(type, {}, range: {-3, 3}),
              width <- StreamData.integer(1..5),
              padding <- StreamData.member_of([:valid, :same, [{0, 1}, {2, -1}]]),
              stride <- StreamData.integer(1..3),
              in_order? <- StreamData.boolean(),
              max_runs: 40
            ) do
        fun = argument_order(unquote(name), in_order?)
        opts = [padding: padding, strides: [1, stride]]
        assert_same([x, acc], fn [x, acc] -> Nx.window_reduce(x, acc, {2, width}, opts, fun) end)
      end
    end
  end

  for name <- [:logical_and, :logical_or] do
    property "reduce by #{name}" do
      check all(
              x <- tensor({:u, 8}, {3, 4}, range: {0, 1}),
              acc <- tensor({:u, 8}, {}, range: {0, 2}),
              axes <- some_axes(2)
            ) do
        fun = argument_order(unquote(name), true)
        assert_same([x, acc], fn [x, acc] -> Nx.reduce(x, acc, [axes: axes], fun) end)
      end
    end
  end

  test "what is not finite" do
    x = Nx.tensor([[1.0, :nan, 3.0], [:infinity, 2.0, :neg_infinity]])

    for name <- @real do
      assert_same([x], &Nx.reduce(hd(&1), 1.0, [axes: [1]], argument_order(name, true)))
    end
  end

  test "casts that change no number are seen through" do
    x = Nx.tensor([1, 2, 3], type: :s16)

    wide = fn x, y ->
      Nx.as_type(Nx.max(Nx.as_type(x, :s32), Nx.as_type(y, :s32)), :s16)
    end

    assert_same([x], &Nx.reduce(hd(&1), Nx.tensor(2, type: :s16), wide))
    assert Fold.operation(wide, {:s, 16}) == {:ok, :max}

    # 8 bits lose what 16 hold, and f32 the digits of s32.
    assert Fold.operation(fn x, y -> Nx.add(Nx.as_type(x, :s8), y) end, {:s, 16}) == :error
    assert Fold.operation(fn x, y -> Nx.add(Nx.as_type(x, :f32), y) end, {:s, 32}) == :error
  end

  test "vectorised tensors and names" do
    x = Nx.tensor([[1, 5], [7, 2]], names: [:rows, nil])
    assert_same([x], &Nx.reduce(hd(&1), 0, [axes: [:rows]], fn x, y -> Nx.max(x, y) end))

    assert_same([x], fn [x] ->
      x |> Nx.rename([nil, nil]) |> Nx.vectorize(:r) |> Nx.reduce(3, fn x, y -> Nx.add(x, y) end)
    end)
  end

  test "half-precision sums accumulate in f32" do
    x = Nx.broadcast(Nx.tensor(1, type: :bf16, backend: Emily.Backend), {4096})
    assert Nx.to_number(Nx.reduce(x, Nx.tensor(0, type: :bf16), &Nx.add/2)) == 4096.0
  end

  test "the accumulator's type does not decide the result's" do
    x = Nx.tensor([1, 2, 250], type: :u8, backend: Emily.Backend)
    assert_equal(Nx.reduce(x, 0, &Nx.max/2), Nx.tensor(250, type: :u8))
    sum = Nx.reduce(Nx.tensor([1, 2], backend: Emily.Backend), 0.5, &Nx.add/2)
    assert_equal(sum, Nx.tensor(3.5))
  end

  # No operation alone of both arguments.
  others = [
    {"subtract", quote(do: &Nx.subtract/2)},
    {"one argument twice", quote(do: fn x, _ -> Nx.add(x, x) end)},
    {"one argument", quote(do: fn _, y -> y end)},
    {"more operations", quote(do: fn x, y -> Nx.add(Nx.multiply(x, 2), y) end)},
    {"a tensor closed over", quote(do: fn x, _ -> Nx.add(x, Nx.tensor(1)) end)},
    {"a number", quote(do: fn _, _ -> 7 end)},
    {"a decision on numbers", quote(do: fn x, y -> if Nx.to_number(x) > 2, do: x, else: y end)}
  ]

  for {name, fun} <- others do
    test "falls back: #{name}" do
      x = Nx.tensor([3, 1, 2])
      fun = unquote(fun)
      assert Fold.operation(fun, {:s, 32}) == :error
      before = Emily.Fallback.count()
      assert_same([x], fn [x] -> Nx.reduce(x, 4, fun) end, fallback: true)
      assert Emily.Fallback.count() > before
    end
  end

  test "what the function raises, throws and sends reaches the caller" do
    x = Nx.tensor([3, 1, 2], backend: Emily.Backend)

    Emily.Fallback.with_mode(:silent, fn ->
      assert_raise RuntimeError, "no", fn -> Nx.reduce(x, 0, fn _, _ -> raise "no" end) end
      assert catch_throw(Nx.reduce(x, 0, fn _, _ -> throw(:out) end)) == :out

      Nx.reduce(x, 0, fn x, y ->
        send(self(), Nx.to_number(x))
        Nx.subtract(x, y)
      end)
    end)

    for number <- [3, 1, 2], do: assert_received(^number)
  end

  test "a node :fun of an expression is known as well" do
    for {fun, expected} <- [{&Nx.max(&2, &1), {:ok, :max}}, {&Nx.subtract/2, :error}] do
      traced = Nx.Defn.debug_expr(&Nx.reduce(&1, 0, fun)).(Nx.template({3}, :s32))
      %{data: %{op: :reduce, args: [_, _, _, node]}} = traced
      assert Fold.operation(node, {:s, 32}) == expected
    end
  end

  test "inside defn" do
    run = Nx.Defn.jit(fn x -> Nx.reduce(x, 0, fn x, y -> Nx.max(x, y) end) end)
    assert_same([Nx.tensor([3, 1, 2])], fn [x] -> run.(x) end)
  end
end
