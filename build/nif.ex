defmodule Emily.Build.Nif do
  @moduledoc false
  # The NIF library, built by cargo and kept in the cache by the hash of its sources.

  alias Emily.Build.{Cache, Command, Failure}

  @kept 12
  @kept_targets 6

  @doc "The sources under `native/` that the library depends on, with their contents."
  def sources(native) do
    [native, "**/*.{rs,toml,lock,cpp,h}"]
    |> Path.join()
    |> Path.wildcard()
    |> Enum.reject(&String.starts_with?(&1, Path.join(native, "target/")))
    |> Enum.map(&{Path.relative_to(&1, native), File.read!(&1)})
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
    metal = Cache.path("metal")
    {extension, beside} = products(metal)
    library = Path.join([target, "release", "libemily_nif.#{extension}"])

    # cargo takes a library that is there for whole: what is not is linked anew.
    for folder <- ["release", "release/deps"],
        do: File.rm(Path.join([target, folder, Path.basename(library)]))

    cargo.(~w(build --release --locked --package emily_nif), [{"MLX_RS_METAL_PATH", metal}])
    File.cp!(library, Path.join(folder, "libemily_nif.so"))
    for file <- beside, do: File.cp!(file, Path.join(folder, Path.basename(file)))
  end

  defp products(metal) do
    case :os.type() do
      {:unix, :darwin} -> {"dylib", [Path.join(metal, "mlx.metallib")]}
      _ -> {"so", []}
    end
  end

  @doc """
  The cargo configuration, as text.

  With `:target`, cargo works in that folder. With `:linker`, that program links for `:triple`. With `:prepared` and `:libraries`, the prebuilt MLX takes
  the place of mlx-sys's build script. The paths that would end up in the library are replaced by
  short names, so that it is the same wherever it is built.
  """
  def cargo_config(options) do
    options = Map.new(options)
    Enum.join([common_config(options), linker_config(options), mlx_config(options)], "\n")
  end

  # The C++ compiler knows where its own library is; `cc` may be of another version.
  defp linker_config(%{linker: linker, triple: triple}) do
    """
    [target.#{triple}]
    linker = #{inspect(linker)}
    """
  end

  defp linker_config(_), do: ""

  # The last three are what emily_mlx's build script needs.
  defp mlx_config(%{prepared: prepared, libraries: libraries, triple: triple} = options) do
    """
    [target.#{triple}.mlx]
    rustc-link-search = [#{inspect("native=" <> prepared)}, #{inspect("native=" <> libraries)}]
    rustc-link-lib = ["static=mlxc", "dylib=mlx", "dylib=stdc++"]
    rustc-env = { OUT_DIR = #{inspect(prepared)} }
    libraries = #{inspect(libraries)}
    include = #{inspect(options.include)}
    compiler = #{inspect(options.linker)}
    """
  end

  defp mlx_config(_), do: ""

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
end
