# The driver of bench/run: rounds in which Emily and Python's mlx take turns, and the tables.
for file <-
      ~w(timing peer report ticks busy einsum figures operations sweep smollm2 models generation fused training anchor_arrays anchor_models anchors),
    do: Code.require_file("#{file}.exs", __DIR__)

# Protocols are as in the project of a user. The environment of the tests leaves them open, and looks for the module of
# each struct, as of a packed weight, on the disk whenever one is an argument.
path = :code.get_path()

for protocol <- Protocol.extract_protocols(path), not Protocol.consolidated?(protocol) do
  {:ok, code} = Protocol.consolidate(protocol, Protocol.extract_impls(protocol, path))
  :code.purge(protocol)
  {:module, ^protocol} = :code.load_binary(protocol, ~c"#{protocol}", code)
end

{options, rest, invalid} =
  OptionParser.parse(System.argv(),
    strict: [
      write: :boolean,
      only: :string,
      rounds: :integer,
      device: :string,
      sweep: :boolean,
      models: :boolean,
      anchors: :boolean,
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

rounds = fn default -> max(options[:rounds] || default, 1) end

{kind, report} =
  cond do
    options[:sweep] ->
      sizes =
        if options[:sizes], do: Bench.Sweep.sizes(options[:sizes]), else: Bench.Sweep.sizes()

      {" --sweep", Bench.Sweep.report(device, sizes, rounds.(3), only)}

    options[:models] ->
      reports =
        for part <- [Bench.Models, Bench.Generation, Bench.Fused],
            do: part.report(device, rounds.(3), only)

      {" --models", reports |> Enum.reject(&is_nil/1) |> Enum.join("\n\n")}

    options[:anchors] ->
      {" --anchors", Bench.Anchors.report(rounds.(3), only)}

    true ->
      {"", Bench.Figures.report(device, rounds.(9), only)}
  end

IO.puts(report)
command = "bench/run#{kind} --write"
if options[:write], do: Bench.Report.write(report, command, Path.join(__DIR__, "RESULTS.md"))
