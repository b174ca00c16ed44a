# The driver of bench/run: rounds in which Emily and Python's mlx take turns, and the table.
for file <- ~w(timing figures ticks peer report), do: Code.require_file("#{file}.exs", __DIR__)

{options, rest, invalid} =
  OptionParser.parse(System.argv(),
    strict: [write: :boolean, only: :string, rounds: :integer, device: :string]
  )

unless rest == [] and invalid == [] do
  IO.puts(
    :stderr,
    "bench/run: unknown arguments #{inspect(rest ++ invalid)}; see bench/run itself"
  )

  System.halt(2)
end

device =
  case options[:device] || "cpu" do
    "cpu" -> :cpu
    "gpu" -> :gpu
    other -> raise "bench/run: --device is cpu or gpu, got #{other}"
  end

rounds = max(options[:rounds] || 9, 1)
only = options[:only] || ""
Nx.global_default_backend({Emily.Backend, device: device})

figures =
  Enum.filter(Bench.Figures.all(), &String.contains?("#{&1.key} #{&1.label}", only))

peer = Bench.Peer.start(device)

IO.puts("#{length(figures)} figures, #{rounds} rounds, on the #{device}")

measured =
  for round <- 1..rounds, reduce: %{} do
    measured ->
      IO.write(:stderr, "\rround #{round} of #{rounds} ")

      for figure <- figures, reduce: measured do
        measured ->
          emily = figure[:run] && {{:emily, figure.key}, Bench.Timing.isolated(figure)}

          python =
            figure[:python] && {{:python, figure.key}, Bench.Peer.median(peer, figure.python)}

          for {key, time} <- Enum.filter([emily, python], & &1), reduce: measured do
            measured -> Map.update(measured, key, [time], &[time | &1])
          end
      end
  end

IO.write(:stderr, "\r")
ticks = if String.contains?("ticks", only), do: Bench.Ticks.measure(rounds)
report = Bench.Report.new(figures, measured, ticks, Bench.Peer.facts(peer), device, rounds)
IO.puts(report)
if options[:write], do: Bench.Report.write(report, Path.join(__DIR__, "RESULTS.md"))
