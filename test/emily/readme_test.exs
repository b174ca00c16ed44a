defmodule Emily.ReadmeTest do
  # Every block of Elixir in README runs, those that load a model with a local one in the place of the named; the guides'
  # do in test/emily/blocks_test.exs. The default backend belongs to the whole VM.
  use ExUnit.Case, async: false

  # A whole model runs here: on a busy machine that takes longer than ExUnit's minute.
  @moduletag timeout: 600_000

  doctest_file("README.md")

  defp blocks(path) do
    for [_, block] <- Regex.scan(~r/^```elixir\n(.*?)^```$/ms, File.read!(path)), do: block
  end

  # The one block with this in it.
  defp block(text) do
    [block] = for block <- blocks("README.md"), block =~ text, do: block
    block
  end

  test "each block is run below, or is a doctest" do
    run = ["iex>", "# mix.exs", "# config/", "text_embedding", "load_bumblebee"]
    left = Enum.reject(blocks("README.md"), &String.contains?(&1, run))
    assert left == []
  end

  # Bumblebee takes one line of Nx versions; the suite also runs on others.
  if Code.ensure_loaded?(Bumblebee) do
    Code.require_file("../../examples/support/demo.ex", __DIR__)

    @golden Path.expand("../fixtures/golden", __DIR__)

    setup do
      before = Nx.default_backend()
      Process.put(Emily.Fallback, :silent)

      on_exit(fn ->
        {backend, opts} = before
        Nx.global_default_backend({backend, opts})
      end)
    end

    defp run(block, places) do
      code =
        for {named, local} <- places, reduce: block do
          code ->
            assert code =~ named
            String.replace(code, named, inspect(local))
        end

      Code.eval_string(code)
    end

    defp golden(name), do: @golden |> Path.join(name) |> File.read!() |> Jason.decode!()

    test "the embeddings are the golden ones, and tell sentences apart" do
      named = ~s({:hf, "sentence-transformers/all-MiniLM-L6-v2"})

      {%{embedding: embedding}, variables} =
        "text_embedding" |> block() |> run([{named, {:local, Demo.model_dir!()}}])

      [eating, weather | _] = golden("minilm_embeddings.json")
      assert block("text_embedding") =~ inspect(eating["text"])
      close(Nx.to_flat_list(embedding), eating["embedding"])

      # The cosine of unrelated sentences: -0.03 by the golden numbers, and 0.53 by the model's pooler.
      %{embedding: other} = Nx.Serving.run(variables[:serving], weather["text"])
      close(Nx.to_flat_list(other), weather["embedding"])
      expected = Enum.zip_reduce(eating["embedding"], weather["embedding"], 0, &(&1 * &2 + &3))
      assert_in_delta Nx.to_number(Nx.dot(embedding, other)), expected, 1.0e-5
      assert expected < 0.1

      assert %{rewritten: %{attention: 6}} =
               Emily.Bumblebee.FastKernels.report(variables[:model])
    end

    defp close(actual, expected) do
      assert length(actual) == length(expected)
      for {a, b} <- Enum.zip(actual, expected), do: assert_in_delta(a, b, 1.0e-5)
    end

    test "the text is the golden one" do
      [golden | _] = golden("smollm2_greedy.json")
      block = block("load_bumblebee")
      assert block =~ inspect(golden["prompt"])
      named = ~s("SmolLM2-135M-Instruct.Q4_1.gguf")
      {%{results: [%{text: text}]}, _} = run(block, [{named, Demo.smollm2!()}])
      # Bumblebee's 20 tokens of 24.
      assert String.length(text) > 20
      assert String.starts_with?(golden["text"], text)
    end
  end
end
