defmodule Emily.Build.Nif do
  @moduledoc false
  # The NIF library, built by cargo and kept in the cache by the hash of its sources.

  alias Emily.Build.{Cache, Command, Failure, Mlx}

  @kept 12
  @kept_targets 6

  # Of a crate, what the library is not made of, and what is no crate.
  @others ~w(tests benches generate target)

  @doc "The sources under `native/` that the library depends on, with their contents: the same in a checkout and a package."
  def sources(native) do
    for file <- [native, "**/*.{rs,toml,lock,cpp,h}"] |> Path.join() |> Path.wildcard(),
        name = Path.relative_to(file, native),
        not Enum.any?(Path.split(name), &(&1 in @others)),
        do: {name, File.read!(file)}
  end

  @doc """
  Cargo's target folder for the sources at `native`.

  Checkouts do not share one: cargo takes a newer library of another checkout for fresh.
  """
  def target(native) do
    hash = :crypto.hash(:sha256, native) |> Base.encode16(case: :lower) |> binary_part(0, 12)
    Cache.path(["target", hash])
  end

  @doc "The folder with the library built of these sources in cargo's folder `target`."
  def built(sources, target, cargo) do
    rustc =
      Command.output("rustc", ["--version"]) ||
        Failure.stop("Rust is not there.", Failure.install("rust"))

    hash = :crypto.hash(:sha256, :erlang.term_to_binary({rustc, sources}))
    key = hash |> Base.encode16(case: :lower) |> binary_part(0, 24)

    folder = Cache.entry(["nif", key], &build(&1, target, cargo))
    File.touch(folder)
    Cache.keep_newest("nif", @kept)
    Cache.keep_newest("target", @kept_targets)
    folder
  end

  defp build(folder, target, cargo) do
    Mix.shell().info("emily: compiling the NIF with cargo")
    name = if Mlx.macos?(), do: "libemily_nif.dylib", else: "libemily_nif.so"
    library = Path.join([target, "release", name])

    # cargo takes a library that is there for whole: what is not is linked anew.
    for folder <- ["release", "release/deps"],
        do: File.rm(Path.join([target, folder, name]))

    cargo.(~w(build --release --locked --package emily_nif), [])
    # The VM looks for this name on macOS too.
    File.cp!(library, Path.join(folder, "libemily_nif.so"))
  end

  @doc """
  The cargo configuration, as text.

  With `:target`, cargo works in that folder. With `:linker`, that program links for `:triple`. With `:prepared` and
  `:libraries`, the prebuilt MLX takes the place of mlx-sys's build script; with `:include`, Emily's own kernels are
  compiled against its headers. The paths that would end up in the library are replaced by short names, so that it is the
  same wherever it is built.
  """
  def cargo_config(options) do
    options = Map.new(options)

    Enum.join(
      [common_config(options), linker_config(options), mlx_config(options), env(options)],
      "\n"
    )
  end

  # The C++ compiler knows where its own library is; `cc` may be of another version.
  defp linker_config(%{linker: linker, triple: triple}) do
    """
    [target.#{triple}]
    linker = #{inspect(linker)}
    """
  end

  defp linker_config(_), do: ""

  # The last one, and what `kernels_config/1` adds, are what emily_mlx's build script needs.
  defp mlx_config(%{prepared: prepared, libraries: libraries, triple: triple} = options) do
    library = if Mlx.macos?(), do: "c++", else: "stdc++"

    """
    [target.#{triple}.mlx]
    rustc-link-search = [#{inspect("native=" <> prepared)}, #{inspect("native=" <> libraries)}]
    rustc-link-lib = ["static=mlxc", "dylib=mlx", "dylib=#{library}"]
    rustc-env = { OUT_DIR = #{inspect(prepared)} }
    libraries = #{inspect(libraries)}
    """ <> kernels_config(options)
  end

  defp mlx_config(_), do: ""

  defp kernels_config(%{include: include, linker: linker}) do
    """
    include = #{inspect(include)}
    compiler = #{inspect(linker)}
    """
  end

  defp kernels_config(_), do: ""

  defp common_config(%{target: target}) do
    cargo_home = System.get_env("CARGO_HOME") || Path.expand("~/.cargo")

    remapped =
      for {path, name} <- [{cargo_home, "cargo"}, {Cache.root(), "emily"}],
          do: "--remap-path-prefix=#{path}=#{name}"

    """
    # Written by `mix compile`.
    [build]
    target-dir = #{inspect(target)}
    rustflags = #{inspect(remapped)}
    """
  end

  # What is compiled for macOS runs where MLX does. A crate has assembly, for which it would look for `cc`, or another
  # machine's `gcc` without a version: a system with `g++-14` alone has neither.
  defp env(options) do
    macos =
      if Mlx.macos?(), do: ["MACOSX_DEPLOYMENT_TARGET = #{inspect(Mlx.macos())}\n"], else: []

    assembler =
      with %{linker: linker, triple: triple} <- options,
           true <- Mlx.cross?() or not Mlx.macos?(),
           do: ["CC_#{triple} = #{inspect(linker)}\n"],
           else: (_ -> [])

    if macos ++ assembler == [], do: "", else: "[env]\n#{macos}#{assembler}"
  end
end
