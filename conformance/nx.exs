# Runs Nx's own tests, from Nx's own files, with Emily.Backend as the default backend: `mix test.nx`.
#
#   --doctests   the doctests only
#   --write      writes the table of what passes into guides/conformance.md
#   --excluded   runs what is excluded instead, to find exclusions that are needed no more

for file <- ~w(equality load exclusions report), do: Code.require_file("#{file}.exs", __DIR__)
alias Emily.Conformance.{Equality, Exclusions, Load, Report}

{options, []} =
  OptionParser.parse!(System.argv(),
    strict: [doctests: :boolean, write: :boolean, excluded: :boolean]
  )

{:ok, _} = Equality.start()
ExUnit.start(autorun: false, formatters: [ExUnit.CLIFormatter, Report])
nx = Mix.Project.deps_paths()[:nx]
doctests = Load.doctests()
files = if options[:doctests], do: [], else: Load.files(nx)

# After loading, since a tensor in a module's attribute must be a plain term.
Nx.global_default_backend(Emily.Backend)
Application.put_env(:emily, :add_backend_on_inspect, false)
Application.put_env(:emily, :check_bounds, true)

excluded = Exclusions.names(doctests ++ files)

if options[:excluded] do
  ExUnit.configure(exclude: [:test], include: Enum.map(excluded, &{:test, &1}))
else
  ExUnit.configure(exclude: [:distributed | Enum.map(excluded, &{:test, &1})])
end

ExUnit.configure(assert_receive_timeout: 1000)
result = File.cd!(nx, &ExUnit.run/0)
IO.puts("#{Equality.last_digits()} comparisons hold to the last digit of f32 only.")
if result.failures > 0, do: System.halt(1)
