defmodule Emily.GenerationTest do
  use Emily.BackendCase, async: true

  alias Emily.Generation

  doctest Emily.Generation

  @vocabulary 11

  # The next token is three times the last, and the sum of all positions so far, modulo the size of the vocabulary.
  defp forward(token, position, sum, factor) do
    sum = Nx.add(sum, position)

    next =
      token |> Nx.reshape({}) |> Nx.multiply(factor) |> Nx.add(sum) |> Nx.remainder(@vocabulary)

    {Nx.equal(Nx.iota({@vocabulary}), next), sum}
  end

  # The same in Elixir's integers.
  defp by_hand(token, position, count) do
    {ids, _} =
      Enum.map_reduce(position..(position + count - 1)//1, {token, 0}, fn at, {token, sum} ->
        next = rem(3 * token + sum + at, @vocabulary)
        {next, {next, sum + at}}
      end)

    ids
  end

  defp generate(opts), do: generate(&forward/4, opts)

  defp generate(forward, opts) do
    defaults = [params: Nx.tensor(3), cache: Nx.tensor(0), first_token: 5, max_new_tokens: 12]
    Generation.stream(forward, Keyword.merge(defaults, opts))
  end

  test "each token is the next one's input, at the next position, with the cache" do
    assert generate([]) == by_hand(5, 0, 12)
    assert generate(offset: 4) == by_hand(5, 4, 12)
    assert generate(max_new_tokens: 1) == by_hand(5, 0, 1)
    assert generate(max_new_tokens: 0) == []
  end

  test "ends with the first of the ids that end it, which is the last" do
    all = by_hand(5, 0, 12)
    end_id = Enum.at(all, 4)
    until = Enum.take_while(all, &(&1 != end_id)) ++ [end_id]
    never = Enum.find(0..10, &(&1 not in all)) || 99

    assert length(until) < 12
    assert generate(eos: end_id) == until
    assert generate(eos: [never, end_id]) == until
    assert generate(eos: never) == all
    # The first token ends nothing.
    assert generate(eos: [99]) == all
  end

  test "tokens are told one by one" do
    test = self()
    ids = generate(on_token: &send(test, {:token, &1}), max_new_tokens: 4)
    for id <- ids, do: assert_received({:token, ^id})
    refute_received {:token, _}
  end

  test "a token has the shape and the type of the first" do
    forward = fn token, position, seen, factor ->
      {1, 1} = token.shape
      {:s, 64} = token.type
      {logits, sum} = forward(token, position, seen.sum, factor)
      {Nx.reshape(logits, {1, 1, @vocabulary}), %{seen | sum: sum}}
    end

    first = Nx.tensor([[5]], type: :s64)

    assert generate(forward, first_token: first, cache: %{sum: Nx.tensor(0)}, max_new_tokens: 6) ==
             by_hand(5, 0, 6)
  end

  test "what selects may answer a tensor or an id, and is not compiled" do
    reads = fn logits -> logits |> Nx.argmax() |> Nx.to_number() end
    assert generate(select: reads) == by_hand(5, 0, 12)
    assert generate(select: fn _ -> 7 end, max_new_tokens: 2) == [7, 7]
    assert generate(select: fn _ -> Nx.tensor([7], type: :u8) end, max_new_tokens: 2) == [7, 7]
  end

  test "the model is compiled once, by the compiler that the options name" do
    test = self()

    traced = fn token, position, cache, params ->
      send(test, :traced)
      forward(token, position, cache, params)
    end

    backend = fn forward, opts ->
      select = fn logits ->
        send(test, {:backend, logits.data.__struct__})
        Generation.greedy(logits)
      end

      generate(forward, [select: select, max_new_tokens: 3] ++ opts)

      for _ <- 1..3 do
        assert_received {:backend, backend}
        backend
      end
      |> Enum.uniq()
    end

    assert backend.(traced, []) == [Emily.Backend]
    assert_received :traced
    refute_received :traced
    assert backend.(&forward/4, defn_options: [compiler: Nx.Defn.Evaluator]) == [Nx.BinaryBackend]
    assert backend.(&forward/4, defn_options: [native: false]) == [Emily.Backend]
  end

  test "greedy picks the first of the greatest along the last axis" do
    logits = Nx.tensor([[0.0, 2.0, 2.0], [3.0, 1.0, -1.0]])
    assert Generation.greedy(logits) |> Nx.to_list() == [1, 0]
    assert Nx.Defn.jit_apply(&Generation.greedy/1, [logits]) |> Nx.to_list() == [1, 0]
  end

  test "wrong arguments are refused by name" do
    assert_raise ArgumentError, ~r"stream/2 expects a function", fn ->
      generate(fn _ -> 1 end, [])
    end

    for name <- [:params, :cache, :first_token, :max_new_tokens] do
      all = [params: 1, cache: 1, first_token: 1, max_new_tokens: 1]

      assert_raise ArgumentError, ~r/needs the option :#{name}/, fn ->
        Generation.stream(&forward/4, Keyword.delete(all, name))
      end
    end

    for {name, value} <- [
          max_new_tokens: -1,
          max_new_tokens: nil,
          offset: 1.0,
          eos: :end,
          eos: ["a"],
          select: &forward/4,
          on_token: :print,
          defn_options: :none,
          first_token: 1.5,
          first_token: Nx.tensor([1, 2])
        ] do
      assert_raise ArgumentError, ~r/stream\/2: #{inspect(name)} must be/, fn ->
        generate([{name, value}])
      end
    end

    for select <- [fn logits -> logits end, fn _ -> :none end, fn _ -> Nx.tensor(0.5) end] do
      assert_raise ArgumentError, ~r/:select must be/, fn -> generate(select: select) end
    end

    assert_raise ArgumentError, ~r/unknown keys \[:top_k\]/, fn -> generate(top_k: 1) end
  end
end
