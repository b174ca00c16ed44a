defmodule Bench.AnchorModels do
  @moduledoc false
  # The figures of bench/run --anchors with a model; anchor_models.py has the same graphs under the same keys.

  alias Bench.{Models, Peer, SmolLM2, Training}
  alias Emily.Bumblebee.FastKernels

  @batches [{1, 16}, {1, 128}, {32, 128}, {64, 64}]
  @decoded 32
  @generated 64
  # The bytes of SmolLM2's weights that a token reads, by type.
  @weights %{f32: 4.0 * 134_515_008, bf16: 2.0 * 134_515_008}
  # Sums in another order may choose another token where two are close.
  @same_tokens 16
  @ms {"ms", 1.0e6}

  def figures do
    minilm =
      for {batch, length} <- @batches do
        label = "MiniLM of Bumblebee with FastKernels, batch #{batch}, sequence #{length}"
        make = fn -> fn -> Models.eval(embed(batch, length)) end end
        figure("minilm #{batch}x#{length}", label, make, @ms, [:xla], 0.8, nil)
      end

    tokens = {"tokens/s", {:per, @decoded}}

    minilm ++
      [
        figure(
          "prompt f32",
          "SmolLM2-135M f32 by hand, a prompt of 256",
          fn -> prompt() end,
          @ms,
          [:xla, :llama],
          0.6,
          nil
        ),
        figure(
          "decode f32",
          "SmolLM2-135M f32 by hand, decoding behind 32",
          fn -> decode(:f32) end,
          tokens,
          [:xla, :llama],
          0.87,
          {
            :bytes,
            @weights.f32 * @decoded
          }
        ),
        figure(
          "decode bf16",
          "the same in bf16",
          fn -> decode(:bf16) end,
          tokens,
          [:xla],
          0.87,
          {:bytes, @weights.bf16 * @decoded}
        ),
        figure(
          "generate",
          "SmolLM2-135M f32 of Bumblebee with FastKernels, #{@generated} tokens behind 32",
          fn -> generate(SmolLM2.gguf!(), 32, @generated, dequantize: true) end,
          {"tokens/s", {:per, @generated}},
          [:xla, :llama],
          0.87,
          nil
        )
      ] ++ quantized() ++ Training.figures()
  end

  # The type of the blocks, and the most that decoding through Bumblebee may take of llama.cpp's time.
  @blocks [{"q4_1", 0.91}, {"q8_0", 1.0}, {"q4_k", 1.0}, {"q6_k", 1.0}]

  defp quantized do
    generated =
      for {type, most} <- @blocks do
        figure(
          "quant generate #{type}",
          "SmolLM2-135M #{String.upcase(type)} of Bumblebee with FastKernels, #{@generated} tokens behind 32",
          fn -> generate(SmolLM2.file!(type), 32, @generated) end,
          {"tokens/s", {:per, @generated}},
          [:llama],
          most,
          nil
        )
        |> Map.put(:blocks, type)
      end

    others = [
      figure(
        "quant decode q4_1",
        "SmolLM2-135M Q4_1 by hand, decoding behind 32",
        fn -> decode(:q4_1) end,
        {"tokens/s", {:per, @decoded}},
        [:llama],
        0.8,
        nil
      ),
      figure(
        "quant prompt q4_1",
        "SmolLM2-135M Q4_1 of Bumblebee with FastKernels, a prompt of 256",
        fn -> generate(SmolLM2.file!("q4_1"), 256, 1) end,
        @ms,
        [:llama],
        0.5,
        nil
      )
    ]

    generated ++ Enum.map(others, &Map.put(&1, :blocks, "q4_1"))
  end

  defp figure(key, label, make, unit, engines, most, floor) do
    %{
      key: key,
      label: label,
      make: make,
      unit: unit,
      collect: true,
      engines: engines,
      most: most,
      floor: floor,
      busy: key =~ "1x16"
    }
  end

  @doc "Loads the models of these figures on both sides, and raises where they differ; says by how much in words."
  def check(python, figures) do
    wanted = fn words -> Enum.any?(figures, &(&1.key =~ words)) end

    Enum.concat(
      if(wanted.("minilm"), do: [check_minilm(python)], else: []),
      if(Enum.any?(figures, &(:xla in &1.engines and &1.key =~ ~r/prompt|decode|generate/)),
        do: [check_smollm2(python)],
        else: []
      )
    )
  end

  defp check_minilm(python) do
    "loaded" = Peer.ask(python, "load_minilm #{Mix.Tasks.Emily.Model.folder("minilm")}")

    Models.with_file(fn path ->
      {batch, length} = {1, 128}
      "written" = Peer.ask(python, "hidden #{batch} #{length} #{path}")

      "MiniLM: hidden states differ from JAX's by at most #{Models.compare(embed(batch, length), path)}."
    end)
  end

  defp check_smollm2(python) do
    "loaded" = Peer.ask(python, "load_smollm2 #{SmolLM2.folder!()}")
    ids = [504, 3575, 282, 4649, 314]
    said = Peer.ask(python, "greedy f32 #{Enum.join(ids, ",")} #{@same_tokens}")
    weights = weights(:f32)

    {tokens, _} =
      Enum.map_reduce(1..@same_tokens, SmolLM2.start(ids), fn _, state ->
        {state, _} = step(:f32, state).(state, weights)
        {Nx.to_number(Nx.squeeze(state.tokens)), state}
      end)

    if Enum.join(tokens, ",") != said,
      do: raise("bench/run: JAX says #{said}, Emily #{Enum.join(tokens, ",")}")

    "SmolLM2: the first #{@same_tokens} tokens are JAX's."
  end

  ## MiniLM

  defp embed(batch, length) do
    {predict, params} =
      kept(:minilm, fn ->
        {:ok, plain} = Bumblebee.load_model({:local, Mix.Tasks.Emily.Model.folder("minilm")})
        %{model: model, params: params} = FastKernels.apply(plain)
        {_, predict} = Axon.build(model)
        {&predict.(&1, &2).hidden_state, params}
      end)

    {run, inputs} =
      kept({:minilm, batch, length}, fn ->
        ids = ids(batch, length)
        inputs = %{"input_ids" => ids, "attention_mask" => Nx.broadcast(1, ids)}
        {Models.compile(predict, [params, inputs]), inputs}
      end)

    run.(params, inputs)
  end

  ## SmolLM2

  defp prompt do
    ids = Nx.to_flat_list(ids(1, 256))
    weights = weights(:f32)
    step = step(:f32, SmolLM2.start(ids))
    fn -> next(step, SmolLM2.start(ids), weights) end
  end

  # Behind the same 32 tokens, again and again.
  defp decode(type) do
    weights = weights(type)
    start = SmolLM2.start(Nx.to_flat_list(ids(1, 32)), Nx.type(weights.norm))
    {state, _} = step(type, start).(start, weights)
    state = %{state | tokens: Nx.as_type(ids(1, 1), :s32)}
    first = step(type, state)
    # The caches are written in place, as in a loop, but for those that are begun with again.
    rest = step(type, state, donate: [0])

    fn ->
      state = next(first, state, weights)
      Enum.reduce(2..@decoded, state, fn _, state -> next(rest, state, weights) end)
    end
  end

  # Reads each new token, as a caller who writes it out does.
  defp next(step, state, weights) do
    {state, _} = step.(state, weights)
    Nx.to_number(Nx.squeeze(state.tokens))
    state
  end

  defp weights(:q4_1), do: kept({:weights, :q4_1}, fn -> SmolLM2.packed!(SmolLM2.gguf!()) end)

  defp weights(type) do
    kept({:weights, type}, fn ->
      weights = SmolLM2.load!(SmolLM2.folder!(), type)
      Models.eval(weights)
      weights
    end)
  end

  defp step(type, state, options \\ []) do
    kept({:step, type, Nx.shape(state.tokens), options}, fn ->
      Models.compile(&SmolLM2.step/2, [state, weights(type)], options)
    end)
  end

  defp generate(path, prompt, count, options \\ []) do
    {:ok, %{model_info: plain, tokenizer: tokenizer, generation_config: config}} =
      Emily.GGUF.load_bumblebee(path, options)

    tokenizer = Bumblebee.configure(tokenizer, add_special_tokens: false)
    config = Bumblebee.configure(config, max_new_tokens: count, eos_token_id: nil)
    text = ~w(The capital of France is) |> Stream.cycle() |> Enum.take(prompt) |> Enum.join(" ")

    serving =
      plain
      |> FastKernels.apply()
      |> Bumblebee.Text.generation(tokenizer, config,
        compile: [batch_size: 1, sequence_length: prompt],
        defn_options: [compiler: Emily.Compiler]
      )

    fn -> Nx.Serving.run(serving, text) end
  end

  ## What these share

  defp ids(batch, length) do
    Nx.iota({batch, length}) |> Nx.multiply(7919) |> Nx.remainder(28_000) |> Nx.add(1_000)
  end

  # What is made once in a run: figures are measured in processes of their own.
  defp kept(key, make) do
    case :persistent_term.get({__MODULE__, key}, nil) do
      nil -> make.() |> tap(&:persistent_term.put({__MODULE__, key}, &1))
      made -> made
    end
  end
end
