defmodule Emily.Build.Notices do
  @moduledoc false
  # The licences of what is shipped in priv/ beside Emily: MLX's from its wheel, those of OpenBLAS and of the compiler's
  # libraries from the system that they are taken of, or else in one line.

  alias Emily.Build.{Cache, Command, Mlx, Openblas}

  # Where the system has no text: whose each library is, and under what it may be given on.
  @known [
    {~r/openblas/, "OpenBLAS, BSD-3-Clause: https://github.com/OpenMathLib/OpenBLAS"},
    {~r/gfortran|quadmath|gomp/,
     "a library of GCC's, GPL-3.0-or-later with the GCC Runtime Library Exception 3.1: https://gcc.gnu.org"}
  ]

  @doc "The folder to copy into `priv/`: `notices` with a folder for each library."
  def folder(variant, openblas) do
    key = [variant, Mlx.version(), Mlx.arch(), Openblas.key(openblas)] |> Enum.join("-")

    Cache.entry(["notices", key], fn temporary ->
      target = Path.join(temporary, "notices")
      for file <- licences(Mlx.wheel(variant)), do: put(target, "mlx", Path.basename(file), file)

      for {name, file} <- libraries(openblas) do
        case copyright(file) do
          nil -> known(target, name)
          text -> put(target, name, "copyright", text)
        end
      end
    end)
  end

  @doc "The texts of licences in a wheel."
  def licences(wheel),
    do:
      [wheel, "*.dist-info/{licenses,sboms}/**/*"]
      |> Path.join()
      |> Path.wildcard()
      |> Enum.filter(&File.regular?/1)

  defp libraries(nil), do: []
  defp libraries(openblas), do: [{"openblas", openblas} | Openblas.runtime_libraries(openblas)]

  # Debian has it in the folder of the package.
  defp copyright(file) do
    with path when is_binary(path) <- Command.output("readlink", ["-f", file]),
         line when is_binary(line) <-
           Command.output("dpkg-query", ["--search", String.trim(path)]),
         [package | _] <- String.split(line, [":", ","]),
         text = "/usr/share/doc/#{package}/copyright",
         true <- File.regular?(text) do
      text
    else
      _ -> nil
    end
  end

  defp put(target, library, name, file) do
    folder = Path.join(target, library)
    File.mkdir_p!(folder)
    File.cp!(file, Path.join(folder, name))
  end

  defp known(target, name) do
    for {pattern, text} <- @known, name =~ pattern do
      folder = Path.join(target, name)
      File.mkdir_p!(folder)
      File.write!(Path.join(folder, "copyright"), text <> "\n")
    end
  end
end
