defmodule Emily.Compiler.DonationTest do
  # Arguments that the caller gives away, since Nx's versions after 0.13.
  use Emily.CompilerCase, async: true

  if function_exported?(Nx, :donatable, 1) do
    import Nx.Defn

    defn step(x), do: {x, x + 1, observe(x, :seen)}

    # Nx.Defn.Evaluator, which takes what has a type that MLX lacks, gives arguments back as they are.
    defn held(x), do: {x, Nx.as_type(x, :f8)}

    test "mean what others do, and no result is one" do
      for x <- [Nx.tensor([1, 2, 3]), on_emily(Nx.tensor([1, 2, 3]))],
          fun <- [&step/1, &held/1] do
        Emily.Fallback.with_mode(:silent, fn ->
          results = compiled(fun, [Nx.donatable(x)]) |> Tuple.to_list()
          refute Enum.any?(results, &Nx.donatable?/1)

          for {result, expected} <- Enum.zip(results, Tuple.to_list(evaluated(fun, [plain(x)]))),
              do: assert(Nx.to_flat_list(result) == Nx.to_flat_list(expected))
        end)
      end
    end

    defp plain(x), do: Nx.backend_copy(x, Nx.BinaryBackend)

    test "are seen by hooks as what they do not give away" do
      hooks = %{seen: &send(self(), {:seen, &1})}
      compiled(&step/1, [Nx.donatable(Nx.tensor([1, 2, 3]))], hooks: hooks)
      assert [{:seen, seen}] = mailbox()
      refute Nx.donatable?(seen)
      assert_equal(seen, Nx.tensor([1, 2, 3]))
    end

    test "have the programs of others" do
      key = fn x -> compiled(&step/1, [x]) && Emily.Compiler.Cache.info().misses end
      x = Nx.iota({3, 1, 7})
      misses = key.(x)
      assert key.(Nx.donatable(x)) == misses
    end

    test "stay readable, since MLX takes memory only that nobody refers to" do
      x = Nx.donatable(on_emily(Nx.tensor([1.0, 2.0])))
      compiled(&Nx.add/2, [x, 1])
      assert Nx.to_flat_list(x) == [1.0, 2.0]
    end

    test "are asked for where a function was compiled for them" do
      template = Nx.template({2}, :f32)
      add = Nx.Defn.compile(&Nx.add(&1, 1), [Nx.donatable(template)], compiler: Emily.Compiler)
      assert_equal(add.(Nx.donatable(Nx.tensor([1.0, 2.0]))), Nx.tensor([2.0, 3.0]))
      assert_raise ArgumentError, ~r/donatable/, fn -> add.(Nx.tensor([1.0, 2.0])) end
    end
  end
end
