defmodule Emily.DeviceTest do
  # What MLX lacks or gets wrong on a GPU, on the default device.
  use Emily.BackendCase, async: true

  @wide [{:s, 64}, {:u, 64}, {:c, 64}]
  @narrow [{:s, 32}, {:u, 8}, {:f, 32}, {:f, 16}, {:bf, 16}]

  defp emily(tensor), do: Nx.backend_copy(tensor, Emily.Backend)
  defp on_binary(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  describe "scattered updates" do
    for type <- @wide ++ @narrow do
      test "of #{inspect(type)} are those of Nx.BinaryBackend" do
        type = unquote(Macro.escape(type))
        target = Nx.iota({3, 4}, type: type)
        elements = Nx.tensor([[0, 1], [2, 3], [0, 1], [1, 0], [2, 3], [0, 1]])
        numbers = Nx.tensor([10, 20, 30, 40, 50, 60], type: type)
        rows = Nx.tensor([[2], [0], [2]])
        slices = Nx.iota({3, 4}, type: type) |> Nx.add(5)

        for {indices, updates, opts} <- [{elements, numbers, []}, {rows, slices, [axes: [0]]}],
            fun <- [&Nx.indexed_add/4, &Nx.indexed_put/4] do
          got = fun.(emily(target), emily(indices), emily(updates), opts)
          assert on_binary(got) == fun.(target, indices, updates, opts)
        end
      end
    end

    test "sums of 64-bit integers have all their bits" do
      big = 0x7FFF_FFFF_0000_0001
      updates = Nx.tensor([big, 2, 3], type: :s64)
      got = Nx.indexed_add(emily(Nx.tensor([4, 5])), Nx.tensor([[1], [1], [0]]), emily(updates))
      assert Nx.to_list(got) == [7, big + 7]
    end

    test "of many updates of one element the last is kept" do
      indices = {20_000, 1} |> Nx.iota() |> Nx.remainder(7)
      got = Nx.indexed_put(emily(Nx.broadcast(0, {7})), indices, Nx.iota({20_000}))
      # 20,000 is 7 * 2857 + 1.
      assert Nx.to_list(got) == [19_999, 19_993, 19_994, 19_995, 19_996, 19_997, 19_998]
    end
  end

  describe "rotary embeddings" do
    for type <- [{:f, 32}, {:bf, 16}],
        shape <- [{2, 3, 5, 8}, {2, 3, 1, 8}, {1, 1, 1, 8}, {2, 5, 10}],
        traditional <- [false, true] do
      test "of #{inspect(type)} #{inspect(shape)} by negative positions, traditional: #{traditional}" do
        shape = unquote(Macro.escape(shape))
        type = unquote(Macro.escape(type))
        x = shape |> Nx.iota(type: :f32) |> Nx.sin() |> Nx.as_type(type)
        options = [dims: 8, traditional: unquote(traditional)]
        table = Nx.tensor([1.0, 0.1, 0.01, 0.001])

        for offset <- [Nx.tensor(-3), Nx.tensor(3), Nx.broadcast(Nx.tensor(-9), {elem(shape, 0)})] do
          got = Emily.Fast.rope(emily(x), emily(offset), options)
          assert_near(got, Emily.Fast.rope(x, offset, options), type)

          same = Nx.broadcast(emily(Nx.tensor(-2)), {elem(shape, 0)})
          expected = Emily.Fast.rope(x, on_binary(same), options)
          assert_near(Emily.Fast.rope(emily(x), same, options), expected, type)

          got = Emily.Fast.rope_with_freqs(emily(x), emily(offset), emily(table), options)
          assert_near(got, Emily.Fast.rope_with_freqs(x, offset, table, options), type)
        end
      end
    end
  end

  describe "activations and gates" do
    for type <- [{:f, 32}, {:f, 16}, {:bf, 16}], shape <- [{7}, {3, 5, 1, 2}, {2, 300}] do
      test "of #{inspect(type)} #{inspect(shape)}" do
        type = unquote(Macro.escape(type))
        count = Tuple.product(unquote(Macro.escape(shape)))
        of = fn scale -> Nx.iota({count}) |> Nx.multiply(scale) |> Nx.sin() |> Nx.multiply(4) end

        [gate, up] =
          for s <- [0.7, 1.3],
              do: Nx.as_type(Nx.reshape(of.(s), unquote(Macro.escape(shape))), type)

        exact = fn tensor -> Nx.as_type(tensor, :f64) end

        for {fun, activation} <- [
              {&Emily.Fast.swiglu/2, &Nx.multiply(&1, Nx.sigmoid(&1))},
              {&Emily.Fast.geglu/2, &gelu/1}
            ] do
          expected = gate |> exact.() |> activation.() |> Nx.multiply(exact.(up))
          assert_near(fun.(emily(gate), emily(up)), expected, type)
          assert_near(fun.(emily(gate), Nx.reverse(emily(Nx.reverse(up)))), expected, type)
        end

        assert_near(Emily.Fast.gelu(emily(gate)), gelu(exact.(gate)), type)
      end
    end
  end

  defp gelu(x),
    do: x |> Nx.divide(:math.sqrt(2)) |> Nx.erf() |> Nx.add(1) |> Nx.multiply(Nx.divide(x, 2))

  test "a row of bf16 that sees no key is the mean of the values" do
    for queries <- [1, 2, 5], size <- [32, 64, 128] do
      of = fn count, seed ->
        {1, 2, count, size}
        |> Nx.iota(type: :f32)
        |> Nx.multiply(seed)
        |> Nx.sin()
        |> Nx.as_type(:bf16)
      end

      [q, k, v] = [of.(queries, 1.7), of.(7, 2.3), of.(7, 0.9)]
      mask = Nx.broadcast(Nx.Constants.min_finite(:bf16), {1, 1, queries, 7})

      got =
        Emily.Fast.scaled_dot_product_attention_with_mask(
          emily(q),
          emily(k),
          emily(v),
          emily(mask)
        )

      mean = v |> Nx.as_type(:f32) |> Nx.mean(axes: [2], keep_axes: true)
      assert_near(got, Nx.broadcast(mean, q.shape), {:bf, 16})
    end
  end

  test "sums of 16-bit floats are taken in f32" do
    for type <- [{:bf, 16}, {:f, 16}], {shape, axes} <- [{{40, 1030}, [1]}, {{4097}, [0]}] do
      # All sums are numbers of both types but for 4097 and 1030, which round to even.
      one = emily(Nx.broadcast(Nx.tensor(1, type: type), shape))
      columns = elem(shape, hd(axes))
      sums = Nx.sum(Nx.as_type(Nx.multiply(one, 1), type), axes: axes) |> Nx.to_flat_list()
      nearest = Nx.tensor(columns * 1.0) |> round_to(type)
      assert Enum.uniq(sums) == [nearest]
    end

    long = Nx.broadcast(Nx.tensor(0.5, type: :bf16), {1000, 100}) |> emily()

    assert long |> Nx.reshape({100_000}) |> Nx.multiply(1) |> Nx.sum() |> Nx.to_number() ==
             49_920.0
  end

  # The nearest number, by hand: bf16 has 8 bits, f16 has 11.
  defp round_to(tensor, type) do
    bits = if type == {:bf, 16}, do: 8, else: 11
    number = Nx.to_number(tensor)
    unit = :math.pow(2, floor(:math.log2(number)) + 1 - bits)
    even(number / unit) * unit
  end

  defp even(number) do
    case {trunc(number), number - trunc(number)} do
      {whole, 0.5} when rem(whole, 2) == 0 -> whole
      {_whole, _} -> round(number)
    end
  end

  defp assert_near(got, expected, type) do
    limit = if type == {:f, 32}, do: 1.0e-6, else: 1.0e-2
    [got, expected] = for x <- [on_binary(got), expected], do: Nx.as_type(x, :f32)
    greatest = expected |> Nx.abs() |> Nx.reduce_max() |> Nx.max(1)

    difference =
      got |> Nx.subtract(expected) |> Nx.abs() |> Nx.reduce_max() |> Nx.divide(greatest)

    assert Nx.to_number(difference) <= limit
  end
end
