# Run by generation.exs in a VM of its own: SmolLM2's packed file from loading on, served. Prints how many milliseconds pass until the
# first token is there, the most resident bytes while text is generated, and those of the file. Linux only.
for file <- ~w(peer smollm2), do: Code.require_file("#{file}.exs", __DIR__)

alias Bench.SmolLM2

Nx.global_default_backend({Emily.Backend, device: :cpu})
path = SmolLM2.gguf!()
start = System.monotonic_time(:millisecond)

{:ok, %{model_info: model, tokenizer: tokenizer, generation_config: config}} =
  Emily.GGUF.load_bumblebee(path)

serving = fn count ->
  config = Bumblebee.configure(config, max_new_tokens: count, eos_token_id: nil)

  model
  |> Emily.Bumblebee.FastKernels.apply()
  |> Bumblebee.Text.generation(tokenizer, config,
    compile: [batch_size: 1, sequence_length: 32],
    defn_options: [compiler: Emily.Compiler]
  )
end

prompt = "The capital of France is"
Nx.Serving.run(serving.(1), prompt)
first = System.monotonic_time(:millisecond) - start

{:ok, _} = Nx.Serving.start_link(serving: serving.(64), name: Bench.Served, batch_timeout: 1)
Nx.Serving.batched_run(Bench.Served, prompt)

# What loading and compiling took is over: the peak starts anew when the BEAM has given the heaps back, which takes it seconds.
Enum.each(Process.list(), &:erlang.garbage_collect/1)
Process.sleep(10_000)
Emily.Native.clear_cache()
File.write!("/proc/self/clear_refs", "5")
Nx.Serving.batched_run(Bench.Served, prompt)

[_, kilobytes] = Regex.run(~r/VmHWM:\s+(\d+) kB/, File.read!("/proc/self/status"))
IO.puts("#{first} #{String.to_integer(kilobytes) * 1024} #{File.stat!(path).size}")
