# Decoding with a model of SmolLM2-135M's shape (or --qwen, Qwen3-0.6B's) and random weights in bf16, greedily, by
# Bumblebee with and without FastKernels: tokens a second, and the operations of the compiled program.
{:ok, _} = Application.ensure_all_started(:emily)
{:ok, _} = Application.ensure_all_started(:bumblebee)
Nx.default_backend(Emily.Backend)

spec =
  Bumblebee.configure(%Bumblebee.Text.Llama{},
    architecture: :for_causal_language_modeling,
    vocab_size: 49_152,
    hidden_size: 576,
    intermediate_size: 1536,
    num_blocks: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    max_positions: 2048,
    tie_word_embeddings: true
  )

bf16 = Axon.MixedPrecision.create_policy(params: {:bf, 16}, compute: {:bf, 16}, output: {:bf, 16})
plain = spec |> Bumblebee.build_model() |> Axon.MixedPrecision.apply_policy(bf16)
template = %{"input_ids" => Nx.template({1, 32}, :u32)}
{init, _} = Axon.build(plain, compiler: Emily.Compiler)
params = init.(template, Axon.ModelState.empty())
[prompt, new] = [32, 128]

config =
  Bumblebee.configure(%Bumblebee.Text.GenerationConfig{},
    max_new_tokens: new,
    pad_token_id: 0,
    eos_token_id: nil,
    strategy: %{type: :greedy_search}
  )

inputs = %{
  "input_ids" => Nx.iota({1, prompt}, type: :u32),
  "attention_mask" => Nx.broadcast(1, {1, prompt}),
  "seed" => Nx.tensor([0], type: :s64)
}

for {name, model} <- [
      {"FastKernels", Emily.Bumblebee.FastKernels.apply(plain)},
      {"unmodified", plain}
    ] do
  generate = Bumblebee.Text.Generation.build_generate(model, spec, config)
  run = Nx.Defn.jit(generate, compiler: Emily.Compiler)
  read = fn -> run.(params, inputs).token_ids |> Nx.to_flat_list() |> length() end
  first = elem(:timer.tc(read), 0)
  times = for _ <- 1..3, do: elem(:timer.tc(read), 0)
  best = Enum.min(times)

  IO.puts(
    "decode #{name}\t#{Float.round(new * 1.0e6 / best, 1)} tokens/s, first call #{div(first, 1000)} ms"
  )
end
