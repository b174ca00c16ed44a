defmodule Emily.Doctor.Findings do
  @moduledoc false
  # What there is on this machine, without judgement: `Emily.Doctor.Checks` says what it means. Each finding
  # stands alone: one that cannot be made becomes `{:error, message}`. What only a build needs is `:elsewhere` where
  # there is none, in a release.

  alias Emily.Build.{Download, Files, Index, Mlx}
  alias Emily.Doctor.Kernels
  alias Emily.Native.Threads

  @mlx_version Mlx.version()

  @doc "All findings by name."
  def gather do
    %{
      project: if(build?(), do: Mix.Project.config()[:app], else: :release),
      elixir: try_to(fn -> {System.version(), System.otp_release()} end),
      system: try_to(fn -> {:os.type(), arch()} end),
      libc: on_linux(&libc/0),
      processor: on_linux(&processor/0),
      cores: try_to(&cores/0),
      memory: on_linux(&memory/0),
      mlx: on_linux(&mlx/0),
      blas: on_linux(&blas/0),
      libraries: on_linux(&libraries/0),
      gpus: on_linux(&gpus/0),
      cuda_headers: on_linux(&cuda_headers/0),
      packages: try_to(&packages/0),
      tools: if(build?(), do: try_to(&tools/0), else: :elsewhere),
      kernels: try_to(&Kernels.run/0)
    }
  end

  defp try_to(fun) do
    fun.()
  rescue
    error -> {:error, Exception.message(error)}
  catch
    kind, reason -> {:error, Exception.format_banner(kind, reason)}
  end

  # macOS has one MLX, one BLAS and no glibc.
  defp on_linux(fun), do: if(:os.type() == {:unix, :linux}, do: try_to(fun), else: :elsewhere)

  # Emily's build belongs to its mix.exs, which Mix has loaded; in a release there is neither.
  defp build?,
    do: Code.ensure_loaded?(Mix.Project) and Code.ensure_loaded?(Files) and Files.load() == :ok

  defp arch,
    do: :erlang.system_info(:system_architecture) |> to_string() |> String.split("-") |> hd()

  # The output and the exit status of a program; `{nil, :missing}` where there is none.
  defp run(program, arguments) do
    case System.find_executable(program) do
      nil ->
        {nil, :missing}

      path ->
        {output, status} = System.cmd(path, arguments, stderr_to_stdout: true)
        {output |> String.replace_invalid() |> String.trim(), status}
    end
  end

  # The output of a program that succeeds, or `nil`.
  defp output(program, arguments),
    do: with({output, status} <- run(program, arguments), do: if(status == 0, do: output))

  defp libc do
    output("getconf", ["GNU_LIBC_VERSION"]) || {:none, "getconf names none"}
  end

  defp processor do
    text = File.read!("/proc/cpuinfo")
    # x86 calls them flags, ARM features.
    features = field(text, ~r/^(?:flags|Features)\s*:(.*)$/m) || ""
    %{model: field(text, ~r/^model name\s*:(.*)$/m), features: String.split(features)}
  end

  defp field(text, pattern) do
    with [_, value] <- Regex.run(pattern, text), do: String.trim(value)
  end

  defp cores do
    %{count: System.schedulers_online(), quota: quota(), threads: Threads.configured()}
  end

  # How many cores' worth of time a container is given; `nil` without such a limit.
  defp quota do
    with {:ok, text} <- File.read("/sys/fs/cgroup/cpu.max"),
         [quota, period] <- text |> String.split() |> Enum.map(&Integer.parse/1),
         {quota, ""} <- quota,
         {period, ""} <- period do
      quota / period
    else
      _ -> nil
    end
  end

  defp memory do
    text = File.read!("/proc/meminfo")

    %{
      total: kilobytes(text, "MemTotal"),
      available: kilobytes(text, "MemAvailable"),
      limit: memory_limit()
    }
  end

  defp kilobytes(text, name) do
    [_, number] = Regex.run(~r/^#{name}:\s*(\d+) kB/m, text)
    String.to_integer(number) * 1024
  end

  defp memory_limit do
    with {:ok, text} <- File.read("/sys/fs/cgroup/memory.max"),
         {bytes, _} <- Integer.parse(text) do
      bytes
    else
      _ -> nil
    end
  end

  # The wheel's folder of bundled libraries has the variant's name: mlx_cpu.libs, mlx_cuda_12.libs.
  defp mlx do
    built =
      with [folder | _] <- Path.wildcard(Path.join(priv(), "mlx_*.libs")) do
        folder
        |> Path.basename(".libs")
        |> String.replace_prefix("mlx_", "")
        |> String.replace("_", "")
      else
        [] -> nil
      end

    %{built: built, asked: asked(), version: @mlx_version}
  end

  # As the build asks, which a release does no more.
  defp asked do
    with empty when empty in [nil, ""] <- System.get_env("EMILY_MLX"),
         variant when variant != nil <- Application.get_env(:emily, :mlx),
         do: to_string(variant)
  end

  defp priv, do: to_string(:code.lib_dir(:emily)) |> Path.join("priv")

  # The library says of itself what it is: its name and version.
  defp blas do
    for file <- Path.wildcard(Path.join(priv(), "mlx_*.libs/libscipy_openblas.so")),
        do: field(File.read!(file), ~r/OpenBLAS (\d+\.\d+\.\d+)/)
  end

  # What the loader says of the NIF, of MLX and of all they need: the lines that tell of something missing.
  defp libraries do
    nif = Path.join(priv(), "libemily_nif.so")

    cond do
      not File.regular?(nif) ->
        :no_nif

      text = output("ldd", [nif]) ->
        for line <- String.split(text, "\n"), missing?(line), do: String.trim(line)

      true ->
        {:error, "ldd fails on #{nif}"}
    end
  end

  defp missing?(line), do: line =~ "not found"

  defp gpus do
    fields = "name,driver_version,compute_cap,memory.total"

    case run("nvidia-smi", ["--query-gpu=#{fields}", "--format=csv,noheader"]) do
      {text, 0} ->
        for line <- String.split(text, "\n", trim: true),
            [name, driver, capability, memory] <- [String.split(line, ", ")] do
          %{name: name, driver: driver, capability: capability, memory: memory}
        end

      {_, :missing} ->
        if File.exists?("/dev/nvidiactl"), do: {:unclear, "nvidia-smi is not there"}, else: []

      {text, _status} ->
        {:unclear, text |> String.split("\n") |> hd()}
    end
  end

  # Where MLX looks for the headers that its CUDA kernels are compiled with.
  defp cuda_headers do
    root = System.get_env("CUDA_HOME") || System.get_env("CUDA_PATH") || "/usr/local/cuda"

    Path.wildcard(Path.join(priv(), "nvidia/{cuda_runtime,cu13}"))
    |> Enum.concat([root])
    |> Enum.map(&Path.join(&1, "include"))
    |> Enum.find_value(:none, &if(File.regular?(Path.join(&1, "cuda_fp16.h")), do: {:found, &1}))
  end

  @requirements Emily.MixProject.requirements()

  defp packages do
    for {app, requirement} <- @requirements do
      Application.load(app)
      version = Application.spec(app, :vsn)
      {app, version && to_string(version), requirement}
    end
  end

  defp tools do
    compiler = try_to(fn -> Mlx.compiler() end)
    index = try_to(fn -> Download.shown(Index.address()) end)

    [
      {"Rust", version("rustc", ["--version"])},
      {"C++ compiler", if(is_binary(compiler), do: version(compiler, ["--version"]))},
      {"libclang", libclang()},
      {"index of Python packages", if(is_binary(index), do: index)}
    ]
  end

  defp version(program, arguments) do
    with text when is_binary(text) <- output(program, arguments),
         do: field(text, ~r/(\d+\.\d+(?:\.\d+)?)/)
  end

  defp libclang do
    named = System.get_env("LIBCLANG_PATH")
    places = ~w(/usr/lib/llvm-*/lib /usr/lib64 /usr/lib /usr/lib/*-linux-gnu)

    Enum.find_value(if(named, do: [named | places], else: places), fn place ->
      place |> Path.join("libclang{,-[0-9]*}.so*") |> Path.wildcard() |> List.first()
    end)
  end
end
