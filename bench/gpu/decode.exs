# Decoding with a model of SmolLM2-135M's shape (or --qwen, Qwen3-0.6B's; --qwen-4b, Qwen3-4B's) and random weights in bf16, greedily, by
# Bumblebee with FastKernels, and without where --unmodified says so: tokens a second of calls of 128, what a turn takes, and
# the rest of a call. Weights lie as they are made (rows), or transposed, as files have them, which is all where --transposed says so.
# With --more also: the same with each token handed to a process, a prompt of 2048, and the most memory over that of the weights.
{:ok, _} = Application.ensure_all_started(:emily)
{:ok, _} = Application.ensure_all_started(:bumblebee)
Nx.default_backend(Emily.Backend)

{flags, []} =
  System.argv() |> Enum.split_with(&(&1 in ~w(--qwen --qwen-4b --unmodified --transposed --more)))

smol = [
  vocab_size: 49_152,
  hidden_size: 576,
  intermediate_size: 1536,
  num_blocks: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3
]

qwen = [
  vocab_size: 151_936,
  hidden_size: 1024,
  intermediate_size: 3072,
  attention_head_size: 128,
  num_blocks: 28,
  num_attention_heads: 16,
  num_key_value_heads: 8
]

larger = [hidden_size: 2560, intermediate_size: 9728, num_blocks: 36, num_attention_heads: 32]

{name, module, sizes} =
  cond do
    "--qwen-4b" in flags -> {"Qwen3-4B", Bumblebee.Text.Qwen3, Keyword.merge(qwen, larger)}
    "--qwen" in flags -> {"Qwen3-0.6B", Bumblebee.Text.Qwen3, qwen}
    true -> {"SmolLM2-135M", Bumblebee.Text.Llama, smol}
  end

options =
  [architecture: :for_causal_language_modeling, max_positions: 4096, tie_word_embeddings: true]

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

inputs = fn length ->
  %{
    "input_ids" => Nx.iota({1, length}, type: :u32),
    "attention_mask" => Nx.broadcast(1, {1, length}),
    "seed" => Nx.tensor([0], type: :s64)
  }
end

generation = fn model, new, options ->
  config =
    Bumblebee.configure(%Bumblebee.Text.GenerationConfig{},
      max_new_tokens: new,
      pad_token_id: 0,
      eos_token_id: nil,
      strategy: %{type: :greedy_search}
    )

  generate = Bumblebee.Text.Generation.build_generate(model, spec, config)
  Nx.Defn.jit(generate, [compiler: Emily.Compiler] ++ options)
end

# Reads the tokens: how long a call takes in microseconds.
timed = fn run, params, inputs ->
  elem(:timer.tc(fn -> run.(params, inputs).token_ids |> Nx.to_flat_list() |> length() end), 0)
end

best = fn run, params, inputs -> Enum.min(for _ <- 1..6, do: timed.(run, params, inputs)) end

# What --more says of a model.
more = fn model, params, middle ->
  reader = self()
  new = 128
  streamed = generation.(model, new, hooks: %{token: &send(reader, {:token, &1.token_id})})
  timed.(streamed, params, inputs.(prompt))
  time = best.(streamed, params, inputs.(prompt))

  tokens = fn tokens ->
    receive do
      {:token, _} -> tokens.(tokens) + 1
    after
      0 -> 0
    end
  end

  handed = tokens.(tokens)
  long = generation.(model, 1, [])
  timed.(long, params, inputs.(2048))
  prefill = best.(long, params, inputs.(2048))

  Emily.Memory.clear_cache()
  Enum.each(Process.list(), &:erlang.garbage_collect/1)
  weights = Emily.Memory.stats().active
  Emily.Memory.reset_peak()
  timed.(generation.(model, new, []), params, inputs.(prompt))
  over = Emily.Memory.stats().peak - weights

  IO.puts(
    "#{name}: streamed #{Float.round(128.0e6 / time, 1)} tokens/s (#{handed} tokens handed over in 7 calls), " <>
      "#{Float.round(middle / time, 3)} of not; a prompt of 2048 and a token #{Float.round(prefill / 1000, 2)} ms; " <>
      "#{Float.round(over / 1.0e6, 1)} MB over the #{Float.round(weights / 1.0e6, 1)} MB that were there"
  )
end

models =
  [{"FastKernels", Emily.Bumblebee.FastKernels.apply(plain)}] ++
    if("--unmodified" in flags, do: [{"unmodified", plain}], else: [])

layouts = if "--transposed" in flags, do: ["transposed"], else: ["rows", "transposed"]

for {kernels, model} <- models, layout <- layouts do
  params = laid.(layout)

  times =
    for new <- [32, 128, 224] do
      run = generation.(model, new, [])
      first = timed.(run, params, inputs.(prompt))
      before = Emily.Native.replayed_turns()
      time = best.(run, params, inputs.(prompt))
      {first, time, div(Emily.Native.replayed_turns() - before, 6)}
    end

  [{first, short, _}, {_, middle, replayed}, {_, long, _}] = times
  turn = (long - short) / 192

  IO.puts(
    "#{name}, #{kernels}, #{layout}: #{Float.round(128.0e6 / middle, 1)} tokens/s, a turn #{round(turn)} us, " <>
      "the rest of a call #{Float.round((short - 32 * turn) / 1000, 1)} ms, #{replayed} of 128 turns replayed, " <>
      "first call #{div(first, 1000)} ms"
  )

  if "--more" in flags and layout == "transposed", do: more.(model, params, middle)
end
