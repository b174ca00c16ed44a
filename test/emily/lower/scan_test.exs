defmodule Emily.Lower.ScanTest do
  use Emily.BackendCase, async: true

  defp along(types, opts) do
    gen all(
          type <- type(types),
          shape <- shape(1..4),
          x <- tensor(type, shape, opts),
          axis <- StreamData.integer(0..(tuple_size(shape) - 1)),
          reverse <- StreamData.boolean()
        ) do
      {x, axis: axis, reverse: reverse}
    end
  end

  for name <- [:cumulative_sum, :cumulative_product, :cumulative_max, :cumulative_min] do
    property "#{name}" do
      check all({x, opts} <- along(real_types(), range: {-2, 2}), max_runs: 50) do
        assert_same([x], fn [x] -> Nx.unquote(name)(x, opts) end, accumulates: true)
      end
    end
  end

  property "cumulative_max and cumulative_min of what is not finite" do
    types = [{:f, 32}] ++ if(f64?(), do: [{:f, 64}], else: [])

    check all({x, opts} <- along(types, special: true), max_runs: 40) do
      assert_same([x], fn [x] -> Nx.cumulative_max(x, opts) end)
      assert_same([x], fn [x] -> Nx.cumulative_min(x, opts) end)
    end
  end

  # The sums that Elixir has in f64.
  @tag :f64
  test "sums of long rows round once" do
    count = 300_000
    numbers = for at <- 1..count, do: :math.sin(at) + 0.5
    x = Nx.tensor(numbers, type: :f32, backend: Nx.BinaryBackend)
    sums = x |> Nx.to_flat_list() |> Enum.scan(&(&1 + &2))
    back = x |> Nx.to_flat_list() |> Enum.reverse() |> Enum.scan(&(&1 + &2)) |> Enum.reverse()

    for {wanted, opts} <- [{sums, []}, {back, [reverse: true]}],
        {shape, axis} <- [{{count}, 0}, {{1, count, 1}, 1}] do
      [e] = on_emily([Nx.reshape(x, shape)])
      got = Nx.cumulative_sum(e, [axis: axis] ++ opts)
      assert Nx.shape(got) == shape
      # MLX's own sums round at each addition.
      most = if Emily.Native.kernels(), do: 2 ** -24, else: 1.0e-3

      for {got, wanted} <- Enum.zip(Nx.to_flat_list(got), wanted) do
        assert abs(got - wanted) <= abs(wanted) * most * 1.000001
      end
    end
  end

  test "complex numbers" do
    numbers = for at <- 1..600, do: Complex.new(:math.sin(at), :math.cos(at * 7))
    x = numbers |> Nx.tensor(backend: Nx.BinaryBackend) |> Nx.reshape({20, 30})

    for axis <- [0, 1], reverse <- [false, true] do
      opts = [axis: axis, reverse: reverse]
      assert_same([x], fn [x] -> Nx.cumulative_sum(x, opts) end, tolerance: 1.0e-5)
    end
  end
end
