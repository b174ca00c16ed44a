defmodule Emily.Lower.ReduceTest do
  use Emily.BackendCase, async: true

  # A tensor and options that name some of its axes, or none.
  defp reduction(types, opts \\ []) do
    gen all(
          type <- type(types),
          shape <- shape(0..4),
          x <- tensor(type, shape, opts),
          axes <- axes(tuple_size(shape)),
          keep <- StreamData.boolean()
        ) do
      {x, [axes: axes, keep_axes: keep]}
    end
  end

  defp axes(0), do: StreamData.constant(nil)

  defp axes(rank) do
    StreamData.one_of([StreamData.constant(nil), some_axes(rank)])
  end

  defp along(types, opts) do
    gen all(
          type <- type(types),
          shape <- shape(1..4),
          x <- tensor(type, shape, opts),
          axis <- StreamData.integer(0..(tuple_size(shape) - 1))
        ) do
      {x, axis}
    end
  end

  @tag :f64
  test "sums of complex numbers round once" do
    numbers = for at <- 1..5000, do: Complex.new(:math.sin(at) * 1.0e3, 1 / at)
    x = Nx.tensor(numbers)
    [e] = on_emily([x])
    # What f32 has of them, in f64.
    exact = x |> Nx.to_flat_list() |> Enum.reduce(Complex.new(0.0, 0.0), &Complex.add/2)
    sum = Nx.to_number(Nx.sum(e))

    # MLX's own sums round at each of 5,000 additions.
    if Emily.Native.kernels(),
      do: assert(sum == Nx.to_number(Nx.tensor(exact, type: :c64))),
      else: assert_in_delta(Complex.abs(Complex.subtract(sum, exact)), 0, 5000 * 1.0e3 * 2 ** -24)

    assert e |> Nx.reshape({2, 2500}) |> Nx.sum(axes: [1]) |> Nx.shape() == {2}
    zero = Nx.tensor(Complex.new(-0.0, 0.0), backend: Emily.Backend)
    assert Nx.to_binary(Nx.sum(zero)) == <<0::64>>
  end

  # Of numbers that round at each addition.
  @tag :f64
  test "sums and products of complex numbers and of f64 do not depend on how a tensor lies" do
    complex = for at <- 1..96, do: Complex.new(:math.sin(at * at), :math.cos(at * 7) * at)
    real = for at <- 1..96, do: :math.sin(at * at) * at

    for {numbers, type} <- [{complex, :c64}, {real, :f64}],
        [e] = on_emily([numbers |> Nx.tensor(type: type) |> Nx.reshape({4, 6, 4})]),
        {view, name} <- [
          {&Nx.reverse(&1), "reverse"},
          {&Nx.transpose(&1, axes: [2, 0, 1]), "transpose"},
          {& &1[[1..2, 0..4, 1..3]], "slice"},
          {&Nx.broadcast(&1[0], {3, 6, 4}), "broadcast"}
        ],
        fun <- [&Nx.sum/2, &Nx.product/2, &Nx.mean/2],
        axes <- [nil, [0], [1], [0, 2], [1, 2]] do
      viewed = view.(e)
      # A tensor of its own.
      [copy] = viewed |> Nx.backend_copy(Nx.BinaryBackend) |> List.wrap() |> on_emily()
      opts = [axes: axes]
      assert Nx.to_binary(fun.(viewed, opts)) == Nx.to_binary(fun.(copy, opts)), name
    end
  end

  for name <- [:sum, :product] do
    property "#{name}" do
      check all({x, opts} <- reduction(all_types(), range: {-2, 2}), max_runs: 80) do
        assert_same([x], fn [x] -> Nx.unquote(name)(x, opts) end, accumulates: true)
      end
    end

    property "#{name} of integers wraps" do
      check all({x, opts} <- reduction(integers(), range: :full), max_runs: 40) do
        assert_same([x], fn [x] -> Nx.unquote(name)(x, opts) end)
      end
    end
  end

  for bits <- [32, 64] do
    @tag :"f#{bits}"
    property "sum of f#{bits} to its precision" do
      check all({x, opts} <- reduction([{:f, unquote(bits)}]), max_runs: runs()) do
        assert_same([x], fn [x] -> Nx.sum(x, opts) end, accumulates: true)
        assert_same([x], fn [x] -> Nx.mean(x, opts) end, accumulates: true)
      end
    end
  end

  test "sums of many numbers, over each of the axes, of tensors and views" do
    for shape <- [{40, 300}, {300, 3}, {2, 5000}, {3, 70, 5}, {7, 1, 90}] do
      x = shape |> Nx.iota(type: :f32) |> Nx.remainder(101) |> Nx.subtract(50)

      for axes <- [nil, [0], [-1], [0, -1]] do
        assert_same([x], fn [x] -> Nx.sum(x, axes: axes) end, tolerance: 0.0)
        assert_same([x], fn [x] -> Nx.sum(Nx.transpose(x), axes: axes) end, tolerance: 0.0)
        every_other = fn [x] -> Nx.sum(x[[.., 0..-1//2]], axes: axes, keep_axes: true) end
        assert_same([x], every_other, tolerance: 0.0)
      end
    end
  end

  for name <- [:reduce_max, :reduce_min] do
    property "#{name}" do
      check all({x, opts} <- reduction(real_types()), max_runs: 60) do
        assert_same([x], fn [x] -> Nx.unquote(name)(x, opts) end)
      end
    end

    property "#{name} of what is not finite" do
      check all({x, opts} <- reduction(floats(), special: true), max_runs: 40) do
        assert_same([x], fn [x] -> Nx.unquote(name)(x, opts) end)
      end
    end
  end

  for name <- [:all, :any] do
    property "#{name}" do
      # BinaryBackend takes a complex zero for true here, though not in logical_and.
      check all({x, opts} <- reduction(real_types(), range: {0, 1}, special: true), max_runs: 60) do
        assert_same([x], fn [x] -> Nx.unquote(name)(x, opts) end)
      end
    end
  end

  for name <- [:argmax, :argmin] do
    property "#{name}" do
      check all(
              {x, axis} <- along(real_types(), range: {-2, 2}, special: true),
              axis <- StreamData.member_of([nil, axis]),
              tie_break <- StreamData.member_of([:low, :high]),
              keep <- StreamData.boolean(),
              type <- StreamData.member_of([:s32, :s64, :u8]),
              max_runs: 100
            ) do
        opts = [axis: axis, tie_break: tie_break, keep_axis: keep, type: type]
        assert_same([x], fn [x] -> Nx.unquote(name)(x, opts) end)
      end
    end
  end

  defmodule Conditions do
    import Nx.Defn
    defn choose(z), do: if(z, do: 1, else: 2)
  end

  # As in NumPy 2.4; BinaryBackend takes a complex zero for true.
  test "a complex number is true unless both parts are zero" do
    zeros = [Complex.new(0.0, 0.0), Complex.new(-0.0, 0.0), Complex.new(0.0, -0.0)]
    others = [Complex.new(0.0, 1.0), Complex.new(-1.0, 0.0), Complex.new(:nan, 0.0)]
    x = on_emily(Nx.tensor([zeros, others, Enum.take(zeros, 2) ++ [hd(others)]]))

    for run <- [
          fn fun -> fun.(x) end,
          &Nx.Defn.jit_apply(&1, [x], compiler: Emily.Compiler)
        ] do
      flat = fn fun -> Nx.to_flat_list(run.(fun)) end
      assert flat.(&Nx.all(&1, axes: [1])) == [0, 1, 0]
      assert flat.(&Nx.any(&1, axes: [1])) == [0, 1, 1]
      assert flat.(&Nx.any(&1, axes: [0])) == [1, 1, 1]
      assert flat.(&Nx.logical_not/1) == [1, 1, 1, 0, 0, 0, 1, 1, 0]
      assert flat.(&Nx.logical_and(&1, 1)) == [0, 0, 0, 1, 1, 1, 0, 0, 1]
      assert flat.(&Nx.logical_or(&1, &1)) == [0, 0, 0, 1, 1, 1, 0, 0, 1]
      assert flat.(&Nx.logical_xor(&1, 1)) == [1, 1, 1, 0, 0, 0, 1, 1, 0]
      assert flat.(&Nx.select(&1, 1, 2)) == [2, 2, 2, 1, 1, 1, 2, 2, 1]
    end
  end

  test "a complex number is a condition in a program" do
    import Nx.Defn, only: [jit: 2]
    choose = jit(&Conditions.choose/1, compiler: Emily.Compiler)

    for {re, im, expected} <- [{0.0, -0.0, 2}, {0.0, 1.0, 1}, {-1.0, 0.0, 1}] do
      z = on_emily(Nx.tensor(Complex.new(re, im)))
      assert Nx.to_number(choose.(z)) == expected
    end
  end

  # NumPy's sums of these are zero too.
  test "what adds negative zeros is zero, in every layout and type" do
    Nx.default_backend(Emily.Backend)

    for type <- floats(),
        shape <- [{}, {1}, {2}, {1, 3}, {3, 1}, {2, 3, 1}, {40, 3}],
        x = Nx.broadcast(Nx.tensor(-0.0, type: type), shape),
        size = Nx.size(x),
        column = Nx.reshape(x, {size, 1}),
        fun <- [
          fn -> Nx.sum(x) end,
          fn -> Nx.sum(column, axes: [1]) end,
          fn -> Nx.sum(column, axes: [0], keep_axes: true) end,
          fn -> Nx.window_sum(column, {1, 1}) end,
          fn -> Nx.window_sum(column, {size, 1}) end,
          fn -> Nx.window_sum(column, {1, 1}, padding: [{1, 1}, {0, 0}]) end,
          fn ->
            Nx.dot(Nx.transpose(column), Nx.broadcast(Nx.tensor(1, type: type), {size, 2}))
          end,
          fn -> Nx.conv(Nx.reshape(x, {1, 1, size}), Nx.tensor([[[1]]], type: type)) end,
          fn ->
            Nx.conv(
              Nx.reshape(x, {1, size, 1}),
              Nx.broadcast(Nx.tensor(1, type: type), {2, size, 1})
            )
          end
        ] do
      assert Enum.all?(Nx.to_flat_list(fun.()), &(&1 === 0.0))
    end
  end
end
