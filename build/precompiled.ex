defmodule Emily.Build.Precompiled do
  @moduledoc false
  # What a release has built already: for each system and variant an archive of all that priv/ is to hold. A package has
  # a file with the hashes of its release's archives, and a checkout has none, as with rustler_precompiled.

  alias Emily.Build.{Cache, Command, Download, Failure, Mlx, Record}

  @checksums "checksum-Elixir.Emily.Native.Nif.exs"
  # The oldest that the library runs on, and so do all that follow.
  @nif "2.15"
  # The oldest system that MLX runs on, with the libraries of GCC 12.
  @newest %{
    "GLIBC" => Mlx.glibc(),
    "GLIBCXX" => "3.4.30",
    "CXXABI" => "1.3.13",
    "GCC" => "12.0.0"
  }

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

  @doc """
  Packs what is in `priv` into an archive in `folder`, and returns its file. On Linux it ends where a library in it asks the
  system for what the oldest one lacks.
  """
  def pack(priv, version, variant, folder) do
    files = Record.files(priv)

    asked =
      for file <- if(Mlx.macos?(), do: [], else: files),
          newer <- newer(Path.join(priv, file)),
          do: "#{file} asks for #{newer}"

    if asked != [] do
      Failure.stop(
        "#{Enum.join(asked, ", ")}, and a release is for systems with #{inspect(@newest)}.",
        "See which function asks for it, by `objdump -T`."
      )
    end

    File.mkdir_p!(folder)
    file = Path.join(folder, name(version, variant))

    members = for name <- files, do: {to_charlist(name), to_charlist(Path.join(priv, name))}
    :ok = :erl_tar.create(to_charlist(file), members, [:compressed])
    file
  end

  # What is newer than the oldest system has it. Of what is no library of Linux's, readelf tells nothing.
  defp newer(file) do
    case Command.run("readelf", ["--version-info", file]) do
      {text, :missing} ->
        Failure.stop(text, Failure.install("binutils"))

      {text, _status} ->
        for [name, library, version] <-
              Regex.scan(~r/\b(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)/, text),
            numbers(version) > numbers(@newest[library]),
            do: name
    end
  end

  defp numbers(version), do: version |> String.split(".") |> Enum.map(&String.to_integer/1)

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
