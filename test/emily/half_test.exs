defmodule Emily.HalfTest do
  # Floats of 16 bits accumulate in f32 and round once, beside Nx.BinaryBackend in f64: over inputs so long that a sum in their
  # own type would stand still (256 in bf16, 2048 in f16).
  use Emily.BackendCase, async: true

  @types [{:f, 16}, {:bf, 16}]
  @count 8192

  # Between 1/2 and 1, from the golden ratio.
  defp fractions(type, shape, scale \\ 1.0) do
    size = Tuple.product(shape)

    for(
      i <- 1..size,
      do: scale * (0.5 + 0.5 * (i * 0.6180339887498949 - trunc(i * 0.6180339887498949)))
    )
    |> Nx.tensor(type: type)
    |> Nx.reshape(shape)
  end

  # One unit in the last place: half of one for the rounding, and as much for f32's own sum.
  defp assert_rounded_once(tensors, fun) do
    wide =
      fun.(Enum.map(tensors, &if(Nx.Type.float?(&1.type), do: Nx.as_type(&1, :f64), else: &1)))

    actual = Emily.Fallback.with_mode(:raise, fn -> fun.(on_emily(tensors)) end)

    for {a, e} <- Enum.zip(numbers(actual), numbers(wide)),
        do: assert_in_delta(a, e, 1.5 * unit(actual.type) * abs(e) + :math.pow(2, -24))
  end

  # The greatest rounding of a number of size 1.
  defp unit({:bf, 16}), do: :math.pow(2, -8)
  defp unit({:f, 16}), do: :math.pow(2, -11)

  for type <- @types do
    @type_under_test type
    test "#{inspect(type)}: reductions and cumulative operations" do
      type = @type_under_test
      x = fractions(type, {@count})
      small = fractions(type, {@count}, 1.0e-2)

      near_one =
        Nx.add(Nx.as_type(fractions({:f, 64}, {@count}, 0.01), :f64), 0.9925) |> Nx.as_type(type)

      for fun <- [
            &Nx.sum/1,
            &Nx.mean/1,
            &Nx.variance/1,
            &Nx.logsumexp/1,
            &Nx.logsumexp(Nx.reshape(&1, {2, 4, @count |> div(8)}), axes: [0, 2]),
            &Nx.sum(Nx.reshape(&1, {2, @count |> div(8), 4}), axes: [0, 1]),
            &Nx.cumulative_sum/1,
            &Nx.cumulative_sum(&1, reverse: true),
            &Nx.window_sum(&1, {4096}),
            &Nx.window_mean(&1, {4096}, strides: [64]),
            &Nx.reduce(&1, 0, fn x, y -> Nx.add(x, y) end)
          ] do
        assert_rounded_once([x], fn [x] -> fun.(x) end)
      end

      for fun <- [&Nx.product/1, &Nx.cumulative_product/1, &Nx.window_product(&1, {1024})],
          do: assert_rounded_once([near_one], fn [x] -> fun.(x) end)

      assert_rounded_once([x, small], &dot/1)
      assert_rounded_once([Nx.reshape(x, {2, 4096}), Nx.reshape(small, {4096, 2})], &dot/1)
    end

    test "#{inspect(type)}: convolutions" do
      type = @type_under_test
      x = fractions(type, {1, 2, 4096})
      kernel = fractions(type, {1, 2, 4000}, 1.0e-2)
      assert_rounded_once([x, kernel], fn [x, k] -> Nx.conv(x, k) end)
    end

    test "#{inspect(type)}: updates of one element" do
      type = @type_under_test
      zeros = Nx.broadcast(Nx.tensor(0, type: type), {3})
      ones = Nx.broadcast(Nx.tensor(1, type: type), {4096})
      one = Nx.broadcast(1, {4096, 1})

      result = Nx.indexed_add(on_emily(zeros), on_emily(one), on_emily(ones))
      assert Nx.to_flat_list(result) == [0.0, 4096.0, 0.0]

      rows = Nx.broadcast(Nx.tensor(1, type: type), {4096, 2})
      grid = Nx.broadcast(Nx.tensor(0, type: type), {2, 2})
      result = Nx.indexed_add(on_emily(grid), on_emily(one), on_emily(rows), axes: [0])
      assert Nx.to_flat_list(result) == [0.0, 0.0, 4096.0, 4096.0]

      pairs = Nx.broadcast(Nx.tensor([1, 0]), {4096, 2})
      result = Nx.indexed_add(on_emily(grid), on_emily(pairs), on_emily(ones))
      assert Nx.to_flat_list(result) == [0.0, 0.0, 4096.0, 0.0]

      # Each window chooses the one great element.
      peak = Nx.indexed_put(Nx.broadcast(Nx.tensor(0, type: type), {4095}), Nx.tensor([2047]), 1)
      source = Nx.broadcast(Nx.tensor(1, type: type), {2048})

      result =
        Nx.window_scatter_max(on_emily(peak), on_emily(source), 0, {2048},
          strides: [1],
          padding: :valid
        )

      assert Nx.to_number(Nx.sum(result)) == 2048.0
      assert Nx.to_number(result[2047]) == 2048.0
    end

    test "#{inspect(type)}: the gradients that add updates" do
      type = @type_under_test
      table = fractions(type, {3, 2})
      ids = Nx.remainder(Nx.iota({6144}), 3)
      Nx.default_backend(Emily.Backend)

      for compiler <- [Nx.Defn.Evaluator, Emily.Compiler],
          fun <- [
            &Nx.take/2,
            &Nx.gather(&1, Nx.new_axis(&2, -1), axes: [0]),
            fn table, _ids -> Nx.concatenate(List.duplicate(table, 2048)) end
          ] do
        gradient = fn table, ids -> Nx.Defn.grad(table, &Nx.sum(fun.(&1, ids))) end
        result = Nx.Defn.jit_apply(gradient, on_emily([table, ids]), compiler: compiler)
        assert Nx.to_flat_list(result) == List.duplicate(2048.0, 6)
      end
    end

    test "#{inspect(type)}: functions round once" do
      type = @type_under_test

      x =
        Nx.concatenate([
          Nx.subtract(fractions(type, {512}, 8.0), 5),
          Nx.tensor([-0.0, 0.0], type: type)
        ])

      x = Nx.as_type(x, type)

      for name <- [:sigmoid, :sin, :cos, :tanh, :exp, :expm1, :erf, :atan, :sinh, :asinh] do
        wide = apply(Nx, name, [Nx.as_type(x, :f64)])
        actual = apply(Nx, name, [on_emily(x)])

        for {a, e} <- Enum.zip(numbers(actual), numbers(wide)),
            do: assert_in_delta(a, e, 1.01 * unit(type) * abs(e) + :math.pow(2, -25))
      end

      for name <- [:sin, :tanh, :erf, :atan, :sinh, :asinh, :expm1],
          do:
            assert(
              [-0.0] ===
                Nx.to_flat_list(apply(Nx, name, [on_emily(Nx.tensor([-0.0], type: type))]))
            )
    end

    test "#{inspect(type)}: integers beside them are not rounded first" do
      type = @type_under_test
      x = Nx.tensor([4096.0, 1.0], type: type)
      y = Nx.tensor([4097, 4097], type: :s16)

      assert [x, y] |> on_emily() |> then(fn [x, y] -> Nx.subtract(x, y) end) |> Nx.to_flat_list() ==
               [-1.0, -4096.0]

      assert [Nx.tensor([[1.0, -1.0]], type: type), Nx.tensor([[4097], [4096]], type: :s16)]
             |> on_emily()
             |> dot()
             |> Nx.to_flat_list() == [1.0]

      target = Nx.tensor([-4096.0], type: type)

      result =
        Nx.indexed_add(
          on_emily(target),
          Nx.tensor([[0]]),
          on_emily(Nx.tensor([4097], type: :s16))
        )

      assert Nx.to_flat_list(result) == [1.0]
    end
  end

  defp dot([x, y]), do: Nx.dot(x, y)
end
