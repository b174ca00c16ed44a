Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.QuantizedTest do
  # Packed numbers without Nx, against numbers worked out by hand, and what is refused before MLX.
  use NativeCase, async: true

  defp refuses(message, expression) do
    assert_raise ArgumentError, message, fn -> Native.run([expression]) end
  end

  defp words(numbers, shape), do: array(numbers, shape, :u32)
  defp floats(numbers, shape, dtype \\ :f32), do: array(numbers, shape, dtype)

  test "codes are taken from the lowest bits on" do
    # 0, 1, ... 15, twice, under the scale 0.5 and the bias -1.
    packed = words([0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98], [1, 4])

    expression =
      {:dequantize, packed, floats([0.5], [1, 1]), floats([-1.0], [1, 1]), 32, 4, "affine", :f32}

    expected = for code <- Enum.concat(0..15, 0..15), do: 0.5 * code - 1.0
    assert numbers(run(expression)) == expected

    ones = run({:full, [1, 32], 1, :f32})

    product =
      {:quantized_matmul, ones, packed, floats([0.5], [1, 1]), floats([-1.0], [1, 1]), true, 32,
       4, "affine"}

    assert numbers(run(product)) == [Enum.sum(expected)]
  end

  test "codes of 3 bits cross words" do
    # 0 to 7 four times, in three words.
    bits = for i <- 31..0//-1, into: <<>>, do: <<rem(i, 8)::3>>
    <<c::32, b::32, a::32>> = bits

    expression =
      {:dequantize, words([a, b, c], [1, 3]), floats([1.0], [1, 1]), floats([0.0], [1, 1]), 32, 3,
       "affine", :f32}

    assert numbers(run(expression)) == for(i <- 0..31, do: rem(i, 8) * 1.0)
  end

  test "quantize gives three arrays, or two" do
    x = run({:full, [2, 64], 1.5, :f32})
    assert [value, scales, biases] = Native.run([{:quantize, x, 32, 4, "affine"}])
    assert Enum.map([value, scales, biases], &Native.shape/1) == [{2, 8}, {2, 2}, {2, 2}]
    assert [value, scales] = Native.run([{:quantize, x, 16, 4, "nvfp4"}])
    assert {Native.dtype(scales), Native.shape(scales)} == {:u8, {2, 4}}

    assert numbers(run({:dequantize, value, scales, nil, 16, 4, "nvfp4", :bf16})) ==
             List.duplicate(1.5, 128)
  end

  # Blocks of Q4_0: a scale, and 32 codes with 8 for zero, of which the first half are in the low bits.
  defp blocks,
    do: for(scale <- [0.5, -2.0], do: <<scale::float-16-little, blocks_codes()::binary>>)

  defp blocks_codes, do: for(i <- 0..15, into: <<>>, do: <<15 - i::4, i::4>>)
  defp codes, do: for(i <- Enum.concat(0..15, 15..0//-1), do: i - 8)
  defp bytes(binary, shape), do: Native.from_binary(binary, shape, :u8)

  @tag :cpu
  test "blocks are taken apart as GGML has them" do
    [a, b] = blocks()
    numbers = for scale <- [0.5, -2.0], code <- codes(), do: scale * code + 0.0
    got = run({:dequantize_blocks, bytes(a <> b, [2, 18]), "q4_0", :f32})
    assert {Native.shape(got), for(x <- numbers(got), do: x + 0.0)} == {{2, 32}, numbers}
    assert Native.dtype(run({:dequantize_blocks, bytes(a <> b, [1, 36]), "q4_0", :bf16})) == :bf16

    # What is multiplied is rounded to 15 bits, of which 127 is 128 times 127.
    x = for i <- 1..32, do: i * 4.0 - 1
    product = {:blocks_matmul, floats(x, [32]), bytes(a <> b, [2, 18]), "q4_0", true}
    [first, second] = numbers(run(product))
    sum = Enum.zip_with(x, codes(), &(&1 * &2)) |> Enum.sum()
    assert {first, second} == {0.5 * sum, -2.0 * sum}

    # Rows as inputs are multiplied without rounding.
    product = {:blocks_matmul, floats([2.0, 1.0], [1, 2]), bytes(a <> b, [2, 18]), "q4_0", false}
    assert numbers(run(product)) == for(code <- codes(), do: 2.0 * 0.5 * code - 2.0 * code)
  end

  test "blocks that do not fit are refused" do
    [a, _] = blocks()
    row = bytes(a, [1, 18])
    x = {:full, [2, 32], 1, :f32}

    for {message, expression} <- [
          {~r/the type of blocks must be one of q4_0, .*, got "q9"/,
           {:dequantize_blocks, row, "q9", :f32}},
          {~r/blocks of q4_k must be u8 of rank 2 or more with rows of whole blocks of 144 bytes/,
           {:dequantize_blocks, row, "q4_k", :f32}},
          {~r/got u8 of shape \[18\]/, {:dequantize_blocks, {:reshape, row, [18]}, "q4_0", :f32}},
          {~r/got s32 of shape \[1, 18\]/,
           {:dequantize_blocks, {:astype, row, :s32}, "q4_0", :f32}},
          {~r/the type must be one of floats, got s32/, {:dequantize_blocks, row, "q4_0", :s32}},
          {~r/x must be of rank 1 or more with a last axis of 32/,
           {:blocks_matmul, {:full, [2, 31], 1, :f32}, row, "q4_0", true}},
          {~r/a last axis of 1, got shape/, {:blocks_matmul, x, row, "q4_0", false}},
          {~r/x must be of type f32, f16 or bf16, got s32/,
           {:blocks_matmul, {:astype, x, :s32}, row, "q4_0", true}},
          {~r/blocks must be a matrix, got shape \[1, 1, 18\]/,
           {:blocks_matmul, x, {:reshape, row, [1, 1, 18]}, "q4_0", true}}
        ],
        do: refuses(message, expression)
  end

  test "indices beyond a batch are the nearest in it" do
    value =
      words(
        [
          0x11111111,
          0x11111111,
          0x11111111,
          0x11111111,
          0x22222222,
          0x22222222,
          0x22222222,
          0x22222222
        ],
        [2, 1, 4]
      )

    x = floats(List.duplicate(1.0, 32), [1, 1, 32])
    scales = floats([1.0, 1.0], [2, 1, 1])

    for {index, expected} <- [{-5, 32.0}, {0, 32.0}, {1, 64.0}, {1_000_000, 64.0}] do
      expression =
        {:gather_qmm, x, value, scales, scales, array([7], [1], :s32), array([index], [1], :s64),
         true, 32, 4, "affine"}

      # The biases of one add the 32 of `x`.
      assert numbers(run(expression)) == [expected + 32.0]
    end
  end

  describe "is refused before MLX" do
    setup do
      [value, scales, biases] =
        Native.run([{:quantize, run({:full, [4, 64], 1.5, :f32}), 32, 4, "affine"}])

      %{x: run({:full, [2, 64], 1, :f32}), value: value, scales: scales, biases: biases}
    end

    test "a mode with what it lacks", %{x: x} do
      refuses(
        "quantize: mode must be affine, mxfp4, mxfp8 or nvfp4, got \"q4_0\"",
        {:quantize, x, 32, 4, "q4_0"}
      )

      refuses(
        "quantize: group_size of mode affine must be one of [32, 64, 128], got 16",
        {:quantize, x, 16, 4, "affine"}
      )

      refuses(
        "quantize: bits of mode affine must be one of [2, 3, 4, 5, 6, 8], got 7",
        {:quantize, x, 32, 7, "affine"}
      )

      refuses(
        "quantize: group_size of mode nvfp4 must be one of [16], got 0",
        {:quantize, x, 0, 4, "nvfp4"}
      )

      refuses(~r/argument 4 must be a string/, {:quantize, x, 32, 4, nil})
    end

    test "what cannot be packed", %{x: x} do
      refuses(
        ~r/quantize: x must be of type f32, f16 or bf16, got f64/,
        {:quantize, array([1], [1], :f64, :cpu), 32, 4, "affine"}
      )

      refuses(
        ~r/quantize: x must be of rank 2 or more .* got shape \[2, 64\]/,
        {:quantize, x, 128, 4, "affine"}
      )

      refuses(
        ~r/quantize: x must be of rank 2 or more/,
        {:quantize, {:reshape, x, [128]}, 32, 4, "affine"}
      )
    end

    test "packed arrays that do not fit", %{x: x, value: value, scales: scales, biases: biases} do
      product = fn value, scales, biases, bits, mode ->
        {:quantized_matmul, x, value, scales, biases, true, 32, bits, mode}
      end

      refuses(
        "quantized_matmul: a packed weight must be u32 of rank 2 or more, got f32 of shape [4, 2]",
        product.(scales, scales, biases, 4, "affine")
      )

      refuses(
        ~r/must have shape \[4, 1\], got \[4, 2\]/,
        product.(value, scales, biases, 8, "affine")
      )

      refuses(
        ~r/must hold whole groups of 32 numbers of 3 bits, got shape \[4, 8\]/,
        product.(value, scales, biases, 3, "affine")
      )

      refuses(
        "quantized_matmul: mode affine needs biases",
        product.(value, scales, nil, 4, "affine")
      )

      refuses(
        "quantized_matmul: mode affine alone has biases",
        product.(value, scales, biases, 4, "mxfp4")
      )

      refuses(
        "quantized_matmul: scales must be u8, got f32",
        product.(value, scales, nil, 4, "mxfp4")
      )

      refuses(
        "quantized_matmul: biases must be of the type of scales, f32, got f16",
        product.(value, scales, {:astype, biases, :f16}, 4, "affine")
      )

      refuses(
        ~r/biases must have shape \[4, 2\]/,
        product.(value, scales, {:reshape, biases, [8, 1]}, 4, "affine")
      )

      refuses(
        ~r/scales must be of type f32, f16 or bf16, got s32/,
        product.(value, {:astype, scales, :s32}, {:astype, biases, :s32}, 4, "affine")
      )
    end

    test "x that does not fit", %{x: x, value: value, scales: scales, biases: biases} do
      product = fn x, transpose ->
        {:quantized_matmul, x, value, scales, biases, transpose, 32, 4, "affine"}
      end

      refuses(
        ~r/x must be of rank 1 or more with a last axis of 4, got shape \[2, 64\]/,
        product.(x, false)
      )

      refuses(~r/x must be of rank 1 or more/, product.({:full, [], 1, :f32}, true))
      refuses(~r/x must be of type f32, f16 or bf16, got s32/, product.({:astype, x, :s32}, true))
      batch = {:reshape, value, [2, 2, 8]}
      factors = {:reshape, scales, [2, 2, 2]}

      refuses(
        ~r/the batches \[3\] and \[2\] do not broadcast/,
        {:quantized_matmul, {:full, [3, 1, 64], 1, :f32}, batch, factors, factors, true, 32, 4,
         "affine"}
      )

      refuses(
        ~r/x must be of rank 2 or more/,
        {:quantized_matmul, {:full, [64], 1, :f32}, batch, factors, factors, true, 32, 4,
         "affine"}
      )

      index = {:full, [3], 0, :s32}

      gather = fn value, factors, left, right ->
        {:gather_qmm, x, value, factors, factors, left, right, true, 32, 4, "affine"}
      end

      refuses(~r/the words of rank 3 or more/, gather.(value, scales, index, index))

      refuses(
        ~r/indices must be integers, got f32/,
        gather.(batch, factors, {:full, [3], 0, :f32}, index)
      )

      refuses(
        ~r/the batches \[2\] and \[3\] do not broadcast/,
        gather.(batch, factors, {:full, [2], 0, :s32}, index)
      )
    end
  end
end
