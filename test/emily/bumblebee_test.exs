# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  Code.require_file("../../examples/minilm_native.exs", __DIR__)

  defmodule Emily.BumblebeeTest do
    use ExUnit.Case, async: true

    @golden Path.expand("../fixtures/golden/minilm_embeddings.json", __DIR__)

    setup_all do
      dir = Demo.model_dir!()
      {:ok, model} = Bumblebee.load_model({:local, dir}, backend: Emily.Backend)
      {:ok, tokenizer} = Bumblebee.load_tokenizer({:local, dir})
      native_tokenizer = MiniLM.Tokenizer.load!(Path.join(dir, "vocab.txt"), 256)
      golden = @golden |> File.read!() |> Jason.decode!()

      %{model: model, tokenizer: tokenizer, native_tokenizer: native_tokenizer, golden: golden}
    end

    setup do
      Nx.default_backend(Emily.Backend)
      :ok
    end

    for {name, options} <- [
          {"compiled for its shape", [compile: [batch_size: 5, sequence_length: 16]]},
          {"compiled for its shape by Emily.Compiler",
           [
             compile: [batch_size: 5, sequence_length: 16],
             defn_options: [compiler: Emily.Compiler]
           ]},
          {"compiled as it comes", []}
        ] do
      test "MiniLM gives the golden embeddings in one batch, #{name}", context do
        texts = Enum.map(context.golden, & &1["text"])
        embeddings = embed(context, texts, unquote(options))
        assert_close(embeddings, Enum.map(context.golden, & &1["embedding"]))
      end
    end

    for {name, options} <- [
          {"in one batch", [compile: [batch_size: 5, sequence_length: 16]]},
          {"padded on, in rows too", [compile: [batch_size: 8, sequence_length: 40]]},
          {"compiled as it comes", []}
        ] do
      test "MiniLM with FastKernels gives the golden embeddings, #{name}", context do
        {model, report} = Emily.Bumblebee.FastKernels.apply(context.model, report: true)
        assert report == %{rewritten: %{attention: 6, gelu: 6, layer_norm: 13}, left: %{}}
        texts = Enum.map(context.golden, & &1["text"])
        options = unquote(options) ++ [defn_options: [compiler: Emily.Compiler]]
        embeddings = embed(%{context | model: model}, texts, options)
        assert_close(embeddings, Enum.map(context.golden, & &1["embedding"]))
      end
    end

    test "MiniLM gives the golden embeddings one by one", context do
      for %{"text" => text, "embedding" => embedding} <- context.golden do
        assert_close(embed(context, [text], []), [embedding])
      end
    end

    test "the parameters and the hidden state are on MLX", %{model: model} = context do
      inputs = Bumblebee.apply_tokenizer(context.tokenizer, ["A man is eating food."])

      Emily.Fallback.with_mode(:raise, fn ->
        %{hidden_state: state} = Axon.predict(model.model, model.params, inputs)
        assert %Nx.Tensor{data: %Emily.Backend{}, shape: {1, 8, 384}, type: {:f, 32}} = state
      end)

      for {_layer, params} <- model.params.data, {_name, tensor} <- params do
        assert %Nx.Tensor{data: %Emily.Backend{}} = tensor
      end
    end

    test "the written-out tokenizer gives the ids of Bumblebee's", context do
      texts =
        ["don't stop-it: $5+3=8 <b> ^_^ `x` ~a|b", "İstanbul ΑΣ ς ẞ", "日本語 中文 한국어"] ++
          ["¿Qué?«»—…“”", "a [MASK] b [mask] [ UNK ]", "naïve\nline\r\ntab\tend", "🙂👩‍👧"] ++
          [
            "",
            "  ",
            "१२३ ½ ²",
            "soft\u00ADhyphen no\u00A0break\u3000wide",
            "embeddings' tokenization"
          ] ++
          Enum.map(context.golden, & &1["text"])

      for text <- texts do
        %{"input_ids" => ids} = Bumblebee.apply_tokenizer(context.tokenizer, [text])
        assert MiniLM.Tokenizer.encode(context.native_tokenizer, text) == Nx.to_flat_list(ids)
      end
    end

    # No operation may leave MLX: each one that does raises.
    defp embed(%{model: model, tokenizer: tokenizer}, texts, options) do
      options = [output_attribute: :hidden_state, output_pool: :mean_pooling] ++ options
      options = [embedding_processor: :l2_norm] ++ options
      serving = Bumblebee.Text.text_embedding(model, tokenizer, options)

      Emily.Fallback.with_mode(:raise, fn ->
        for %{embedding: embedding} <- Nx.Serving.run(serving, texts) do
          Nx.to_flat_list(embedding)
        end
      end)
    end

    defp assert_close(embeddings, expected) do
      assert Enum.map(embeddings, &length/1) == Enum.map(expected, &length/1)

      worst =
        Enum.zip(List.flatten(embeddings), List.flatten(expected))
        |> Enum.map(fn {x, y} -> abs(x - y) end)
        |> Enum.max()

      assert worst <= 1.0e-5
    end
  end
end
