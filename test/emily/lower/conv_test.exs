defmodule Emily.Lower.ConvTest do
  use Emily.BackendCase, async: true

  defp convolution(types, spatial, opts \\ []) do
    small = StreamData.integer(1..2)

    gen all(
          type <- type(types),
          other <- type(types),
          groups <- StreamData.member_of(opts[:groups] || [1]),
          channels <- small,
          outputs <- small,
          batch <- small,
          dims <- StreamData.list_of(StreamData.integer(3..5), length: spatial),
          kernel <- StreamData.list_of(StreamData.integer(1..2), length: spatial),
          strides <- StreamData.list_of(small, length: spatial),
          input_dilation <- StreamData.list_of(small, length: spatial),
          kernel_dilation <- StreamData.list_of(small, length: spatial),
          pads <-
            StreamData.list_of(
              StreamData.tuple({StreamData.integer(0..2), StreamData.integer(0..2)}),
              length: spatial
            ),
          padding <- StreamData.member_of([:valid, :same, pads]),
          x <- tensor(type, List.to_tuple([batch, channels * groups | dims])),
          k <- tensor(other, List.to_tuple([outputs * groups, channels | kernel]))
        ) do
      {x, k,
       strides: strides,
       padding: padding,
       input_dilation: input_dilation,
       kernel_dilation: kernel_dilation,
       feature_group_size: groups}
    end
  end

  @types [{:f, 32}, {:s, 32}, {:u, 8}]

  for spatial <- 1..3 do
    property "#{spatial} spatial axes: strides, padding, dilations and groups" do
      check all(
              {x, k, opts} <- convolution(@types, unquote(spatial), groups: [1, 2]),
              max_runs: 40
            ) do
        assert_same([x, k], fn [x, k] -> Nx.conv(x, k, opts) end, tolerance: 2.0e-5)
      end
    end
  end

  property "half precision, double precision and complex numbers" do
    types = (floats() -- [{:f, 32}]) ++ [{:c, 64}]

    check all(
            {x, k, opts} <- convolution(types, 2),
            Enum.sort([x.type, k.type]) != [{:c, 64}, {:f, 64}],
            max_runs: 40
          ) do
      assert_same([x, k], fn [x, k] -> Nx.conv(x, k, opts) end, accumulates: true)
    end
  end

  property "groups of the batch" do
    check all(
            x <- tensor({:f, 32}, {4, 3, 5}),
            k <- tensor({:f, 32}, {8, 3, 2}),
            groups <- StreamData.member_of([2, 4]),
            max_runs: 10
          ) do
      assert_same([x, k], fn [x, k] -> Nx.conv(x, k, batch_group_size: groups) end,
        tolerance: 2.0e-5
      )
    end
  end

  property "permuted axes" do
    check all(
            x <- tensor({:f, 32}, {2, 4, 5, 3}),
            k <- tensor({:f, 32}, {2, 2, 3, 4}),
            output <- StreamData.map(StreamData.constant([0, 1, 2, 3]), &Enum.shuffle/1),
            max_runs: 20
          ) do
      opts = [
        input_permutation: [0, 3, 1, 2],
        kernel_permutation: [3, 2, 0, 1],
        output_permutation: output
      ]

      assert_same([x, k], fn [x, k] -> Nx.conv(x, k, opts) end, tolerance: 2.0e-5)
    end
  end

  @tag :f64
  property "four spatial axes" do
    check all(
            {x, k, opts} <-
              convolution([{:f, 32}, {:f, 64}, {:c, 64}, {:s, 32}], 4, groups: [1, 2]),
            Enum.sort([x.type, k.type]) != [{:c, 64}, {:f, 64}],
            max_runs: 8
          ) do
      assert_same([x, k], fn [x, k] -> Nx.conv(x, k, opts) end, tolerance: 2.0e-5)
    end
  end

  @tag :f64
  property "sums of integers are exact before they are rounded to f32" do
    check all(
            type <- type(integers()),
            other <- type(integers()),
            groups <- StreamData.member_of([1, 2]),
            x <- tensor(type, {2, 2 * groups, 4, 3}, range: within(type)),
            k <- tensor(other, {2 * groups, 2, 2, 2}, range: within(other)),
            max_runs: 60
          ) do
      opts = [feature_group_size: groups, padding: :same]
      assert_same([x, k], fn [x, k] -> Nx.conv(x, k, opts) end, tolerance: 1.3e-7)
    end
  end

  # Beyond 64 bits a sum is one of f64, whose rounding is relative to its terms.
  defp within({_, 64}), do: {-268_435_456, 268_435_456}
  defp within(_type), do: :full

  test "what cancels in integers leaves the exact rest" do
    x = Nx.tensor([[[2_147_483_647, 1, 2_147_483_647]]])
    k = Nx.tensor([[[2_147_483_647, 1, -2_147_483_647]]])
    on_mlx = Nx.conv(on_emily(x), on_emily(k))
    assert Nx.to_flat_list(on_mlx) == [1.0]
  end

  test "vectorised axes and groups of the batch in three axes" do
    x = Nx.iota({4, 2, 3, 3, 3}, type: :f32)
    k = Nx.iota({4, 2, 2, 2, 2}, type: :f32)
    assert_same([x, k], fn [x, k] -> Nx.conv(x, k, batch_group_size: 2) end)

    assert_same([x, k], fn [x, k] ->
      Nx.conv(Nx.vectorize(Nx.new_axis(x, 1), :v), Nx.vectorize(Nx.new_axis(k, 1), :v))
    end)
  end

  @tag :f64
  test "negative padding cuts" do
    x = Nx.iota({1, 1, 6, 6}, type: :f32)
    k = Nx.iota({1, 1, 2, 2}, type: :f32)
    opts = [padding: [{-1, 0}, {1, -2}], input_dilation: [1, 2]]
    assert_same([x, k], fn [x, k] -> Nx.conv(x, k, opts) end)

    x = Nx.as_type(x, :f64)
    assert_same([x, k], fn [x, k] -> Nx.conv(x, k, opts) end)
  end
end
