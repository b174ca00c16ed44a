defmodule Emily.Fast.EinsumTest do
  use Emily.FastCase, async: true

  alias Emily.Fast
  alias Emily.Fast.Einsum

  describe "against NumPy" do
    for %{name: name} <- Emily.FastCase.cases([:einsum]) do
      test name do
        [numpy] = Enum.filter(cases([:einsum]), &(&1.name == unquote(name)))
        {:f, shape, _} = numpy.out
        [equation | args] = numpy.args

        for type <- types() do
          y = Fast.einsum(equation, Enum.map(args, &tensor(&1, type, Emily.Backend)))
          assert y.shape == shape
          assert y.type == type
          assert_on(Emily.Backend, y)
          # Inputs up to 2 in sums of up to a dozen products: the tolerance is relative to those.
          assert_near(y, numpy.out, 4 * tolerance(type))
        end
      end
    end
  end

  # Sums over every assignment of values to letters.
  defp by_hand(groups, output, sizes, operands) do
    letters = groups |> List.flatten() |> Enum.uniq()
    inner = letters -- output

    for outer <- assignments(output, sizes) do
      inner
      |> assignments(sizes)
      |> Enum.map(fn inner ->
        at = Map.merge(outer, inner)

        groups
        |> Enum.zip_with(operands, fn group, operand -> element(operand, group, sizes, at) end)
        |> Enum.product()
      end)
      |> Enum.sum()
    end
  end

  defp assignments(letters, sizes) do
    Enum.reduce(letters, [%{}], fn letter, found ->
      for at <- found, i <- 0..(sizes[letter] - 1), do: Map.put(at, letter, i)
    end)
  end

  defp element(numbers, group, sizes, at) do
    index = Enum.reduce(group, 0, fn letter, index -> index * sizes[letter] + at[letter] end)
    elem(numbers, index)
  end

  test "random equations, against a sum written out" do
    :rand.seed(:exsss, 11)

    for _ <- 1..300 do
      sizes = Map.new(?a..?e, &{&1, Enum.random(1..3)})

      groups =
        for _ <- 1..Enum.random(1..4),
            do: for(_ <- 1..Enum.random(0..3)//1, do: Enum.random(?a..?e))

      output = groups |> List.flatten() |> Enum.uniq() |> Enum.take_random(Enum.random(0..3))

      operands =
        for group <- groups do
          shape = group |> Enum.map(&sizes[&1]) |> List.to_tuple()
          numbers = for _ <- 1..Tuple.product(shape), do: Enum.random(-4..4) / 2
          {shape, List.to_tuple(numbers)}
        end

      equation = Enum.join(groups, ",") <> "->" <> to_string(output)

      tensors =
        for {shape, numbers} <- operands do
          numbers
          |> Tuple.to_list()
          |> Nx.tensor(type: :f32, backend: Emily.Backend)
          |> Nx.reshape(shape)
        end

      y = Fast.einsum(equation, tensors)
      assert y.shape == output |> Enum.map(&sizes[&1]) |> List.to_tuple()
      # Sums of multiples of 1/16 far below 2^20 are exact in f32.
      assert Nx.to_flat_list(y) ==
               by_hand(groups, output, sizes, Enum.map(operands, &elem(&1, 1))),
             equation
    end
  end

  describe "types" do
    test "are promoted as MLX promotes them" do
      for {a, b, result} <- [
            {:f16, :f16, {:f, 16}},
            {:f16, :f32, {:f, 32}},
            {:bf16, :f32, {:f, 32}},
            {:f16, :bf16, {:f, 32}},
            {:f32, :c64, {:c, 64}}
          ] do
        a = Nx.broadcast(Nx.tensor(1, type: a, backend: Emily.Backend), {2, 2})
        b = Nx.broadcast(Nx.tensor(1, type: b, backend: Emily.Backend), {2, 2})
        assert Fast.einsum("ij,jk->ik", [a, b]).type == result
      end
    end

    test "the result is a tensor like any other" do
      a = Nx.tensor([[1.0, 2.0], [3.0, 4.0]], backend: Emily.Backend)
      y = Fast.einsum("ij,jk->ik", [a, a])
      assert_near(Nx.add(y, 1), [8.0, 11.0, 16.0, 23.0], 1.0e-6)
      assert y.names == [nil, nil]
    end
  end

  describe "refuses" do
    defp refuses(message, fun),
      do: assert_raise(ArgumentError, "Emily.Fast.einsum/2 " <> message, fun)

    defp emily(shape, type \\ :f32),
      do: Nx.broadcast(Nx.tensor(1, type: type, backend: Emily.Backend), shape)

    test "operands elsewhere" do
      binary = Nx.tensor([1.0, 2.0], backend: Nx.BinaryBackend)

      refuses(
        "expects every operand on Emily.Backend, got shape {2} and type f32 on Nx.BinaryBackend",
        fn -> Fast.einsum("i,i->", [emily({2}), binary]) end
      )
    end

    test "operands of two devices" do
      a = emily({2})
      b = %{a | data: %{a.data | device: if(a.data.device == :cpu, do: :gpu, else: :cpu)}}

      refuses(
        "expects operands of one device, got: #{inspect([a.data.device, b.data.device])}",
        fn ->
          Fast.einsum("i,i->", [a, b])
        end
      )
    end

    test "being traced" do
      refuses("is eager only: it cannot be called inside defn or Nx.Defn.jit/2", fn ->
        Nx.Defn.jit_apply(&Fast.einsum("i->", [&1]), [emily({2})])
      end)
    end

    test "integers" do
      refuses("expects operands of a float or complex type, got shape {2} and type s32", fn ->
        Fast.einsum("i->", [emily({2}, :s32)])
      end)
    end

    test "what is no list of tensors" do
      refuses("expects a list of at least one tensor, got: []", fn -> Fast.einsum("->", []) end)
      refuses("expects tensors, got: 1.0", fn -> Fast.einsum("i,->i", [emily({2}), 1.0]) end)

      refuses("expects the subscripts as a string, got: :ij", fn ->
        Fast.einsum(:ij, [emily({2, 2})])
      end)
    end

    test "a vectorized operand" do
      refuses(
        "does not take a vectorized operand (use Nx.devectorize/2), got shape {2} and type f32 [v: 3]",
        fn -> Fast.einsum("i->", [Nx.vectorize(emily({3, 2}), :v)]) end
      )
    end
  end

  describe "the equation" do
    test "is completed" do
      for {equation, shapes, complete} <- [
            {"ij,jk", [{2, 3}, {3, 4}], "ij,jk->ik"},
            {"ba", [{2, 3}], "ba->ab"},
            {"ii", [{2, 2}], "ii->"},
            {" i j -> j i ", [{2, 3}], "ij->ji"},
            {"i...j,jk", [{2, 5, 3}, {3, 4}], "i...j,jk->...ik"},
            {"Ab,bA", [{2, 3}, {3, 2}], "Ab,bA->"},
            {",i", [{}, {3}], ",i->i"},
            {"...i,...i->...", [{4, 1, 3}, {7, 3}], "...i,...i->..."}
          ] do
        assert Einsum.equation!(equation, shapes) == complete
      end
    end

    test "is refused where it is malformed or does not fit" do
      for {equation, shapes, message} <- [
            {"ij", [{2, 3}, {3, 4}], ~s(got 2 operands for 1 groups in "ij")},
            {"ij,jk,", [{2, 3}, {3, 4}], ~s(got 2 operands for 3 groups in "ij,jk,")},
            {"i->j->k", [{2}], ~s(expects at most one "->" in "i->j->k")},
            {"i1->i", [{2, 2}], ~s(expects letters, commas, "..." and "->" in "i1->i", got: "1")},
            {"ä->", [{2}], ~s(expects letters, commas, "..." and "->" in "ä->", got: "ä")},
            {"i.j->", [{2, 2}], ~s(expects letters, commas, "..." and "->" in "i.j->", got: ".")},
            {"i-j", [{2, 2}], ~s(expects letters, commas, "..." and "->" in "i-j", got: "-")},
            {"i\n->i", [{2}],
             ~s(expects letters, commas, "..." and "->" in "i\\n->i", got: "\\n")},
            {"i->i,i", [{2}], ~s(expects letters, commas, "..." and "->" in "i->i,i", got: ",")},
            {"...i...->i", [{2}], ~s(expects at most one ellipsis a group in "...i...->i")},
            {"ij->i", [{2}], ~s(got an operand of shape {2} for the group "ij")},
            {"i->i", [{2, 3}], ~s(got an operand of shape {2, 3} for the group "i")},
            {"ij...->i", [{2}], ~s(got an operand of shape {2} for the group "ij...")},
            {"ii->i", [{2, 3}],
             ~s(takes the diagonal of equal axes only, got shape {2, 3} for the group "ii")},
            {"ii->i", [{1, 3}],
             ~s(takes the diagonal of equal axes only, got shape {1, 3} for the group "ii")},
            {"ij,jk->ik", [{2, 3}, {4, 5}], ~s(got sizes 3 and 4 for axis "j")},
            {"...i,...i->...", [{4, 3}, {5, 3}], "got sizes 4 and 5 for the ellipsis"},
            {"ij->ii", [{2, 2}], ~s(takes each letter once in the result, got: "ii")},
            {"ij->ik", [{2, 2}], ~s(got "k" in the result but in no operand)},
            {"ij->i...", [{2, 2}], "got an ellipsis in the result but in no operand"},
            {"...i->i", [{2, 2}],
             ~s(needs "..." in the result, where the axes without letters go)},
            {"i,j,k->ijk", [{2000}, {2000}, {2000}],
             "would give 8000000000 elements, more than 2147483647"}
          ] do
        error = assert_raise ArgumentError, fn -> Einsum.equation!(equation, shapes) end
        assert error.message == "Emily.Fast.einsum/2 " <> message
      end
    end
  end
end
