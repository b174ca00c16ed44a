defmodule Emily.Doctor.Checks do
  @moduledoc false
  # What the findings mean: one check for each, `ok`, `warning` or `failed`, and the remedy.

  alias Emily.Build.Mlx
  alias Emily.Doctor.Libraries

  # The build is not there when a release runs.
  @glibc Mlx.glibc()

  # Of MLX's documentation: the oldest driver for each CUDA, and the oldest GPU.
  @drivers %{"cuda12" => "550.54.14", "cuda13" => "580.0.0"}
  @capability {7, 5}

  @gigabyte 1_073_741_824
  @little_memory 2 * @gigabyte

  @order [
    elixir: "Elixir",
    system: "system",
    libc: "C library",
    processor: "processor",
    cores: "cores",
    memory: "memory",
    mlx: "MLX",
    blas: "BLAS",
    libraries: "libraries",
    gpus: "GPU",
    cuda_headers: "CUDA headers",
    packages: "packages",
    tools: "build tools",
    kernels: "kernels"
  ]

  @doc "The checks of all findings that this system has."
  def run(findings) do
    for {key, name} <- @order,
        finding = findings[key],
        check = told(key, finding, findings),
        check != :none do
      {status, found, remedy} = check
      %{name: name, status: status, found: found, remedy: remedy}
    end
  end

  # What nobody has thought of is a line too.
  defp told(key, finding, findings) do
    check(key, finding, findings)
  rescue
    error -> untold(Exception.message(error))
  end

  defp untold(message),
    do: warning("cannot be told: #{one_line(message)}", "The other checks stand without it.")

  defp check(_key, :elsewhere, _), do: :none

  defp check(key, {:error, message}, _) when key != :kernels, do: untold(message)

  defp check(:elixir, {elixir, otp}, _) do
    found = "#{elixir} on OTP #{otp}"

    if Version.match?(elixir, ">= 1.17.0-dev") and String.to_integer(otp) >= 26,
      do: ok(found),
      else: failed(found, "Install Elixir 1.17 or newer on OTP 26 or newer.")
  end

  defp check(:system, {{:unix, :linux}, arch}, _) when arch in ~w(x86_64 aarch64),
    do: ok("Linux on #{arch}")

  defp check(:system, {{:unix, :darwin}, arch}, _) when arch in ~w(aarch64 arm arm64),
    do: ok("macOS on Apple silicon (not run by Emily's authors)")

  defp check(:system, {{family, name}, arch}, _),
    do:
      failed(
        "#{family} #{name} on #{arch}",
        "MLX needs Linux on x86-64 or aarch64, or macOS on Apple silicon."
      )

  defp check(:libc, "glibc " <> version, _) do
    if numbers(version) >= numbers(@glibc),
      do: ok("glibc #{version} (#{@glibc} is needed)"),
      else: failed("glibc #{version}, and MLX needs #{@glibc}", new_glibc())
  end

  defp check(:libc, {:none, found}, _),
    do: failed("no glibc (#{found}), and MLX needs glibc #{@glibc}", new_glibc())

  defp check(:processor, %{model: model, features: features}, %{system: {_, "x86_64"}}) do
    wide =
      for {flag, name} <- [{"avx2", "AVX2"}, {"fma", "FMA"}, {"avx512f", "AVX-512"}],
          flag in features,
          do: name

    found = "#{model || "unnamed"}, #{if wide == [], do: "no AVX2", else: Enum.join(wide, ", ")}"

    if "avx2" in features and "fma" in features do
      ok(found)
    else
      warning(
        found,
        "Without AVX2 and FMA everything on the CPU is several times slower. In a virtual machine, give it " <>
          "the host's processor (QEMU: -cpu host); else use a processor of 2013 or later."
      )
    end
  end

  defp check(:processor, %{model: model}, _), do: ok(model || "no name given")

  defp check(:cores, %{count: count, quota: quota, threads: threads}, _) do
    found =
      "#{count}" <>
        if(quota, do: ", #{Float.round(quota, 1)} of them by the container's quota", else: "")

    usable = if quota, do: min(count, max(floor(quota), 1)), else: count

    if is_integer(threads) and threads > usable do
      warning(
        "#{found}, but config :emily, threads: #{threads}",
        "More threads than cores wait for each other: set it to #{usable} or fewer, or leave it out."
      )
    else
      ok(found)
    end
  end

  defp check(:memory, %{total: total, available: available, limit: limit}, _) do
    total = if limit, do: min(limit, total), else: total
    free = min(available, total)
    found = "#{gigabytes(total)} GB, #{gigabytes(free)} GB free"

    if free < @little_memory do
      warning(
        found,
        "Models of more than a few hundred million parameters will not fit. Free some, or load in bf16 " <>
          "(`type: :bf16` in Bumblebee.load_model/2)."
      )
    else
      ok(found)
    end
  end

  defp check(:mlx, %{built: nil}, findings),
    do: failed("there is no MLX in priv/", "Build it: #{rebuild(findings)}.")

  defp check(:mlx, %{built: built, asked: asked}, findings)
       when asked not in [nil, "", built] do
    warning(
      "built for #{built}, but EMILY_MLX or config :emily, :mlx says #{asked}",
      "Build that one: #{rebuild(findings, "EMILY_MLX=#{asked} ")}; or take that setting away."
    )
  end

  defp check(
         :mlx,
         %{built: built, version: version},
         %{kernels: {:ok, %{version: loaded}}} = findings
       )
       when version != loaded do
    failed(
      "#{loaded} (#{built}) is loaded, and Emily is made for #{version}",
      "Another libmlx.so is found first: take it out of LD_LIBRARY_PATH and LD_PRELOAD, or build again: #{rebuild(findings)}."
    )
  end

  defp check(:mlx, %{built: built, version: version}, _), do: ok("#{version}, #{built}")

  # Products of matrices of f32 and f64 are Emily's own.
  defp check(:blas, [version], _), do: ok("OpenBLAS #{version}, for linear algebra")

  defp check(:blas, [], findings),
    do: failed("priv/ has no OpenBLAS", "Build it: #{rebuild(findings)}.")

  defp check(:libraries, :no_nif, findings),
    do: failed("priv/ has no libemily_nif.so", "Build it: #{rebuild(findings)}.")

  defp check(:libraries, [], _), do: ok("all found")

  defp check(:libraries, missing, findings) do
    failed(
      "not found: #{missing |> Enum.map(&Libraries.name/1) |> Enum.uniq() |> Enum.join(", ")}",
      missing
      |> Enum.map(&Libraries.remedy(&1, variant(findings), rebuild(findings)))
      |> Enum.uniq()
      |> Enum.join("\n")
    )
  end

  defp check(:gpus, {:unclear, reason}, findings) do
    remedy =
      "Install NVIDIA's driver with its nvidia-smi (#{@drivers["cuda13"]} or newer serves CUDA 12 and 13), or start it again; " <>
        "in a container, give it the GPU (docker run --gpus all)."

    if cuda?(findings), do: failed(reason, remedy), else: warning(reason, remedy)
  end

  defp check(:gpus, [], findings) do
    if cuda?(findings) do
      failed(
        "no NVIDIA GPU, and MLX is built for #{variant(findings)}",
        "Install NVIDIA's driver, or in a container give it the GPU (docker run --gpus all). For a machine without a GPU: #{rebuild(findings, "EMILY_MLX=cpu ")}."
      )
    else
      ok("no NVIDIA GPU")
    end
  end

  defp check(:gpus, [%{driver: driver} | _] = gpus, findings) do
    found =
      Enum.map_join(gpus, "; ", &"#{&1.name}, #{&1.memory}, sm_#{&1.capability}") <>
        "; driver #{driver}"

    oldest = gpus |> Enum.map(&numbers(&1.capability)) |> Enum.min()

    cond do
      not cuda?(findings) ->
        warning(
          found <> "; not used",
          "MLX is built for the CPU. To use the GPU: #{rebuild(findings, "EMILY_MLX=#{cuda_for(driver)} ")}."
        )

      numbers(driver) < numbers(@drivers[variant(findings)]) ->
        failed(
          found,
          "#{variant(findings)} needs driver #{@drivers[variant(findings)]} or newer: update it" <>
            if(cuda_for(driver) == "cuda12" and variant(findings) == "cuda13",
              do: ", or #{rebuild(findings, "EMILY_MLX=cuda12 ")}.",
              else: "."
            )
        )

      oldest < Tuple.to_list(@capability) ->
        failed(
          found,
          "MLX needs a GPU of compute capability 7.5 or newer (Turing). Use the CPU: #{rebuild(findings, "EMILY_MLX=cpu ")}."
        )

      true ->
        ok(found)
    end
  end

  defp check(:cuda_headers, found, findings) do
    cond do
      not cuda?(findings) ->
        :none

      match?({:found, _}, found) ->
        ok(elem(found, 1))

      true ->
        failed(
          "not found, and MLX compiles its CUDA kernels when they are first used",
          Libraries.headers(variant(findings))
        )
    end
  end

  defp check(:packages, packages, _) do
    there = for {app, version, requirement} <- packages, version, do: {app, version, requirement}

    wrong =
      Enum.reject(there, fn {_, version, requirement} -> Version.match?(version, requirement) end)

    found = Enum.map_join(there, ", ", fn {app, version, _} -> "#{app} #{version}" end)

    cond do
      wrong != [] ->
        failed(
          found,
          Enum.map_join(wrong, "\n", fn {app, version, requirement} ->
            "#{app} #{version} is not of #{inspect(requirement)}: put {#{inspect(app)}, #{inspect(requirement)}} into mix.exs, then mix deps.get."
          end)
        )

      List.keymember?(there, :nx, 0) ->
        ok(found)

      true ->
        warning(
          "Nx is not there",
          "Only Emily.Native works without it: unset EMILY_NO_NX and run mix deps.get."
        )
    end
  end

  # Needed only to build, which has happened.
  defp check(:tools, tools, _) do
    ok(
      Enum.map_join(tools, ", ", fn {name, found} -> "#{name}: #{found || "none"}" end) <>
        " (only building needs them)"
    )
  end

  defp check(:kernels, {:ok, %{devices: devices}}, findings) do
    found = Enum.map_join(devices, "; ", &kernels/1)
    wrong = Enum.reject(devices, &right?/1)

    cond do
      wrong != [] ->
        failed(
          found,
          "MLX computes wrong numbers here: build again (#{rebuild(findings)}), and if they stay wrong report it with these lines."
        )

      cuda?(findings) and not Enum.any?(devices, &(&1.device == :gpu)) ->
        failed(
          found <> "; MLX sees no GPU",
          "Mend the lines about the GPU above; CUDA_VISIBLE_DEVICES must name one."
        )

      true ->
        ok(found)
    end
  end

  defp check(:kernels, {:error, {:load, reason}}, findings),
    do:
      failed(
        "the native part cannot be loaded: #{one_line(reason)}",
        Libraries.remedy(reason, variant(findings), rebuild(findings))
      )

  defp check(:kernels, {:error, {:run, reason}}, findings),
    do:
      failed(
        "MLX fails: #{one_line(reason)}",
        Libraries.remedy(reason, variant(findings), rebuild(findings))
      )

  defp check(:kernels, {:error, {:signal, 4}}, _) do
    failed(
      "MLX ended its VM: an instruction that this processor lacks (SIGILL)",
      "In a virtual machine, give it the host's processor (QEMU: -cpu host)."
    )
  end

  defp check(:kernels, {:error, {:signal, 9}}, _),
    do:
      failed(
        "the VM that ran MLX was killed (SIGKILL)",
        "Usually the system ran out of memory: free some, or raise the container's limit."
      )

  defp check(:kernels, {:error, {:signal, signal}}, findings) do
    failed(
      "MLX ended its VM by signal #{signal}",
      "A library does not fit the others: take other CUDA and BLAS libraries out of LD_LIBRARY_PATH and LD_PRELOAD, and build again: #{rebuild(findings)}."
    )
  end

  defp check(:kernels, {:error, :time}, _),
    do:
      failed(
        "MLX has not answered in five minutes",
        "The GPU or its driver hangs: look at nvidia-smi and dmesg, and start the machine again."
      )

  defp check(:kernels, {:error, message}, _),
    do:
      failed(
        "could not be run: #{one_line(message)}",
        "Erlang's own erl must be able to start: try erl -version."
      )

  # 3 / sqrt((3^2 + 4^2) / 2), and f32 keeps seven digits.
  defp right?(device), do: device.product? and abs(device.norm - 0.848528137) < 1.0e-6

  defp kernels(%{device: device, size: size, gflops: gflops} = result) do
    rate = if gflops < 100, do: Float.round(gflops, 1), else: round(gflops)
    product = if result.product?, do: "", else: " WRONG"

    norm =
      if right?(%{result | product?: true}),
        do: "fused norm right",
        else: "fused norm WRONG (#{result.norm})"

    "#{Emily.Device.name(device)}: product #{size}^3 in f32#{product} at #{rate} GFLOP/s, #{norm}"
  end

  defp ok(found), do: {:ok, found, nil}
  defp warning(found, remedy), do: {:warning, found, remedy}
  defp failed(found, remedy), do: {:failed, found, remedy}

  defp variant(%{mlx: %{built: built}}) when is_binary(built), do: built
  defp variant(_), do: "cpu"

  defp cuda?(findings), do: String.starts_with?(variant(findings), "cuda")

  defp cuda_for(driver),
    do: if(numbers(driver) >= numbers(@drivers["cuda13"]), do: "cuda13", else: "cuda12")

  defp numbers(version) do
    for part <- String.split(version, "."), {number, _} <- [Integer.parse(part)], do: number
  end

  # The build takes what is there for done, so it is cleaned first.
  defp rebuild(findings, environment \\ "")
  defp rebuild(%{project: :emily}, environment), do: "`mix clean && #{environment}mix compile`"

  # A release is built of the project that it came from.
  defp rebuild(%{project: :release}, environment) do
    "where the release is made, `mix deps.clean emily --build && #{environment}mix release --overwrite`"
  end

  defp rebuild(_findings, environment),
    do: "`mix deps.clean emily --build && #{environment}mix deps.compile emily`"

  defp new_glibc,
    do: "Use Debian 12, Ubuntu 22.04, Fedora 36 or newer, or a container of one of them."

  defp gigabytes(bytes), do: Float.round(bytes / @gigabyte, 1)

  defp one_line(text), do: text |> String.split() |> Enum.join(" ") |> String.slice(0, 300)
end
