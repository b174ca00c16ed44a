Code.require_file("../../native/support/settled_memory.exs", __DIR__)

defmodule Emily.Compiler.SparingTest do
  # Functions that are given arguments need less memory for the same numbers. Alone, since it counts memory.
  use Emily.CompilerCase, async: false

  import Nx.Defn

  @unit 65_536

  defp donated(fun, args), do: compiled(fun, args, donate: [0])

  # A computed tensor, with zeros of both signs among its numbers.
  defp numbers(shape, key) do
    x =
      Nx.iota(shape, type: :f32, backend: Emily.Backend)
      |> Nx.multiply(0.7 * key)
      |> Nx.sin()
      |> Nx.multiply(4)
      |> then(&Nx.select(Nx.less(Nx.abs(&1), 0.5), Nx.multiply(&1, 0), &1))

    Emily.Native.eval(x.data.ref)
    x
  end

  defp bits(composite),
    do: for(leaf <- Nx.Defn.Composite.flatten_list([composite]), do: Nx.to_binary(leaf))

  # What a function gives that is given its first argument, and the most units of memory beyond those before. Bit for bit it
  # is what the function gives without.
  defp sparing(fun, args) do
    expected = bits(compiled(fun, args))
    {result, bytes} = SettledMemory.peak(fn -> donated(fun, args) end)
    assert bits(result) == expected
    bytes / @unit
  end

  describe "a maximum with zero" do
    defn two(x), do: {x * 2, grad(x, fn x -> Nx.sum(Nx.max(x, 0) * Nx.iota({7})) end)}
    defn other(x), do: grad(x, fn x -> Nx.sum(1 / Nx.max(0.0, x * 3)) end)
    defn shaped(x), do: grad(x, &(&1 |> Nx.max(0) |> Nx.reshape({7, 1}) |> turned() |> Nx.sum()))
    defn kept(x), do: {Nx.max(x, 0), grad(x, fn x -> Nx.sum(Nx.max(x, 0)) end)}
    defn asked(x), do: {1 / Nx.max(x, 0) + 0, Nx.greater(x, 0), Nx.greater_equal(x, 0), 0 < x}
    defnp turned(x), do: Nx.dot(Nx.transpose(x), Nx.tensor([[1], [2], [3], [4], [5], [6], [7]]))

    test "means what it does, of zeros, infinities and what is no number too" do
      x = Nx.tensor([1.5, -2.5, 0.0, -0.0, :nan, :infinity, :neg_infinity])

      for type <- [:f32, :f64, :f16, :s32],
          fun <- [&two/1, &other/1, &shaped/1, &kept/1, &asked/1] do
        x = if type == :s32, do: Nx.tensor([2, -3, 0, 0, 1, 7, -9]), else: Nx.as_type(x, type)
        expected = compiled(fun, [on_emily(x)])
        assert bits(donated(fun, [on_emily(x)])) == bits(expected)

        # Of two zeros Nx.BinaryBackend may take the other.
        for {result, expected} <- Enum.zip(leaves(expected), leaves(evaluated(fun, [x]))),
            fun != (&asked/1),
            do: assert_equal(result, expected)
      end
    end

    defn layers({a, b, c}, x) do
      grad({a, b, c}, fn {a, b, c} ->
        x |> Nx.dot(a) |> Nx.max(0) |> Nx.dot(b) |> Nx.max(0) |> Nx.dot(c) |> Nx.sum()
      end)
    end

    @tag :cpu
    test "keeps one array" do
      weights = {numbers({64, 256}, 1), numbers({256, 256}, 2), numbers({256, 64}, 3)}
      # The results of the layers take 16 units each.
      x = numbers({1024, 64}, 4)

      # Two layers, what goes back to the first, and the truths of the second; a product and what comes before it.
      assert sparing(&layers/2, [weights, x]) < 45
    end

    defn chosen({a, b, c}, x) do
      grad({a, b, c}, fn {a, b, c} ->
        x |> Nx.dot(a) |> relu() |> Nx.dot(b) |> relu() |> Nx.dot(c) |> Nx.sum()
      end)
    end

    defnp relu(x) do
      custom_grad(Nx.max(x, 0), [x], fn g ->
        [Nx.select(Nx.greater(x, 0), g, 0.0)]
      end)
    end

    @tag :cpu
    test "keeps one array of an activation with a gradient of its own" do
      weights = {numbers({64, 256}, 1), numbers({256, 256}, 2), numbers({256, 64}, 3)}
      assert sparing(&chosen/2, [weights, numbers({1024, 64}, 4)]) < 41
    end
  end

  describe "what is computed again" do
    defn attended({w, v}, x) do
      grad({w, v}, fn {w, v} ->
        scores = Nx.dot(x, w)
        e = Nx.exp(scores - stop_grad(Nx.reduce_max(scores, axes: [1], keep_axes: true)))
        weights = e / Nx.sum(e, axes: [1], keep_axes: true)
        weights |> Nx.dot(v) |> again() |> again() |> Nx.sum()
      end)
    end

    # Needs more than what is before it.
    defnp again(x), do: Nx.tanh(Nx.concatenate([x, x, x], axis: 1))

    @tag :cpu
    test "is not kept" do
      w = numbers({64, 256}, 1)
      v = numbers({256, 64}, 2)

      # The scores take 16 units, as do their exponentials and the weights; the results 4, 12, and 36.
      kept = sparing(&attended/2, [{w, v}, numbers({1024, 64}, 3)])
      assert kept < 16 + 4 + 12 + 36 * 2 + 8
    end
  end

  describe "a gradient with respect to a convolution's input" do
    defn convolved(k, x), do: grad(x, fn x -> Nx.sum(Nx.conv(x, k, padding: :same) ** 2) end)

    @tag :cpu
    test "reads the kernel where it lies" do
      # The kernel takes 36 units, the input 1.
      k = numbers({256, 256, 3, 3}, 1)
      assert sparing(&convolved/2, [k, numbers({1, 256, 8, 8}, 2)]) < 10
    end
  end

  defp leaves(composite), do: Nx.Defn.Composite.flatten_list([composite])
end
