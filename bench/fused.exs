defmodule Bench.Fused do
  @moduledoc false
  # The part of bench/run --models that asks what Emily.Bumblebee.FastKernels is worth: models of
  # Bumblebee with it and without it, compiled, in rounds in which both take turns.

  alias Bench.{Models, Report, SmolLM2, Timing}
  alias Bumblebee.Text.Generation
  alias Emily.Bumblebee.FastKernels

  # Both have run before, when they were compared.
  @limits %{warm_up: 0, warm_up_ms: 0, samples: 3, budget_ms: 300}
  @batches for batch <- [1, 8, 64], length <- [16, 64, 128], do: {batch, length}
  # The tokens of a prompt, and the length of the cache that a step of decoding sees.
  @prompts [16, 64, 256]
  @caches [64, 256, 1024]
  # Of the largest number of a result: f32's rounding through thirty layers, in a cache of noise.
  @most_difference 1.0e-3

  @doc "Measures the figures whose keys hold `only`, and answers the table in Markdown, or nothing."
  def report(_device, rounds, only) do
    wanted = fn {key, _, _} -> key =~ only end
    minilm = Enum.filter(minilm(), wanted)
    smollm2 = Enum.filter(smollm2(), wanted)

    rows =
      measure(minilm, fn -> load_minilm() end, rounds) ++
        measure(smollm2, fn -> load_smollm2() end, rounds)

    if rows != [] do
      heads = [
        "model of Bumblebee, compiled",
        "FastKernels, ms",
        "unmodified, ms",
        "ratio",
        "faster"
      ]

      Report.table(heads, rows)
    end
  end

  # A figure is its key, its label, and the inputs of a model by its specification.
  defp minilm do
    for {batch, length} <- @batches do
      {"fused minilm #{batch}x#{length}", "MiniLM, batch #{batch}, sequence #{length}",
       fn _spec ->
         ids = ids(batch, length)
         %{"input_ids" => ids, "attention_mask" => Nx.broadcast(1, ids)}
       end}
    end
  end

  defp smollm2 do
    prompts =
      for length <- @prompts do
        {"fused prompt #{length}", "SmolLM2-135M f32, a prompt of #{length} into a cache",
         &cached(&1, length, length + 64, 0)}
      end

    steps =
      for length <- @caches do
        {"fused step #{length}",
         "SmolLM2-135M f32, one token with a cache of #{length}, half of it filled",
         &cached(&1, 1, length, div(length, 2))}
      end

    prompts ++ steps
  end

  defp cached(spec, count, length, filled) do
    cache = Generation.init_cache(spec, 1, length, %{})
    seen = Nx.less(Nx.iota({1, length}, axis: 1), filled)
    # Of zeros, attention is the mean of whatever is not hidden.
    noise = fn tensor -> tensor |> Nx.shape() |> Nx.iota(type: :f32) |> Nx.sin() end
    cache = Generation.traverse_cache(spec, cache, noise)
    ids = ids(1, count)

    %{
      "input_ids" => ids,
      "attention_mask" => Nx.broadcast(1, ids),
      "position_ids" => Nx.add(Nx.iota({1, count}, axis: 1), filled),
      "cache" => %{cache | offset: Nx.tensor(filled), attention_mask: Nx.as_type(seen, :s32)}
    }
  end

  defp ids(batch, length) do
    Nx.iota({batch, length}) |> Nx.multiply(7919) |> Nx.remainder(28_000) |> Nx.add(1_000)
  end

  defp load_minilm do
    {:ok, info} = Bumblebee.load_model({:local, Mix.Tasks.Emily.Model.folder("minilm")})
    {info, & &1.hidden_state}
  end

  defp load_smollm2 do
    {:ok, %{model_info: info}} = Emily.GGUF.load_bumblebee(SmolLM2.gguf!())
    {info, &{&1.logits, &1.cache}}
  end

  defp measure([], _load, _rounds), do: []

  defp measure(figures, load, rounds) do
    {info, output} = load.()

    for {key, label, inputs} <- figures do
      inputs = inputs.(info.spec)
      Models.eval(inputs)

      [fused, plain] =
        for model <- [FastKernels.apply(info.model), info.model] do
          {_, predict} = Axon.build(model)
          run = Models.compile(&output.(predict.(&1, &2)), [info.params, inputs])
          fn -> run.(info.params, inputs) end
        end

      compare(key, fused.(), plain.())
      IO.write(:stderr, "\r#{key}\e[K")
      row(label, Enum.unzip(for _ <- 1..rounds, do: {time(fused), time(plain)}))
    end
  end

  defp time(run) do
    figure = %{calls: 1, run: fn -> Models.eval(run.()) end, collect: true}
    Timing.isolated(figure, @limits)
  end

  defp row(label, {fused, plain}) do
    [fused, plain] = for times <- [fused, plain], do: Timing.middle(times) / 1.0e6

    [a, b, ratio] =
      for x <- [fused, plain, fused / plain], do: :erlang.float_to_binary(x, decimals: 2)

    Report.row([label, a, b, ratio, Report.met(fused < plain)])
  end

  defp compare(key, fused, plain) do
    pairs =
      Enum.zip(for(output <- [fused, plain], do: Nx.Defn.Composite.flatten_list([output])))

    for {fused, plain} <- pairs do
      [worst, most] =
        for t <- [Nx.subtract(fused, plain), plain],
            do: t |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()

      # A number that is none fails too.
      if not (is_number(worst) and worst <= @most_difference * max(most, 1)),
        do:
          raise("bench/run: #{key}: FastKernels differs by #{inspect(worst)} of #{inspect(most)}")
    end
  end
end
