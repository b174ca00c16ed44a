# Run by generation.exs in a VM of its own: prints the most resident bytes while SmolLM2 generates, and
# those of its weights. Linux only.
for file <- ~w(peer smollm2), do: Code.require_file("#{file}.exs", __DIR__)

alias Bench.SmolLM2

Nx.global_default_backend({Emily.Backend, device: :cpu})

{:ok, %{model_info: model, tokenizer: tokenizer, generation_config: config}} =
  Emily.GGUF.load_bumblebee(SmolLM2.gguf!())

config = Bumblebee.configure(config, max_new_tokens: 64, eos_token_id: nil)

serving =
  model
  |> Emily.Bumblebee.FastKernels.apply()
  |> Bumblebee.Text.generation(tokenizer, config,
    compile: [batch_size: 1, sequence_length: 32],
    defn_options: [compiler: Emily.Compiler]
  )

# What loading took is over: the peak starts anew.
:erlang.garbage_collect()
# The BEAM gives the heap of what is over back a second later.
Process.sleep(3000)
Emily.Native.clear_cache()
File.write!("/proc/self/clear_refs", "5")
Nx.Serving.run(serving, "The capital of France is")

[_, kilobytes] = Regex.run(~r/VmHWM:\s+(\d+) kB/, File.read!("/proc/self/status"))
weights = File.stat!(Path.join(SmolLM2.folder!(), "model.safetensors")).size
IO.puts("#{String.to_integer(kilobytes) * 1024} #{weights}")
