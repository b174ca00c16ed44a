defmodule Emily.Build.Sbom do
  @moduledoc false
  # What a release is made of, in CycloneDX 1.5: the crates of the native library, MLX's wheels, and Emily's packages.

  alias Emily.Build.{Command, Failure, Mlx}

  # What Emily is built for.
  @targets Enum.flat_map(
             ~w(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu aarch64-apple-darwin),
             &["--target", &1]
           )

  @doc "The bill of materials, as a term that is JSON's."
  def bill(root, version, packages) do
    %{
      "bomFormat" => "CycloneDX",
      "specVersion" => "1.5",
      "version" => 1,
      "metadata" => %{
        "component" =>
          component("application", "emily_mlx", version, "hex", nil)
          |> Map.put("licenses", [%{"expression" => "Apache-2.0"}])
      },
      "components" => crates(Path.join(root, "native")) ++ wheels() ++ packages
    }
  end

  @doc "A package of Elixir's, with the hash that Hex's lock file has of it, if there is one."
  def package(name, version, sha256), do: component("library", "#{name}", version, "hex", sha256)

  # The lock file has the crates of tests, of other systems and of tools too; cargo knows those of the library.
  defp crates(native) do
    arguments =
      ~w(tree --locked --package emily_nif --edges normal,build) ++
        @targets ++
        [
          "--manifest-path",
          Path.join(native, "Cargo.toml"),
          "--prefix",
          "none",
          "--format",
          "{p}|{l}"
        ]

    tree =
      Command.output("cargo", arguments) ||
        Failure.stop("cargo cannot name the crates.", "See `cargo tree`.")

    hashes = native |> Path.join("Cargo.lock") |> File.read!() |> hashes()

    for line <- tree |> String.split("\n") |> Enum.uniq(),
        [_, name, version, licence] <- [Regex.run(~r/^(\S+) v(\S+)[^|]*\|([^(]*)/, line)],
        sha256 = hashes[{name, version}] do
      component("library", name, version, "cargo", sha256)
      |> Map.put("licenses", [%{"license" => %{"name" => String.trim(licence)}}])
    end
    |> Enum.uniq_by(& &1["purl"])
  end

  defp hashes(lock) do
    crate = ~r/name = "(.*)"\nversion = "(.*)"\nsource = ".*"\nchecksum = "(.*)"/

    for [_, name, version, sha256] <- Regex.scan(crate, lock),
        into: %{},
        do: {{name, version}, sha256}
  end

  # Of each system; a build takes one.
  defp wheels do
    for %{name: name, sha256: sha256, platform: platform} <- Mlx.wheels() do
      component("library", name, Mlx.version(), "pypi", sha256)
      |> Map.put("licenses", [%{"license" => %{"id" => "MIT"}}])
      |> Map.update!("purl", &"#{&1}?platform=#{platform}")
      |> Map.update!("bom-ref", &"#{&1}?platform=#{platform}")
    end
  end

  defp component(type, name, version, kind, sha256) do
    purl = "pkg:#{kind}/#{name}@#{version}"

    base = %{
      "type" => type,
      "name" => name,
      "version" => version,
      "purl" => purl,
      "bom-ref" => purl
    }

    if sha256,
      do: Map.put(base, "hashes", [%{"alg" => "SHA-256", "content" => sha256}]),
      else: base
  end
end
