defmodule Emily.Lower.WindowTest do
  use Emily.BackendCase, async: true

  # A tensor, a window within it, and options.
  defp windowed(types, opts \\ []) do
    gen all(
          type <- type(types),
          dims <- StreamData.list_of(StreamData.integer(3..5), min_length: 1, max_length: 3),
          rank = length(dims),
          window <- StreamData.list_of(StreamData.integer(1..2), length: rank),
          strides <- StreamData.list_of(StreamData.integer(1..2), length: rank),
          dilations <- StreamData.list_of(StreamData.integer(1..2), length: rank),
          pads <-
            StreamData.list_of(
              StreamData.tuple({StreamData.integer(0..1), StreamData.integer(0..2)}),
              length: rank
            ),
          padding <- StreamData.member_of([:valid, :same, pads]),
          x <- tensor(type, List.to_tuple(dims), opts)
        ) do
      {x, List.to_tuple(window), [strides: strides, padding: padding], dilations}
    end
  end

  for name <- [:window_sum, :window_product, :window_max, :window_min] do
    property "#{name}: strides, padding and dilation" do
      check all(
              {x, window, opts, dilations} <- windowed(real_types(), range: {-3, 3}),
              max_runs: 80
            ) do
        opts = [window_dilations: dilations] ++ opts
        halves = match?({_, 16}, x.type)

        assert_same(
          [x],
          fn [x] -> Nx.unquote(name)(x, window, opts) end,
          if(halves, do: [tolerance: 8.0e-2], else: [])
        )
      end
    end
  end

  property "window_max of what is not finite" do
    check all({x, window, opts, _} <- windowed([{:f, 32}], special: true), max_runs: 40) do
      assert_same([x], fn [x] -> Nx.window_max(x, window, opts) end)
      assert_same([x], fn [x] -> Nx.window_min(x, window, opts) end)
    end
  end

  property "window_mean" do
    check all({x, window, opts, _} <- windowed([{:f, 32}]), max_runs: 20) do
      assert_same([x], fn [x] -> Nx.window_mean(x, window, opts) end)
    end
  end

  # BinaryBackend of Nx 0.11 forgets the padding.
  @padding_counts function_exported?(Nx, :block, 4)

  for name <- [:window_scatter_max, :window_scatter_min] do
    property "#{name}" do
      check all(
              {x, window, opts, _} <- windowed([{:f, 32}, {:s, 32}, {:u, 8}], range: {0, 5}),
              opts = if(@padding_counts, do: opts, else: Keyword.put(opts, :padding, :valid)),
              source_shape = Nx.shape(Nx.window_sum(x, window, opts)),
              source <- StreamData.bind(type([{:f, 32}, {:s, 16}]), &tensor(&1, source_shape)),
              max_runs: 60
            ) do
        assert_same([x, source], fn [x, source] ->
          Nx.unquote(name)(x, source, 0, window, opts)
        end)
      end
    end
  end
end
