Code.require_file("support/native_case.exs", __DIR__)

defmodule Emily.Native.TypesTest do
  # Shapes, types and single numbers, in every type.
  use NativeCase, async: true

  describe "from_binary and to_binary" do
    for dtype <- NativeCase.dtypes() do
      @tag dtype: dtype
      test "give back the bytes of #{dtype}", %{dtype: dtype} do
        # Bytes that are no two alike, but for booleans, which are 0 or 1.
        top = if dtype == :bool, do: 2, else: 251
        bytes = for i <- 0..(6 * size(dtype) - 1), into: <<>>, do: <<rem(i * 7, top)>>
        array = Native.from_binary(bytes, {2, 3}, dtype, device(dtype))

        assert Native.shape(array) == {2, 3}
        assert Native.dtype(array) == dtype
        assert Native.nbytes(array) == byte_size(bytes)
        assert Native.to_binary(array) == bytes
      end

      @tag dtype: dtype
      test "take a scalar of #{dtype}", %{dtype: dtype} do
        one = :binary.copy(<<1>>, size(dtype))
        scalar = Native.from_binary(one, {}, dtype, device(dtype))
        assert {Native.shape(scalar), Native.to_binary(scalar)} == {{}, one}
      end
    end

    test "take part of a larger binary, at any place" do
      <<_::3-binary, part::binary-size(8), _::binary>> =
        whole = :binary.copy(<<1, 2, 3, 4, 5>>, 4)

      assert Native.from_binary(part, [8], :u8) |> Native.to_binary() == binary_part(whole, 3, 8)

      <<_::3, bits::bitstring-size(32), _::bitstring>> = whole
      assert is_binary(bits)
      assert Native.from_binary(bits, [1], :u32) |> Native.to_binary() == bits
    end

    test "take a shape as a list or a tuple, of any rank" do
      for rank <- 0..12 do
        shape = List.duplicate(1, rank)
        assert Native.from_binary(<<7>>, shape, :u8) |> Native.shape() == List.to_tuple(shape)
        assert Native.from_binary(<<7>>, List.to_tuple(shape), :u8) |> Native.item() == 7
      end
    end
  end

  describe "to_binary is row-major" do
    setup do
      %{x: array(Enum.to_list(0..23), [2, 3, 4], :s32)}
    end

    test "after a transposition", %{x: x} do
      wanted = for j <- 0..3, i <- 0..1, k <- 0..2, do: i * 12 + k * 4 + j
      assert numbers({:transpose, x, [2, 0, 1]}) == wanted
    end

    test "after a slice", %{x: x} do
      wanted = for i <- 0..1, k <- [1], j <- [1, 3], do: i * 12 + k * 4 + j
      assert numbers({:slice, x, [0, 1, 1], [2, 2, 4], [1, 1, 2]}) == wanted
    end

    test "after a flip", %{x: x} do
      assert numbers({:flip, x, [0, 1, 2]}) == Enum.to_list(23..0//-1)
    end

    test "after a broadcast", %{x: x} do
      row = run({:slice, x, [0, 0, 0], [1, 1, 4], [1, 1, 1]})
      broad = run({:broadcast_to, row, [2, 3, 4]})
      assert numbers(broad) == List.flatten(List.duplicate([0, 1, 2, 3], 6))
      # Also where it was computed before it is read.
      assert Native.eval(broad) == :ok
      assert numbers(broad) == List.flatten(List.duplicate([0, 1, 2, 3], 6))
    end

    test "of views as large as binaries that refer to memory" do
      x = array(Enum.to_list(0..9999), [100, 100], :s32)
      transposed = run({:transpose, x, [1, 0]})
      wanted = for j <- 0..99, i <- 0..99, do: i * 100 + j

      # Twice: uncomputed, and computed.
      assert numbers(transposed) == wanted
      assert numbers(transposed) == wanted
      assert numbers({:slice, x, [50, 0], [100, 100], [1, 1]}) == Enum.to_list(5000..9999)
    end
  end

  describe "item" do
    test "of whole numbers, at the ends of their types" do
      for {dtype, low, high} <- [
            {:u8, 0, 255},
            {:u16, 0, 65_535},
            {:u32, 0, 4_294_967_295},
            {:u64, 0, 18_446_744_073_709_551_615},
            {:s8, -128, 127},
            {:s16, -32_768, 32_767},
            {:s32, -2_147_483_648, 2_147_483_647},
            {:s64, -9_223_372_036_854_775_808, 9_223_372_036_854_775_807},
            {:bool, 0, 1}
          ],
          value <- [low, high] do
        assert {dtype, Native.item(scalar(value, dtype))} == {dtype, value}
        assert {dtype, Native.item(run({:full, [1, 1], value, dtype}))} == {dtype, value}
      end
    end

    test "of floats, and of what is not finite" do
      for dtype <- [:f16, :bf16, :f32, :f64],
          value <- [0.0, -1.5, 2.0, :nan, :infinity, :neg_infinity] do
        assert {dtype, Native.item(array([value], [1], dtype))} == {dtype, value}

        assert {dtype, Native.item(run({:full, [], value, dtype}, device(dtype)))} ==
                 {dtype, value}
      end

      # The greatest finite numbers, and NaN with other bits.
      assert Native.item(Native.from_binary(<<0x7BFF::16-native>>, [], :f16)) == 65_504.0
      assert Native.item(Native.from_binary(<<0xFC01::16-native>>, [], :f16)) == :nan
      assert Native.item(Native.from_binary(<<0xFF81::16-native>>, [], :bf16)) == :nan
      assert Native.item(Native.from_binary(<<0x7F800001::32-native>>, [], :f32)) == :nan
      assert Native.item(Native.from_binary(<<1::32-native>>, [], :f32)) == 2 ** -149
    end

    test "of complex numbers" do
      assert Native.item(array([{1.5, -2.0}], [], :c64)) == {1.5, -2.0}
      assert Native.item(array([{:nan, :neg_infinity}], [1], :c64)) == {:nan, :neg_infinity}
    end

    test "computes what is not computed" do
      assert Native.item(run({:add, scalar(1.0), scalar(2.0)})) == 3.0
    end

    test "of several elements or none raises" do
      for shape <- [[2], [1, 2]] do
        assert_raise ArgumentError, ~r/one element/, fn ->
          Native.item(run({:full, shape, 0, :f32}))
        end
      end
    end
  end

  # What MLX documents, which is not NumPy's: an integer gives way to any float.
  describe "two types" do
    for {a, b, common} <- [
          {:bool, :bool, :bool},
          {:bool, :u8, :u8},
          {:u8, :s8, :s16},
          {:u8, :u16, :u16},
          {:u16, :s16, :s32},
          {:u32, :s32, :s64},
          {:s8, :s64, :s64},
          {:s64, :f16, :f16},
          {:s32, :bf16, :bf16},
          {:u64, :f32, :f32},
          {:f16, :bf16, :f32},
          {:f16, :f32, :f32},
          {:bf16, :f32, :f32},
          {:f32, :f64, :f64},
          {:f32, :c64, :c64},
          {:s64, :c64, :c64}
        ] do
      @tag types: {a, b, common}
      test "#{a} and #{b} meet in #{common}", %{types: {a, b, common}} do
        for {a, b} <- [{a, b}, {b, a}] do
          sum = run({:maximum, scalar(1, a), scalar(0, b)}, device(common))
          assert Native.dtype(sum) == common
          assert Native.item(sum) in [1, 1.0, {1.0, 0.0}]
        end
      end
    end
  end

  describe "sums" do
    test "of narrow integers are wide enough" do
      for dtype <- [:u8, :s8, :u16, :s16, :bool] do
        ones = run({:full, [70_000], 1, dtype})
        assert {dtype, Native.item(run({:sum, ones, [0], false}))} == {dtype, 70_000}
      end
    end

    test "of 64-bit integers are exact" do
      big = array([9_007_199_254_740_993, 1], [2], :s64)
      assert Native.item(run({:sum, big, [0], false})) == 9_007_199_254_740_994
    end
  end
end
