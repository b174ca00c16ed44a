# Runs Nx's own tests, from Nx's own files, with Emily.Backend as the default backend: `mix test.nx`.
#
#   --doctests   the doctests only
#   --write      writes the table of what runs into guides/conformance.md
#   --compiled   runs every defn by Emily.Compiler rather than by Nx.Defn.Evaluator
#   --binary     runs on Nx.BinaryBackend, to compare CPU time and memory
#   --excluded   runs what is excluded instead, to find exclusions that are needed no more

for file <- ~w(equality load exclusions report), do: Code.require_file("#{file}.exs", __DIR__)
alias Emily.Conformance.{Equality, Exclusions, Load, Report}

{options, []} =
  OptionParser.parse!(System.argv(),
    strict: [
      doctests: :boolean,
      write: :boolean,
      compiled: :boolean,
      binary: :boolean,
      excluded: :boolean
    ]
  )

{:ok, _} = Equality.start()
# On a busy machine too.
ExUnit.start(autorun: false, timeout: 900_000, assert_receive_timeout: 10_000)
nx = Mix.Project.deps_paths()[:nx]

doctested =
  [Nx, Nx.LinAlg, Nx.Random, Nx.Constants, Nx.Defn, Nx.Defn.Kernel, Nx.Serving, Nx.Batch]

# Servings compare all options, and know of no compiler among them.
named =
  ~w(nx_test nx/batch_test nx/complex_test nx/constants_test nx/lin_alg_test nx/non_finite_test nx/random_test) ++
    if(options[:compiled], do: [], else: ["nx/serving_test"]) ++
    ~w(nx/vectorize_test nx/defn_test nx/defn/*_test)

support = ~w(backends container distributed_servings helpers)
files = if options[:doctests], do: [], else: Load.files(nx, support, named)
modules = Enum.map(doctested, &Load.doctests/1) ++ files

# After loading, since a tensor in a module's attribute must be a plain term.
Nx.global_default_backend(if options[:binary], do: Nx.BinaryBackend, else: Emily.Backend)
Application.put_env(:emily, :add_backend_on_inspect, false)
# What leaves MLX is counted.
Application.put_env(:emily, :fallback, :silent)
if options[:compiled], do: Nx.Defn.global_default_options(compiler: Emily.Compiler)
Application.put_env(:emily, :check_bounds, true)

excluded = Exclusions.find(modules)
near = Exclusions.to_last_digit(modules)
filters = for {test, _reason} <- excluded, do: Exclusions.filter(test)

if options[:excluded] do
  near_filters = for {test, _type, _reason} <- near, do: Exclusions.filter(test)
  ExUnit.configure(exclude: [:test], include: filters ++ near_filters)
else
  Equality.allow(near)

  # Servings over several nodes have no part in a backend.
  ExUnit.configure(exclude: [:distributed | filters])
end

# The compilation of the tests is not what is measured.
Report.forget_peak_memory()
{cpu_before, _} = :erlang.statistics(:runtime)
result = File.cd!(nx, &ExUnit.run/0)
{cpu_after, _} = :erlang.statistics(:runtime)
IO.puts("#{(cpu_after - cpu_before) / 1000} s of CPU time#{Report.peak_memory()}.")
IO.puts("#{Equality.last_digits()} comparisons hold to the last digit only.")
IO.puts("#{Emily.Fallback.count()} operations left MLX.")
if result.failures > 0 and not (options[:excluded] || false), do: System.halt(1)

# The guide's table is of the version that a user gets without asking for another.
if files != [] and System.get_env("EMILY_NX") in [nil, ""] and
     not (options[:excluded] || options[:compiled] || options[:binary] || false) do
  table = Report.table(modules, excluded, near, Exclusions.reasons())
  if options[:write], do: Report.write("test.nx", table)

  unless Report.written?("test.nx", table) do
    IO.puts("The table in guides/conformance.md is not what ran: mix test.nx --write")
    System.halt(1)
  end
end
