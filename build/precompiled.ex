defmodule Emily.Build.Precompiled do
  @moduledoc false
  # What a release has built already: for each system and variant an archive of all that priv/ is to hold. A package has
  # a file with the hashes of its release's archives, and a checkout has none, as with rustler_precompiled.

  alias Emily.Build.{Cache, Download, Failure, Mlx, Record}

  @checksums "checksum-Elixir.Emily.Native.Nif.exs"
  # The oldest that the library runs on, and so do all that follow.
  @nif "2.15"

  @doc "The file of a package that names its release's archives."
  def checksums, do: @checksums

  @doc """
  The archive of this system and variant, or `nil` where it is to be built: with `EMILY_BUILD=1`, in a checkout, and where
  the release has none.
  """
  def find(root, version, variant) do
    file = Path.join(root, @checksums)

    if System.get_env("EMILY_BUILD") not in ["1", "true"] and File.regular?(file) do
      {checksums, _} = Code.eval_file(file)
      name = name(version, variant)

      with %{^name => "sha256:" <> sha256, url: url} <- checksums,
           do: %{name: name, url: "#{url}/#{name}", sha256: sha256},
           else: (_ -> nil)
    end
  end

  @doc "The name of an archive, by the conventions of rustler_precompiled."
  def name(version, variant) do
    more = if variant == Mlx.common(), do: "", else: "--" <> variant
    "libemily_nif-v#{version}-nif-#{@nif}-#{Mlx.triple()}#{more}.tar.gz"
  end

  @doc "The folder with what an archive holds; fetched when it is not in the cache."
  def fetch(archive) do
    Cache.entry(["precompiled", binary_part(archive.sha256, 0, 24)], fn temporary ->
      Mix.shell().info("emily: fetching #{archive.name}")
      file = Path.join(temporary, archive.name)
      Download.file(archive.url, file, remedy: remedy())
      Download.check(file, archive.sha256, remedy())

      case :erl_tar.extract(to_charlist(file), [:compressed, cwd: to_charlist(temporary)]) do
        :ok -> File.rm!(file)
        {:error, {_, reason}} when is_atom(reason) -> unpack_error(file, reason)
        {:error, reason} -> unpack_error(file, reason)
      end
    end)
  end

  defp remedy do
    "Try again with a network (HTTPS_PROXY names a proxy); or set EMILY_BUILD=1, and Emily is built here, with Rust and\n" <>
      "a C++ compiler."
  end

  @spec unpack_error(Path.t(), term) :: no_return()
  defp unpack_error(file, reason) when reason in [:enospc, :edquot, :eacces, :erofs],
    do: Failure.raise_file_error("unpack #{Path.basename(file)}", file, reason)

  defp unpack_error(file, reason),
    do: Failure.stop("could not unpack #{Path.basename(file)}: #{inspect(reason)}.", remedy())

  @doc "Packs what is in `priv` into an archive in `folder`, and returns its file."
  def pack(priv, version, variant, folder) do
    File.mkdir_p!(folder)
    file = Path.join(folder, name(version, variant))

    files =
      for name <- Record.files(priv), do: {to_charlist(name), to_charlist(Path.join(priv, name))}

    :ok = :erl_tar.create(to_charlist(file), files, [:compressed])
    file
  end

  @doc "Writes the file that names the archives in `folder`, which are to be had under `url`."
  def write_checksums(root, url, folder) do
    archives =
      for file <- folder |> Path.join("libemily_nif-*.tar.gz") |> Path.wildcard() |> Enum.sort(),
          do:
            "  #{inspect(Path.basename(file))} => #{inspect("sha256:" <> Download.sha256(file))}"

    entries = Enum.join(archives ++ ["  url: #{inspect(url)}"], ",\n")
    File.write!(Path.join(root, @checksums), "%{\n#{entries}\n}\n")
  end
end
