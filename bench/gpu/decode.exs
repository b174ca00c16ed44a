# Decoding with a model of SmolLM2-135M's shape (or --qwen, Qwen3-0.6B's) and random weights in bf16, greedily, by
# Bumblebee with FastKernels, and without where --unmodified says so: tokens a second of calls of 128, what a turn takes, and
# the rest of a call. Weights lie as they are made (rows), or transposed, as files have them.
{:ok, _} = Application.ensure_all_started(:emily)
{:ok, _} = Application.ensure_all_started(:bumblebee)
Nx.default_backend(Emily.Backend)

{flags, []} = System.argv() |> Enum.split_with(&(&1 in ~w(--qwen --unmodified)))

{name, module, sizes} =
  if "--qwen" in flags do
    {"Qwen3-0.6B", Bumblebee.Text.Qwen3,
     vocab_size: 151_936,
     hidden_size: 1024,
     intermediate_size: 3072,
     attention_head_size: 128,
     num_blocks: 28,
     num_attention_heads: 16,
     num_key_value_heads: 8}
  else
    {"SmolLM2-135M", Bumblebee.Text.Llama,
     vocab_size: 49_152,
     hidden_size: 576,
     intermediate_size: 1536,
     num_blocks: 30,
     num_attention_heads: 9,
     num_key_value_heads: 3}
  end

options =
  [architecture: :for_causal_language_modeling, max_positions: 2048, tie_word_embeddings: true]

spec = Bumblebee.configure(struct(module), options ++ sizes)

bf16 = Axon.MixedPrecision.create_policy(params: {:bf, 16}, compute: {:bf, 16}, output: {:bf, 16})
plain = spec |> Bumblebee.build_model() |> Axon.MixedPrecision.apply_policy(bf16)
template = %{"input_ids" => Nx.template({1, 32}, :u32)}
{init, _} = Axon.build(plain, compiler: Emily.Compiler)
rows = init.(template, Axon.ModelState.empty())
prompt = 32

laid = fn
  "rows" ->
    rows

  "transposed" ->
    update_in(rows.data, fn data ->
      Map.new(data, fn {layer, parameters} ->
        {layer,
         Map.new(parameters, fn
           # The embedding, a word a row as in files.
           {"kernel", kernel} when layer == "language_modeling_head.output" ->
             {"kernel", kernel}

           # By the host, which lays what it has in rows.
           {"kernel", kernel} ->
             host = kernel |> Nx.transpose() |> Nx.backend_copy(Nx.BinaryBackend)
             {"kernel", host |> Nx.backend_copy(Emily.Backend) |> Nx.transpose()}

           other ->
             other
         end)}
      end)
    end)
end

inputs = %{
  "input_ids" => Nx.iota({1, prompt}, type: :u32),
  "attention_mask" => Nx.broadcast(1, {1, prompt}),
  "seed" => Nx.tensor([0], type: :s64)
}

models =
  [{"FastKernels", Emily.Bumblebee.FastKernels.apply(plain)}] ++
    if("--unmodified" in flags, do: [{"unmodified", plain}], else: [])

for {kernels, model} <- models, layout <- ["rows", "transposed"] do
  params = laid.(layout)

  times =
    for new <- [32, 128, 224] do
      config =
        Bumblebee.configure(%Bumblebee.Text.GenerationConfig{},
          max_new_tokens: new,
          pad_token_id: 0,
          eos_token_id: nil,
          strategy: %{type: :greedy_search}
        )

      generate = Bumblebee.Text.Generation.build_generate(model, spec, config)
      run = Nx.Defn.jit(generate, compiler: Emily.Compiler)
      read = fn -> run.(params, inputs).token_ids |> Nx.to_flat_list() |> length() end
      first = elem(:timer.tc(read), 0)
      before = Emily.Native.replayed_turns()
      best = Enum.min(for _ <- 1..6, do: elem(:timer.tc(read), 0))
      {first, best, div(Emily.Native.replayed_turns() - before, 6)}
    end

  [{first, short, _}, {_, middle, replayed}, {_, long, _}] = times
  turn = (long - short) / 192

  IO.puts(
    "#{name}, #{kernels}, #{layout}: #{Float.round(128.0e6 / middle, 1)} tokens/s, a turn #{round(turn)} us, " <>
      "the rest of a call #{Float.round((short - 32 * turn) / 1000, 1)} ms, #{replayed} of 128 turns replayed, " <>
      "first call #{div(first, 1000)} ms"
  )
end
