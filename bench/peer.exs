defmodule Bench.Peer do
  @moduledoc false
  # Python's mlx in a process of its own, on the very files of MLX and BLAS that Emily uses.

  @doc """
  Starts a script of this folder in Python, with mlx of Emily's version, which is fetched once into
  the cache, and with other packages, as `name==version`.
  """
  def start(script, device, limits, others \\ []) do
    packages = packages(mlx() ++ others)
    use_emily_libraries(packages)
    python(script, device, limits, packages)
  end

  @doc "Starts a script of this folder in Python with packages, as `name==version`, fetched once into the cache."
  def start_with(packages, script, device, limits) do
    python(script, device, limits, packages(packages))
  end

  @doc "Starts a script of this folder in Node with a package, as `name@version`, fetched once into the cache."
  def start_node(package, script, arguments) do
    folder = fetched(String.replace(package, "@", "-"), package, &install_node(&1, package))
    node = executable("node")
    # Node looks for packages in the folder of the script and above.
    File.cp!(Path.join(__DIR__, script), Path.join(folder, script))
    open(node, [Path.join(folder, script) | arguments], [])
  end

  defp python(script, device, limits, packages) do
    arguments =
      for name <- [:warm_up, :warm_up_ms, :samples, :budget_ms], do: "#{Map.fetch!(limits, name)}"

    open(
      executable("python3"),
      [Path.join(__DIR__, script), "#{device}" | arguments],
      environment(packages)
    )
  end

  defp open(program, arguments, env) do
    env = for {name, value} <- env, do: {String.to_charlist(name), String.to_charlist(value)}

    Port.open({:spawn_executable, program}, [
      :binary,
      :exit_status,
      line: 10_000,
      args: arguments,
      env: env
    ])
  end

  defp environment(packages), do: [{"PYTHONPATH", packages}, {"PYTHONDONTWRITEBYTECODE", "1"}]

  @doc "The median time of a figure in nanoseconds."
  def median(port, name) do
    Bench.Timing.settle()
    {time, ""} = port |> ask(name) |> Float.parse()
    time
  end

  @doc "Runs a script of this folder to its end, with the packages of `start/4`."
  def script(script, arguments, others \\ []), do: run(script, arguments, mlx() ++ others)

  @doc "Runs a script of this folder to its end, with packages as `start_with/4` takes them."
  def run(script, arguments, packages) do
    arguments = [Path.join(__DIR__, script) | arguments]
    env = environment(packages(packages))

    case System.cmd(executable("python3"), arguments, env: env, stderr_to_stdout: true) do
      {output, 0} -> output
      {output, _} -> raise "bench/run: #{script} failed:\n#{output}"
    end
  end

  defp executable(name) do
    System.find_executable(name) || raise "bench/run needs #{name}, which is not there"
  end

  @doc "Versions of Python and mlx; raises where the two sides do not share their libraries."
  def facts(port) do
    [python, mlx | libraries] = port |> ask("facts") |> String.split()

    if MapSet.new(libraries) != own_libraries() do
      raise "bench/run: Python's mlx uses other files of MLX or BLAS than Emily"
    end

    %{python: python, mlx: mlx, shared: libraries != []}
  end

  @doc "What the script answers to a line."
  def ask(port, line) do
    Port.command(port, [line, ?\n])

    receive do
      {^port, {:data, {:eol, answer}}} -> answer
      {^port, {:exit_status, status}} -> raise "bench/run: Python ended with status #{status}"
    end
  end

  defp mlx do
    version = Emily.Native.mlx_version()
    ["mlx==#{version}"] ++ if linux?(), do: ["mlx-cpu==#{version}"], else: []
  end

  defp packages(wanted) do
    python = executable("python3")
    {tag, 0} = System.cmd(python, ["-c", "import sys; print(sys.implementation.cache_tag)"])
    names = for name <- wanted, do: String.replace(name, "==", "-")

    fetched(Enum.join(names ++ [String.trim(tag)], "-"), Enum.join(wanted, ", "), fn folder ->
      arguments = ["-m", "pip", "install", "--quiet", "--target", folder | wanted]
      System.cmd(python, arguments, stderr_to_stdout: true)
    end)
  end

  defp install_node(folder, package) do
    System.cmd(executable("npm"), ["install", "--silent", "--prefix", folder, package],
      stderr_to_stdout: true
    )
  end

  # A folder of the cache, made under another name by a program, if it is not there.
  defp fetched(name, label, install) do
    folder = Path.join(Emily.Build.Cache.root(), "bench-" <> name)

    unless File.dir?(folder) do
      IO.puts("fetching #{label}")
      partial = folder <> "-partial"
      File.rm_rf!(partial)
      File.mkdir_p!(partial)

      case install.(partial) do
        {_, 0} -> File.rename!(partial, folder)
        {output, _} -> raise "bench/run: #{label} cannot be installed:\n#{output}"
      end
    end

    folder
  end

  # libmlx.so finds its BLAS beside it, so both are Emily's.
  defp use_emily_libraries(packages) do
    priv = Application.app_dir(:emily, "priv")

    if linux?() do
      for name <- ["mlx/lib/libmlx.so", "mlx_cpu.libs"] do
        File.rm_rf!(Path.join(packages, name))
        File.ln_s!(Path.join(priv, name), Path.join(packages, name))
      end
    end
  end

  defp linux?, do: match?({:unix, :linux}, :os.type())

  # As device:inode, as peer.py gives them.
  defp own_libraries do
    case File.read("/proc/self/maps") do
      {:ok, maps} ->
        for line <- String.split(maps, "\n"),
            line =~ ~r/libmlx|blas/,
            [_, _, _, device, inode | _] = String.split(line),
            into: MapSet.new(),
            do: "#{device}:#{inode}"

      {:error, _} ->
        MapSet.new()
    end
  end
end
