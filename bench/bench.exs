# The driver of bench/run: rounds in which Emily and Python's mlx take turns, and the tables.
for file <- ~w(timing peer report ticks einsum figures operations sweep),
    do: Code.require_file("#{file}.exs", __DIR__)

{options, rest, invalid} =
  OptionParser.parse(System.argv(),
    strict: [
      write: :boolean,
      only: :string,
      rounds: :integer,
      device: :string,
      sweep: :boolean,
      sizes: :string
    ]
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

only = options[:only] || ""
Nx.global_default_backend({Emily.Backend, device: device})

report =
  if options[:sweep] do
    sizes = if options[:sizes], do: Bench.Sweep.sizes(options[:sizes]), else: Bench.Sweep.sizes()
    Bench.Sweep.report(device, sizes, max(options[:rounds] || 3, 1), only)
  else
    Bench.Figures.report(device, max(options[:rounds] || 9, 1), only)
  end

IO.puts(report)
command = if options[:sweep], do: "bench/run --sweep --write", else: "bench/run --write"
if options[:write], do: Bench.Report.write(report, command, Path.join(__DIR__, "RESULTS.md"))
