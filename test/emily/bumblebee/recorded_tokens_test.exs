# Bumblebee takes one line of Nx versions; the suite also runs on others.
if Code.ensure_loaded?(Bumblebee) do
  defmodule Emily.Bumblebee.RecordedTokensTest do
    # A generation whose turns are recorded and run again, of one sequence, whose products are those of few rows on a GPU. Alone,
    # as it counts the turns and runs of the whole VM.
    use Emily.FastKernelsCase, async: false

    alias Bumblebee.Text.{Generation, Llama, Qwen3}
    alias Emily.Bumblebee.FastKernels

    @new 16
    @options [architecture: :for_causal_language_modeling, vocab_size: 96, num_blocks: 2] ++
               [hidden_size: 128, intermediate_size: 128, max_positions: 64] ++
               [num_attention_heads: 2, num_key_value_heads: 1]

    for {module, options} <- [{Llama, []}, {Qwen3, [attention_head_size: 64]}] do
      test "of #{inspect(module)} gives the tokens of the unmodified model" do
        info = model(unquote(module), unquote(options) ++ @options)
        config = %Bumblebee.Text.GenerationConfig{max_new_tokens: @new, pad_token_id: 0}

        inputs = %{
          "input_ids" => Nx.tensor([[3, 7, 9, 11, 5]]),
          "attention_mask" => Nx.tensor([[1, 1, 1, 1, 1]]),
          "seed" => Nx.tensor([1])
        }

        compiled = fn model, options ->
          generate = Generation.build_generate(model, info.spec, config)
          Nx.Defn.jit(generate, options)
        end

        right = compiled.(info.model, compiler: Nx.Defn.Evaluator).(info.params, inputs).token_ids
        tokens = Nx.to_flat_list(right)
        assert length(Enum.uniq(tokens)) > 4, "#{inspect(tokens)} would hide a wrong turn"

        reader = self()
        model = FastKernels.apply(info.model)
        hooks = %{token: &send(reader, {:token, Nx.to_flat_list(&1.token_id)})}

        for options <- [[], [hooks: hooks]] do
          Emily.Memory.clear_cache()
          before = Emily.Native.replayed_turns()
          run = compiled.(model, [compiler: Emily.Compiler] ++ options)

          # The second call begins with the recording of the first.
          for _ <- 1..2 do
            assert run.(info.params, inputs).token_ids |> Nx.to_flat_list() == tokens
            if options != [], do: assert(streamed() == tokens)
          end

          # Linux alone has what MLX calls taken its way through Emily.
          if :os.type() == {:unix, :linux} and System.get_env("EMILY_KERNELS") != "off",
            do: assert(Emily.Native.replayed_turns() - before >= 2 * @new - 8)
        end
      end
    end

    test "a prompt is recorded, and another one of its length is read by the recording" do
      info = model(Llama, @options)
      config = %Bumblebee.Text.GenerationConfig{max_new_tokens: 4, pad_token_id: 0}

      # More rows than a kernel of few takes; the last is padded on its left, with fewer keys to see.
      prompts =
        for {first, pads} <- [{1, 0}, {2, 0}, {5, 0}, {7, 0}, {3, 0}, {4, 9}, {6, 0}] do
          ids = for at <- 1..24, do: if(at <= pads, do: 0, else: rem(first * at * at, 95) + 1)

          %{
            "input_ids" => Nx.tensor([ids]),
            "attention_mask" => Nx.tensor([for(at <- 1..24, do: if(at <= pads, do: 0, else: 1))]),
            "seed" => Nx.tensor([1])
          }
        end

      run = fn model, compiler ->
        generate = Generation.build_generate(model, info.spec, config)
        Nx.Defn.jit(generate, compiler: compiler)
      end

      right = run.(info.model, Nx.Defn.Evaluator)
      Emily.Memory.clear_cache()
      before = Emily.Native.replayed_runs()
      compiled = run.(FastKernels.apply(info.model), Emily.Compiler)

      for inputs <- prompts do
        tokens = Nx.to_flat_list(right.(info.params, inputs).token_ids)
        assert Nx.to_flat_list(compiled.(info.params, inputs).token_ids) == tokens
      end

      if :os.type() == {:unix, :linux} and System.get_env("EMILY_KERNELS") != "off",
        do: assert(Emily.Native.replayed_runs() > before)
    end

    defp streamed do
      receive do
        {:token, [token]} -> [token | streamed()]
      after
        0 -> []
      end
    end
  end
end
