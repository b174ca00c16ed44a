defmodule Emily.Fast.EinsumTest do
  use Emily.FastCase, async: true

  import Nx.Defn

  alias Emily.Fast

  @equations Path.expand("../../fixtures/einsum/equations.terms", __DIR__)
  @external_resource @equations

  # How an einsum can run: outside of defn, compiled by Emily, and composed of Nx functions.
  @ways [:eager, Emily.Compiler, Nx.Defn.Evaluator]

  defp einsum(:eager, equation, operands), do: Fast.einsum(equation, operands)

  defp einsum(compiler, equation, operands) do
    fun = &Fast.einsum(equation, Tuple.to_list(&1))
    Nx.Defn.jit_apply(fun, [List.to_tuple(operands)], compiler: compiler)
  end

  defp backend(Nx.Defn.Evaluator), do: Nx.BinaryBackend
  defp backend(_way), do: Emily.Backend

  for way <- @ways do
    describe "#{inspect(way)}, against NumPy:" do
      setup do
        Nx.default_backend(backend(unquote(way)))
        {:ok, way: unquote(way)}
      end

      test "random equations", %{way: way} do
        {:ok, cases} = :file.consult(@equations)
        assert length(cases) > 400

        for {equation, operands, expected} <- cases do
          operands =
            for {shape, numbers} <- operands, do: tensor({:f, shape, numbers}, :f32, backend(way))

          if expected == :refused do
            assert_raise ArgumentError, ~r"^Emily.Fast.einsum/2 ", fn ->
              einsum(way, equation, operands)
            end
          else
            {shape, numbers} = expected
            y = einsum(way, equation, operands)

            assert {y.shape, y.type, y.names} ==
                     {shape, {:f, 32}, List.duplicate(nil, tuple_size(shape))}

            assert_on(backend(way), y)
            # Integers below 2^24, in every order of the sums.
            assert Nx.to_flat_list(y) == Enum.map(numbers, &(&1 * 1.0)),
                   "#{equation} of #{inspect(operands)}"
          end
        end
      end

      for %{name: name} <- Emily.FastCase.cases([:einsum]) do
        test name, %{way: way} do
          [numpy] = Enum.filter(cases([:einsum]), &(&1.name == unquote(name)))
          {:f, shape, _} = numpy.out
          [equation | args] = numpy.args

          for type <- types() do
            y = einsum(way, equation, Enum.map(args, &tensor(&1, type, backend(way))))
            assert {y.shape, y.type} == {shape, type}

            # Inputs up to 2 in sums of up to a dozen products: the tolerance is relative to those.
            assert_near(y, numpy.out, 4 * tolerance(type))
          end
        end
      end
    end

    describe "#{inspect(way)}:" do
      setup do
        Nx.default_backend(backend(unquote(way)))
        {:ok, way: unquote(way)}
      end

      test "types are promoted as MLX promotes them", %{way: way} do
        for {a, b, result} <- [
              {:f16, :f16, {:f, 16}},
              {:f16, :f32, {:f, 32}},
              {:bf16, :f32, {:f, 32}},
              {:f16, :bf16, {:f, 32}},
              {:f64, :f32, {:f, 64}},
              {:f32, :c64, {:c, 64}},
              {:f64, :c64, {:c, 64}}
            ],
            # f64 exists on a CPU only.
            :f64 not in [a, b] or Emily.Native.default_device() == :cpu do
          [a, b] = for type <- [a, b], do: Nx.broadcast(Nx.tensor(1, type: type), {2, 2})
          y = einsum(way, "ij,jk->ik", [a, b])
          assert y.type == result
          assert Nx.to_flat_list(Nx.real(y)) == [2.0, 2.0, 2.0, 2.0]
        end
      end

      test "complex numbers are not conjugated", %{way: way} do
        i = Complex.new(0, 1)
        x = Nx.tensor([[i, 2], [1, i]], type: :c64)

        assert einsum(way, "ij,jk,kk->ik", [x, x, x]) |> Nx.to_flat_list() ==
                 [Complex.new(0, 1), Complex.new(-4, 0), Complex.new(-2, 0), Complex.new(0, 1)]
                 |> Enum.map(&Complex.multiply(&1, 1.0))
      end

      test "sums of 16 bits are added in 32", %{way: way} do
        for type <- [:f16, :bf16] do
          ones = Nx.broadcast(Nx.tensor(1, type: type), {4096})
          assert einsum(way, "i->", [ones]) |> Nx.to_number() == 4096.0
          assert einsum(way, "i,i->", [ones, ones]) |> Nx.to_number() == 4096.0

          assert einsum(way, "i,j->j", [ones, Nx.slice(ones, [0], [1])]) |> Nx.to_flat_list() == [
                   4096.0
                 ]
        end
      end

      test "names are dropped, and the result is a tensor like any other", %{way: way} do
        a = Nx.tensor([[1.0, 2.0], [3.0, 4.0]], names: [:x, :y])
        y = einsum(way, "ij,jk->ik", [a, a])
        assert y.names == [nil, nil]
        assert Nx.to_flat_list(Nx.add(y, 1)) == [8.0, 11.0, 16.0, 23.0]
        assert einsum(way, "ij->ij", [a]).names == [nil, nil]
      end

      # ab,bc,cd,... with as many letters as there are.
      test "every letter", %{way: way} do
        letters = Enum.concat(?a..?z, ?A..?Z)
        groups = letters |> Enum.chunk_every(2, 1, :discard) |> Enum.take(32)
        swap = Nx.tensor([[0.0, 1.0], [1.0, 0.0]])
        operands = List.duplicate(swap, length(groups))

        assert einsum(way, Enum.join(groups, ","), operands) |> Nx.to_flat_list() == [
                 1.0,
                 0.0,
                 0.0,
                 1.0
               ]

        assert einsum(way, to_string(letters) <> "->", [
                 Nx.reshape(1.0, List.duplicate(1, 52) |> List.to_tuple())
               ])
               |> Nx.to_number() == 1.0
      end

      test "refuses what it cannot take", %{way: way} do
        [a, b] = [Nx.broadcast(1.0, {2, 3}), Nx.broadcast(Nx.tensor(1, type: :f16), {4, 5})]
        pair = "with operands of shape {2, 3} and type f32; shape {4, 5} and type f16"

        for {equation, operands, message} <- [
              {"ij,jk->ik", [a, b], ~s(got sizes 3 and 4 for axis "j", in "ij,jk->ik" #{pair})},
              {"ij,jk", [a, Nx.tensor([[1, 2]])],
               ~s(takes float and complex types, got s32, in "ij,jk" with operands of ) <>
                 "shape {2, 3} and type f32; shape {1, 2} and type s32"},
              {"i,j", [Nx.vectorize(a, :v), Nx.vectorize(a, :v)],
               ~s|takes no vectorized operand (use Nx.devectorize/2), in "i,j" with operands of | <>
                 "shape {3} and type f32 [v: 2]; shape {3} and type f32 [v: 2]"},
              {:ij, [a, b], "expects the subscripts as a string, got: :ij, in :ij #{pair}"}
            ] do
          error = assert_raise ArgumentError, fn -> einsum(way, equation, operands) end
          assert error.message == "Emily.Fast.einsum/2 " <> message
        end
      end
    end
  end

  describe "inside defn" do
    defn bilinear(x, w, y), do: Fast.einsum("bi,oij,bj->bo", [x, w, y])
    defn with_a_constant(x), do: Fast.einsum("...i,i->...", [x, Nx.tensor([1.0, 2.0])])

    defn powers(x) do
      {x, _} =
        while {y = x, x}, _i <- 0..2 do
          {Fast.einsum("ij,jk->ik", [y, x]), x}
        end

      x
    end

    test "of one's own, with constants and in loops, on each backend" do
      for backend <- backends() do
        Nx.default_backend(backend)
        x = Nx.tensor([[1.0, 2.0], [3.0, -1.0]])
        w = Nx.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]]])
        y = Nx.tensor([[2.0, 1.0], [0.5, 4.0]])
        # The inner product and the determinant of the two rows.
        assert bilinear(x, w, y) |> Nx.to_flat_list() == [4.0, -3.0, -2.5, 12.5]
        assert with_a_constant(x) |> Nx.to_flat_list() == [5.0, 1.0]
        # x · x = 7
        assert powers(x) |> Nx.to_flat_list() == [49.0, 0.0, 0.0, 49.0]
        assert_on(backend, powers(x))
      end
    end

    test "compiled is eager, bit for bit" do
      key = Nx.Random.key(3) |> Nx.backend_copy(Emily.Backend)

      for {equation, shapes} <- [
            {"bhid,bhjd->bhij", [{2, 2, 8, 16}, {2, 2, 8, 16}]},
            {"ij,jk,kl->il", [{16, 8}, {8, 32}, {32, 4}]},
            {"ab,bc,cd,de,ef,fa", List.duplicate({6, 6}, 6)},
            {"...iij,j->...", [{3, 8, 8, 5}, {5}]},
            {"ij,kj->", [{16, 1}, {8, 16}]}
          ],
          type <- types() do
        {operands, _} =
          Enum.map_reduce(shapes, key, &Nx.Random.normal(&2, 0.0, 1.0, shape: &1, type: type))

        [eager, compiled] =
          for way <- [:eager, Emily.Compiler], do: einsum(way, equation, operands)

        assert Nx.to_binary(eager) == Nx.to_binary(compiled)
      end
    end

    test "a traced function closes over tensors" do
      w = Nx.tensor([1.0, 2.0], backend: Nx.BinaryBackend)

      for backend <- backends() do
        x = Nx.tensor([[1.0, 2.0], [3.0, 4.0]], backend: backend)
        y = Nx.Defn.jit_apply(&Fast.einsum("i,ji->j", [w, &1]), [x])
        assert Nx.to_flat_list(y) == [5.0, 11.0]
        assert_on(backend, y)
      end
    end

    test "more operands than a node takes" do
      for backend <- backends() do
        operands =
          for i <- 1..40, do: Nx.tensor([1.0, if(i == 1, do: 3.0, else: -1.0)], backend: backend)

        equation = Enum.map_join(operands, ",", fn _ -> "a" end) <> "->a"
        y = einsum(Nx.Defn.Evaluator, equation, operands)
        assert Nx.to_flat_list(y) == [1.0, -3.0]
        assert_on(backend, y)
      end
    end
  end

  describe "outside of defn" do
    defp emily(shape), do: Nx.broadcast(Nx.tensor(1.0, backend: Emily.Backend), shape)

    defp refuses(message, fun),
      do: assert_raise(ArgumentError, "Emily.Fast.einsum/2 " <> message, fun)

    test "refuses operands elsewhere" do
      binary = Nx.tensor([1.0, 2.0], backend: Nx.BinaryBackend)

      refuses(
        "expects every operand on Emily.Backend outside of defn, got Nx.BinaryBackend, " <>
          ~s(in "i,i->" with operands of shape {2} and type f32; shape {2} and type f32),
        fn -> Fast.einsum("i,i->", [emily({2}), binary]) end
      )
    end

    test "refuses operands of two devices" do
      a = emily({2})
      b = %{a | data: %{a.data | device: if(a.data.device == :cpu, do: :gpu, else: :cpu)}}

      refuses(
        "expects operands of one device, got: #{inspect([a.data.device, b.data.device])}, " <>
          ~s(in "i,i->" with operands of shape {2} and type f32; shape {2} and type f32),
        fn -> Fast.einsum("i,i->", [a, b]) end
      )
    end

    test "refuses what is no list of tensors" do
      refuses("expects a list of at least one tensor, got: []", fn -> Fast.einsum("->", []) end)

      refuses(~s(expects tensors, got: 1.0, in "i,->i"), fn ->
        Fast.einsum("i,->i", [emily({2}), 1.0])
      end)
    end
  end
end
