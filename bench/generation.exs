defmodule Bench.Generation do
  @moduledoc false
  # The part of bench/run --models that goes through Bumblebee's servings: SmolLM2 from its GGUF file
  # beside mlx-lm's Llama with the same weights, and MiniLM beside its graph in Python's mlx. Python gets
  # token ids; Emily's side has the tokenizer in its time.

  alias Bench.{Models, Peer, SmolLM2}
  alias Emily.Bumblebee.FastKernels

  # One timing takes seconds.
  @limits %{warm_up: 1, warm_up_ms: 0, samples: 1, budget_ms: 0}
  @mlx_lm "mlx-lm==0.32.2"
  @new_tokens 64
  @texts {64, 64}
  @words String.split("The capital of France is")

  # Sums in another order may choose another token where two are close; so many are the same.
  @same_tokens 16

  @doc "Measures the figures whose keys hold `only`, and answers the table in Markdown, or nothing."
  def report(device, rounds, only) do
    makers = [
      {~w(generate first stream), &smollm2/1},
      {~w(loading memory), fn _peer -> {loaded(), []} end},
      {~w(texts), &minilm/1}
    ]

    makers = for {keys, make} <- makers, Enum.any?(keys, &(&1 =~ only)), do: make

    if makers != [] do
      peer = Peer.start("generation.py", device, @limits, [@mlx_lm])
      {figures, notes} = makers |> Enum.map(& &1.(peer)) |> Enum.unzip()
      figures = figures |> Enum.concat() |> Enum.filter(&(&1.key =~ only))
      table = Models.measure(figures, rounds, peer, @limits)
      Enum.join(["Through Bumblebee, beside #{@mlx_lm}:", table | Enum.concat(notes)], "\n\n")
    end
  end

  defp smollm2(peer) do
    {:ok, %{model_info: plain, tokenizer: tokenizer, generation_config: config}} =
      Emily.GGUF.load_bumblebee(SmolLM2.gguf!())

    "loaded" = Peer.ask(peer, "load_llama #{SmolLM2.folder!()}")
    fast = FastKernels.apply(plain)
    tokenizer = Bumblebee.configure(tokenizer, add_special_tokens: false)

    serve = fn name, model, length, new, stream ->
      config = Bumblebee.configure(config, max_new_tokens: new, eos_token_id: nil)

      model
      |> Bumblebee.Text.generation(tokenizer, config,
        compile: [batch_size: 1, sequence_length: length],
        defn_options: [compiler: Emily.Compiler],
        stream: stream
      )
      |> start(name)
    end

    {short, long} = {text(tokenizer, 32), text(tokenizer, 256)}
    fast_short = serve.(:fast_short, fast, 32, @new_tokens, false)
    plain_short = serve.(:plain_short, plain, 32, @new_tokens, false)
    streamed = serve.(:streamed, fast, 32, @new_tokens, true)
    fast_long = serve.(:fast_long, fast, 256, 1, false)
    plain_long = serve.(:plain_long, plain, 256, 1, false)

    note = check(peer, fast_short, plain_short, streamed, tokenizer, short)
    rate = {"tokens/s", {:per, @new_tokens}}
    take = fn text -> fn -> Peer.ask(peer, "prompt #{ids(tokenizer, text)}") end end
    generate = "SmolLM2-135M f32, prompt 32, #{@new_tokens} new tokens"
    first = "its prompt of 256 tokens to the first new one"

    figures = [
      %{
        key: "generate fast",
        label: "#{generate}, FastKernels",
        unit: rate,
        run: fn -> Nx.Serving.batched_run(fast_short, short) end,
        prepare: take.(short),
        python: "#{@new_tokens}",
        goal: {:least, 0.9}
      },
      %{
        key: "generate unmodified",
        label: "the same, unmodified",
        unit: rate,
        run: fn -> Nx.Serving.batched_run(plain_short, short) end
      },
      %{
        key: "stream",
        label: "the same with FastKernels, streamed",
        unit: rate,
        run: fn -> streamed |> Nx.Serving.batched_run(short) |> Stream.run() end
      },
      %{
        key: "first fast",
        label: "#{first}, FastKernels",
        unit: {"ms", 1.0e6},
        run: fn -> Nx.Serving.batched_run(fast_long, long) end,
        prepare: take.(long),
        python: "1",
        goal: {:times, 1.15}
      },
      %{
        key: "first unmodified",
        label: "the same, unmodified",
        unit: {"ms", 1.0e6},
        run: fn -> Nx.Serving.batched_run(plain_long, long) end
      }
    ]

    {Enum.map(figures, &Map.put(&1, :calls, 1)), [note]}
  end

  # Words of a text that has so many tokens.
  defp text(tokenizer, count) do
    text = @words |> Stream.cycle() |> Enum.take(count) |> Enum.join(" ")
    found = tokenizer |> ids(text) |> String.split(",") |> length()
    if found != count, do: raise("bench/run: #{found} tokens, not #{count}")
    text
  end

  defp ids(tokenizer, text) do
    tokenizer
    |> Bumblebee.apply_tokenizer(text)
    |> Map.fetch!("input_ids")
    |> Nx.to_flat_list()
    |> Enum.join(",")
  end

  # Emily's texts are one; Python's begins like them.
  defp check(peer, fast, plain, streamed, tokenizer, prompt) do
    "taken" = Peer.ask(peer, "prompt #{ids(tokenizer, prompt)}")
    python = peer |> Peer.ask("generated #{@same_tokens}") |> String.split(",")
    said = Bumblebee.Tokenizer.decode(tokenizer, Enum.map(python, &String.to_integer/1))
    text = fn %{results: [%{text: text}]} -> text end

    texts = [
      text.(Nx.Serving.batched_run(fast, prompt)),
      text.(Nx.Serving.batched_run(plain, prompt)),
      streamed |> Nx.Serving.batched_run(prompt) |> Enum.join()
    ]

    unless match?([text, text, text], texts) and String.starts_with?(hd(texts), said),
      do: raise("bench/run: Python says #{inspect(said)}, Emily #{inspect(texts)}")

    "Plain, fused and streamed give the same #{@new_tokens} tokens; mlx-lm's first #{@same_tokens} are theirs."
  end

  # Of the packed file, each time in a VM of its own.
  defp loaded do
    [
      %{
        key: "loading",
        label: "SmolLM2-135M Q4_1: from loading the file to the first token, in a fresh VM",
        unit: {"s", 1},
        measure: fn -> hd(fresh()) / 1000 end,
        goal: {:most, 1.2}
      },
      %{
        key: "memory",
        label:
          "the same: peak resident memory while generating #{@new_tokens} tokens, over the file's size",
        unit: {"MB", 1},
        measure: fn -> with([_, resident, file] <- fresh(), do: (resident - file) / 1.0e6) end,
        goal: {:most, 150}
      }
    ]
  end

  defp fresh do
    {output, 0} = System.cmd("mix", ["run", Path.join(__DIR__, "memory.exs")])
    output |> String.split() |> Enum.take(-3) |> Enum.map(&String.to_integer/1)
  end

  defp minilm(peer) do
    {batch, length} = @texts
    folder = Mix.Tasks.Emily.Model.folder("minilm")
    "loaded" = Peer.ask(peer, "load_minilm #{folder} #{batch} #{length}")
    {:ok, plain} = Bumblebee.load_model({:local, folder})
    {:ok, tokenizer} = Bumblebee.load_tokenizer({:local, folder})

    # Two tokens stand around the words.
    texts =
      for at <- 1..batch do
        ["cat", "dog", "tree", "house", "rain"]
        |> Stream.cycle()
        |> Stream.drop(at)
        |> Enum.take(length - 2)
        |> Enum.join(" ")
      end

    figures =
      for {key, label, model, goal} <- [
            {"texts fast", "FastKernels", FastKernels.apply(plain), {:least, 0.9}},
            {"texts unmodified", "unmodified", plain, nil}
          ] do
        serving =
          model
          |> Bumblebee.Text.text_embedding(tokenizer,
            output_attribute: :hidden_state,
            output_pool: :mean_pooling,
            embedding_processor: :l2_norm,
            compile: [batch_size: batch, sequence_length: length],
            defn_options: [compiler: Emily.Compiler]
          )
          |> start(String.to_atom(key))

        %{
          key: key,
          label: "MiniLM, batch #{batch}, sequence #{length}, through Nx.Serving, #{label}",
          unit: {"texts/s", {:per, batch}},
          calls: 1,
          run: fn -> Nx.Serving.batched_run(serving, texts) end,
          python: "texts",
          goal: goal
        }
      end

    {figures, []}
  end

  # A batch is full at once, since all calls bring one.
  defp start(serving, name) do
    name = Module.concat(__MODULE__, Macro.camelize(String.replace("#{name}", " ", "_")))
    {:ok, _} = Nx.Serving.start_link(name: name, serving: serving, batch_timeout: 1)
    name
  end
end
