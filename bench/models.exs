defmodule Bench.Models do
  @moduledoc false
  # bench/run --models: whole programs and models beside the same graphs in Python's mlx. Before
  # anything is timed, both sides must give the same numbers.

  import Nx.Defn, only: [defnp: 2]

  alias Bench.{Peer, Report, SmolLM2, Timing}
  alias Emily.Native

  # What is timed here takes up to seconds.
  @limits %{warm_up: 1, warm_up_ms: 0, samples: 3, budget_ms: 100}
  @chain 1_000
  @iterations 10_000
  # New tokens in one timing, and the tokens before them, which are those of a prompt again and again.
  @decoded 16
  @filled 128
  @prompt [504, 3575, 282, 4649, 314]
  # What SmolLM2 says of the capital of France, by NumPy in f64 from the same weights.
  @greedy [7042, 30, 198, 198, 504, 2988, 314, 42, 216, 34, 32, 33] ++
            [40, 29, 32, 33, 29, 34, 34, 216, 33, 34, 42, 33]
  @batch {32, 128}
  @most_difference 1.0e-3

  @doc "Measures the figures whose keys hold `only`, and answers the table in Markdown, or nothing."
  def report(device, rounds, only) do
    makers = [
      {~w(chain empty while), fn _peer -> {programs(), []} end},
      {["decode", "decode eager", "compile"], &smollm2/1},
      {~w(minilm), &minilm/1}
    ]

    makers = for {keys, make} <- makers, Enum.any?(keys, &(&1 =~ only)), do: make

    if makers != [] do
      peer = Peer.start("models.py", device, @limits)
      {figures, notes} = makers |> Enum.map(& &1.(peer)) |> Enum.unzip()
      figures = figures |> Enum.concat() |> Enum.filter(&(&1.key =~ only))
      facts = Report.machine(Peer.facts(peer), device, rounds)
      Enum.join([facts, measure(figures, rounds, peer, @limits) | Enum.concat(notes)], "\n\n")
    end
  end

  @doc "Measures figures in rounds in which Emily and Python take turns, and answers a table."
  def measure(figures, rounds, peer, limits) do
    measured =
      for round <- 1..rounds, figure <- figures, reduce: %{} do
        measured ->
          IO.write(:stderr, "\rround #{round} of #{rounds}: #{figure.key}\e[K")
          if prepare = figure[:prepare], do: prepare.()
          pair = {emily(figure, limits), figure[:python] && Peer.median(peer, figure.python)}
          Map.update(measured, figure.key, [pair], &[pair | &1])
      end

    IO.write(:stderr, "\r\e[K")
    rows = for figure <- figures, do: row(figure, Enum.unzip(measured[figure.key]))
    Report.table(["figure", "unit", "Emily", "Python's mlx", "ratio", "goal", "met"], rows)
  end

  defp emily(%{measure: measure}, _limits), do: measure.()
  defp emily(figure, limits), do: Timing.isolated(figure, limits)

  # A figure is in nanoseconds of one timing (`calls` calls), or what `measure` answers. `unit` has
  # the words, and what that is divided by or how many of the unit happened meanwhile.
  defp row(%{unit: {words, unit}} = figure, {emily, python}) do
    emily = in_unit(Timing.middle(emily), unit)
    python = if figure[:python], do: in_unit(Timing.middle(python), unit)
    {goal, met?} = goal(figure[:goal], emily, python)
    met = if met? == nil, do: "", else: Report.met(met?)
    ratio = if python, do: number(emily / python), else: ""
    Report.row([figure.label, words, number(emily), number(python), ratio, goal, met])
  end

  defp in_unit(time, {:per, count}), do: count * 1.0e9 / time
  defp in_unit(time, by), do: time / by

  defp goal(nil, _emily, _python), do: {"", nil}
  defp goal({:most, most}, emily, _python), do: {"≤ #{most}", emily <= most}
  defp goal({:times, most}, emily, python), do: {"≤ #{most} x", emily <= python * most}
  defp goal({:least, least}, emily, python), do: {"≥ #{least} x", emily >= python * least}

  defp number(nil), do: ""
  defp number(x) when x >= 100, do: "#{round(x)}"
  defp number(x), do: :erlang.float_to_binary(x / 1, decimals: 2)

  ## Programs

  defp programs do
    {a, b} = {uniform({8}), uniform({8})}
    state = uniform({64})
    add_often = compile(&chain/2, [a, b])
    identity = compile(& &1, [a])
    count_up = compile(&count_up/1, [state])

    [
      %{
        key: "chain",
        label: "#{@chain} additions of `{8}` f32, compiled, scheduled but not read",
        unit: {"us an operation", @chain * 1000},
        calls: 1,
        run: fn -> add_often.(a, b) end,
        # What was scheduled is done before the next timing.
        between: fn -> eval(Nx.add(a, b)) end,
        python: "chain",
        goal: {:most, 1.0}
      },
      %{
        key: "empty",
        label: "a compiled function that gives its argument back",
        unit: {"us a call", 1000},
        calls: 1000,
        run: fn -> identity.(a) end,
        python: "empty",
        goal: {:most, 10}
      },
      %{
        key: "while",
        label: "`while` of #{@iterations} iterations over a counter and a `{64}` state",
        unit: {"us an iteration", @iterations * 1000},
        calls: 1,
        run: fn -> eval(count_up.(state)) end,
        python: "loop",
        goal: {:most, 15}
      }
    ]
  end

  defp chain(a, b), do: Enum.reduce(1..@chain, a, fn _, x -> Nx.add(x, b) end)

  defnp count_up(x) do
    {_i, x} =
      while {i = 0, x}, i < @iterations do
        {i + 1, x * 0.5 + 1.0}
      end

    x
  end

  ## SmolLM2

  defp smollm2(peer) do
    folder = SmolLM2.folder!()
    weights = SmolLM2.load!(folder)
    prompt = @prompt |> Stream.cycle() |> Enum.take(@filled)
    "loaded" = Peer.ask(peer, "load_smollm2 #{folder} #{Enum.join(prompt, ",")}")

    {state, _} = SmolLM2.step(SmolLM2.start(prompt), weights)
    eval(state)
    step = compile(&SmolLM2.step/2, [state, weights])
    note = check_greedy(peer, weights, step)

    [decoding, compiling] =
      [
        [
          {"decode", "compiled", step, {:times, 1.1}},
          {"decode eager", "eager", &SmolLM2.step/2, {:times, 1.5}}
        ],
        [{"seconds", {"s", 1.0e9}, 0, 2}, {"peak BEAM heap", {"MB", 1.0e6}, 1, 200}]
      ]

    figures =
      for {key, how, step, goal} <- decoding do
        %{
          key: key,
          label: "SmolLM2-135M f32, a decode step, cache of 256, #{how}",
          unit: {"ms", @decoded * 1.0e6},
          calls: 1,
          run: fn -> decode(state, weights, step, @decoded) end,
          collect: true,
          python: "decode",
          goal: goal
        }
      end ++
        for {what, unit, at, most} <- compiling do
          %{
            key: "compile #{what}",
            label: "its `Nx.Defn.compile`, in a fresh process: #{what}",
            unit: unit,
            measure: fn -> elem(compiling(state, weights), at) end,
            goal: {:most, most}
          }
        end

    {figures, [note]}
  end

  # Reads each new token, as a caller who writes it out does.
  defp decode(state, weights, step, count) do
    Enum.map_reduce(1..count, {state, nil}, fn _, {state, _} ->
      {state, logits} = step.(state, weights)
      {Nx.to_number(Nx.squeeze(state.tokens)), {state, logits}}
    end)
  end

  defp check_greedy(peer, weights, step) do
    expected = Enum.join(@greedy, ",")
    count = length(@greedy)

    with_file(fn path ->
      tokens = Peer.ask(peer, "greedy #{Enum.join(@prompt, ",")} #{count} #{path}")
      if tokens != expected, do: raise("bench/run: Python's SmolLM2 says #{tokens}")

      differences =
        for {how, step} <- [{"compiled", step}, {"eager", &SmolLM2.step/2}] do
          {[first], {state, _}} = decode(SmolLM2.start(@prompt), weights, &SmolLM2.step/2, 1)
          {rest, {_, logits}} = decode(state, weights, step, count - 1)
          tokens = Enum.join([first | rest], ",")
          if tokens != expected, do: raise("bench/run: SmolLM2 #{how} says #{tokens}")
          "#{how} by #{compare(logits, path)}"
        end

      "SmolLM2 says the #{count} tokens expected; logits differ from Python's: " <>
        Enum.join(differences, ", ") <> "."
    end)
  end

  @doc "The largest difference to the numbers in a file, in words; raises where it is large."
  def compare(tensor, path) do
    other = path |> File.read!() |> Nx.from_binary(:f32) |> Nx.reshape(tensor)
    difference = Nx.subtract(tensor, other) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()

    unless difference <= @most_difference,
      do: raise("bench/run: Emily and Python differ by #{difference}")

    :erlang.float_to_binary(difference, [:short])
  end

  # Nanoseconds, and the most bytes that the heap of the compiling process had.
  defp compiling(state, weights) do
    own = make_ref()

    # A function with a value of its own is in no cache.
    fun = fn state, weights ->
      Process.put(__MODULE__, own)
      SmolLM2.step(state, weights)
    end

    peak(fn ->
      start = System.monotonic_time(:nanosecond)
      compile(fun, [state, weights])
      System.monotonic_time(:nanosecond) - start
    end)
  end

  # The heaps before and after each garbage collection of a process and of those that it starts.
  defp peak(run) do
    me = self()

    {process, monitor} =
      spawn_monitor(fn ->
        receive do: (:go -> send(me, {:done, run.(), Process.info(self(), :total_heap_size)}))
      end)

    :erlang.trace(process, true, [:garbage_collection, :set_on_spawn])
    send(process, :go)
    heaps(%{}, 0, monitor)
  end

  defp heaps(sizes, peak, monitor) do
    receive do
      {:trace, process, event, info}
      when event in [:gc_minor_start, :gc_minor_end, :gc_major_start, :gc_major_end] ->
        size = info[:heap_block_size] + info[:old_heap_block_size] + info[:mbuf_size]
        sizes = Map.put(sizes, process, size)
        heaps(sizes, max(peak, sizes |> Map.values() |> Enum.sum()), monitor)

      {:done, time, {:total_heap_size, size}} ->
        Process.demonitor(monitor, [:flush])
        {time, max(peak, size) * :erlang.system_info(:wordsize)}

      {:DOWN, ^monitor, _, _, reason} ->
        raise "bench/run: compiling failed: #{inspect(reason)}"
    end
  end

  ## MiniLM

  defp minilm(peer) do
    {batch, length} = @batch
    folder = Mix.Tasks.Emily.Model.folder("minilm")
    {:ok, %{model: model, params: params}} = Bumblebee.load_model({:local, folder})
    {_, predict} = Axon.build(model)
    ids = Nx.iota({batch, length}) |> Nx.multiply(7919) |> Nx.remainder(28_000) |> Nx.add(1_000)
    inputs = %{"input_ids" => ids, "attention_mask" => Nx.broadcast(1, ids)}
    run = compile(&predict.(&1, &2).hidden_state, [params, inputs])

    with_file(fn path ->
      "loaded" = Peer.ask(peer, "load_minilm #{folder} #{batch} #{length} #{path}")
      note = "MiniLM: hidden states differ by at most #{compare(run.(params, inputs), path)}."

      figure = %{
        key: "minilm",
        label: "all-MiniLM-L6-v2 of Bumblebee, batch #{batch}, sequence #{length}, compiled",
        unit: {"ms", 1.0e6},
        calls: 1,
        run: fn -> eval(run.(params, inputs)) end,
        python: "minilm",
        goal: {:times, Float.round(1 / 0.95, 3)}
      }

      {[figure], [note]}
    end)
  end

  ## What these share

  @doc "A function compiled for arguments like these, with options of the compiler's."
  def compile(fun, arguments, options \\ []) do
    templates = Enum.map(arguments, &Nx.to_template/1)
    Nx.Defn.compile(fun, templates, [compiler: Emily.Compiler] ++ options)
  end

  @doc "Computes the tensors of a container."
  def eval(container) do
    Native.eval(for tensor <- Nx.Defn.Composite.flatten_list([container]), do: tensor.data.ref)
  end

  @doc "Calls `fun` with the path of a file in which Python leaves numbers."
  def with_file(fun) do
    path = Path.join(System.tmp_dir!(), "emily-bench-#{System.pid()}")

    try do
      fun.(path)
    after
      File.rm(path)
    end
  end

  defp uniform(shape) do
    {tensor, _} = Nx.Random.uniform(Nx.Random.key(1), -1.0, 1.0, shape: shape, type: :f32)
    eval(tensor)
    tensor
  end
end
