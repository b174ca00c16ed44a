defmodule Emily.Build.Failure do
  @moduledoc false
  # One message for each way the build can fail: what happened and what to do about it.

  @doc "Ends the build with a message and its remedy."
  @spec stop(String.t(), String.t()) :: no_return()
  def stop(what, remedy) do
    Mix.raise("Emily cannot be built: #{what}\n\n    #{String.replace(remedy, "\n", "\n    ")}\n")
  end

  @doc "Ends the build for a program that failed, by what its output tells."
  @spec program(String.t(), String.t(), String.t(), non_neg_integer() | :missing) :: no_return()
  def program(doing, program, output, status) do
    {what, remedy} =
      cause(program, output, status) ||
        {"#{program} failed (exit status #{status})#{tail(output)}",
         "Its messages say why; if they do not help, please report them."}

    stop("#{doing}: #{what}.", remedy)
  end

  defp cause(program, output, status) do
    cond do
      status == :missing ->
        {"#{program} is not there", install(piece(program))}

      output =~ ~r/no space left|disk quota exceeded/i ->
        {"the disk is full", disk()}

      output =~ "Unable to find libclang" or output =~ "libclang shared library is not loaded" ->
        {"libclang is not there", install("libclang")}

      output =~ ~r/format: No such file|'format' file not found/ ->
        {"the C++ compiler has no std::format", install("compiler")}

      output =~ ~r/linker `[^`]*` not found/ ->
        {"the linker is not there", install("compiler")}

      output =~ ~r/found invalid metadata files|file truncated|malformed archive/ ->
        {"what cargo compiled before is damaged",
         "Delete #{Emily.Build.Cache.path("target")} and build again."}

      output =~ ~r/requires rustc|is not supported by the following package/ ->
        {"this Rust is too old", install("rust")}

      output =~
          ~r/failed to (download|get `|fetch|query|establish a new connection)|could not resolve host|temporary failure in name|no matching distribution/i ->
        {"what it needs could not be downloaded",
         "Try again with a network. The first build downloads MLX (10 MB; for macOS 45) and Rust crates with cargo; later builds need no network."}

      true ->
        nil
    end
  end

  defp piece(program) when program in ["cargo", "rustc"], do: "rust"
  defp piece(program), do: program

  defp tail(output) do
    case output |> String.trim() |> String.split("\n") |> Enum.take(-6) do
      [""] -> ""
      lines -> ":\n" <> Enum.map_join(lines, "\n", &("    | " <> String.slice(&1, 0, 200)))
    end
  end

  @doc "Runs `fun`; what it raises about files ends the build."
  def files(doing, fun) do
    fun.()
  rescue
    error in [File.Error, File.CopyError, File.RenameError, File.LinkError] ->
      raise_file_error(doing, Map.get(error, :path) || Map.get(error, :destination), error.reason)
  end

  @spec raise_file_error(String.t(), Path.t(), File.posix()) :: no_return()
  def raise_file_error(doing, path, reason) do
    case reason do
      reason when reason in [:enospc, :edquot] ->
        stop("could not #{doing}: the disk is full.", disk())

      reason when reason in [:eacces, :eperm, :erofs] ->
        stop(
          "could not #{doing}: #{path} may not be written.",
          "Make it writable, or set EMILY_CACHE to a folder that is."
        )

      reason ->
        stop("could not #{doing}: #{path}: #{:file.format_error(reason)}.", "Look at that path.")
    end
  end

  defp disk do
    "Make about 2 GB free, or set EMILY_CACHE to a folder on a larger disk (now #{Emily.Build.Cache.root()})."
  end

  # What bin/setup says too: a piece a line, its name and how to get it.
  @pieces Path.join(__DIR__, "pieces.txt")
  @external_resource @pieces
  @advice @pieces
          |> File.read!()
          |> String.split("\n", trim: true)
          |> Map.new(&(&1 |> String.split(": ", parts: 2) |> List.to_tuple()))

  @doc "How to get a piece that is missing: one of build/pieces.txt, or a program."
  def install(piece) do
    case @advice do
      %{^piece => advice} -> "Install #{advice}"
      _ -> "Install #{piece}"
    end
  end
end
