defmodule Emily.QuantizedWeightTest do
  use Emily.PackedCase, async: true

  doctest Emily.QuantizedWeight

  alias Emily.QuantizedWeight

  setup do
    Nx.default_backend(Emily.Backend)
    :ok
  end

  defp describe_case(packed),
    do: "#{packed.type} #{packed.mode} #{packed.bits} bits, groups of #{packed.group}"

  # A GPU multiplies and adds in one step where a number is `scale * code + bias`, which NumPy rounds twice.
  defp delta(%{type: :f32, mode: "affine"}, numbers) do
    case Emily.Native.default_device() do
      :cpu -> 0.0
      _gpu -> 2.0 ** -23 * (numbers |> Enum.map(&abs/1) |> Enum.max())
    end
  end

  defp delta(_packed, _numbers), do: 0.0

  for backend <- [Emily.Backend, Nx.BinaryBackend] do
    test "packs as MLX does, from #{inspect(backend)}" do
      for packed <- cases() do
        weight =
          packed.type
          |> dense(unquote(backend))
          |> QuantizedWeight.from_dense(
            mode: packed.mode,
            bits: packed.bits,
            group_size: packed.group
          )

        expected = weight(packed, Nx.BinaryBackend)

        for field <- [:value, :scales, :biases] do
          {got, wanted} = {Map.fetch!(weight, field), Map.fetch!(expected, field)}
          assert {got.type, got.shape} == {wanted.type, wanted.shape}
          assert Nx.to_binary(got) == Nx.to_binary(wanted), "#{field} of #{describe_case(packed)}"
        end
      end
    end

    test "has NumPy's numbers, on #{inspect(backend)}" do
      # The composed forms' constants too.
      Nx.default_backend(unquote(backend))

      for packed <- cases(), weight = weight(packed, unquote(backend)) do
        type = if packed.mode == "affine", do: packed.type, else: :f32
        wanted = packed |> unpacked() |> Nx.backend_copy(unquote(backend)) |> Nx.as_type(type)

        for numbers <- [
              QuantizedWeight.to_dense(weight),
              Nx.Defn.jit_apply(&QuantizedWeight.to_dense/1, [weight]),
              Nx.Defn.jit_apply(&Emily.Quantization.dequantize_defn/1, [weight])
            ] do
          assert numbers.type == wanted.type
          {numbers, wanted} = {Nx.to_flat_list(numbers), Nx.to_flat_list(wanted)}

          for {number, expected} <- Enum.zip(numbers, wanted),
              do: assert_in_delta(number, expected, delta(packed, wanted), describe_case(packed))
        end
      end
    end
  end

  test "every bit pattern of the small floats" do
    # All codes of 8 bits under the scale one; all scales of both kinds over the code of one. A GPU has NaN for some.
    Nx.default_backend({Emily.Backend, device: :cpu})
    all = Nx.iota({256}, type: :u8)
    words = fn bytes -> bytes |> Nx.to_binary() |> Nx.from_binary(:u32) end

    codes = %QuantizedWeight{
      value: all |> words.() |> Nx.reshape({8, 8}),
      scales: Nx.broadcast(Nx.u8(127), {8, 1}),
      biases: Nx.u8(0),
      group_size: 32,
      bits: 8,
      mode: "mxfp8"
    }

    e4m3 =
      for <<sign::1, exponent::4, mantissa::3 <- Enum.into(0..255, <<>>, &<<&1>>)>> do
        size =
          if exponent == 0,
            do: mantissa / 8 * 2 ** -6,
            else: (1 + mantissa / 8) * 2.0 ** (exponent - 7)

        if sign == 1, do: -size, else: size
      end

    assert codes |> QuantizedWeight.to_dense() |> Nx.to_flat_list() == e4m3
    on_elixir = Nx.backend_copy(codes, Nx.BinaryBackend)
    assert on_elixir |> QuantizedWeight.to_dense() |> Nx.to_flat_list() == e4m3

    ones = %{
      codes
      | value: Nx.broadcast(Nx.u32(0x38383838), {256, 8}),
        scales: Nx.new_axis(all, -1)
    }

    powers = for(exponent <- 0..254, do: 2.0 ** (exponent - 127)) ++ [:infinity]

    assert ones
           |> QuantizedWeight.to_dense()
           |> Nx.slice_along_axis(0, 1, axis: 1)
           |> Nx.to_flat_list() == powers
  end

  test "batches of weights, of an odd number of groups too" do
    w = Nx.iota({3, 2, 5, 16}, type: :f32) |> Nx.sin()

    weight = QuantizedWeight.from_dense(w, mode: "nvfp4")
    assert Nx.shape(weight.value) == {3, 2, 5, 2}
    dense = QuantizedWeight.to_dense(weight)
    assert Nx.shape(dense) == {3, 2, 5, 16}
    assert dense |> Nx.subtract(w) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() < 0.2

    # One group alone.
    weight = QuantizedWeight.from_dense(Nx.broadcast(1.5, {1, 16}), mode: "nvfp4")
    assert weight |> QuantizedWeight.to_dense() |> Nx.to_flat_list() == List.duplicate(1.5, 16)
  end

  test "weights so small that their scale has no exponent stay near zero" do
    w = Nx.broadcast(Nx.tensor(1.0e-41), {1, 32})

    for mode <- ["mxfp4", "mxfp8"] do
      dense = w |> QuantizedWeight.from_dense(mode: mode) |> QuantizedWeight.to_dense()
      assert dense |> Nx.reduce_max() |> Nx.to_number() <= 2.0e-41
    end
  end

  test "is a container that stays what it is" do
    weight = QuantizedWeight.from_dense(Nx.iota({4, 64}, type: :bf16), bits: 8, transpose: false)
    text = inspect(weight)
    assert text =~ "Emily.QuantizedWeight" and text =~ "bits: 8" and text =~ "u32"

    kept = fn weight -> {weight.group_size, weight.bits, weight.transpose, weight.mode} end

    bits = fn weight ->
      for t <- [weight.value, weight.scales, weight.biases], do: Nx.to_binary(t)
    end

    expected = {kept.(weight), bits.(weight)}

    read = weight |> Nx.serialize() |> IO.iodata_to_binary() |> Nx.deserialize()
    assert {kept.(read), bits.(read)} == expected
    moved = Nx.backend_copy(weight, Nx.BinaryBackend)
    assert %Nx.BinaryBackend{} = moved.value.data
    assert {kept.(moved), bits.(moved)} == expected
    back = Nx.backend_transfer(moved, Emily.Backend)
    assert %Emily.Backend{} = back.scales.data
    assert {kept.(back), bits.(back)} == expected
    jitted = Nx.Defn.jit_apply(&Function.identity/1, [weight], compiler: Emily.Compiler)
    assert {kept.(jitted), bits.(jitted)} == expected
  end

  describe "refuses" do
    defp refuses(message, fun), do: assert_raise(ArgumentError, message, fun)

    test "groups and bits that a mode lacks" do
      w = Nx.iota({2, 128}, type: :f32)
      pack = &QuantizedWeight.from_dense(w, &1)

      refuses(
        ~r/from_dense\/2 expects group_size of mode "affine" to be 32, 64, 128, got: 16/,
        fn -> pack.(group_size: 16) end
      )

      refuses(~r/expects bits of mode "affine" to be 2, 3, 4, 5, 6, 8, got: 7/, fn ->
        pack.(bits: 7)
      end)

      refuses(~r/expects group_size of mode "mxfp4" to be 32, got: 64/, fn ->
        pack.(mode: "mxfp4", group_size: 64)
      end)

      refuses(~r/expects bits of mode "mxfp8" to be 8, got: 4/, fn ->
        pack.(mode: "mxfp8", bits: 4)
      end)

      refuses(~r/expects bits of mode "nvfp4" to be 4, got: 8/, fn ->
        pack.(mode: "nvfp4", bits: 8)
      end)

      refuses(~r/expects mode to be one of .*got: :affine/, fn -> pack.(mode: :affine) end)

      refuses(~r/expects transpose to be true or false, got: nil/, fn -> pack.(transpose: nil) end)

      refuses(~r/has no option :group/, fn -> pack.(group: 32) end)
    end

    @tag :f64
    test "weights of f64" do
      refuses(~r/expects w of type f32, f16 or bf16, got .* type f64/, fn ->
        QuantizedWeight.from_dense(Nx.iota({2, 64}, type: :f64))
      end)
    end

    test "weights of other types, ranks and sizes" do
      refuses(~r/expects w of type f32, f16 or bf16, got shape \{2, 64\} and type s32/, fn ->
        QuantizedWeight.from_dense(Nx.iota({2, 64}))
      end)

      refuses(~r/expects w of rank 2 or more, got shape \{64\}/, fn ->
        QuantizedWeight.from_dense(Nx.iota({64}, type: :f32))
      end)

      refuses(
        ~r/expects the last axis of w to be a multiple of group_size 64, got shape \{64, 2\}/,
        fn ->
          QuantizedWeight.from_dense(Nx.iota({64, 2}, type: :f32))
        end
      )

      refuses(~r/does not take a vectorized w/, fn ->
        Nx.iota({2, 2, 64}, type: :f32) |> Nx.vectorize(:b) |> QuantizedWeight.from_dense()
      end)

      refuses(~r/expects w to be a tensor, got: 1.0/, fn -> QuantizedWeight.from_dense(1.0) end)

      refuses(~r/outside of defn/, fn ->
        Nx.Defn.jit_apply(&QuantizedWeight.from_dense/1, [Nx.iota({2, 64}, type: :f32)])
      end)
    end

    test "numbers that are not finite" do
      for number <- [:nan, :infinity, :neg_infinity], mode <- ["affine", "mxfp4"] do
        w =
          Nx.iota({2, 64}, type: :f32)
          |> Nx.indexed_put(Nx.tensor([[1, 3]]), Nx.tensor([number], type: :f32))

        refuses(~r/expects w to have finite numbers only/, fn ->
          QuantizedWeight.from_dense(w, mode: mode)
        end)
      end
    end

    test "tensors that do not fit each other" do
      weight = QuantizedWeight.from_dense(Nx.iota({2, 128}, type: :f32))
      dense = fn changes -> QuantizedWeight.to_dense(struct!(weight, changes)) end

      refuses(~r/to_dense\/1 expects scales of shape \{2, 4\}, got shape \{2, 2\}/, fn ->
        dense.(group_size: 32)
      end)

      refuses(~r/expects scales of shape \{2, 1\}/, fn -> dense.(bits: 8) end)
      refuses(~r/expects value of type u32/, fn -> dense.(value: Nx.iota({2, 16})) end)

      refuses(~r/expects biases of the type of scales/, fn ->
        dense.(biases: Nx.as_type(weight.biases, :f16))
      end)

      refuses(~r/expects biases of shape/, fn -> dense.(biases: Nx.tensor(0)) end)

      refuses(~r/expects rows of value to hold whole groups of 64 numbers of 6 bits/, fn ->
        dense.(bits: 6)
      end)

      refuses(~r/expects scales of mode "mxfp4" to be u8/, fn ->
        dense.(mode: "mxfp4", group_size: 32)
      end)

      refuses(~r/expects an Emily.QuantizedWeight, got: 1/, fn -> QuantizedWeight.to_dense(1) end)
    end
  end
end
