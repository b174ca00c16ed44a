defmodule Emily.Build.Openblas do
  @moduledoc false
  # OpenBLAS in the place of the reference BLAS and LAPACK that MLX's Linux wheels bundle.

  alias Emily.Build.{Cache, Command, Failure, Mlx}

  # What libmlx.so takes from BLAS and LAPACK.
  @symbols ~w(cblas_sgemm cblas_dgemm cblas_cgemm) ++
             ~w(sgesdd_ dgesdd_ cgesdd_ ssyevd_ dsyevd_ cheevd_ sgeev_ dgeev_ cgeev_) ++
             ~w(sgeqrf_ dgeqrf_ sorgqr_ dorgqr_ sgetrf_ dgetrf_ sgetri_ dgetri_) ++
             ~w(spotrf_ dpotrf_ strtri_ dtrtri_)

  # The threaded builds first.
  @places ["/usr/lib/*/openblas-pthread/libopenblas.so.0", "/usr/lib64/libopenblasp.so.0"] ++
            [
              "/usr/lib/*/libopenblas.so.0",
              "/usr/lib64/libopenblas.so.0",
              "/usr/lib/libopenblas.so.0"
            ] ++
            ["/usr/lib/libopenblas.so"]

  @doc "The OpenBLAS library: `EMILY_OPENBLAS`, or the first one found; `nil` without one."
  def find do
    case System.get_env("EMILY_OPENBLAS") do
      empty when empty in [nil, ""] ->
        Enum.find_value(@places, &(&1 |> Path.wildcard() |> List.first()))

      "none" ->
        nil

      file ->
        if File.regular?(file), do: file
    end
  end

  @doc "A short name for the library that changes when the library does."
  def key(nil), do: "reference"

  def key(file) do
    %{size: size, mtime: mtime} = File.stat!(file, time: :posix)
    "openblas#{:erlang.phash2({file, size, mtime})}"
  end

  @doc "Tells what is slow without OpenBLAS."
  def warn_missing do
    Mix.shell().error("""
    emily: OpenBLAS is not there: linear algebra and complex products on the CPU will be slow.
           #{Failure.install("openblas")}
           Then run `mix compile` again.\
    """)
  end

  @doc """
  Fills `target` with OpenBLAS and what it needs, under the names that the files in `bundled` have.

  Each of those becomes a library of a few kilobytes that only refers to OpenBLAS, so OpenBLAS is there once,
  and is found beside them wherever the folder is copied.
  """
  def bundle(openblas, bundled, target) do
    File.mkdir_p!(target)
    name = soname(openblas)
    library = Path.join(target, name)
    File.cp!(openblas, library)

    for {dependency, path} <- runtime_libraries(openblas),
        do: File.cp!(path, Path.join(target, dependency))

    source = Path.join(target, "refer.c")
    File.write!(source, reference_source())

    linked? =
      bundled
      |> File.ls!()
      |> Enum.filter(&(&1 =~ ~r/^lib(blas|lapack)-/))
      |> Enum.all?(&refer(source, library, Path.join(target, &1)))

    File.rm!(source)

    if not linked? do
      Mix.shell().error("emily: #{openblas} lacks a part of BLAS or LAPACK, so it is not used.")
      warn_missing()
      File.rm_rf!(target)
      Cache.link(bundled, target)
    end
  end

  defp reference_source do
    declarations = Enum.map(@symbols, &"extern void #{&1}(void);\n")

    [
      declarations,
      "static void (*const used[])(void) __attribute__((used)) = {",
      Enum.join(@symbols, ", "),
      "};\n"
    ]
  end

  # The old kind of RPATH: it also serves the libraries that OpenBLAS itself needs.
  defp refer(source, library, output) do
    arguments =
      ["-x", "c", "-shared", "-fPIC", "-o", output, source, "-x", "none", library] ++
        [
          "-Wl,-soname,#{Path.basename(output)}",
          "-Wl,-z,defs",
          "-Wl,--disable-new-dtags,-rpath,$ORIGIN"
        ]

    match?({_, 0}, Command.run(Mlx.compiler(), arguments))
  end

  defp soname(file) do
    case Command.output("readelf", ["-d", file]) do
      nil -> Path.basename(file)
      text -> List.last(Regex.run(~r/SONAME.*\[(.*)\]/, text) || [Path.basename(file)])
    end
  end

  @doc "The compiler's runtime libraries that a library takes, which not every machine has, as pairs of name and path."
  def runtime_libraries(file) do
    for line <- String.split(Command.output("ldd", [file]) || "", "\n"),
        [_, name, path] <- [Regex.run(~r/^\s*(lib(?:gfortran|quadmath|gomp)\S*) => (\S+)/, line)],
        do: {name, path}
  end
end
