if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Bumblebee.GroupedCacheTest do
    use Emily.FastKernelsCase, async: true

    alias Bumblebee.Text
    alias Bumblebee.Text.Generation
    alias Emily.Bumblebee.FastKernels

    @moduletag timeout: 600_000

    @decoder [
      vocab_size: 24,
      hidden_size: 24,
      intermediate_size: 20,
      num_blocks: 2,
      num_attention_heads: 6,
      max_positions: 16,
      architecture: :for_causal_language_modeling
    ]
    @grouped [num_key_value_heads: 2] ++ @decoder

    # name, module, options, heads of keys
    @families [
      {"Llama", Text.Llama, @grouped, 2},
      {"Mistral", Text.Mistral, @grouped ++ [attention_window_size: 2], 2},
      {"SmolLM3", Text.SmolLm3, @grouped ++ [rotary_embedding_enabled: [true, false]], 2},
      {"Qwen3", Text.Qwen3, @grouped ++ [attention_head_size: 8], 2},
      {"Gemma", Text.Gemma, @grouped ++ [activation: :gelu, attention_head_size: 8], 2},
      {"Gemma 3", Text.Gemma3Text, @grouped ++ [attention_head_size: 8, attention_window_size: 2],
       2},
      {"Phi", Text.Phi, @grouped, 2},
      {"Phi-3", Text.Phi3, @grouped ++ [activation: :silu], 2},
      {"GPT-BigCode", Text.GptBigCode, [num_key_value_heads: 1] ++ @decoder, 1}
    ]

    @ids Nx.tensor([[3, 7, 9, 11, 5], [8, 4, 6, 5, 2]])
    @mask Nx.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])

    # A prompt into a new cache and then a token, in one function: its logits and its cache.
    defp two_steps(model, spec) do
      {_, predict} = Axon.build(model)

      fn params, ids, mask ->
        {batch, _length} = Nx.shape(ids)
        cache = Generation.init_cache(spec, batch, 8, %{})
        inputs = %{"input_ids" => ids, "attention_mask" => mask, "cache" => cache}
        first = predict.(params, inputs)

        token = %{
          "input_ids" => ids[[.., 1..1]],
          "attention_mask" => Nx.broadcast(1, {batch, 1}),
          "position_ids" => mask |> Nx.sum(axes: [1], keep_axes: true) |> Nx.as_type(:s64),
          "cache" => first.cache
        }

        second = predict.(params, token)
        {first.logits, second.logits, second.cache}
      end
    end

    defp jit(fun, compiler), do: Nx.Defn.jit(fun, compiler: compiler)

    for {name, module, options, heads} <- @families do
      test "#{name} caches keys and values once" do
        %{model: model, spec: spec, params: params} =
          model(unquote(module), unquote(Macro.escape(options)))

        {rewritten, report} = FastKernels.apply(model, report: true)
        assert report.rewritten.cache == 2
        assert report.left == %{}

        args = [params, @ids, @mask]
        {first, second, cache} = apply(jit(two_steps(model, spec), Nx.Defn.Evaluator), args)

        for compiler <- [Emily.Compiler, Nx.Defn.Evaluator] do
          Nx.default_backend(Emily.Backend)
          got = apply(jit(two_steps(rewritten, spec), compiler), args)
          Nx.default_backend(Nx.BinaryBackend)
          {got_first, got_second, got_cache} = got
          assert_near({got_first, got_second}, {first, second})

          for {got, right} <-
                Enum.zip(Tuple.to_list(got_cache.blocks), Tuple.to_list(cache.blocks)),
              kind <- [:key, :value] do
            {_, _, all, _} = Nx.shape(right.self_attention[kind])
            assert {_, _, unquote(heads), _} = Nx.shape(got.self_attention[kind])

            each = Nx.tensor(Enum.to_list(0..(all - 1)//div(all, unquote(heads))))
            shared = Nx.take(right.self_attention[kind], each, axis: 2)
            assert_near(got.self_attention[kind], shared)
          end
        end
      end
    end

    test "a cache that is not known to be new stays as it is" do
      %{model: model, spec: spec, params: params} = model(Text.Llama, @grouped)
      {_, predict} = Axon.build(FastKernels.apply(model), compiler: Emily.Compiler)
      cache = Generation.init_cache(spec, 2, 8, %{})
      inputs = %{"input_ids" => @ids, "attention_mask" => @mask, "cache" => cache}
      out = predict.(params, inputs)
      assert {2, 8, 6, 4} = Nx.shape(elem(out.cache.blocks, 0).self_attention.key)
      assert_near(out.logits, expected(%{model: model, params: params}, inputs).logits)
    end

    test "generation from one token, whose loop has the cache as it was made, and from more" do
      %{model: model, spec: spec, params: params} = model(Text.Llama, @grouped)
      config = %Text.GenerationConfig{max_new_tokens: 4, pad_token_id: 0}
      contrastive = %{type: :contrastive_search, top_k: 2, alpha: 0.6}

      for length <- [1, 3], strategy <- [%{type: :greedy_search}, contrastive] do
        ids = Nx.slice_along_axis(@ids, 0, length, axis: 1)
        mask = Nx.broadcast(1, ids)
        seed = Nx.tensor([1, 2])
        inputs = %{"input_ids" => ids, "attention_mask" => mask, "seed" => seed}

        tokens = fn model, compiler ->
          generate = Generation.build_generate(model, spec, %{config | strategy: strategy})
          jit(generate, compiler).(params, inputs).token_ids |> Nx.to_list()
        end

        right = tokens.(model, Nx.Defn.Evaluator)
        assert tokens.(FastKernels.apply(model), Emily.Compiler) == right
      end
    end

    test "keys that others read are left" do
      %{model: model} = model(Text.Llama, @grouped)

      {repeat, _} =
        Enum.find(model.nodes, fn {_, node} ->
          is_function(node.op) and node.opts[:axis] == 2
        end)

      other = Axon.nx(%Axon{output: repeat, nodes: model.nodes}, &Nx.sum/1)
      model = Axon.container({model, other})
      {_, report} = FastKernels.apply(model, report: true)

      assert report.left == %{{:cache, "its repeated keys or values have other readers"} => 1}
      assert report.rewritten.cache == 2
    end

    test "weights that are asked for are those of the unmodified model" do
      info = model(Text.Llama, @grouped)
      inputs = %{"input_ids" => @ids, "attention_mask" => @mask}
      assert_same(info, inputs, global_layer_options: [output_attentions: true])
    end
  end
end
