defmodule Emily.Quantization.BlocksTest do
  use ExUnit.Case, async: true

  import Bitwise

  alias Emily.{GGUF, GGUFFile, Quantization, QuantizedWeight}
  alias Emily.Quantization.{Blocks, Layers}

  @moduletag :tmp_dir

  # Bytes at random, and the numbers of the Python package gguf.
  @fixtures Path.expand("../../fixtures/ggml/blocks.terms", __DIR__)
  @external_resource @fixtures
  {:ok, cases} = :file.consult(@fixtures)
  @cases cases

  # GGML's numbers of the types in a file.
  @numbers %{
    q4_0: 2,
    q4_1: 3,
    q5_0: 6,
    q5_1: 7,
    q8_0: 8,
    q2_k: 10,
    q3_k: 11,
    q4_k: 12,
    q5_k: 13,
    q6_k: 14,
    iq4_nl: 20,
    iq4_xs: 23,
    mxfp4: 39
  }

  defp bytes(hex), do: Base.decode16!(hex, case: :lower)

  defp tensor(hex, type, backend),
    do: hex |> bytes() |> Nx.from_binary(type, backend: backend) |> Nx.reshape({2, :auto})

  defp weight(packed, backend \\ Emily.Backend) do
    value = tensor(packed.bytes, :u8, Emily.Backend)
    packed.type |> Blocks.weight(value, Emily.Native.default_device()) |> Nx.backend_copy(backend)
  end

  defp wanted(packed), do: tensor(packed.numbers, :f32, Nx.BinaryBackend)

  defp exactly(got, packed),
    do: assert({packed.type, Nx.to_binary(got)} == {packed.type, bytes(packed.numbers)})

  # The numbers as the rows of a file's tensor.
  defp gguf(packed, folder) do
    %{shape: {rows, columns}} = wanted(packed)
    tensors = [{"w", @numbers[packed.type], [columns, rows], bytes(packed.bytes)}]
    [] |> GGUFFile.bytes(tensors) |> GGUFFile.write(folder) |> GGUF.read!()
  end

  test "there are fixtures of every type" do
    assert Enum.sort(for(packed <- @cases, do: packed.type)) == Enum.sort(Blocks.types())
  end

  describe "the numbers are those of the package gguf, bit for bit," do
    test "by the kernel" do
      for packed <- @cases,
          do: packed |> weight() |> QuantizedWeight.to_dense() |> exactly(packed)
    end

    for backend <- [Nx.BinaryBackend, Emily.Backend] do
      test "by Nx operations on #{inspect(backend)}" do
        for packed <- @cases,
            do:
              packed
              |> weight(unquote(backend))
              |> Quantization.dequantize_defn()
              |> exactly(packed)
      end
    end

    test "in a compiled function" do
      for packed <- @cases do
        run = &Nx.Defn.jit_apply(&1, [weight(packed)], compiler: Emily.Compiler)
        exactly(run.(&QuantizedWeight.to_dense/1), packed)
        exactly(run.(&Quantization.dequantize_defn/1), packed)
      end
    end

    test "of a file's tensor", %{tmp_dir: folder} do
      for packed <- @cases, gguf = gguf(packed, folder) do
        exactly(GGUF.tensor(gguf, "w"), packed)
        %{mode: mode} = weight = GGUF.packed(gguf, "w")
        assert mode == "ggml_#{packed.type}"
        assert Nx.to_binary(weight.value) == bytes(packed.bytes)
        assert Nx.shape(QuantizedWeight.to_dense(weight)) == Nx.shape(wanted(packed))

        bits = for <<bits::32-little <- bytes(packed.numbers)>>, do: bits
        # Rounded to the nearest, the even one of two.
        rounded =
          for b <- bits, into: <<>>, do: <<(b + 0x7FFF + (b >>> 16 &&& 1)) >>> 16::16-little>>

        assert Nx.to_binary(GGUF.tensor(gguf, "w", type: :bf16)) == rounded
      end
    end

    test "of rows that an embedding looks up" do
      ids = Nx.tensor([[1, 0, 7]])

      for packed <- @cases do
        got = Layers.quantized_embedding(ids, weight(packed))
        wanted = Nx.take(wanted(packed), Nx.tensor([[1, 0, 1]], backend: Nx.BinaryBackend))
        assert Nx.to_binary(got) == Nx.to_binary(wanted)
      end
    end
  end

  describe "products" do
    # Sums in f32; on a CPU, what is multiplied with rows has lost what 15 bits do not hold.
    defp near(type, got, x, dense, axis, share \\ 1 / 32_000) do
      [got, x, dense] =
        for tensor <- [got, x, dense],
            do: tensor |> Nx.backend_copy(Nx.BinaryBackend) |> Nx.as_type(:f64)

      size = Nx.dot(Nx.abs(x), [-1], Nx.abs(dense), [axis])
      largest = x |> Nx.abs() |> Nx.reduce_max()

      lost = dense |> Nx.abs() |> Nx.sum(axes: [axis]) |> Nx.multiply(largest)
      lost = Nx.multiply(lost, share)

      off = got |> Nx.subtract(Nx.dot(x, [-1], dense, [axis])) |> Nx.abs()
      bound = size |> Nx.multiply(1.0e-5) |> Nx.add(lost)
      excess = Nx.subtract(off, bound)
      assert Nx.to_number(Nx.all(Nx.less_equal(excess, 0))) == 1, inspect({type, excess})
    end

    defp random(shape) do
      {x, _} = Nx.Random.normal(Nx.Random.key(7), shape: shape)
      Nx.backend_copy(x, Emily.Backend)
    end

    test "with one row and with many, eager and compiled" do
      for packed <- @cases, dense = wanted(packed), rows <- [{}, {1}, {3, 2}, {20}] do
        x = random(List.to_tuple(Tuple.to_list(rows) ++ [Nx.axis_size(dense, 1)]))
        near(packed.type, Quantization.quantized_matmul(x, weight(packed)), x, dense, 1)
        product = &Quantization.quantized_matmul_defn/2

        near(
          packed.type,
          Nx.Defn.jit_apply(product, [x, weight(packed)], compiler: Emily.Compiler),
          x,
          dense,
          1
        )
      end
    end

    test "with a weight whose rows are inputs, and on another backend" do
      for packed <- @cases, dense = wanted(packed) do
        x = random({3, 2})

        near(
          packed.type,
          Quantization.quantized_matmul(x, %{weight(packed) | transpose: false}),
          x,
          dense,
          0,
          0.0
        )

        x = random({3, Nx.axis_size(dense, 1)})
        [x, weight] = [Nx.backend_copy(x, Nx.BinaryBackend), weight(packed, Nx.BinaryBackend)]
        near(packed.type, Quantization.quantized_matmul_defn(x, weight), x, dense, 1, 0.0)
      end
    end

    test "have the type of what is multiplied" do
      [packed | _] = @cases
      x = random({2, Nx.axis_size(wanted(packed), 1)})

      for type <- Emily.BackendCase.floats() do
        got = Quantization.quantized_matmul(Nx.as_type(x, type), weight(packed))
        assert got.type == type
      end
    end

    test "of matrices in a batch, and of chosen ones" do
      for packed <- @cases, dense = Nx.new_axis(wanted(packed), 0) do
        weight = weight(packed)
        batch = %{weight | value: Nx.new_axis(weight.value, 0)}
        x = random({1, 2, Nx.axis_size(dense, 2)})

        for got <- [Quantization.quantized_matmul(x, batch), Quantization.gather_qmm(x, batch)],
            do: near(packed.type, got[0], x[0], dense[0], 1)
      end
    end

    test "have gradients with respect to what is multiplied" do
      [packed | _] = @cases
      dense = wanted(packed)
      x = random({2, Nx.axis_size(dense, 1)})
      sum = fn x, weight -> x |> Quantization.quantized_matmul_defn(weight) |> Nx.sum() end
      grad = fn x, weight -> Nx.Defn.grad(x, &sum.(&1, weight)) end
      got = Nx.Defn.jit_apply(grad, [x, weight(packed)], compiler: Emily.Compiler)
      wanted = dense |> Nx.sum(axes: [0]) |> Nx.broadcast({2, Nx.axis_size(dense, 1)})

      assert Nx.to_number(
               Nx.all_close(Nx.backend_copy(got, Nx.BinaryBackend), wanted, atol: 1.0e-4)
             ) == 1
    end
  end

  describe "refused is" do
    test "a value of another type, or of no whole blocks" do
      for type <- Blocks.types(), {_, size} = Blocks.size(type) do
        for value <- [
              Nx.iota({2, size + 1}, type: :u8),
              Nx.iota({2, size}, type: :s32),
              Nx.iota({size}, type: :u8)
            ] do
          weight =
            Blocks.weight(
              type,
              Nx.backend_copy(value, Emily.Backend),
              Emily.Native.default_device()
            )

          assert_raise ArgumentError,
                       ~r/value of mode "ggml_#{type}" to be u8 of rank 2 or more/,
                       fn ->
                         QuantizedWeight.to_dense(weight)
                       end
        end
      end
    end

    test "other groups and bits, and packing" do
      [packed | _] = @cases

      assert_raise ArgumentError, ~r/group_size of mode "ggml_/, fn ->
        QuantizedWeight.to_dense(%{weight(packed) | group_size: 64})
      end

      assert_raise ArgumentError, ~r/from_dense\/2 does not pack into blocks of GGML's/, fn ->
        QuantizedWeight.from_dense(Nx.iota({2, 256}, type: :f32), mode: "ggml_q4_k")
      end
    end

    test "a tensor that a file cannot hold", %{tmp_dir: folder} do
      for {type, number} <- @numbers, {elements, size} = Blocks.size(type) do
        read = fn sizes, bytes ->
          []
          |> GGUFFile.bytes([{"w", number, sizes, bytes}])
          |> GGUFFile.write(folder)
          |> GGUF.read!()
        end

        assert_raise ArgumentError, ~r/of type #{type} has rows of #{elements - 1}, not/, fn ->
          read.([elements - 1, 2], <<0::size(2 * size)-unit(8)>>)
        end

        assert_raise ArgumentError, ~r/reaches beyond the file's end/, fn ->
          read.([elements, 1000], <<0::size(size)-unit(8)>>)
        end

        most = 0x7FFFFFFF - rem(0x7FFFFFFF, elements)

        assert_raise ArgumentError, ~r/reaches beyond the file's end/, fn ->
          read.([most, 0x7FFFFFFF, 0x7FFFFFFF], <<0::size(size)-unit(8)>>)
        end
      end
    end
  end
end
