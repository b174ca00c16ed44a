defmodule Bench.Peer do
  @moduledoc false
  # Python's mlx in a process of its own, on the very files of MLX and BLAS that Emily uses.

  @doc """
  Starts a script of this folder in Python, with mlx of Emily's version, which is fetched once into
  the cache, and with other packages, as `name==version`.
  """
  def start(script, device, limits, others \\ []) do
    python = python()
    packages = packages(python, Emily.Native.mlx_version(), others)
    names = [:warm_up, :warm_up_ms, :samples, :budget_ms]
    arguments = for name <- names, do: "#{Map.fetch!(limits, name)}"
    use_emily_libraries(packages)

    Port.open({:spawn_executable, python}, [
      :binary,
      :exit_status,
      line: 10_000,
      args: [Path.join(__DIR__, script), "#{device}" | arguments],
      env: [
        {~c"PYTHONPATH", String.to_charlist(packages)},
        {~c"PYTHONDONTWRITEBYTECODE", ~c"1"}
      ]
    ])
  end

  @doc "The median time of a figure in nanoseconds."
  def median(port, name) do
    Bench.Timing.settle()
    {time, ""} = port |> ask(name) |> Float.parse()
    time
  end

  @doc "Runs a script of this folder to its end, with the packages of `start/4`."
  def script(script, arguments, others \\ []) do
    python = python()
    packages = packages(python, Emily.Native.mlx_version(), others)
    env = [{"PYTHONPATH", packages}, {"PYTHONDONTWRITEBYTECODE", "1"}]
    arguments = [Path.join(__DIR__, script) | arguments]

    case System.cmd(python, arguments, env: env, stderr_to_stdout: true) do
      {output, 0} -> output
      {output, _} -> raise "bench/run: #{script} failed:\n#{output}"
    end
  end

  defp python do
    System.find_executable("python3") || raise "bench/run needs python3 with pip"
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

  defp packages(python, version, others) do
    {tag, 0} = System.cmd(python, ["-c", "import sys; print(sys.implementation.cache_tag)"])
    names = for other <- others, do: "-" <> String.replace(other, "==", "-")
    name = "bench-mlx-#{version}#{names}-#{String.trim(tag)}"
    folder = Path.join(Emily.Build.Cache.root(), name)

    unless File.dir?(folder) do
      IO.puts(Enum.join(["fetching Python's mlx #{version}" | others], ", "))
      partial = folder <> "-partial"
      File.rm_rf!(partial)
      wanted = ["mlx==#{version}" | others] ++ if linux?(), do: ["mlx-cpu==#{version}"], else: []
      arguments = ["-m", "pip", "install", "--quiet", "--target", partial | wanted]

      case System.cmd(python, arguments, stderr_to_stdout: true) do
        {_, 0} -> File.rename!(partial, folder)
        {output, _} -> raise "bench/run: pip cannot install #{Enum.join(wanted, " ")}:\n#{output}"
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
