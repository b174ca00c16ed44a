defmodule Emily.QuantizationTest do
  use Emily.PackedCase, async: true

  doctest Emily.Quantization, except: [quantize: 2]
  doctest Emily.Quantization.Layers

  alias Emily.{Quantization, QuantizedWeight}

  setup do
    Nx.default_backend(Emily.Backend)
    :ok
  end

  # Small numbers with a sign, the same in each run.
  defp numbers(shape, type \\ :f32) do
    shape
    |> Nx.iota(type: :f32, backend: Nx.BinaryBackend)
    |> Nx.multiply(0.7)
    |> Nx.sin()
    |> Nx.as_type(type)
  end

  defp on(tensor, backend), do: Nx.backend_copy(tensor, backend)

  # The product in f64 by Nx.BinaryBackend.
  defp product(x, dense, transpose) do
    x = x |> on(Nx.BinaryBackend) |> Nx.as_type(:f64)
    Nx.dot(x, [-1], Nx.as_type(dense, :f64), [if(transpose, do: 1, else: 0)])
  end

  defp assert_near(got, wanted, tolerance) do
    got = got |> on(Nx.BinaryBackend) |> Nx.as_type(:f64)
    assert got.shape == wanted.shape
    scale = wanted |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() |> max(1.0e-3)
    off = got |> Nx.subtract(wanted) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
    assert off <= tolerance * scale, "off by #{off} of #{scale}"
  end

  defp tolerance({:f, 32}), do: 2.0e-6
  defp tolerance({:f, 16}), do: 2.0e-3
  defp tolerance({:bf, 16}), do: 1.0e-2
  defp tolerance({:f, 64}), do: 1.0e-12

  @product &Quantization.quantized_matmul_defn/2

  for transpose <- [true, false] do
    test "products of every mode, with transpose: #{transpose}" do
      transpose = unquote(transpose)
      inner = if transpose, do: 128, else: 2

      for packed <- cases(),
          shape <- [{inner}, {1, inner}, {3, inner}, {2, 3, inner}, {20, inner}] do
        x = numbers(shape, packed.type)
        wanted = product(x, unpacked(packed), transpose)
        on_emily = [on(x, Emily.Backend), weight(packed, Emily.Backend, transpose)]
        on_elixir = [x, weight(packed, Nx.BinaryBackend, transpose)]

        for got <- [
              apply(&Quantization.quantized_matmul/2, on_emily),
              Nx.Defn.jit_apply(@product, on_emily),
              Nx.Defn.jit_apply(@product, on_emily, compiler: Emily.Compiler),
              Nx.Defn.jit_apply(@product, on_elixir)
            ] do
          assert got.type == x.type
          assert_near(got, wanted, tolerance(x.type))
        end
      end
    end
  end

  test "eager and compiled are the same, bit for bit" do
    for packed <- cases() do
      on_emily = [
        on(numbers({5, 128}, packed.type), Emily.Backend),
        weight(packed, Emily.Backend)
      ]

      compiled = Nx.Defn.jit_apply(@product, on_emily, compiler: Emily.Compiler)
      assert Nx.to_binary(apply(@product, on_emily)) == Nx.to_binary(compiled)
    end
  end

  @tag :f64
  test "the types of products" do
    packed = Enum.find(cases(), &(&1.type == :bf16 and &1.mode == "affine"))
    float = Enum.find(cases(), &(&1.mode == "mxfp8"))

    for {x, packed, type} <- [
          {:f32, packed, {:f, 32}},
          {:f16, packed, Nx.Type.merge({:f, 16}, {:bf, 16})},
          {:f64, packed, {:f, 64}},
          {:s32, packed, {:bf, 16}},
          {:u8, float, {:f, 32}},
          {:f64, float, {:f, 64}},
          {:bf16, float, {:bf, 16}}
        ],
        transpose <- [true, false],
        backend <- [Emily.Backend, Nx.BinaryBackend] do
      inner = if transpose, do: 128, else: 2
      x = numbers({3, inner}) |> Nx.multiply(4) |> Nx.as_type(:s32) |> Nx.abs() |> Nx.as_type(x)
      got = Nx.Defn.jit_apply(@product, [on(x, backend), weight(packed, backend, transpose)])
      assert got.type == type
      assert_near(got, product(x, unpacked(packed), transpose), tolerance(type))
    end
  end

  @tag :f64
  test "batches broadcast as in matmul" do
    w = numbers({3, 1, 5, 64})
    weight = QuantizedWeight.from_dense(w, bits: 8, group_size: 32)
    dense = weight |> QuantizedWeight.to_dense() |> on(Nx.BinaryBackend) |> Nx.as_type(:f64)

    for {shape, out} <- [
          {{2, 64}, {3, 1, 2, 5}},
          {{4, 2, 64}, {3, 4, 2, 5}},
          {{3, 4, 1, 64}, {3, 4, 1, 5}}
        ] do
      x = numbers(shape)
      wide = x |> Nx.as_type(:f64) |> Nx.broadcast({3, 4, elem(shape, tuple_size(shape) - 2), 64})
      all = Nx.dot(wide, [3], [0, 1], Nx.broadcast(dense, {3, 4, 5, 64}), [3], [0, 1])
      wanted = Nx.slice_along_axis(all, 0, elem(out, 1), axis: 1)

      for backend <- [Emily.Backend, Nx.BinaryBackend] do
        got = Nx.Defn.jit_apply(@product, [on(x, backend), on(weight, backend)])
        assert got.shape == out
        assert_near(got, wanted, 2.0e-6)
      end

      got = @product.(on(Nx.as_type(x, :f64), Emily.Backend), weight)
      assert_near(got, wanted, 1.0e-12)
    end

    # Inputs first, in a batch.
    x = numbers({3, 2, 5})
    inputs = QuantizedWeight.from_dense(Nx.reshape(w, {3, 5, 64}), bits: 8, transpose: false)
    dense = inputs |> QuantizedWeight.to_dense() |> on(Nx.BinaryBackend) |> Nx.as_type(:f64)
    wanted = Nx.dot(Nx.as_type(x, :f64), [2], [0], dense, [1], [0])
    assert_near(Quantization.quantized_matmul(on(x, Emily.Backend), inputs), wanted, 2.0e-6)
  end

  test "vectorized x" do
    weight = QuantizedWeight.from_dense(numbers({5, 64}), bits: 8)
    x = numbers({2, 3, 64}) |> on(Emily.Backend)
    got = Quantization.quantized_matmul(Nx.vectorize(x, :rows), weight)
    assert {got.vectorized_axes, got.shape} == {[rows: 2], {3, 5}}

    assert Nx.to_binary(Nx.devectorize(got)) ==
             Nx.to_binary(Quantization.quantized_matmul(x, weight))
  end

  test "x in another order and views of weights" do
    weight = QuantizedWeight.from_dense(numbers({2, 5, 64}), bits: 4)
    x = numbers({64, 3}) |> on(Emily.Backend) |> Nx.transpose()

    second =
      for field <- [:value, :scales, :biases],
          into: %{},
          do: {field, Map.fetch!(weight, field)[1]}

    got = Quantization.quantized_matmul(x, struct!(weight, second))
    dense = QuantizedWeight.to_dense(weight)[1] |> on(Nx.BinaryBackend)
    assert_near(got, product(x, dense, true), 2.0e-6)
  end

  test "a large product, in parts" do
    w = numbers({700, 1024})
    x = numbers({2, 1024})

    for transpose <- [true, false] do
      w =
        if transpose,
          do: w,
          else: w |> Nx.reshape({1024, 700}) |> Nx.pad(0.0, [{0, 0, 0}, {0, 4, 0}])

      weight = QuantizedWeight.from_dense(w, group_size: 64, transpose: transpose)
      dense = weight |> QuantizedWeight.to_dense() |> on(Nx.BinaryBackend)
      got = Quantization.quantized_matmul(on(x, Emily.Backend), weight)
      assert_near(got, product(x, dense, transpose), 2.0e-5)
    end
  end

  @tag :f64
  test "the gradient with respect to x is the dense weight's" do
    for transpose <- [true, false], backend <- [Emily.Backend, Nx.BinaryBackend] do
      packed = hd(cases())
      weight = weight(packed, backend, transpose)
      x = numbers({3, if(transpose, do: 128, else: 2)})
      dense = unpacked(packed)

      grad = fn x, weight ->
        Nx.Defn.grad(x, &Nx.sum(Nx.multiply(@product.(&1, weight), @product.(&1, weight))))
      end

      plain =
        Nx.Defn.grad(Nx.as_type(x, :f64), fn x ->
          y = Nx.dot(x, [-1], Nx.as_type(dense, :f64), [if(transpose, do: 1, else: 0)])
          Nx.sum(Nx.multiply(y, y))
        end)

      for compiler <- [Nx.Defn.Evaluator, Emily.Compiler],
          compiler == Nx.Defn.Evaluator or backend == Emily.Backend do
        got = Nx.Defn.jit_apply(grad, [on(x, backend), weight], compiler: compiler)
        assert_near(got, on(plain, Nx.BinaryBackend), 1.0e-5)
      end
    end
  end

  describe "gather_qmm/3" do
    @tag :f64
    test "multiplies chosen matrices, by indices out of range the nearest" do
      for mode <- ["affine", "mxfp4"], transpose <- [true, false] do
        w = if transpose, do: numbers({4, 5, 64}), else: numbers({4, 64, 32})
        weight = QuantizedWeight.from_dense(w, mode: mode, group_size: 32, transpose: transpose)
        dense = weight |> QuantizedWeight.to_dense() |> on(Nx.BinaryBackend) |> Nx.as_type(:f64)
        x = numbers({2, 3, 2, 64})
        left = Nx.tensor([[5], [0], [-3]], backend: Nx.BinaryBackend)
        right = Nx.tensor([3, 9], type: :u8, backend: Nx.BinaryBackend)

        rows = x |> Nx.as_type(:f64) |> Nx.reshape({6, 2, 64}) |> Nx.take(Nx.tensor([5, 0, 0]))
        columns = Nx.take(dense, Nx.tensor([3, 3]))

        wanted =
          Nx.dot(rows, [2], columns, [if(transpose, do: 2, else: 1)])
          |> Nx.transpose(axes: [0, 2, 1, 3])

        for type <- [:f32, :f64], backend <- [Emily.Backend, Nx.BinaryBackend] do
          arguments = for t <- [Nx.as_type(x, type), weight, left, right], do: on(t, backend)

          gather = fn x, weight, left, right ->
            Quantization.gather_qmm(x, weight, lhs_indices: left, rhs_indices: right)
          end

          assert_near(apply(gather, arguments), wanted, 1.0e-5)
          assert_near(Nx.Defn.jit_apply(gather, arguments), wanted, 1.0e-5)
        end
      end
    end

    test "takes all where there are no indices" do
      weight = QuantizedWeight.from_dense(numbers({3, 5, 64}), bits: 8)
      x = numbers({3, 2, 64}) |> on(Emily.Backend)
      got = Quantization.gather_qmm(x, weight)
      # On a GPU the two are other kernels.
      wanted = Quantization.quantized_matmul(x, weight)
      assert_near(got, on(wanted, Nx.BinaryBackend), 2.0e-6)
      one = Quantization.gather_qmm(x[0], weight)
      assert Nx.shape(one) == {3, 2, 5}
    end

    test "refuses what does not fit" do
      weight = QuantizedWeight.from_dense(numbers({3, 5, 64}))
      x = numbers({3, 2, 64})

      refuses(~r/gather_qmm\/3 expects x with a last axis of 64/, fn ->
        Quantization.gather_qmm(numbers({2, 65}), weight)
      end)

      refuses(~r/a weight of rank 3 or more/, fn ->
        Quantization.gather_qmm(x, QuantizedWeight.from_dense(numbers({5, 64})))
      end)

      refuses(~r/indices that broadcast/, fn ->
        Quantization.gather_qmm(x, weight, lhs_indices: Nx.iota({2}), rhs_indices: Nx.iota({3}))
      end)

      refuses(~r/lhs_indices to be a tensor of integers/, fn ->
        Quantization.gather_qmm(x, weight, lhs_indices: Nx.tensor([1.0]))
      end)

      refuses(~r/takes the options/, fn -> Quantization.gather_qmm(x, weight, indices: 1) end)
    end
  end

  defp refuses(message, fun), do: assert_raise(ArgumentError, message, fun)

  test "refuses what does not fit" do
    weight = QuantizedWeight.from_dense(numbers({5, 64}))
    call = &Quantization.quantized_matmul(on(&1, Emily.Backend), &2)

    refuses(
      ~r/quantized_matmul\/2 expects x with a last axis of 64.*got shape {2, 5} and type f32/,
      fn -> call.(numbers({2, 5}), weight) end
    )

    refuses(~r/expects x of rank 1 or more/, fn -> call.(Nx.tensor(1.0), weight) end)

    refuses(~r/expects x of a float or integer type, got .* c64/, fn ->
      call.(numbers({2, 64}, :c64), weight)
    end)

    refuses(~r/expects x to be a tensor/, fn -> Quantization.quantized_matmul(1.0, weight) end)

    refuses(~r/expects an Emily.QuantizedWeight/, fn ->
      call.(numbers({2, 64}), numbers({5, 64}))
    end)

    refuses(~r/expects tensors of Emily.Backend, got .* of Nx.BinaryBackend/, fn ->
      Quantization.quantized_matmul(on(numbers({2, 64}), Nx.BinaryBackend), weight)
    end)

    batch = QuantizedWeight.from_dense(numbers({3, 5, 64}))

    refuses(~r/expects x whose leading axes broadcast/, fn ->
      call.(numbers({2, 1, 64}), batch)
    end)

    refuses(~r/expects x of rank 2 or more/, fn -> call.(numbers({64}), batch) end)

    # In defn when the function is traced.
    refuses(~r/quantized_matmul_defn\/2 expects x with a last axis/, fn ->
      Nx.Defn.jit_apply(@product, [numbers({2, 5}), weight])
    end)
  end

  describe "Layers.quantized_dense/4" do
    test "adds a bias, or takes options in its place as Axon's does" do
      weight = QuantizedWeight.from_dense(numbers({3, 64}), bits: 8)
      x = numbers({2, 64}) |> on(Emily.Backend)
      product = Quantization.quantized_matmul(x, weight)
      dense = &Emily.Quantization.Layers.quantized_dense/4
      bias = Nx.tensor([1.0, 2.0, 3.0])
      assert Nx.to_binary(dense.(x, weight, bias, [])) == Nx.to_binary(Nx.add(product, bias))

      assert Nx.to_binary(dense.(x, weight, 2, mode: :inference)) ==
               Nx.to_binary(Nx.add(product, 2))

      assert Nx.to_binary(Emily.Quantization.Layers.quantized_dense(x, weight)) ==
               Nx.to_binary(product)

      assert Nx.to_binary(Emily.Quantization.Layers.quantized_dense(x, weight, mode: :train)) ==
               Nx.to_binary(product)

      refuses(~r/quantized_dense\/4 expects bias/, fn -> dense.(x, weight, nil, []) end)
    end
  end
end
