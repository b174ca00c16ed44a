# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Bumblebee.CachedAttentionTest do
    # Generation with a cache that is no number wherever nothing may be read. A key that a mask hides
    # still spreads, as 0 times NaN, so a kernel over the whole cache ends in other tokens.
    use Emily.FastKernelsCase, async: true

    alias Bumblebee.Text.{Generation, GenerationConfig, Llama}
    alias Emily.Bumblebee.FastKernels

    defmodule Poisoned do
      # A Llama whose cache is poisoned where `bad` says so, for each place; when it is made, or once the
      # prompt is in it, which a contrastive search hands out.
      defstruct [:spec, :bad, :when, :batch]

      def init_cache(%{spec: spec} = poisoned, batch, length, inputs) do
        cache = Generation.init_cache(spec, batch, length, inputs)
        if poisoned.when == :new, do: poison(poisoned, cache, & &1), else: cache
      end

      def traverse_cache(%{spec: spec} = poisoned, cache, fun) do
        if poisoned.when == :filled and Nx.axis_size(cache.attention_mask, 0) == poisoned.batch,
          do: poison(poisoned, cache, fun),
          else: Generation.traverse_cache(spec, cache, fun)
      end

      defp poison(%{spec: spec, bad: bad}, cache, fun) do
        Generation.traverse_cache(spec, cache, fn
          %{shape: {_, length, _, _}} = tensor ->
            bad = for place <- 0..(length - 1), do: if(bad.(place), do: 1, else: 0)

            bad =
              bad |> Nx.tensor() |> Nx.reshape({1, length, 1, 1}) |> Nx.broadcast(tensor.shape)

            fun.(Nx.select(bad, Nx.Constants.nan(tensor.type), tensor))

          tensor ->
            fun.(tensor)
        end)
      end
    end

    @decoder [architecture: :for_causal_language_modeling, vocab_size: 24, hidden_size: 16] ++
               [intermediate_size: 20, num_blocks: 2, num_attention_heads: 2, max_positions: 32] ++
               [num_key_value_heads: 1]
    @ids Nx.tensor([[3, 7, 9, 11, 5], [8, 4, 6, 5, 2]])
    @tokens 6
    @greedy %{type: :greedy_search}
    @contrastive %{type: :contrastive_search, top_k: 2, alpha: 0.3}

    defp tokens(info, model, spec, strategy, mask, compiler) do
      config = %GenerationConfig{max_new_tokens: @tokens, pad_token_id: 0, strategy: strategy}
      generate = Generation.build_generate(model, spec, config)

      inputs = %{
        "input_ids" => @ids,
        "attention_mask" => Nx.tensor(mask),
        "seed" => Nx.tensor([1, 2])
      }

      Nx.to_list(Nx.Defn.jit(generate, compiler: compiler).(info.params, inputs).token_ids)
    end

    # The unmodified model on Nx.BinaryBackend and a clean cache says what is right. That the poison is one
    # is seen in the unmodified model, too.
    defp assert_unread(strategy, mask, poison) do
      info = model(Llama, @decoder)
      poisoned = struct!(%Poisoned{spec: info.spec, batch: 2}, poison)
      right = tokens(info, info.model, info.spec, strategy, mask, Nx.Defn.Evaluator)
      assert [[_, _, _, _, _, _], [_, _, _, _, _, _]] = right
      assert tokens(info, info.model, poisoned, strategy, mask, Emily.Compiler) != right

      rewritten = FastKernels.apply(info.model)
      assert tokens(info, rewritten, poisoned, strategy, mask, Emily.Compiler) == right
      assert tokens(info, rewritten, info.spec, strategy, mask, Emily.Compiler) == right
      # On Nx.BinaryBackend it is the composed form.
      assert tokens(info, rewritten, info.spec, strategy, mask, Nx.Defn.Evaluator) == right
    end

    @ones List.duplicate([1, 1, 1, 1, 1], 2)

    test "the prompt and each step read what is filled" do
      assert_unread(@greedy, @ones, when: :new, bad: fn _place -> true end)
    end

    test "a contrastive search reads what is filled" do
      assert_unread(@contrastive, @ones, when: :filled, bad: &(&1 >= 5))
    end

    test "padding on the left is left out" do
      mask = List.duplicate([0, 0, 1, 1, 1], 2)
      assert_unread(@contrastive, mask, when: :filled, bad: &(&1 < 2 or &1 >= 5))
    end

    test "the padding of one sequence is masked, that of all is left out" do
      mask = [[0, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
      assert_unread(@contrastive, mask, when: :filled, bad: &(&1 < 1 or &1 >= 5))
    end

    test "padding on the right is masked" do
      mask = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
      assert_unread(@contrastive, mask, when: :filled, bad: &(&1 >= 5))
    end

    test "gradients go through the composed form" do
      %{model: model, params: params, spec: spec} = model(Llama, @decoder)

      gradient = fn model, compiler ->
        {_, predict} = Axon.build(model)
        cache = Generation.init_cache(spec, 2, 7, %{})

        loss = fn params, inputs -> Nx.sum(Nx.sin(predict.(params, inputs).logits)) end
        grad = fn params, inputs -> Nx.Defn.grad(params, &loss.(&1, inputs)) end

        Nx.Defn.jit(grad, compiler: compiler).(params, %{
          "input_ids" => @ids,
          "attention_mask" => Nx.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]),
          "cache" => cache
        })
      end

      right = gradient.(model, Nx.Defn.Evaluator)
      assert_near(gradient.(FastKernels.apply(model), Emily.Compiler).data, right.data)
    end
  end
end
