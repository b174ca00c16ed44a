defmodule Emily.Lower.WindowTest do
  use Emily.BackendCase, async: true

  # A tensor, a window within it, and options.
  defp windowed(types, opts \\ []) do
    gen all(
          type <- type(types),
          dims <- StreamData.list_of(StreamData.integer(4..6), min_length: 1, max_length: 3),
          rank = length(dims),
          window <- StreamData.list_of(StreamData.integer(1..2), length: rank),
          strides <- StreamData.list_of(StreamData.integer(1..3), length: rank),
          dilations <- StreamData.list_of(StreamData.integer(1..2), length: rank),
          pads <-
            StreamData.list_of(
              StreamData.tuple({StreamData.integer(-1..1), StreamData.integer(0..2)}),
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

        assert_same(
          [x],
          fn [x] -> Nx.unquote(name)(x, window, opts) end,
          accumulates: true
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

  # Widths of each kind of division into parts, with what else decides it.
  property "wide windows" do
    check all(
            type <- type(real_types() ++ [{:c, 64}]),
            width <- StreamData.integer(1..17),
            dilation <- StreamData.integer(1..3),
            stride <- StreamData.member_of([1, 2, 5, width]),
            low <- StreamData.integer(-3..3),
            high <- StreamData.integer(-3..3),
            reach = (width - 1) * dilation + 1,
            size <- StreamData.integer(max(reach - low - high, 7)..60),
            across <- StreamData.member_of([0, 1]),
            x <- tensor(type, put_elem({2, 2}, across, size), range: {-3, 3}),
            max_runs: 150
          ) do
      along = &put_elem(&1, across, &2)

      opts = [
        strides: {1, 1} |> along.(stride) |> Tuple.to_list(),
        window_dilations: {1, 1} |> along.(dilation) |> Tuple.to_list(),
        padding: {{0, 0}, {0, 0}} |> along.({low, high}) |> Tuple.to_list()
      ]

      window = along.({1, 1}, width)
      assert_same([x], &Nx.window_sum(hd(&1), window, opts), accumulates: true)

      unless match?({:c, _}, type) do
        assert_same([x], &Nx.window_max(hd(&1), window, opts))
        assert_same([x], &Nx.window_min(hd(&1), window, opts))
      end
    end
  end

  # These sizes are beyond what an operation costs to start, so that parts are shared.
  test "windows over long axes" do
    rows = for row <- 0..2, do: for(at <- 0..8999, do: rem((row * 9000 + at) * 7919, 101))
    across = Nx.tensor(rows, backend: Emily.Backend)
    down = Nx.transpose(across)

    for width <- [7, 8, 9, 13, 16], dilation <- [1, 2] do
      windows =
        for row <- rows do
          row
          |> Enum.chunk_every((width - 1) * dilation + 1, 1, :discard)
          |> Enum.map(&Enum.take_every(&1, dilation))
        end

      for {name, of_numbers} <- [window_sum: &Enum.sum/1, window_max: &Enum.max/1] do
        expected = Enum.map(windows, &Enum.map(&1, of_numbers))
        of_rows = apply(Nx, name, [across, {1, width}, [window_dilations: [1, dilation]]])
        of_columns = apply(Nx, name, [down, {width, 1}, [window_dilations: [dilation, 1]]])
        assert Nx.to_list(of_rows) == expected
        assert Nx.to_list(Nx.transpose(of_columns)) == expected
      end
    end
  end

  test "window_sum of half-precision floats accumulates in f32" do
    for type <- [:f16, :bf16] do
      x = Nx.broadcast(Nx.tensor(1, type: type, backend: Emily.Backend), {4096})
      assert x |> Nx.window_sum({4096}) |> Nx.to_flat_list() == [4096.0]
      least = x |> Nx.window_sum({3000}) |> Nx.reduce_min() |> Nx.to_number()
      assert abs(least - 3000) <= 8
    end
  end

  # In f32 each addition rounds, and what is left of numbers that cancel each other has few of their digits.
  @tag :f64
  test "window_sum of complex numbers rounds once" do
    numbers = for at <- 1..96, do: Complex.new(:math.sin(at * at) * 1.0e3, :math.cos(at) * at)
    x = numbers |> Nx.tensor(type: :c64) |> Nx.reshape({4, 6, 4})
    [e] = on_emily([x])

    for {window, opts} <- [
          {{2, 4, 1}, [padding: [{0, 1}, {1, 2}, {0, 0}], strides: [1, 2, 2]]},
          {{4, 6, 4}, []},
          {{1, 3, 2}, [padding: :same, window_dilations: [1, 2, 1]]},
          {{2, 2, 2}, [padding: [{-1, 2}, {0, -1}, {1, 1}], strides: [2, 1, 1]]}
        ] do
      exact = x |> Nx.as_type(:c128) |> Nx.window_sum(window, opts) |> Nx.as_type(:c64)
      assert Nx.to_flat_list(Nx.window_sum(e, window, opts)) == Nx.to_flat_list(exact)
      assert_same([x], &Nx.window_mean(hd(&1), window, opts), tolerance: 1.0e-6)
    end

    zero = Nx.tensor([Complex.new(-0.0, -0.0)], backend: Emily.Backend)
    assert zero |> Nx.window_sum({1}) |> Nx.to_binary() == <<0::64>>
  end

  @tag :f64
  test "windows of f64 do not depend on how a tensor lies" do
    numbers = for at <- 1..210, do: :math.sin(at * at) * at
    [e] = on_emily([numbers |> Nx.tensor(type: :f64) |> Nx.reshape({5, 6, 7})])

    for {view, name} <- [
          {&Nx.reverse(&1), "reverse"},
          {&Nx.transpose(&1, axes: [0, 2, 1]), "transpose"},
          {& &1[[0..4, 0..5, 1..6]], "slice"}
        ],
        window <- [{1, 6, 1}, {5, 6, 6}, {1, 4, 5}, {2, 2, 2}],
        strides <- [[1, 1, 1], Tuple.to_list(window)],
        fun <- [&Nx.window_sum/3, &Nx.window_product/3] do
      viewed = view.(e)
      [copy] = viewed |> Nx.backend_copy(Nx.BinaryBackend) |> List.wrap() |> on_emily()
      [one, other] = for x <- [viewed, copy], do: fun.(x, window, strides: strides)
      assert Nx.to_binary(one) == Nx.to_binary(other), name
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
              {x, window, opts, _} <-
                windowed([{:f, 32}, {:bf, 16}, {:s, 32}, {:u, 8}, {:u, 64}, {:s, 16}],
                  range: {0, 5}
                ),
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

    if @padding_counts do
      test "#{name} with negative padding" do
        x = Nx.tensor([[5, 2, 9, 1], [3, 7, 4, 8], [6, 0, 2, 5], [1, 3, 7, 2]])
        source = Nx.tensor([[10, 20]])
        opts = [strides: [2, 2], padding: [{-1, -1}, {-1, 1}]]

        assert_same([x, source], fn [x, source] ->
          Nx.unquote(name)(x, source, 4, {2, 2}, opts)
        end)
      end
    end
  end

  property "window_scatter of what is not finite" do
    check all(
            {x, window, opts, _} <- windowed([{:f, 32}, {:f, 16}], special: true),
            opts = Keyword.put(opts, :padding, :valid),
            source <- tensor({:f, 32}, Nx.shape(Nx.window_sum(x, window, opts))),
            max_runs: 60
          ) do
      for scatter <- [&Nx.window_scatter_max/5, &Nx.window_scatter_min/5] do
        assert_same(
          [x, source],
          fn [x, source] -> scatter.(x, source, 0, window, opts) end,
          tolerance: 5.0e-3
        )
      end
    end
  end
end
