# Runs Scholar's own tests, from its own files, with Emily.Backend as the default backend: `mix test.scholar`.
#
#   --write      writes the table of what runs into guides/conformance.md
#   --compiled   runs every defn by Emily.Compiler rather than by Nx.Defn.Evaluator
#   --binary     runs on Nx.BinaryBackend, to compare
#   --excluded   runs what is excluded instead, to find exclusions that are needed no more

for file <- ~w(equality load exclusions report),
    do: Code.require_file("#{file}.exs", __DIR__)

alias Emily.Conformance.{Equality, Load}

{options, []} =
  OptionParser.parse!(System.argv(),
    strict: [write: :boolean, compiled: :boolean, binary: :boolean, excluded: :boolean]
  )

scholar = Mix.Project.deps_paths()[:scholar]
{:ok, _} = Equality.start()
ExUnit.start(autorun: false, timeout: 900_000)
modules = Load.files(scholar, ["scholar_case"], ["scholar/**/*_test"], doctests: :here)

Equality.allow(
  for module <- modules, test <- module.__ex_unit__().tests, do: {test, :scholar, nil}
)

Nx.global_default_backend(if options[:binary], do: Nx.BinaryBackend, else: Emily.Backend)
Application.put_env(:emily, :add_backend_on_inspect, false)
Application.put_env(:emily, :fallback, :silent)
if options[:compiled], do: Nx.Defn.global_default_options(compiler: Emily.Compiler)
Application.put_env(:emily, :check_bounds, true)
result = File.cd!(scholar, &ExUnit.run/0)
IO.inspect(result)
IO.puts("#{Equality.last_digits()} comparisons hold to the last digit only.")
IO.puts("#{Emily.Fallback.count()} operations left MLX.")
