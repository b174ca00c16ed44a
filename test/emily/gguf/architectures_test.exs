# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.GGUF.ArchitecturesTest do
    # Small models of random numbers that llama.cpp's converter wrote, against what transformers computes of them:
    # test/fixtures/gguf/generate.py.
    use ExUnit.Case, async: true

    alias Emily.GGUF

    @fixtures Path.expand("../../fixtures/gguf", __DIR__)

    setup do
      Nx.default_backend(Emily.Backend)
      :ok
    end

    for {name, module} <- [
          {"llama", Bumblebee.Text.Llama},
          {"llama-linear", Bumblebee.Text.Llama},
          {"llama-llama3", Bumblebee.Text.Llama},
          {"mistral", Bumblebee.Text.Llama},
          {"smollm3", Bumblebee.Text.SmolLm3},
          {"qwen3", Bumblebee.Text.Qwen3},
          {"gemma", Bumblebee.Text.Gemma},
          {"gemma3", Bumblebee.Text.Gemma3Text},
          {"phi3", Bumblebee.Text.Phi3},
          {"phi3-longrope", Bumblebee.Text.Phi3},
          {"bert", Bumblebee.Text.Bert},
          {"nomic-bert", Bumblebee.Text.NomicBert}
        ] do
      test "#{name} computes what transformers does" do
        {:ok, loaded} = GGUF.load_bumblebee(Path.join(@fixtures, unquote(name) <> ".gguf"))
        %{model_info: %{model: model, params: params, spec: spec}} = loaded
        assert spec.__struct__ == unquote(module)

        traced = Axon.trace_init(model, unquote(module).input_template(spec))
        assert %{params | data: %{}} == %{traced | data: %{}}

        for {_, layer} <- params.data, {_, tensor} <- layer do
          assert %Nx.Tensor{type: {:f, 32}, data: %Emily.Backend{}} = tensor
        end

        expected =
          Path.join(@fixtures, unquote(name) <> ".json") |> File.read!() |> Jason.decode!()

        output = Axon.predict(model, params, %{"input_ids" => Nx.tensor(expected["input_ids"])})
        output = Map.get(output, :logits) || output.hidden_state

        off =
          output[0] |> Nx.subtract(Nx.tensor(expected["output"])) |> Nx.abs() |> Nx.reduce_max()

        # The file's numbers are f16's; those of the answer are of the size of one to ten.
        assert Nx.to_number(off) < 2.0e-4
      end
    end

    test "an encoder gives its states, and how they are pooled" do
      {:ok, loaded} = GGUF.load_bumblebee(Path.join(@fixtures, "bert.gguf"))
      assert loaded |> Map.keys() |> Enum.sort() == [:model_info, :pooling, :tokenizer]
      assert loaded.pooling == nil
      refute Enum.any?(loaded.model_info.params.data, fn {layer, _} -> layer =~ "pooler" end)

      serving =
        Bumblebee.Text.text_embedding(loaded.model_info, loaded.tokenizer,
          output_attribute: :hidden_state,
          output_pool: :mean_pooling
        )

      assert %{embedding: %Nx.Tensor{shape: {24}}} = Nx.Serving.run(serving, "1 2 3")
    end
  end
end
