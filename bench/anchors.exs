defmodule Bench.Anchors do
  @moduledoc false
  # bench/run --anchors: everyday work beside what people take for it on a CPU, XLA (through JAX), NumPy and
  # llama.cpp, in rounds in which all take turns.
  #
  # A figure has a key, a label, what makes the call (`make`), its unit, the engines that have a figure of the same key, and the most
  # that it may take of the time of the best of them. With `floor`, its floating-point operations or its bytes, the table has
  # the share of the machine's rate that Emily reaches.

  alias Bench.{AnchorArrays, AnchorModels, Busy, Peer, Report, Timing}

  @limits %{warm_up: 2, warm_up_ms: 100, samples: 5, budget_ms: 150}
  @python ["jax==0.10.2", "numpy==2.4.6", "safetensors==0.8.0"]
  @llama "node-llama-cpp@3.22.1"
  @engines [:xla, :numpy, :llama]
  @names %{xla: "XLA", numpy: "NumPy", llama: "llama.cpp"}
  # The bytes that anchors.py reads for `read`, and the operations of a product of this size.
  @read 400_000_000
  @size 2048

  @doc "Measures the figures whose keys match `only`, and answers the tables in Markdown."
  def report(rounds, only) do
    python = Peer.start_with(@python, "anchors.py", :cpu, @limits)
    pattern = Regex.compile!(only)
    wanted = Enum.filter(AnchorArrays.figures() ++ AnchorModels.figures(), &(&1.key =~ pattern))
    notes = AnchorModels.check(python, wanted)
    figures = for figure <- wanted, do: Map.put(figure, :run, figure.make.())

    peers =
      if Enum.any?(figures, &(:llama in &1.engines)),
        do: %{xla: python, numpy: python, llama: llama(figures)},
        else: %{xla: python, numpy: python}

    IO.puts(:stderr, "#{length(figures)} figures, #{rounds} rounds")
    quiet = rounds(figures, peers, rounds, "")
    rates = rates(peers, figures)
    write_plot(figures, quiet, only)
    tables = [facts(peers, rounds), table(figures, quiet, rates)]
    IO.puts(:stderr, Enum.join(tables, "\n\n"))
    Enum.join(tables ++ busy(Enum.filter(figures, & &1[:busy]), peers, rounds) ++ notes, "\n\n")
  end

  defp busy([], _peers, _rounds), do: []

  defp busy(figures, peers, rounds) do
    measured = Busy.beside(2, fn -> rounds(figures, peers, rounds, "busy ") end)

    [
      "Beside two other programs that compute without end, on the same cores:",
      table(figures, measured, nil)
    ]
  end

  defp llama(figures) do
    threads = "#{System.schedulers_online()}"
    types = Enum.uniq(["q4_1" | for(%{blocks: type} <- figures, do: type)])
    files = for type <- types, do: "#{type}=#{Bench.SmolLM2.file!(type)}"
    Peer.start_node(@llama, "llama.mjs", [threads | files])
  end

  # The medians of all rounds, by figure and engine.
  defp rounds(figures, peers, rounds, label) do
    measured =
      for round <- 1..rounds,
          figure <- figures,
          engine <- [:emily | figure.engines],
          reduce: %{} do
        measured ->
          IO.write(:stderr, "\r#{label}round #{round} of #{rounds}: #{figure.key}\e[K")
          time = time(engine, figure, peers)
          Map.update(measured, {figure.key, engine}, [time], &[time | &1])
      end

    IO.write(:stderr, "\r\e[K")
    Map.new(measured, fn {key, times} -> {key, Timing.middle(times)} end)
  end

  defp time(:emily, figure, _peers), do: Timing.isolated(Map.put_new(figure, :calls, 1), @limits)
  defp time(engine, figure, peers), do: Peer.median(peers[engine], "#{engine} #{figure.key}")

  # Bytes and floating-point operations a nanosecond: what all cores read, and the best that any engine makes of a product.
  defp rates(peers, figures) do
    if Enum.any?(figures, & &1[:floor]) do
      product = Enum.find(AnchorArrays.figures(), &(&1.key == "product #{@size}"))
      product = Map.put(product, :run, product.make.())

      best =
        for(engine <- [:emily | product.engines], do: time(engine, product, peers)) |> Enum.min()

      read = for(_ <- 1..3, do: Peer.median(peers.numpy, "numpy read")) |> Enum.min()
      %{bytes: @read / read, operations: 2 * @size ** 3 / best}
    end
  end

  defp facts(peers, rounds) do
    said = for peer <- peers |> Map.values() |> Enum.uniq(), do: Peer.ask(peer, "facts")

    own =
      "Emily #{Application.spec(:emily, :vsn)}, Nx #{Application.spec(:nx, :vsn)}, #{Emily.Native.threads()} threads"

    """
    #{Date.utc_today()}, #{Report.processor()}, #{System.schedulers_online()} cores.
    #{Enum.join([own | said], "; ")}.
    Medians of #{rounds} rounds in which all take turns, each round a median after a warm-up. A ratio is Emily's time over that of the
    best of the others.\
    """
  end

  defp table(figures, measured, rates) do
    engines = Enum.filter(@engines, fn engine -> Enum.any?(figures, &(engine in &1.engines)) end)
    floors = if rates, do: ["of the machine's rate"], else: []

    heads =
      ["figure", "unit", "Emily"] ++
        Enum.map(engines, &@names[&1]) ++ ["ratio", "goal", "met"] ++ floors

    rows =
      for figure <- figures do
        emily = measured[{figure.key, :emily}]
        others = for engine <- engines, do: measured[{figure.key, engine}]
        ratio = emily / (others |> Enum.reject(&is_nil/1) |> Enum.min())

        goal =
          if figure[:most],
            do: ["≤ #{figure.most}", Report.met(ratio <= figure.most)],
            else: ["", ""]

        share = if rates, do: [share(figure[:floor], emily, rates)], else: []
        times = for time <- [emily | others], do: in_unit(time, figure.unit)

        Report.row(
          [figure.label, elem(figure.unit, 0)] ++ times ++ [number(ratio) | goal] ++ share
        )
      end

    Report.table(heads, rows)
  end

  defp in_unit(nil, _unit), do: ""
  defp in_unit(time, {_, {:per, count}}), do: number(count * 1.0e9 / time)
  defp in_unit(time, {_, by}), do: number(time / by)

  # The time that the machine's rate would take for this, as a share of Emily's.
  defp share(nil, _time, _rates), do: ""
  defp share({what, count}, time, rates), do: "#{round(100 * count / rates[what] / time)} %"

  defp number(x) when x >= 100, do: "#{round(x)}"
  defp number(x), do: :erlang.float_to_binary(x / 1, decimals: 2)

  # The ratios as bars, the whole of them only.
  defp write_plot(figures, measured, "") do
    rows =
      for figure <- figures, engine <- figure.engines do
        "#{@names[engine]}\t#{figure.key}\t#{measured[{figure.key, engine}] / measured[{figure.key, :emily}]}"
      end

    path = Path.join(System.tmp_dir!(), "emily-bench-#{System.pid()}.tsv")
    File.write!(path, Enum.join(rows, "\n"))

    Peer.run("plot.py", [path, Path.expand("../assets/anchors.svg", __DIR__)], [
      "matplotlib==3.11.2"
    ])

    File.rm!(path)
  end

  defp write_plot(_figures, _measured, _only), do: :ok
end
