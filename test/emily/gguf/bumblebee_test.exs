# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  Code.require_file("../../../examples/support/demo.ex", __DIR__)

  defmodule Emily.GGUF.BumblebeeTest do
    use ExUnit.Case, async: true

    alias Emily.Bumblebee.FastKernels
    alias Emily.{GGUF, QuantizedWeight}

    # A whole model runs here: on a busy machine that takes longer than ExUnit's minute.
    @moduletag timeout: 600_000

    @golden Path.expand("../../fixtures/golden", __DIR__)

    setup_all do
      path = Demo.smollm2!()
      {:ok, loaded} = GGUF.load_bumblebee(path)
      greedy = Path.join(@golden, "smollm2_greedy.json") |> File.read!() |> Jason.decode!()
      Map.merge(loaded, %{path: path, greedy: greedy})
    end

    setup do
      Nx.default_backend(Emily.Backend)
      :ok
    end

    test "SmolLM2's specification and special tokens", context do
      %{model_info: %{spec: spec}, tokenizer: tokenizer, generation_config: config} = context

      assert %Bumblebee.Text.Llama{
               architecture: :for_causal_language_modeling,
               vocab_size: 49_152,
               max_positions: 8192,
               hidden_size: 576,
               intermediate_size: 1536,
               attention_head_size: 64,
               num_blocks: 30,
               num_attention_heads: 9,
               num_key_value_heads: 3,
               activation: :silu,
               rotary_embedding_base: 100_000.0,
               rotary_embedding_scaling_strategy: nil,
               tie_word_embeddings: true,
               pad_token_id: 2
             } = spec

      assert_in_delta spec.layer_norm_epsilon, 1.0e-5, 1.0e-11
      assert %{bos_token_id: 1, eos_token_id: 2, pad_token_id: 2} = config

      assert tokenizer.special_tokens == %{
               bos: "<|im_start|>",
               eos: "<|im_end|>",
               pad: "<|im_end|>",
               unk: "<|endoftext|>"
             }
    end

    test "the parameters are on MLX, and tied embeddings are one array", %{model_info: model_info} do
      %{data: data} = model_info.params

      for {_, params} <- data,
          {_, parameter} <- params,
          tensor <- tensors(parameter),
          do: assert(%Emily.Backend{} = tensor.data)

      embedding = data["embedder.token_embedding"]["kernel"]
      head = data["language_modeling_head.output"]["kernel"]
      assert embedding.value.data.ref == head.value.data.ref
    end

    defp tensors(%QuantizedWeight{} = weight), do: [weight.value, weight.scales, weight.biases]
    defp tensors(tensor), do: [tensor]

    test "packed parameters are the file's numbers, dequantized ones dense", context do
      {:ok, %{model_info: dense}} = GGUF.load_bumblebee(context.path, dequantize: true)
      %{model_info: packed} = context
      layers = Axon.properties(dense.model)

      for {layer, params} <- packed.params.data, {name, parameter} <- params do
        wanted = dense.params.data[layer][name]
        assert %Nx.Tensor{type: {:f, 32}} = wanted

        case parameter do
          %QuantizedWeight{mode: mode} = weight ->
            assert mode in ["ggml_q4_1", "ggml_q8_0"]
            numbers = QuantizedWeight.to_dense(weight)
            numbers = if layers[layer] == :dense, do: Nx.transpose(numbers), else: numbers
            assert Nx.to_number(Nx.all(Nx.equal(numbers, wanted))) == 1, layer

          tensor ->
            assert Nx.to_binary(tensor) == Nx.to_binary(wanted)
        end
      end

      report = Emily.Quantization.report(packed)
      assert map_size(report.packed) == 30 * 7 + 2 and report.dense == %{}

      # What is multiplied is rounded to 15 bits.
      [golden | _] = context.greedy
      off = Nx.subtract(logits(packed, golden["prompt_ids"]), logits(dense, golden["prompt_ids"]))
      assert off |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() < 2.0e-2
    end

    test "the tokenizer gives the ids of the published one, and takes them back", context do
      native = context.tokenizer.native_tokenizer
      texts = Path.join(@golden, "smollm2_ids.json") |> File.read!() |> Jason.decode!()
      assert length(texts) > 20

      for %{"text" => text, "ids" => ids} <- texts ++ prompts(context.greedy) do
        {:ok, encoding} = Tokenizers.Tokenizer.encode(native, text)
        assert {text, Tokenizers.Encoding.get_ids(encoding)} == {text, ids}

        assert Tokenizers.Tokenizer.decode(native, ids, skip_special_tokens: false) == {:ok, text}
      end
    end

    defp prompts(greedy),
      do: for(g <- greedy, do: %{"text" => g["prompt"], "ids" => g["prompt_ids"]})

    test "the first logits are the golden ones", %{model_info: model_info} = context do
      for golden <- context.greedy do
        logits = logits(model_info, golden["prompt_ids"])

        for {[id, value], rank} <- Enum.with_index(golden["first_top5"]) do
          # What is multiplied is rounded to 15 bits here, and was not there.
          assert_in_delta Nx.to_number(logits[id]), value, 1.0e-2
          assert Nx.to_number(Nx.argsort(logits, direction: :desc)[rank]) == id
        end

        assert_in_delta Nx.to_number(Nx.mean(logits)), golden["first_logits_mean"], 5.0e-3

        assert_in_delta Nx.to_number(Nx.standard_deviation(logits)),
                        golden["first_logits_std"],
                        5.0e-3
      end
    end

    # Left padding, and prompts of different lengths in one batch.
    for fast <- [false, true] do
      test "greedy generation gives the golden tokens, batched, FastKernels: #{fast}", context do
        %{model_info: model_info, tokenizer: tokenizer} = context

        model_info =
          if unquote(fast) do
            {model_info, report} = Emily.Bumblebee.FastKernels.apply(model_info, report: true)

            assert report == %{
                     rewritten: %{attention: 30, cache: 30, rms_norm: 61, rope: 30, swiglu: 30},
                     left: %{}
                   }

            model_info
          else
            model_info
          end

        generate =
          Bumblebee.Text.Generation.build_generate(
            model_info.model,
            model_info.spec,
            config(context)
          )

        tokenizer =
          Bumblebee.configure(tokenizer, pad_direction: :left, return_token_type_ids: false)

        inputs = Bumblebee.apply_tokenizer(tokenizer, Enum.map(context.greedy, & &1["prompt"]))
        inputs = Map.put(inputs, "seed", Nx.broadcast(0, {length(context.greedy)}))
        jit = Nx.Defn.jit(generate, compiler: Emily.Compiler)
        %{token_ids: ids} = jit.(model_info.params, inputs)

        for {ids, golden} <- Enum.zip(Nx.to_list(ids), context.greedy),
            do: assert_greedy(ids, golden, model_info)
      end
    end

    test "a serving gives the golden text, at once and streamed", context do
      [golden | _] = context.greedy
      options = [compile: [batch_size: 1, sequence_length: 16]]
      options = [defn_options: [compiler: Emily.Compiler]] ++ options
      %{model_info: model_info, tokenizer: tokenizer} = context

      # The prompt is shorter than the sequence, so there is padding on its left.
      for model_info <- [model_info, FastKernels.apply(model_info)] do
        serving = Bumblebee.Text.generation(model_info, tokenizer, config(context), options)
        %{results: [%{text: text}]} = Nx.Serving.run(serving, golden["prompt"])
        assert text == golden["text"]

        serving =
          Bumblebee.Text.generation(
            model_info,
            tokenizer,
            config(context),
            [stream: true] ++ options
          )

        pieces = serving |> Nx.Serving.run(golden["prompt"]) |> Enum.to_list()
        # Bumblebee gives whole words.
        assert length(pieces) > 3
        assert Enum.join(pieces) == golden["text"]
      end
    end

    defp config(context), do: Bumblebee.configure(context.generation_config, max_new_tokens: 24)

    # A token differs only where the two best are nearly alike, and so does what follows it.
    defp assert_greedy(ids, golden, model_info) do
      case Enum.find_index(Enum.zip(ids, golden["new_ids"]), fn {a, b} -> a != b end) do
        nil ->
          assert length(ids) == length(golden["new_ids"])

        at ->
          assert golden["min_margin"] < 0.05
          logits = logits(model_info, golden["prompt_ids"] ++ Enum.take(ids, at))
          [ours, theirs] = for list <- [ids, golden["new_ids"]], do: logits[Enum.at(list, at)]
          assert_in_delta Nx.to_number(ours), Nx.to_number(theirs), 0.05
      end
    end

    defp logits(%{model: model, params: params}, ids) do
      %{logits: logits} = Axon.predict(model, params, %{"input_ids" => Nx.tensor([ids])})
      logits[0][-1]
    end

    describe "refused is" do
      defp put(metadata, key, type, value),
        do: List.keystore(metadata, key, 0, {key, type, value})

      @tag :tmp_dir
      test "what is not known, by name", %{tmp_dir: folder} = context do
        gguf = GGUF.read!(context.path)
        model = Map.reject(gguf.metadata, fn {key, _} -> key =~ "tokenizer." end)
        metadata = for {key, value} <- model, do: {key, gguf.types[key], value}

        refused = fn message, fun ->
          path = metadata |> fun.() |> Emily.GGUFFile.bytes([]) |> Emily.GGUFFile.write(folder)
          assert_raise ArgumentError, message, fn -> GGUF.load_bumblebee(path) end
        end

        refused.(
          ~r/architecture is "mamba"; supported: .*"llama", /,
          &put(&1, "general.architecture", :string, "mamba")
        )

        refused.(~r/there is no general.architecture/, fn _ -> [] end)
        refused.(~r/head_count is 0, no size/, &put(&1, "llama.attention.head_count", :u32, 0))
        refused.(~r/no tensor "token_embd.weight" of two/, & &1)
        refused.(~r/expert_count is 8/, &put(&1, "llama.expert_count", :u32, 8))
      end

      @tag :tmp_dir
      test "a tokenizer that is not known or broken", %{tmp_dir: folder} do
        tokenizer = fn changes ->
          metadata = [
            {"tokenizer.ggml.model", :string, "gpt2"},
            {"tokenizer.ggml.pre", :string, "gpt-2"},
            {"tokenizer.ggml.tokens", {:array, :string}, ["a", "b", "ab", "<s>"]},
            {"tokenizer.ggml.token_type", {:array, :s32}, [1, 1, 1, 3]},
            {"tokenizer.ggml.merges", {:array, :string}, ["a b"]},
            {"tokenizer.ggml.bos_token_id", :u32, 3}
          ]

          metadata =
            Enum.reduce(changes, metadata, fn {key, type, value}, metadata ->
              put(metadata, "tokenizer.ggml." <> key, type, value)
            end)

          path = metadata |> Emily.GGUFFile.bytes([]) |> Emily.GGUFFile.write(folder)
          fn -> path |> GGUF.read!() |> GGUF.Tokenizer.build() end
        end

        ids = fn tokenizer, text ->
          {:ok, encoding} = Tokenizers.Tokenizer.encode(tokenizer.native_tokenizer, text)
          Tokenizers.Encoding.get_ids(encoding)
        end

        assert ids.(tokenizer.([]).(), "abba<s>a") == [2, 1, 0, 3, 0]
        assert ids.(tokenizer.([{"add_bos_token", :bool, true}]).(), "ab") == [3, 2]
        both = [{"add_bos_token", :bool, true}, {"add_eos_token", :bool, true}]
        both = [{"eos_token_id", :u32, 3} | both]
        assert ids.(tokenizer.(both).(), "ab") == [3, 2, 3]

        for {changes, message} <- [
              {[{"model", :string, "rwkv"}],
               ~r/of the model "rwkv"; supported: "bert", "gpt2", "llama"/},
              {[{"pre", :string, "bloom"}], ~r/pre-tokenizer is "bloom"; supported/},
              {[{"tokens", {:array, :string}, ["a", "a", "b", "ab"]}], ~r/tokens twice/},
              {[{"token_type", {:array, :s32}, [1]}], ~r/without a type/},
              {[{"merges", {:array, :string}, ["ab"]}], ~r/"ab", no pair/},
              {[{"merges", {:array, :string}, ["a x"]}], ~r/refused/},
              {[{"bos_token_id", :u32, 4}], ~r/bos_token_id is 4, beyond/},
              {both |> tl() |> Enum.take(2), ~r/adds the token eos/}
            ] do
          assert_raise ArgumentError, message, tokenizer.(changes)
        end
      end
    end
  end
end
