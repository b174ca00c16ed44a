defmodule Emily.Compiler.NarrowTest do
  use ExUnit.Case, async: true

  alias Emily.Compiler.Narrow
  alias Emily.{Quantization, QuantizedWeight}
  alias Nx.Tensor, as: T

  @tokens 8
  @words 1024

  defp random(shape, seed) do
    {x, _} = Nx.Random.normal(Nx.Random.key(seed), shape: shape)
    Nx.backend_copy(x, Emily.Backend)
  end

  defp arguments(head) do
    w = random({@words, 64}, 2)
    w = if head == :packed, do: QuantizedWeight.from_dense(w, group_size: 64, bits: 8), else: w
    [random({2, @tokens, 64}, 1), w]
  end

  defp logits(:dense, x, w), do: Nx.dot(x, [-1], w, [1])
  defp logits(:packed, x, w), do: Quantization.quantized_matmul_defn(x, w)

  # The shapes of what stands in the place of slices.
  defp narrowed(fun, arguments) do
    for {_, node} <- Narrow.narrowed(apply(Nx.Defn.debug_expr(fun), arguments)), do: node.shape
  end

  # Against Nx's own evaluator, in f64.
  defp right(fun, arguments) do
    got = Nx.Defn.jit_apply(fun, arguments, compiler: Emily.Compiler)
    wide = Enum.map(arguments, &wide/1)
    wanted = Nx.Defn.jit_apply(fun, wide, compiler: Nx.Defn.Evaluator)

    for {got, wanted} <- Enum.zip(leaves(got), leaves(wanted)) do
      assert got.shape == wanted.shape
      got = Nx.backend_copy(got, Nx.BinaryBackend)
      assert Nx.to_number(Nx.all_close(got, wanted, atol: 1.0e-2, rtol: 1.0e-4)) == 1
    end
  end

  defp leaves(result), do: Nx.Defn.Composite.flatten_list([result])
  defp wide(%QuantizedWeight{} = weight), do: Nx.backend_copy(weight, Nx.BinaryBackend)
  defp wide(%T{} = x), do: x |> Nx.backend_copy(Nx.BinaryBackend) |> Nx.as_type(:f64)

  for head <- [:dense, :packed] do
    describe "of a #{head} head" do
      @describetag head: head

      test "the last token's row is computed alone", %{head: head} do
        fun = fn x, w -> logits(head, x, w)[[.., -1]] end
        assert narrowed(fun, arguments(head)) == [{2, 1, @words}]
        right(fun, arguments(head))
      end

      test "so are rows in steps, behind a note about the product", %{head: head} do
        fun = fn x, w ->
          noted = Nx.Defn.Expr.metadata(logits(head, x, w), %{note: true})
          Nx.slice(noted, [1, 1, 0], [1, 5, @words], strides: [1, 2, 1])
        end

        assert narrowed(fun, arguments(head)) == [{1, 3, @words}]
        right(fun, arguments(head))
      end

      test "so is the row that a condition reads", %{head: head} do
        fun = fn x, w ->
          row = logits(head, x, w)[[.., -1]]
          Nx.select(Nx.any(Nx.greater(row, 1.0e6)), row, Nx.negate(row))
        end

        assert narrowed(fun, arguments(head)) == [{2, 1, @words}]
        right(fun, arguments(head))
      end

      test "a product that others read stays whole", %{head: head} do
        fun = fn x, w ->
          logits = logits(head, x, w)
          {logits[[.., -1]], Nx.reduce_max(logits)}
        end

        assert narrowed(fun, arguments(head)) == []
        right(fun, arguments(head))
      end

      test "so does one of which most rows, some columns or rows that move are read", context do
        head = context.head

        for slice <- [
              & &1[[.., 1..-1//1]],
              & &1[[.., -1, 0..9]],
              fn logits ->
                at = logits |> Nx.shape() |> elem(1) |> Nx.tensor() |> Nx.subtract(2)
                Nx.slice(logits, [0, at, 0], [2, 1, @words])
              end
            ] do
          fun = fn x, w -> slice.(logits(head, x, w)) end
          assert narrowed(fun, arguments(head)) == []
          right(fun, arguments(head))
        end
      end
    end
  end

  test "small products stay whole" do
    fun = &logits(:dense, &1, &2)[-1]
    assert narrowed(fun, [random({@tokens, 8}, 1), random({8, 8}, 2)]) == []
    assert narrowed(fun, [random({4, 64}, 1), random({@words, 64}, 2)]) == []
  end
end
