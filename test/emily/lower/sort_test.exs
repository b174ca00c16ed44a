defmodule Emily.Lower.SortTest do
  use Emily.BackendCase, async: true

  defp sortable(opts) do
    gen all(
          type <- type(real_types()),
          shape <- shape(1..4),
          x <- tensor(type, shape, opts),
          axis <- StreamData.integer(0..(tuple_size(shape) - 1)),
          direction <- StreamData.member_of([:asc, :desc])
        ) do
      {x, axis: axis, direction: direction}
    end
  end

  property "sort" do
    check all({x, opts} <- sortable(special: true), max_runs: 80) do
      assert_same([x], fn [x] -> Nx.sort(x, opts) end)
    end
  end

  property "argsort keeps the order of equals, in both directions" do
    check all(
            {x, opts} <- sortable(range: {-1, 1}),
            type <- StreamData.member_of([:s32, :s64, :u8]),
            max_runs: 80
          ) do
      assert_same([x], fn [x] -> Nx.argsort(x, [type: type, stable: true] ++ opts) end)
    end
  end

  property "argsort of what is not finite" do
    check all({x, opts} <- sortable(special: true), max_runs: 60) do
      assert_same([x], fn [x] -> Nx.argsort(x, [stable: true] ++ opts) end)
    end
  end

  property "sort of integers of any size" do
    check all(
            type <- type(integers()),
            x <- tensor(type, {7}, range: :full),
            direction <- StreamData.member_of([:asc, :desc]),
            max_runs: 40
          ) do
      assert_same([x], fn [x] -> Nx.sort(x, direction: direction) end)
      assert_same([x], fn [x] -> Nx.argsort(x, direction: direction, stable: true) end)
    end
  end

  property "top_k" do
    check all(x <- tensor({:f, 32}, {3, 6}, special: true), k <- StreamData.integer(1..6)) do
      assert_same([x], fn [x] -> Nx.top_k(x, k: k) end)
    end
  end

  test "long rows stay stable" do
    x = Nx.remainder(Nx.multiply(Nx.iota({5000}), 7919), 13)
    assert_same([x], fn [x] -> Nx.argsort(x, direction: :desc, stable: true) end)
    assert_same([x], fn [x] -> Nx.argsort(x, stable: true) end)
  end
end
