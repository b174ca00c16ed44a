# Runs Scholar's own tests, from its own files, with Emily.Backend as the default backend: `mix test.scholar`.
# Scholar is a checkout in the folder that EMILY_CHECKOUTS names, with nimble_options beside it; its package from Hex
# carries no tests. Floats of doctests may differ by what Scholar's own `assert_all_close` allows.
#
#   --write      writes the table of what runs into guides/conformance.md
#   --compiled   runs every defn by Emily.Compiler rather than by Nx.Defn.Evaluator
#   --binary     runs on Nx.BinaryBackend, to compare
#   --excluded   runs what is excluded instead, to find exclusions that are needed no more

for file <- ~w(equality load exclusions report scholar_exclusions),
    do: Code.require_file("#{file}.exs", __DIR__)

alias Emily.Conformance.{Equality, Exclusions, Load, Report, ScholarExclusions}

{options, []} =
  OptionParser.parse!(System.argv(),
    strict: [write: :boolean, compiled: :boolean, binary: :boolean, excluded: :boolean]
  )

scholar = Mix.Project.deps_paths()[:scholar]

if scholar == nil do
  IO.puts(
    "LEFT OUT: Scholar's own tests: EMILY_CHECKOUTS names no folder with checkouts of scholar and nimble_options."
  )

  System.halt(0)
end

{:ok, _} = Equality.start()
# On a busy machine too.
ExUnit.start(autorun: false, timeout: 900_000)

modules = Load.files(scholar, ["scholar_case"], ["scholar/**/*_test"], doctests: :here)

Equality.allow(
  for module <- modules, test <- module.__ex_unit__().tests, do: {test, :scholar, nil}
)

Nx.global_default_backend(if options[:binary], do: Nx.BinaryBackend, else: Emily.Backend)
Application.put_env(:emily, :add_backend_on_inspect, false)
# What leaves MLX is counted.
Application.put_env(:emily, :fallback, :silent)
if options[:compiled], do: Nx.Defn.global_default_options(compiler: Emily.Compiler)
Application.put_env(:emily, :check_bounds, true)

excluded = ScholarExclusions.find(modules)
filters = for {test, _reason} <- excluded, do: Exclusions.filter(test)

ExUnit.configure(
  if options[:excluded], do: [exclude: [:test], include: filters], else: [exclude: filters]
)

{cpu_before, _} = :erlang.statistics(:runtime)
result = File.cd!(scholar, &ExUnit.run/0)
{cpu_after, _} = :erlang.statistics(:runtime)
IO.puts("#{(cpu_after - cpu_before) / 1000} s of CPU time.")
IO.puts("#{Equality.last_digits()} comparisons hold to Scholar's own tolerance only.")
IO.puts("#{Emily.Fallback.count()} operations left MLX.")
if result.failures > 0 and not (options[:excluded] || false), do: System.halt(1)

unless options[:excluded] || options[:binary] || false do
  table = Report.table(modules, excluded, nil, ScholarExclusions.reasons())
  if options[:write], do: Report.write("test.scholar", table)

  unless Report.written?("test.scholar", table) do
    IO.puts("The table in guides/conformance.md is not what ran: mix test.scholar --write")
    System.halt(1)
  end
end
