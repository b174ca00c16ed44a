defmodule Emily.Build.Openblas do
  @moduledoc false
  # OpenBLAS in the place of the reference BLAS and LAPACK that MLX's Linux wheels bundle: the library that NumPy and SciPy
  # carry. It needs nothing but a C library that is older than MLX's own, so what is made with it runs wherever MLX does.

  alias Emily.Build.{Cache, Command, Failure, Mlx, Wheel}

  # The version and the hash of each. For aarch64 it is an older one: from 0.3.34.237 on, products of complex numbers are wrong
  # on processors with SME, as QEMU 10 has it.
  @wheels %{
    "x86_64" =>
      {"0.3.34.481.3", "0595f94cd58c1f8a0d90c975621f4587337a003916b1979e834ebdf2cb5d9504"},
    "aarch64" =>
      {"0.3.34.0.0", "b534496a7c5fd69abf7938cbcc3f4fbb8108d9ed99ac9f93db229abd99281b06"}
  }
  @library "libscipy_openblas.so"

  # What libmlx.so takes from BLAS and LAPACK, and Emily from OpenBLAS.
  @symbols ~w(cblas_sgemm cblas_dgemm cblas_cgemm) ++
             ~w(sgesdd_ dgesdd_ cgesdd_ ssyevd_ dsyevd_ cheevd_ sgeev_ dgeev_ cgeev_) ++
             ~w(sgeqrf_ dgeqrf_ sorgqr_ dorgqr_ sgetrf_ dgetrf_ sgetri_ dgetri_) ++
             ~w(spotrf_ dpotrf_ strtri_ dtrtri_ openblas_set_num_threads)

  @doc "A short name that changes when what `bundle/2` makes does."
  def key, do: "openblas#{version()}-#{:erlang.phash2(source())}"

  defp version, do: @wheels |> Map.fetch!(Mlx.arch()) |> elem(0)

  @doc "The folder of the wheel."
  def wheel do
    {version, sha256} = Map.fetch!(@wheels, Mlx.arch())

    Wheel.fetch("openblas", %{
      name: "scipy-openblas32",
      version: version,
      sha256: sha256,
      platform: "manylinux_2_27_#{Mlx.arch()}.manylinux_2_28_#{Mlx.arch()}"
    })
  end

  @doc """
  Fills `target` with OpenBLAS, under the names that the files in `bundled` have.

  Each of those becomes a library of a few kilobytes that only refers to OpenBLAS, so OpenBLAS is there once,
  and is found beside them wherever the folder is copied.
  """
  def bundle(bundled, target) do
    File.mkdir_p!(target)
    libraries = Path.join(wheel(), "scipy_openblas32/lib")

    # With it what it brings, which it finds beside itself.
    for name <- File.ls!(libraries),
        name =~ ".so",
        do: Cache.link(Path.join(libraries, name), Path.join(target, name))

    library = Path.join(target, @library)
    source = Path.join(target, "refer.s")
    File.write!(source, source())

    for name <- File.ls!(bundled),
        name =~ ~r/^lib(blas|lapack)-/,
        do: refer(source, library, Path.join(target, name))

    File.rm!(source)
  end

  # OpenBLAS's names here have a prefix: each plain name is a jump to the other.
  defp source do
    jump = if Mlx.arch() == "x86_64", do: &"jmp scipy_#{&1}@PLT", else: &"b scipy_#{&1}"

    functions =
      for name <- @symbols,
          do: "\t.globl #{name}\n\t.type #{name}, %function\n#{name}:\n\t#{jump.(name)}\n"

    ["\t.text\n", functions, "\t.section .note.GNU-stack,\"\",%progbits\n"]
  end

  defp refer(source, library, output) do
    arguments =
      ["-shared", "-nostdlib", "-o", output, source, library] ++
        ["-Wl,-soname,#{Path.basename(output)}", "-Wl,-z,defs", "-Wl,-rpath,$ORIGIN"]

    {said, status} = Command.run(Mlx.compiler(), arguments)
    status == 0 || Failure.program("linking OpenBLAS", "the C++ compiler", said, status)
    :ok
  end
end
